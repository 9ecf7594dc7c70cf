"""A scene with a rim of unknown pixels, so that tiles fit and start at places that no cut-out changes."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geovision.grids import Grid

if TYPE_CHECKING:
    from geovision.scene import Scene


@dataclass(frozen=True)
class Frame:
    """A scene in a frame.

    Attributes:
        scene: open scene.
        top: unknown rows above it.
        left: unknown columns left of it.
        shape: height and width with the frame.
        tile: side of the tiles.
    """

    scene: "Scene"
    top: int
    left: int
    shape: tuple[int, int]
    tile: int

    @classmethod
    def around(cls, scene: "Scene", tile: int, step: int, *, any_size: bool) -> "Frame":
        """A frame in which tiles start at multiples of `step` pixels from the origin of the scene's CRS.

        Args:
            scene: open scene.
            tile: side of the tiles in pixels; of a network that takes any size, less where the scene is smaller.
            step: in pixels.
            any_size: whether the network takes any size.
        """
        before = phase(scene.grid, step)
        lengths = [start + length for start, length in zip(before, scene.shape, strict=True)]
        if any_size:
            tile = min(tile, max(-(-length // step) * step for length in lengths))
        padded = [
            length if length <= tile and not any_size else tile + -(-max(0, length - tile) // step) * step
            for length in lengths
        ]
        return cls(scene, before[0], before[1], (padded[0], padded[1]), tile)

    def inside(self, row: int, column: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The part of a window that is the scene's: row, column, height and width in the frame."""
        top, left = max(row, self.top), max(column, self.left)
        bottom = min(row + height, self.top + self.scene.shape[0])
        right = min(column + width, self.left + self.scene.shape[1])
        return top, left, max(0, bottom - top), max(0, right - left)

    def read(self, row: int, column: int, height: int, width: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """A window as `Scene.read` gives it, unknown outside of the scene."""
        top, left, rows, columns = self.inside(row, column, height, width)
        if (rows, columns) == (height, width):
            return self.scene.read(row - self.top, column - self.left, height, width, scale)
        values = np.zeros((len(self.scene.layers), height, width), np.float32)
        valid = np.zeros((height, width), bool)
        if rows and columns:
            part = slice(top - row, top - row + rows), slice(left - column, left - column + columns)
            values[:, *part], valid[part] = self.scene.read(top - self.top, left - self.left, rows, columns, scale)
        return values, valid


def phase(grid: Grid, step: int) -> tuple[int, int]:
    """Rows and columns from the last multiple of `step` pixels to a grid's corner, counted from its CRS's origin."""
    transform = grid.transform
    if step == 1 or transform.b or transform.d or not transform.a or not transform.e:
        return 0, 0
    places = transform.f / transform.e, transform.c / transform.a
    if not all(map(math.isfinite, places)):
        return 0, 0
    return round(places[0]) % step, round(places[1]) % step
