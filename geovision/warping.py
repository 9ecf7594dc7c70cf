"""Rasters laid on another grid, so that nothing invalid leaves a trace."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geovision.grids import Grid, Points, lattice, spread, transformed
from geovision.rasters import read_values

if TYPE_CHECKING:  # rasterio is imported where a file is opened
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

_WEIGHTLESS = 1e-6  # what an invalid pixel may weigh: rounding


@dataclass(frozen=True)
class Laid:
    """A raster as it is seen on another grid.

    Attributes:
        source: open raster.
        own: its grid.
        grid: the other one.
        place: from coordinates in the other grid's CRS to columns and rows of the raster; None for the raster's grid.
    """

    source: "DatasetReader"
    own: Grid
    grid: Grid
    place: Callable[[np.ndarray, np.ndarray], Points] | None = None

    def read(
        self,
        numbers: list[int],
        nodata: list[float | None],
        window: tuple[int, int, int, int],
        shape: tuple[int, int],
        nearest: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stored numbers of some bands in a window of the other grid, and where they are valid.

        Between pixels, numbers are bilinear. A pixel is valid where its centre is in the raster, and every pixel that
        its number is made of is valid; pixels that would lie beyond the raster's rim do not count.

        Args:
            numbers: numbers of the bands, from 1.
            nodata: for each band a further nodata value.
            window: row, column, height and width.
            shape: height and width of the result; where the window has more pixels, the nearest ones are taken.
            nearest: whether the nearest pixel is taken: for classes.

        Returns:
            `(C, H, W)` float32 (or, of classes, the stored type) and `(C, H, W)` bool.
        """
        from scipy.ndimage import map_coordinates

        columns, rows = self._places(window, shape)
        with np.errstate(invalid="ignore"):
            inside = (columns >= 0) & (columns <= self.own.width) & (rows >= 0) & (rows <= self.own.height)
        thinned = shape != tuple(window[2:])
        count = len(numbers)
        if not inside.any():
            return np.zeros((count, *shape), np.float32), np.zeros((count, *shape), bool)
        top, left, part, factors = self._part(columns[inside], rows[inside], thinned)
        raw, valid = read_values(self.source, numbers, nodata, part, factors[2])
        # a place in pixels, whose centres are at 0.5, as an index of what was read
        down = np.where(inside, (rows - top) / factors[0] - 0.5, 0.0)
        right = np.where(inside, (columns - left) / factors[1] - 0.5, 0.0)
        if nearest or thinned:
            index = [
                np.clip(np.rint(a).astype(int), 0, n - 1) for a, n in zip((down, right), raw.shape[1:], strict=True)
            ]
            return raw[:, index[0], index[1]], valid[:, index[0], index[1]] & inside
        values = np.empty((count, *shape), np.float32)
        known = np.empty((count, *shape), bool)
        for number in range(count):
            filled = np.where(valid[number], raw[number], 0).astype(np.float64)
            map_coordinates(filled, (down, right), values[number], order=1, mode="nearest")
            gaps = map_coordinates((~valid[number]).astype(np.float64), (down, right), order=1, mode="nearest")
            known[number] = (gaps < _WEIGHTLESS) & inside
        return values, known

    def _places(self, window: tuple[int, int, int, int], shape: tuple[int, int]) -> Points:
        """Columns and rows of the raster for each pixel of a window."""
        row, column, height, width = window
        steps = height / shape[0], width / shape[1]
        if self.place is None and self.own.crs == self.grid.crs:
            across = column + (np.arange(shape[1]) + 0.5) * steps[1]
            down = row + (np.arange(shape[0]) + 0.5) * steps[0]
            x, y = np.meshgrid(across, down)
            return (~self.own.transform @ self.grid.transform) @ (x, y)
        across, down = (lattice(0, length) for length in (shape[1], shape[0]))
        x, y = np.meshgrid(column + across * steps[1], row + down * steps[0])
        x, y = self.grid.transform @ (x, y)
        if self.place is not None:
            columns, rows = self.place(x, y)
        else:
            columns, rows = ~self.own.transform @ transformed(self.grid.crs, self.own.crs, x, y)
        columns, rows = (np.where(np.isfinite(part), part, -1e9) for part in (columns, rows))
        return spread(columns, shape), spread(rows, shape)

    def _part(
        self, columns: np.ndarray, rows: np.ndarray, thinned: bool
    ) -> "tuple[int, int, Window, tuple[float, float, tuple[int, int] | None]]":
        """The part of the raster that is needed: top, left, window, and pixels of it to one that is read."""
        from rasterio.windows import Window

        top, bottom = max(0, int(rows.min()) - 2), min(self.own.height, int(rows.max()) + 3)
        left, right = max(0, int(columns.min()) - 2), min(self.own.width, int(columns.max()) + 3)
        part = Window(left, top, right - left, bottom - top)  # pyright: ignore
        if not thinned:
            return top, left, part, (1.0, 1.0, None)
        shape = min(bottom - top, 1024), min(right - left, 1024)
        return top, left, part, ((bottom - top) / shape[0], (right - left) / shape[1], shape)
