"""Pixels of DICOM files as numbers, after checks of what the decoder is about to be given."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from medvision.dicom.decoding import Decoder, DecodingError
from medvision.dicom.frames import Frame, integer
from medvision.dicom.reading import quiet
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

if TYPE_CHECKING:
    from pydicom import Dataset

_PLUGINS = ("pylibjpeg", "pyjpegls", "pillow")  # the first that can is used
_RLE = "1.2.840.10008.1.2.5"  # pydicom's own decoder is Python, and needs no process of its own
_LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_2000 = b"\xff\x4f\xff\x51"
_NO_FRAME_SIZES = (0xC4, 0xC8, 0xCC)  # among 0xC0 to 0xCF: tables, a reserved code, arithmetic conditions
_ATTRIBUTES = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)


def decode(
    dataset: "Dataset", frames: Sequence[Frame], name: str, decoder: Decoder
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Values of frames of one file, (columns, rows) float32 each, after slope and intercept or their table.

    Pixels of padding are NaN.

    Raises:
        InputError: no pixels, fewer than the header promises, other sizes than it says, or an unknown compression.
    """
    try:
        with quiet():
            if "PixelData" not in dataset:
                raise InputError(
                    f"{name}: contains no pixel data; expected an image of integers; choose another series"
                )
            if _is_compressed(dataset, name):
                planes = _unpacked(dataset, frames, name, decoder)
            else:
                planes = (_bits if dataset.BitsAllocated == 1 else _plain)(dataset, frames)
            for frame in frames:
                stored = next(planes)
                if stored.shape != (frame.rows, frame.columns):
                    raise ValueError(f"its pixels are {stored.shape}, its header says {frame.rows, frame.columns}")
                if dataset.get("ModalityLUTSequence"):  # a table, instead of slope and intercept
                    values = require("pydicom.pixels", "dicom").apply_modality_lut(stored.astype(np.int32), dataset)
                else:
                    values = stored * frame.slope + frame.intercept
                values = values.astype(np.float32)
                values[_is_padding(stored, dataset)] = np.nan
                yield frame, values.T
    except (InputError, MemoryError, GeneratorExit):
        raise
    except Exception as error:  # decoders raise errors of every kind for damaged bytes
        reason = printable(" ".join(str(error).split()))[:160] or type(error).__name__
        raise InputError(f"{name}: its pixels cannot be decoded ({reason}); copy or export the series again") from None


def _is_padding(stored: np.ndarray, dataset: "Dataset") -> np.ndarray | slice:
    """Which stored numbers are padding, from PixelPaddingValue to PixelPaddingRangeLimit where there is one."""
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return slice(0, 0)
    limit = integer(dataset, "PixelPaddingRangeLimit")
    bits = int(dataset.BitsAllocated)
    offset = 2 ** (bits - 1) * int(dataset.PixelRepresentation)
    # headers may have it signed where pixels are not, and the reverse: of the two ways round, the shorter is meant
    first, last = ((end + offset) % 2**bits - offset for end in (value, value if limit is None else limit))
    if (last - first) % 2**bits > 2 ** (bits - 1):
        first, last = last, first
    return (stored >= first) & (stored <= last) if first <= last else (stored >= first) | (stored <= last)


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream claims; None where it claims none."""
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


def _is_compressed(dataset: "Dataset", name: str) -> bool:
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise InputError(f"{name}: its transfer syntax is unknown; expected one of the standard; export it again")
    return syntax.is_encapsulated and syntax != _RLE


def _plain(dataset: "Dataset", frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    indices = [frame.index for frame in frames]
    return require("pydicom.pixels", "dicom").iter_pixels(dataset, raw=True, indices=indices)


def _bits(dataset: "Dataset", frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """Frames of single bits, which follow one another without a gap; pydicom 3 reads those across bytes too short."""
    count = dataset.Rows * dataset.Columns
    for frame in frames:
        start = frame.index * count
        packed = np.frombuffer(dataset.PixelData[start // 8 : -(-(start + count) // 8)], np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[start % 8 :][:count]
        yield bits.reshape(dataset.Rows, dataset.Columns)


def _unpacked(dataset: "Dataset", frames: Sequence[Frame], name: str, decoder: Decoder) -> Iterator[np.ndarray]:
    """Frames that are compressed, each after a check that it claims the header's size, which decoders would believe."""
    settings = {key: getattr(dataset, key) for key in _ATTRIBUTES}
    settings |= {"syntax": str(dataset.file_meta.TransferSyntaxUID), "plugin": _plugin(dataset, name)}
    count = int(dataset.get("NumberOfFrames") or 1)
    streams = list(require("pydicom.encaps", "dicom").generate_frames(dataset.PixelData, number_of_frames=count))
    for frame in frames:
        stream = streams[frame.index]
        size = stream_size(stream)
        if size != (frame.rows, frame.columns):
            claim = f"claim {size[1]} x {size[0]}" if size else "claim no size"
            raise InputError(
                f"{name}: its compressed pixels {claim}, its header {frame.columns} x {frame.rows}; expected the same; "
                "export the series again"
            )
        try:
            yield decoder.decode(stream, settings)
        except DecodingError as error:
            raise ValueError(str(error)) from None


def _plugin(dataset: "Dataset", name: str) -> str:
    """Name of pydicom's plugin for the transfer syntax; empty for lossless JPEG, which pydicom has none for."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        available = require("pydicom.pixels", "dicom").get_decoder(syntax).available_plugins
    except NotImplementedError:
        raise InputError(f"{name}: is compressed as {syntax.name}; it cannot be read; export it uncompressed") from None
    lossless = syntax in _LOSSLESS_JPEG
    plugins = [""] if lossless and find_spec("imagecodecs") else [plugin for plugin in _PLUGINS if plugin in available]
    if not plugins:
        raise InputError(
            f"{name}: is compressed as {syntax.name}, which no installed package reads; run: "
            'pip install "domain-vision[dicom]"'
        )
    return plugins[0]
