"""Image files as users have them: read whole, with bands of 8 bits, or refused in one line."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.files import brief, check_regular, printable
from shared_backbones.labelled_images import COLORS, with_bands

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

WITH_TIFF = ("JPEG", "PNG", "TIFF")
"""What medical images and data sets of labelled images are read from."""


def read_image(
    path: Path, bands: int | None, formats: tuple[str, ...] = ("JPEG", "PNG"), *, taker: str = "the model takes"
) -> tuple[np.ndarray, bytes]:
    """An image of 8 bits, `(C, H, W)` uint8 as it is stored, and the file's sha256.

    Args:
        path: File to read.
        bands: 1 (grey) or 3 (red, green, blue); None for either.
        formats: that are known, as Pillow calls them.
        taker: words before what was expected.

    Raises:
        InputError: it cannot be read, has other bands or several pages.
    """
    expected = {None: [("L",), ("R", "G", "B")], 1: [("L",)], 3: [("R", "G", "B")]}.get(bands, [])
    wanted = {
        None: "expected grey or red, green, blue of 8 bits",
        1: f"{taker} 1 of 8 bits (L)",
        3: f"{taker} 3 of 8 bits (R, G, B)",
    }.get(bands, f"{taker} {bands}")
    with _one_image(path, formats) as (image, digest):
        names, stored = image.getbands(), str(image.tile[0][3] if image.tile else "")
        if names not in expected or ";16" in stored or "I" in image.mode:
            depth = " of 16 bits" if ";16" in stored or "I" in image.mode else ""
            raise InputError(
                f"{printable(path)}: has {len(names)} bands{depth} ({', '.join(names)}), {wanted}; convert it"
            )
        values = np.array(image)
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1)), digest


def read_mask(path: Path) -> np.ndarray:
    """A mask `(H, W)` bool: pixels brighter than half, as JPEGs of masks have noise; of a palette all but the first.

    Where no pixel of a PNG or TIFF is brighter than 1, these are the mask.

    Raises:
        InputError: it cannot be read, has several pages, or is no image of 8 bits or 1.
    """
    with _one_image(path, WITH_TIFF) as (image, _):
        if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
            raise InputError(
                f"{printable(path)}: has pixels of the kind {image.mode}, expected a mask of 8 bits; convert it"
            )
        lossless, palette = image.format != "JPEG", image.mode == "P"
        values = np.array(image if palette else image.convert("L"))
    return values > (0 if palette or (lossless and values.max(initial=0) == 1) else 127)


@contextlib.contextmanager
def _one_image(path: Path, formats: tuple[str, ...]) -> "Iterator[tuple[ImageFile, bytes]]":
    """A file of one image, open, and its sha256; whatever Pillow raises in the block becomes one line.

    Raises:
        InputError: it cannot be read, or has several pages.
    """
    from PIL import Image, UnidentifiedImageError

    known = " or ".join([", ".join(formats[:-1]), formats[-1]])
    try:
        check_regular(path)
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            with Image.open(file, formats=formats) as image:
                pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
                if pages != 1:
                    raise InputError(f"{printable(path)}: has {pages} pages, expected one image; save it by itself")
                yield image, digest
    except FileNotFoundError:
        raise InputError(f"{printable(path)}: no such file; check the path, or restore the file") from None
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:  # its text has the address of an object
        raise InputError(f"{printable(path)}: cannot be read as {known}; use an intact copy, or convert it") from None
    except Exception as error:  # a damaged file makes Pillow raise errors of every kind
        reason = brief(error)
        raise InputError(f"{printable(path)}: cannot be read as {known} ({reason}); use an intact copy") from None


def open_image(path: Path, bands: tuple[str, ...] = COLORS, repeats_grey: bool = False) -> np.ndarray:
    """An image `(H, W, C)` uint8 with such bands; of colours that are all equal one is taken where grey is asked for.

    Raises:
        InputError: no JPEG, PNG or TIFF file, damaged, or with other bands than grey or red, green and blue.
    """
    either = repeats_grey or len(bands) == 1
    values, _ = read_image(path, None if either else len(bands), WITH_TIFF, taker="expected")
    return with_bands(values.transpose(1, 2, 0), bands, path)
