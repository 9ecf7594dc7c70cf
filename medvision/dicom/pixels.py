"""Pixels of DICOM files as numbers, after checks of what the decoder is about to be given."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from medvision.dicom.headers import Frame, quiet
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

# The first that can is used. GDCM is the only one for lossless JPEG, and the last, as it is the largest.
_DECODERS = ("pydicom", "pylibjpeg", "pyjpegls", "pillow", "gdcm")
_JPEG_2000 = b"\xff\x4f\xff\x51"
_NO_FRAME_SIZES = (0xC4, 0xC8, 0xCC)  # among 0xC0 to 0xCF: tables, a reserved code, arithmetic conditions


def decode(dataset: Any, frames: Sequence[Frame], name: str) -> Iterator[tuple[Frame, np.ndarray]]:
    """Values of frames of one file, (columns, rows) float32 each, after slope and intercept.

    Raises:
        InputError: no pixels, fewer than the header promises, other sizes than it says, or an unknown compression.
    """
    try:
        with quiet():
            if "PixelData" not in dataset:
                raise InputError(f"{name}: holds no pixel data; expected an image of integers; choose another series")
            numbers = require("pydicom.pixels", "dicom").iter_pixels(
                dataset, raw=True, indices=[frame.index for frame in frames], decoding_plugin=_decoder(dataset, name)
            )
            _check_streams(dataset, frames[0], name)
            for frame in frames:
                stored = next(numbers)
                if stored.shape != (frame.rows, frame.columns):
                    raise ValueError(f"its pixels are {stored.shape}, its header says {frame.rows, frame.columns}")
                yield frame, (stored.T * frame.slope + frame.intercept).astype(np.float32)
    except (InputError, MemoryError, GeneratorExit):
        raise
    except Exception as error:  # decoders raise errors of every kind for damaged bytes
        reason = printable(" ".join(str(error).split()))[:160] or type(error).__name__
        raise InputError(f"{name}: its pixels cannot be decoded ({reason}); copy or export the series again") from None


def _decoder(dataset: Any, name: str) -> str:
    """Name of the package to decode with; empty where pixels are stored plainly."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise InputError(f"{name}: its transfer syntax is unknown; expected one of the standard; export it again")
    if not syntax.is_compressed or syntax.is_deflated:
        return ""
    try:
        decoder = require("pydicom.pixels", "dicom").get_decoder(syntax)
    except NotImplementedError:
        raise InputError(f"{name}: is compressed as {syntax.name}; it cannot be read; export it uncompressed") from None
    found = [plugin for plugin in _DECODERS if plugin in decoder.available_plugins]
    if not found:
        raise InputError(
            f"{name}: is compressed as {syntax.name}, which no installed package reads; run: "
            'pip install "domain-vision[dicom]"'
        )
    if found[0] == "gdcm":  # it prints what it thinks of a file
        trace: Any = require("gdcm", "dicom").Trace
        trace.ErrorOff()
        trace.WarningOff()
    return found[0]


def _check_streams(dataset: Any, frame: Frame, name: str) -> None:
    """Refuse compressed frames that claim another size than the header, before a decoder believes them."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    for stream in require("pydicom.encaps", "dicom").generate_frames(dataset.PixelData, number_of_frames=count):
        size = stream_size(stream)
        if size is not None and size != (frame.rows, frame.columns):
            raise InputError(
                f"{name}: its compressed pixels claim {size[1]} x {size[0]}, its header "
                f"{frame.columns} x {frame.rows}; expected the same; export the series again"
            )


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream claims; None for others, and where it claims none."""
    start = stream.find(_JPEG_2000, 0, 256)  # a JP2 file may wrap it
    if start >= 0 and len(stream) >= start + 24 and not stream.startswith(b"\xff\xd8"):
        right, bottom, left, top = (int.from_bytes(stream[k : k + 4]) for k in range(start + 8, start + 24, 4))
        return bottom - top, right - left
    if not stream.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_SIZES):
            return int.from_bytes(stream[place + 5 : place + 7]), int.from_bytes(stream[place + 7 : place + 9])
        place += 1 if marker == 0xFF else 2 + int.from_bytes(stream[place + 2 : place + 4])
    return None
