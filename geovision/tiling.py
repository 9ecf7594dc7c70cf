"""Tiles that cover an axis, and the weights by which overlapping ones are blended."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of a scene.

    Attributes:
        length: length of the axis in pixels.
        size: length of a tile, at most `length`.
        starts: first pixel of each tile; the last tile ends with the axis.
        weights: `(tiles, size)` float32; over all tiles, those of a pixel add up to 1.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    weights: np.ndarray

    @classmethod
    def cover(cls, length: int, size: int, overlap: int) -> "Axis":
        """Cover an axis with tiles that share `overlap` pixels with the next, the last one perhaps more."""
        size = min(size, length)
        starts = [*range(0, length - size, max(1, size - overlap)), length - size]
        ramp = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size))
        rise = np.minimum(ramp / max(overlap, 1), 1.0)
        total = np.zeros(length)
        for start in starts:
            total[start : start + size] += rise
        weights = np.stack([rise / total[start : start + size] for start in starts])
        return cls(length, size, tuple(starts), weights.astype(np.float32))

    def finished(self, tile: int) -> int:
        """The pixel before which everything is done once this tile is: where the next tile starts."""
        return self.starts[tile + 1] if tile + 1 < len(self.starts) else self.length

    def runs(self, most: int) -> list[Sequence[int]]:
        """Numbers of consecutive tiles, at most so many at once."""
        count = len(self.starts)
        return [range(first, min(first + most, count)) for first in range(0, count, most)]
