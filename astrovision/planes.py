"""Planes: the 2-D images of FITS files, opened safely and read window by window."""

import bz2
import contextlib
import functools
import gzip
import itertools
import logging
import lzma
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict, Unpack

import numpy as np

from astrovision.astropy_types import Hdu, Hdus
from astrovision.headers import band_names, celestial, zero_point
from shared_backbones import memory
from shared_backbones.errors import InputError, require
from shared_backbones.files import brief, printable
from shared_backbones.work_folders import work_folder

if TYPE_CHECKING:  # astropy is imported where a file is opened
    from astropy.wcs import WCS

_OF_DISTORTION = ("WCSDVARR", "D2IMARR")  # tables of a WCS that are kept as images
_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}  # of BITPIX
_SHARE = 0.125  # of a compressed image's pixels; when more are asked for, it is decompressed once
_MOST_CARDS, _MOST_CONTINUED = 20_000, 500  # of a header, and of a text in it
_IN_MEMORY = 2**30  # bytes; a larger decompressed image waits in a temporary file
_BLOCK = 2**22  # values that are decompressed at a time
_PACKED = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}  # by a file's first bytes

_log = logging.getLogger(__name__)


class _Placed(TypedDict):
    """What the planes of an HDU have in common; `Plane` explains the parts."""

    shape: tuple[int, int]
    wcs: "WCS | None"
    unit: str
    zero_point: float | None
    notices: tuple[str, ...]


class _About(_Placed):
    """All of a plane but its pixels."""

    label: str
    band: str


@dataclass
class Plane:
    """One 2-D image of a FITS file that is not compressed: its stored numbers lie in the file, mapped to memory.

    Attributes:
        label: file and HDU, fit to be shown on a terminal.
        pixels: `(H, W)` stored numbers; empty while a compressed image is not decompressed as a whole.
        shape: height and width in pixels.
        scale: value = stored number * scale + zero (BSCALE, BZERO).
        zero: number added after `scale`.
        blank: stored number that is no value (BLANK); None where there is none.
        wcs: celestial astropy WCS; None where the header has none that can be used.
        unit: BUNIT; "" where the header does not say.
        zero_point: magnitude of a flux of one; None where the header does not say.
        notices: what a user should know of the header, without the file's name.
        band: name that the header gives; "" where it gives none, or several.
    """

    label: str
    pixels: np.ndarray
    shape: tuple[int, int]
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None
    wcs: "WCS | None" = None
    unit: str = ""
    zero_point: float | None = None
    notices: tuple[str, ...] = ()
    band: str = ""

    def expect(self, pixels: int) -> None:
        """Announce how many pixels will be read."""

    def read(self, rows: slice, columns: slice, out: np.ndarray) -> None:
        """Put a window's values, NaN where blank, into a float32 array of its shape; the window lies inside."""
        stored = self.pixels[rows, columns]
        if self.scale == 1 and self.zero == 0:
            out[...] = stored
        elif self.scale == 1 and self.zero == 2**63 and stored.dtype.itemsize == 8:  # float64 has no room for it
            out[...] = stored.astype(np.int64).view(np.uint64) ^ np.uint64(2**63)
        else:  # float32 has no room for a large BZERO and what is added to it
            wide = np.float32 if stored.dtype.itemsize <= 2 else np.float64
            out[...] = stored.astype(wide) * wide(self.scale) + wide(self.zero)
        if self.blank is not None:
            out[stored == self.blank] = np.nan


