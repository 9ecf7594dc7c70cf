"""Raster files opened safely: by what they begin with, and with every fault named in one line."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

if TYPE_CHECKING:  # rasterio is imported where a file is opened
    from rasterio.io import DatasetReader

    from geovision.grids import Grid

CACHE_BYTES = 64 * 2**20
"""Memory for decoded blocks that GDAL keeps, whatever a raster's size."""
_BEGINNINGS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
    b"\xffO\xffQ": "JP2OpenJPEG",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}


def open_raster(path: Path) -> "DatasetReader":
    """A rasterio dataset of a GeoTIFF, JPEG 2000, PNG or JPEG file.

    The format is chosen by the file's first bytes: formats that name other files or addresses are never tried.

    Raises:
        InputError: no such file, another format, or damaged.
    """
    rasterio = require("rasterio", "geo")
    if not path.is_file():
        raise InputError(f"{printable(path)}: no such file; expected a GeoTIFF, JPEG 2000, PNG or JPEG file")
    with reading(path):
        with path.open("rb") as file:
            start = file.read(12)
        driver = next((name for beginning, name in _BEGINNINGS.items() if start.startswith(beginning)), None)
        if driver is not None:
            with warnings.catch_warnings():  # what lacks a grid is named where a grid is needed
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                return rasterio.open(path, driver=driver)
    raise InputError(f"{printable(path)}: no raster that is read here; expected a GeoTIFF, JPEG 2000, PNG or JPEG file")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what GDAL and the system say of a file into the one line that names it."""
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, OSError, ValueError, MemoryError) as error:
        cause = error.__cause__ or error
        reason = printable(" ".join(str(cause).replace(str(path), path.name).split())[:200])
        raise InputError(
            f"{printable(path)}: cannot be read ({reason}); expected a whole raster file: use an intact copy"
        ) from None


@contextlib.contextmanager
def cloud_optimised(
    path: Path,
    grid: "Grid",
    dtype: str,
    names: Sequence[str],
    *,
    nodata: float,
    resampling: str,
    tags: Mapping[str, str] | None = None,
    colors: Mapping[int, tuple[int, ...]] | None = None,
) -> Iterator[Callable[[int, int, np.ndarray], None]]:
    """A new cloud-optimised GeoTIFF with overviews, written part by part in any order.

    Args:
        path: path of the file, complete when the block ends; beside it lies an uncompressed one until then.
        grid: Grid of the pixels.
        dtype: data type of the pixels.
        names: names of the bands.
        nodata: value of pixels that are unknown.
        resampling: method for the overviews, such as `mode` for classes and `average` for quantities.
        tags: noted in the file.
        colors: colour table of a uint8 band, RGBA.

    Yields:
        A function that writes `(C, h, w)` at a row and a column.

    Raises:
        InputError: the file cannot be written.
    """
    import rasterio
    import rasterio.shutil
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    raw = path.with_name(f"{path.name}.raw")
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(names),
        "dtype": dtype,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "BIGTIFF": "IF_SAFER",
    }
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            with rasterio.open(raw, "w", **profile) as target:
                target.update_tags(**(tags or {}))
                for number, name in enumerate(names, 1):
                    target.set_band_description(number, name)
                if colors:
                    target.write_colormap(1, dict(colors))

                def write(row: int, column: int, values: np.ndarray) -> None:
                    window = Window(column, row, values.shape[2], values.shape[1])  # pyright: ignore
                    target.write(values, window=window)

                yield write
            options = {"compress": "DEFLATE", "predictor": "YES", "blocksize": 512, "bigtiff": "IF_SAFER"}
            rasterio.shutil.copy(raw, path, driver="COG", overview_resampling=resampling, **options)
        raw.unlink()
    except (RasterioError, OSError) as error:
        reason = printable(str(error.__cause__ or error)[:200])
        raise InputError(f"the map cannot be written ({reason}); make room, or choose another output folder") from None
