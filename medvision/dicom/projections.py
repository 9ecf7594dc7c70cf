"""Single DICOM images, such as radiographs and mammograms, as they are to be shown."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvision.dicom.decoding import Decoder
from medvision.dicom.files import find_members
from medvision.dicom.frames import Frame
from medvision.dicom.pixels import decode
from medvision.dicom.reading import damaged, quiet, read_whole
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.memory import limit

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


def read_projection(path: Path, *, max_bytes: int | None = None) -> tuple[np.ndarray, str, list[str]]:
    """A grey image of one frame, `(1, H, W)` uint8 with black as 0, the sha256 of its file, and warnings.

    Stored numbers become values (modality LUT, or slope and intercept), and those what is shown (VOI LUT, or the first
    window and its function; without either their whole range), black at the lowest or, of MONOCHROME1, at the highest.
    Padding is black.

    Raises:
        InputError: no DICOM file, several frames, colours, or pixels that cannot be decoded.
    """
    name = printable(path)
    max_bytes = limit(max_bytes)
    (member,), _ = find_members(path, max_bytes)
    dataset, sha256 = read_whole(member, max_bytes)
    try:
        with quiet():
            frame = Frame(
                member=member, index=0, rows=int(dataset.Rows), columns=int(dataset.Columns), position=np.zeros(3),
                cosines=np.zeros((2, 3)), spacing=np.ones(2), slope=float(dataset.get("RescaleSlope") or 1),
                intercept=float(dataset.get("RescaleIntercept") or 0),
            )  # fmt: skip
            _check(dataset, frame, name, max_bytes)
            with Decoder() as decoder:
                ((_, values),) = decode(dataset, [frame], name, decoder)
            shown, warnings = _shown(values.T, dataset)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # values are converted when they are looked at, and pydicom raises what it likes
        raise damaged(name, error) from None
    return np.rint(shown * 255).astype(np.uint8)[None], sha256, warnings


def _check(dataset: "Dataset", frame: Frame, name: str, max_bytes: int) -> None:
    count, kind = int(dataset.get("NumberOfFrames") or 1), str(dataset.get("PhotometricInterpretation"))
    if count != 1:
        raise InputError(f"{name}: holds {count} frames; expected one image; export the frame that is meant")
    if kind not in _GREY or int(dataset.get("SamplesPerPixel") or 1) != 1:
        known = kind if kind.replace("_", "").isalnum() and len(kind) <= 16 else "of an unknown kind"
        raise InputError(f"{name}: its pixels are {known}; expected {' or '.join(_GREY)}; export it as PNG")
    needed = 8 * frame.rows * frame.columns
    if needed > max_bytes:
        raise InputError(
            f"{name}: claims {frame.columns} x {frame.rows} pixels, {needed / 2**30:.3g} GB; the limit is "
            f"{max_bytes / 2**30:.3g} GB; raise it with --max-gigabytes if the file can be trusted"
        )


def _shown(values: np.ndarray, dataset: "Dataset") -> tuple[np.ndarray, list[str]]:
    """Brightness from 0 to 1, `(rows, columns)`, and warnings; where values are NaN, there is padding."""
    padding, kind = np.isnan(values), str(dataset.PhotometricInterpretation)
    values = np.where(padding, 0.0 if padding.all() else values[~padding].min(), values)
    if dataset.get("VOILUTSequence"):
        shown = _by_table(values, dataset.VOILUTSequence[0])
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        window = require("pydicom.pixels", "dicom").apply_windowing
        with np.errstate(over="ignore"):
            low, high = window(np.array([-1e300, 1e300]), dataset)
            shown = (window(values, dataset) - low) / (high - low)
    else:
        low, high = float(values.min()), float(values.max())
        shown = (values.astype(np.float64) - low) / (high - low) if high > low else np.zeros(values.shape)
    shown = np.clip(shown, 0, 1)
    shape = str(dataset.get("PresentationLUTShape") or _SHAPES[kind]).strip().upper()
    warnings = [] if shape == _SHAPES[kind] else [f"{kind} images with another presentation are shown as {kind}"]
    return np.where(padding, 0.0, 1 - shown if kind == "MONOCHROME1" else shown), warnings


def _by_table(values: np.ndarray, table: "Dataset") -> np.ndarray:
    """What a VOI LUT shows; pydicom's own takes 8 bits of the value, too, where the table has 8 bits."""
    entries, first, bits = table.LUTDescriptor
    data = table.LUTData
    width = np.uint8 if isinstance(data, bytes) and len(data) < 2 * (entries or 2**16) else np.dtype("<u2")
    lut = np.frombuffer(data, width) if isinstance(data, bytes) else np.asarray(data)
    at = np.clip(np.rint(values).astype(np.int64) - first, 0, len(lut) - 1)
    return lut[at] / (2**bits - 1)