class PackedPlane(Plane):
    """A tile-compressed image.

    Single windows are decompressed tile by tile. Once windows with more than an eighth of the image's pixels have been
    asked for, the image is decompressed as float32: into memory, or into a temporary file where it takes more than
    1 GiB or the budget.
    """

    def __init__(self, path: Path, hdu: Hdu, channel: tuple[int, ...], **attributes: Unpack[_About]) -> None:
        super().__init__(pixels=np.empty((0, 0), np.float32), **attributes)
        self._path, self._hdu, self._channel, self._expected = path, hdu, channel, 0
        header = hdu.header
        if header["BITPIX"] > 0 and "BLANK" in header:  # astropy does not look at it where numbers are unsigned
            self.blank = int(header["BLANK"]) + int(header.get("BZERO", 0))

    def expect(self, pixels: int) -> None:
        """Decompress the image if windows of so many pixels, and of those before, make it worth while."""
        self._expected += pixels
        height, width = self.shape
        if self.pixels.size or self._expected <= _SHARE * height * width:
            return
        with reading(self._path):
            if 4 * height * width <= min(_IN_MEMORY, memory.budget()):
                whole = np.empty(self.shape, np.float32)
            else:
                with tempfile.TemporaryFile() as file:  # without a name; it is there as long as it is mapped
                    whole = np.memmap(file, np.float32, "w+", shape=self.shape)
            tile = self._hdu.tile_shape[-2]
            step = tile * max(1, _BLOCK // (tile * width))
            for row in range(0, height, step):
                whole[row : row + step] = self._section(slice(row, min(row + step, height)), slice(0, width))
        self.pixels = np.asarray(whole)

    def read(self, rows: slice, columns: slice, out: np.ndarray) -> None:
        """As `Plane.read`.

        Raises:
            InputError: the file is damaged there.
        """
        if self.pixels.size:
            out[...] = self.pixels[rows, columns]
        else:
            with reading(self._path):
                out[...] = self._section(rows, columns)

    def _section(self, rows: slice, columns: slice) -> np.ndarray:
        values = self._hdu.section[(*self._channel, rows, columns)]
        if self.blank is None or values.dtype.kind not in "iu":
            return values
        return np.where(values == self.blank, np.float32("nan"), values.astype(np.float32))


def open_planes(path: Path, hdu: Sequence[int | str] | None, stack: contextlib.ExitStack) -> list[Plane]:
    """The images of a FITS file.

    Args:
        path: path of the file; it may be compressed with gzip, bzip2 or xz, or its images tile by tile (fpack).
        hdu: numbers or EXTNAMEs of the HDUs; by default the only one that has an image.
        stack: what is open is closed with it.

    Returns:
        One plane for each 2-D image, the planes of a cube `(C, H, W)` in order; all of one file have one shape.

    Raises:
        InputError: the file cannot be read or has no such image, or several where none was chosen.
    """
    hdus = open_fits(path, stack)
    with reading(path):
        images = {number: item for number, item in enumerate(hdus) if _is_image(item)}
        if not images:
            raise InputError(f"{printable(path)}: has no image; expected a 2-D one, or a cube of bands, rows, columns")
        if hdu is None and len(images) > 1:
            raise InputError(
                f"{printable(path)}: has {len(images)} images: {_list(images)}; say with --hdu which, by number or name"
            )
        chosen = [_choose(path, images, key) for key in hdu] if hdu is not None else list(images)
        planes = [plane for number in chosen for plane in _planes_of(path, hdus, number)]
    for plane in planes:
        if plane.shape != planes[0].shape:
            raise InputError(
                f"{plane.label}: has {plane.shape[0]} x {plane.shape[1]} pixels, {planes[0].label} has "
                f"{planes[0].shape[0]} x {planes[0].shape[1]}; expected images of one grid: give other --hdu"
            )
    return planes


def open_fits(path: Path, stack: contextlib.ExitStack) -> Hdus:
    """An astropy HDUList of a FITS file all of which is there, closed with `stack`.

    Raises:
        InputError: no such file, no FITS file, truncated or damaged.
    """
    fits = require("astropy.io.fits", "astro")
    label = printable(path)
    if not os.path.isfile(path):  # and not Path's own method, which raises for names that cannot be
        raise InputError(f"{label}: no such file; expected a FITS file")
    with reading(path):
        source = unpacked(path, stack)
        with source.open("rb") as file:
            start = file.read(9)
        if start != b"SIMPLE  =":
            raise InputError(f"{label}: is no FITS file; expected one that begins with SIMPLE")
        opened = stack.enter_context(source.open("rb"))  # by us: astropy leaves it open where it raises
        hdus = stack.enter_context(fits.open(opened, mode="readonly", lazy_load_hdus=True))
        size, end = source.stat().st_size, 0
        for number, hdu in enumerate(hdus):
            place = hdu.fileinfo()  # not `hdus.fileinfo`, which reads on to the last one
            _check_header(opened, place["hdrLoc"], place["datLoc"], f"{label}[{number}]")
            if place["datSpan"] < 0:  # astropy would go back and read what it has read, without end
                raise InputError(
                    f"{label}: has {place['datSpan']} bytes in HDU {number}; it is damaged: use an intact copy"
                )
            # `size` of a compressed image is that of its pixels; its table's may lack what fills the last block
            length = place["datSpan"] - 2879 if isinstance(hdu, fits.CompImageHDU) else int(hdu.size)
            if place["datLoc"] + length > size:
                raise InputError(
                    f"{label}: is truncated: HDU {number} needs {place['datLoc'] + length} bytes, the file has {size}; "
                    "use an intact copy"
                )
            end = place["datLoc"] + place["datSpan"]
        with source.open("rb") as file:
            file.seek(end)
            if file.read(8) == b"XTENSION":  # astropy passes over an HDU whose header it cannot read
                raise InputError(f"{label}: is truncated or damaged in HDU {len(hdus)}; use an intact copy")
    return hdus


def _check_header(file: BinaryIO, start: int, end: int, label: str) -> None:
    """Refuse a header that takes minutes to be understood: astropy joins what is continued card by card.

    Raises:
        InputError: it is one.
    """
    if (end - start) // 80 > _MOST_CARDS:
        raise InputError(f"{label}: has a header of {(end - start) // 80:,} cards, expected at most {_MOST_CARDS:,}")
    before = file.tell()
    file.seek(start)
    text = file.read(end - start)
    file.seek(before)
    continued = [text[place : place + 8] == b"CONTINUE" for place in range(0, len(text), 80)]
    if any(key and len(list(run)) > _MOST_CONTINUED for key, run in itertools.groupby(continued)):
        raise InputError(f"{label}: has a text of more than {_MOST_CONTINUED:,} CONTINUE cards; shorten it")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what astropy says of a file into the one line that names it; its warnings are dropped.

    What it would log, some of it on stdout, becomes a line of our log, which is on stderr.
    """

    def heed(record: logging.LogRecord) -> bool:
        text = " ".join(record.getMessage().split())
        if "SIP" not in text:  # said by `astrovision.headers` in words of ours
            _say(printable(path), printable(text)[:200])
        return False

    log = logging.getLogger("astropy")
    log.addFilter(heed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # a damaged header makes astropy raise errors of every kind
        raise InputError(
            f"{printable(path)}: cannot be read ({brief(error, path)}); expected a whole and sound file: use an intact "
            "copy"
        ) from None
    finally:
        log.removeFilter(heed)


@functools.lru_cache(maxsize=1024)
def _say(label: str, text: str) -> None:
    """A line of the log, once."""
    _log.warning("warning: %s: %s", label, text)


def unpacked(path: Path, stack: contextlib.ExitStack) -> Path:
    """The file itself, or a temporary one with the contents of one packed with gzip, bzip2 or xz, closed with `stack`.

    Raises:
        InputError: the contents take more than half of the room that is left.
    """
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _PACKED.items() if start.startswith(magic)), None)
    if opener is None:
        return path
    target = stack.enter_context(work_folder()) / "unpacked"
    room = shutil.disk_usage(target.parent).free // 2
    with opener(path) as packed, target.open("wb") as file:
        while block := packed.read(2**20):
            room -= len(block)
            if room < 0:
                raise InputError(
                    f"{printable(path)}: takes more room unpacked than there is in {printable(tempfile.gettempdir())}; "
                    "set TMPDIR to another folder, or unpack it there"
                )
            file.write(block)
    return target


def _is_image(hdu: Hdu) -> bool:
    from astropy.io import fits

    kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
    return (
        isinstance(hdu, kinds)
        and hdu.name not in _OF_DISTORTION
        and len(hdu.shape) >= 2
        and min(hdu.shape) > 0
        and hdu.header["BITPIX"] in _TYPES
    )


def _choose(path: Path, images: dict[int, Hdu], key: int | str) -> int:
    """Number of the image that a user's number or EXTNAME means."""
    text = str(key).strip()
    numbers = [number for number, item in images.items() if text.upper() == item.name.upper() or text == str(number)]
    if len(numbers) != 1:
        raise InputError(
            f"{printable(path)}: --hdu {printable(text)} is {'several' if numbers else 'none'} of its images: "
            f"{_list(images)}"
        )
    return numbers[0]


def _list(images: dict[int, Hdu]) -> str:
    return ", ".join(
        f"{number} {printable(item.name) or 'without a name'} ({' x '.join(map(str, item.shape))})"
        for number, item in images.items()
    )


def _planes_of(path: Path, hdus: Hdus, number: int) -> list[Plane]:
    from astropy.io import fits

    hdu, label = hdus[number], f"{printable(path)}[{number}]"
    header = hdu.header
    *leading, height, width = hdu.shape
    if sum(length > 1 for length in leading) > 1:
        raise InputError(f"{label}: has {len(hdu.shape)} axes ({hdu.shape}); expected bands, rows and columns")
    wcs, notices = celestial(header, hdus, label)
    placed: _Placed = {
        "shape": (height, width),
        "wcs": wcs,
        "unit": printable(str(header.get("BUNIT", "")).strip()),
        "zero_point": zero_point([header, hdus[0].header]),
        "notices": notices,
    }
    channels = list(np.ndindex(*leading))
    bands = band_names(header, hdus[0].header, len(channels))
    abouts: list[_About] = [{"label": label, "band": band, **placed} for band in bands]
    if isinstance(hdu, fits.CompImageHDU):
        memory.expect(8 * math.prod(hdu.tile_shape), label, "one tile of it")
        return [PackedPlane(path, hdu, channel, **about) for channel, about in zip(channels, abouts, strict=True)]
    stored = np.memmap(hdus.filename(), _TYPES[header["BITPIX"]], "r", hdu.fileinfo()["datLoc"], tuple(hdu.shape))
    scale, zero = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    blank = int(header["BLANK"]) if header["BITPIX"] > 0 and "BLANK" in header else None
    return [
        # plain arrays: slices of a memmap cost several times as much
        Plane(pixels=np.asarray(stored[channel]), scale=scale, zero=zero, blank=blank, **about)
        for channel, about in zip(channels, abouts, strict=True)
    ]
