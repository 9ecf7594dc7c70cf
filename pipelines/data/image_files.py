"""Image files as users have them: read whole, with bands of 8 bits, or refused in one line."""

import hashlib
import warnings
from pathlib import Path

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.files import brief, check_regular, printable
from shared_backbones.labelled_images import COLORS, with_bands

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
    from PIL import Image, UnidentifiedImageError

    expected = {None: [("L",), ("R", "G", "B")], 1: [("L",)], 3: [("R", "G", "B")]}.get(bands, [])
    wanted = {
        None: "expected grey or red, green, blue of 8 bits",
        1: f"{taker} 1 of 8 bits (L)",
        3: f"{taker} 3 of 8 bits (R, G, B)",
    }.get(bands, f"{taker} {bands}")
    known = " or ".join([", ".join(formats[:-1]), formats[-1]])
    try:
        check_regular(path)
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            with Image.open(file, formats=formats) as image:
                names, stored = image.getbands(), str(image.tile[0][3] if image.tile else "")
                if names not in expected or ";16" in stored or "I" in image.mode:
                    depth = " of 16 bits" if ";16" in stored or "I" in image.mode else ""
                    raise InputError(
                        f"{printable(path)}: has {len(names)} bands{depth} ({', '.join(names)}), {wanted}; convert it"
                    )
                pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
                if pages != 1:
                    raise InputError(f"{printable(path)}: has {pages} pages, expected one image; save it by itself")
                values = np.array(image)
    except FileNotFoundError:
        raise InputError(f"{printable(path)}: no such file; check the path, or restore the file") from None
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:  # its text has the address of an object
        raise InputError(f"{printable(path)}: cannot be read as {known}; use an intact copy, or convert it") from None
    except Exception as error:  # a damaged file makes Pillow raise errors of every kind
        reason = brief(error)
        raise InputError(f"{printable(path)}: cannot be read as {known} ({reason}); use an intact copy") from None
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1)), digest


def open_image(path: Path, bands: tuple[str, ...] = COLORS, repeats_grey: bool = False) -> np.ndarray:
    """An image `(H, W, C)` uint8 with such bands; of colours that are all equal one is taken where grey is asked for.

    Raises:
        InputError: no JPEG, PNG or TIFF file, damaged, or with other bands than grey or red, green and blue.
    """
    either = repeats_grey or len(bands) == 1
    values, _ = read_image(path, None if either else len(bands), WITH_TIFF, taker="expected")
    return with_bands(values.transpose(1, 2, 0), bands, path)
