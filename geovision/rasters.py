"""Raster files opened safely and read with their validity, and maps written."""

import contextlib
import errno
import functools
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from geovision.files import archive_of, exists
from geovision.side_files import beginning_of, check_side_files, check_tags, vrt_sources
from shared_backbones.errors import InputError, require
from shared_backbones.files import brief, printable
from shared_backbones.memory import expect

if TYPE_CHECKING:  # rasterio is imported where a file is opened
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

    from geovision.grids import Grid

CACHE_BYTES = 64 * 2**20
"""Memory for decoded blocks that GDAL keeps, whatever a raster's size."""
ALONE: dict[str, str | int] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # side files by their exact names, which are looked at first
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_HTTP_MAX_RETRY": 0,
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
}
"""Configuration of GDAL in which it reaches no address, and no file but those that were looked at."""
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
# Formats of plain files that `info` reads; others name addresses or other files, or run code.
_PLAIN = (
    "netCDF", "ENVI", "AAIGrid", "GRASSASCIIGrid", "HFA", "HDF5", "HDF5Image", "GRIB", "EHdr", "BMP", "GIF", "WEBP",
    "NITF", "PNM", "SGI", "SRTMHGT", "DTED", "BAG", "USGSDEM", "Terragen", "Leveller", "SAGA", "RST", "GSAG", "GSBG",
    "GS7BG", "GXF", "RMF", "PCIDSK", "TGA", "ZMap", "GPKG", "MBTiles", "VICAR", "BT", "SIGDEM", "BYN", "HF2", "KRO",
    "LAN", "GTX", "LCP", "NTv2", "BLX", "CALS", "XYZ",
)  # fmt: skip
_SMALLEST_SHARE = 1 / 1000  # of a raster's claimed size that its file has, at least, beyond the budget
_PILLOW_PIXELS = 64 * 2**20  # of a JPEG file that is decoded as a whole


def open_raster(path: Path, *, any_format: bool = False) -> "DatasetReader":
    """A rasterio dataset of a GeoTIFF, JPEG 2000, PNG or JPEG file, or of a VRT of such files.

    The format is chosen by the file's first bytes: formats that name other files or addresses are never tried, but for
    VRT files of plain files below their own folder. Masks, overviews and notes beside a file are read with it.

    Args:
        path: the file, which may lie in an archive, under GDAL's name of it.
        any_format: whether other formats of plain files are tried, too.

    Raises:
        InputError: no such file, another format, damaged, too large for the budget, or with side files or tags that
            reach other places.
    """
    rasterio = require("rasterio", "geo")
    if not exists(path):
        raise InputError(f"{printable(path)}: no such file; expected a GeoTIFF, JPEG 2000, PNG or JPEG file")
    with reading(path), rasterio.Env(**ALONE):
        start = beginning_of(path)
        drivers: Any = next((name for beginning, name in _BEGINNINGS.items() if start.startswith(beginning)), None)
        check_side_files(path)
        if start.lstrip().startswith(b"<VRTDataset"):
            list(vrt_sources(path))
            drivers = "VRT"
        elif drivers is None and any_format:
            drivers = _driver_of(path)
        if drivers is not None:
            with warnings.catch_warnings():  # what lacks a grid is named where a grid is needed
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                source = rasterio.open(path, driver=drivers)
            try:
                check_tags(source, path)
                _check_size(source, path)
            except BaseException:
                source.close()
                raise
            return source
    raise InputError(f"{printable(path)}: no raster that is read here; expected a GeoTIFF, JPEG 2000, PNG or JPEG file")


def _driver_of(path: Path) -> str | None:
    """The first format of those of plain files in which GDAL opens a file."""
    import rasterio
    from rasterio.errors import RasterioError

    with rasterio.Env() as environment, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = environment.drivers()
        for name in _PLAIN:
            with contextlib.suppress(RasterioError):
                if name in there:
                    with rasterio.open(path, driver=name):
                        return name
    return None


