"""Grids: where the pixels of a raster lie."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shared_backbones.errors import InputError

if TYPE_CHECKING:  # rasterio is imported where a file is opened
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT

    Source = DatasetReader | WarpedVRT


@dataclass(frozen=True)
class Grid:
    """Where pixels lie.

    Attributes:
        crs: a rasterio CRS; None where the file has none.
        transform: the file's `Affine` from (column, row) to coordinates, which takes arrays, too.
        height: in pixels.
        width: in pixels.
    """

    crs: Any
    transform: Any
    height: int
    width: int

    @property
    def pixel_size(self) -> float:
        """Side of a pixel in the units of the CRS: the geometric mean of both sides."""
        return math.sqrt(abs(self.transform.determinant))

    @property
    def gsd_m(self) -> float | None:
        """Side of a pixel in metres; None where the CRS has degrees, or there is none."""
        if self.crs is None or self.crs.is_geographic:
            return None
        return self.pixel_size * float(self.crs.linear_units_factor[1])

    def same(self, other: "Grid") -> bool:
        """Whether pixels coincide, within a hundredth of one."""
        if (self.height, self.width) != (other.height, other.width) or self.crs != other.crs:
            return False
        corners = [(0, 0), (self.width, 0), (0, self.height)]
        moved = [np.subtract(self.transform @ corner, other.transform @ corner) for corner in corners]
        return bool(np.abs(moved).max() < 0.01 * self.pixel_size)


def grid_of(source: "Source", crs: str | None) -> Grid:
    """Grid of a file, in a CRS that the user gives where the file has none.

    Raises:
        InputError: there is no such CRS.
    """
    if source.crs is None and crs is not None:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError

        try:
            return Grid(CRS.from_user_input(crs), source.transform, source.height, source.width)
        except CRSError as error:
            raise InputError(f"--crs {crs}: is none that is known ({error}); expected for example EPSG:32633") from None
    return Grid(source.crs, source.transform, source.height, source.width)


def crs_name(crs: "CRS | None") -> str:
    """Name of a CRS for a message."""
    if crs is None:
        return "none"
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else "without a code"