def _check_size(source: "DatasetReader", path: Path) -> None:
    """Refuse a raster of which one block takes more than the budget, and one that claims far more than its file holds.

    Raises:
        InputError: it is such a one.
    """
    label, widths = printable(path), [np.dtype(name).itemsize for name in source.dtypes if name != "complex_int16"]
    width = max(widths, default=4)
    blocks = [height * across for height, across in source.block_shapes]
    pixelwise = source.count > 1 and str(source.profile.get("interleave", "")).lower() == "pixel"
    interleaved = 2 * source.count if pixelwise else 1  # the block, and one of each band that GDAL makes of it
    expect(max(blocks, default=0) * width * interleaved, label, "one block of it")
    claimed = source.width * source.height * source.count * width
    stored = (archive_of(path) or path).stat().st_size
    if stored < claimed * _SMALLEST_SHARE:
        expect(claimed, label, "its file holds less than a thousandth of its size; all of it")


def check_real(source: "DatasetReader", path: Path) -> None:
    """Raise an InputError where a raster has complex values, such as those of radar before detection."""
    strange = next((dtype for dtype in source.dtypes if dtype.startswith("complex")), None)
    if strange:
        raise InputError(f"{printable(path)}: has complex values ({strange}); expected real ones: give the amplitude")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what GDAL and the system say of a file into the one line that names it."""
    from rasterio.errors import RasterioError

    try:
        yield
    except InputError:
        raise
    except (RasterioError, OSError, ValueError, MemoryError) as error:
        reason = brief(error.__cause__ or error, path)
        raise InputError(
            f"{printable(path)}: cannot be read ({reason}); expected a whole raster file: use an intact copy"
        ) from None


def read_values(
    source: "DatasetReader",
    numbers: Sequence[int],
    nodata: Sequence[float | None],
    window: "Window | None" = None,
    shape: tuple[int, ...] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Stored numbers of some bands, and where they are valid.

    A number is valid where it is finite, is no nodata value, and the file's mask bands and alpha bands are above 0.
    Each is looked at by itself, as GDAL's own answer leaves some of them out.

    Args:
        source: open raster.
        numbers: numbers of the bands, from 1.
        nodata: for each band a further nodata value; the file's own always counts.
        window: part of the raster; by default all of it.
        shape: height and width of the result; by default the window's.

    Returns:
        `(C, H, W)` stored numbers and `(C, H, W)` bool.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    values = _of_jpeg(source, numbers, window, shape)
    if values is None:
        values = _read(source, list(numbers), window, shape)
    common = np.ones(values.shape[1:], bool)
    for number, color in enumerate(source.colorinterp, 1):
        if color == ColorInterp.alpha:
            common &= _read(source, number, window, shape) > 0
    flags = source.mask_flag_enums
    shared: dict[bool, np.ndarray] = {}
    valid = np.empty(values.shape, bool)
    for place, (number, further) in enumerate(zip(numbers, nodata, strict=True)):
        known = np.isfinite(values[place]) if values.dtype.kind == "f" else np.ones(common.shape, bool)
        for missing in (source.nodatavals[number - 1], further):
            if missing is not None:
                known &= ~_equal(values[place], missing)
        own = set(flags[number - 1])
        if MaskFlags.alpha not in own and own not in ({MaskFlags.all_valid}, {MaskFlags.nodata}):
            per_dataset = MaskFlags.per_dataset in own
            if not per_dataset or True not in shared:
                options = {} if window is None else {"window": window}
                mask = source.read_masks(number, out_shape=None if shape is None else tuple(shape), **options) > 0
                shared[per_dataset] = mask
            known &= shared[per_dataset]
        valid[place] = known & common
    return values, valid


def _of_jpeg(
    source: "DatasetReader", numbers: Sequence[int], window: "Window | None", shape: tuple[int, ...] | None
) -> np.ndarray | None:
    """Colours of a JPEG file as Pillow decodes them, which is what published weights saw; None for other files."""
    path = Path(source.name)
    if source.driver != "JPEG" or source.width * source.height > _PILLOW_PIXELS or not path.is_file():
        return None
    about = path.stat()
    decoded = _decoded(path, about.st_mtime_ns, about.st_size)
    if decoded is None or decoded.shape != (source.count, *source.shape):
        return None
    left, top, width, height = (0, 0, source.width, source.height)
    if window is not None:
        left, top, width, height = (round(part) for part in window.flatten())
    part = decoded[[number - 1 for number in numbers], top : top + height, left : left + width]
    if shape is None or tuple(shape) == part.shape[1:]:
        return part
    down, across = (
        ((np.arange(count) + 0.5) * length / count).astype(int)
        for count, length in zip(shape, part.shape[1:], strict=True)
    )
    return part[:, down[:, None], across]


@lru_cache(maxsize=1)
def _decoded(path: Path, _time: int, _size: int) -> np.ndarray | None:
    """A JPEG file `(C, H, W)` uint8; None where Pillow cannot read it as grey or colours, and GDAL is to say why."""
    try:
        with Image.open(path, formats=["JPEG"]) as picture:
            if picture.mode not in {"L", "RGB"}:
                return None
            values = np.asarray(picture)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def _read(
    source: "DatasetReader", numbers: int | list[int], window: "Window | None", shape: tuple[int, ...] | None
) -> np.ndarray:
    if shape is None:
        return source.read(numbers, window=window)
    whole = tuple(shape) if isinstance(numbers, int) else (len(numbers), *shape)
    return source.read(numbers, window=window, out_shape=whole)


def _equal(values: np.ndarray, missing: float) -> np.ndarray:
    """Where stored numbers are a nodata value, which may be one that the data type rounds, or cannot hold."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.isnan(values) if np.isnan(missing) else values == values.dtype.type(missing)
    if not np.isfinite(missing) or missing != int(missing):
        return np.zeros(values.shape, bool)
    limits = np.iinfo(values.dtype)
    if not limits.min <= int(missing) <= limits.max:
        return np.zeros(values.shape, bool)
    return values == values.dtype.type(int(missing))


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
            with contextlib.ExitStack() as closing:
                target = rasterio.open(raw, "w", **profile)
                closing.callback(_quietly, target.close)
                target.update_tags(**(tags or {}))
                for number, name in enumerate(names, 1):
                    target.set_band_description(number, name)
                if colors:
                    target.write_colormap(1, dict(colors))

                def write(row: int, column: int, values: np.ndarray) -> None:
                    window = Window(column, row, values.shape[2], values.shape[1])  # pyright: ignore
                    _quietly(functools.partial(target.write, values, window=window))

                yield write
            needed = (
                math.prod(-(-side // 256) * 256 for side in (grid.height, grid.width))
                * len(names)
                * np.dtype(dtype).itemsize
            )
            if raw.stat().st_size < needed:  # closing it raises nothing where the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            options = {"compress": "DEFLATE", "predictor": "YES", "blocksize": 512, "bigtiff": "IF_SAFER"}
            _quietly(
                functools.partial(
                    rasterio.shutil.copy, raw, path, driver="COG", overview_resampling=resampling, **options
                )
            )
            _check_whole(path)
        raw.unlink()
    except (RasterioError, OSError) as error:
        reason = printable(str(error.__cause__ or error)[:200])
        raise InputError(f"the map cannot be written ({reason}); make room, or choose another output folder") from None


def _check_whole(path: Path) -> None:
    """Raise an OSError where blocks of a TIFF file lie beyond its end, as the disk was full while it was closed."""
    import rasterio

    size = path.stat().st_size
    with rasterio.open(path) as source:
        for band in source.indexes:
            for (row, column), _ in source.block_windows(band):
                place, length = (
                    int(source.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=band) or 0)
                    for what in ("OFFSET", "SIZE")
                )
                if place + length > size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _quietly(call: Callable[[], object]) -> None:
    """Call without the lines that libtiff prints by itself of a file that cannot be written; it is raised as well."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # there are no standard errors
            before = os.dup(2)
            stack.callback(os.close, before)
            nothing = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nothing)
            sys.stderr.flush()
            os.dup2(nothing, 2)
            stack.callback(os.dup2, before, 2)
        call()
