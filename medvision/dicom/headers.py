"""What the headers of DICOM files say of the images in them, and nothing that pydicom raises on hostile ones."""

import hashlib
import io
import logging
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medvision.dicom.files import Member
from shared_backbones.errors import InputError, require

MODALITIES = ("CT", "MR", "PT", "NM", "US", "XA", "CR", "DX", "MG", "OT", "SC", "OPT")
_META = 132  # byte at which a file begins to say how it is written
_DEFLATED = "1.2.840.10008.1.2.1.99"
_WITHOUT_IMAGES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "DOC")
_COLOURS = ("RGB", "YBR", "PALETTE")
_SCREENSHOTS = "1.2.840.10008.5.1.4.1.1.7."  # secondary captures of every kind
_QUANTITIES = ("CT", "PT", "NM")  # whose values mean the same however they are to be shown
_ORIENTATION = "ImageOrientationPatient"

MARKS: dict[str, tuple[tuple[str, str], ...]] = {
    "type": (("MRImageFrameTypeSequence", "FrameType"), ("CTImageFrameTypeSequence", "FrameType"), ("", "ImageType")),
    "component": (("MRImageFrameTypeSequence", "ComplexImageComponent"), ("", "ComplexImageComponent")),
    "echo time": (("MREchoSequence", "EffectiveEchoTime"), ("", "EchoTime")),
    "inversion time": (("", "InversionTime"),),
    "b-value": (("MRDiffusionSequence", "DiffusionBValue"), ("", "DiffusionBValue")),
    "kernel": (("CTReconstructionSequence", "ConvolutionKernel"), ("", "ConvolutionKernel")),
    "stack": (("FrameContentSequence", "StackID"),),
    "time point": (("FrameContentSequence", "TemporalPositionIndex"), ("", "TemporalPositionIdentifier")),
    "trigger time": (("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"), ("", "TriggerTime")),
    "acquisition": (("FrameContentSequence", "FrameAcquisitionNumber"), ("", "AcquisitionNumber")),
}
"""What tells volumes of one series apart, and where it stands: functional group (none for the file) and attribute."""

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "InstanceNumber"),
    *("SpecificCharacterSet", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "ImagerPixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(key for places in MARKS.values() for group, key in places if not group),
)


@dataclass(frozen=True)
class Frame:
    """One slice of a volume, as its header describes it; positions are DICOM's: to the left, the back and up.

    Attributes:
        member: the file it is in.
        index: of the frame in its file.
        rows: pixels from top to bottom, and `columns` from left to right.
        position: (3,) mm, of the centre of the first pixel.
        cosines: (2, 3) directions in which columns and rows are counted.
        spacing: (2,) mm between rows, and between columns.
        slope: factor, and `intercept` summand, that make values of stored numbers.
        order: InstanceNumber, where there is one, and index of the frame.
        marks: what may tell it from others at its place, in the order of `MARKS`.
    """

    member: Member
    index: int
    rows: int
    columns: int
    position: np.ndarray
    cosines: np.ndarray
    spacing: np.ndarray
    slope: float
    intercept: float
    order: tuple[int | None, int] = (None, 0)
    marks: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Instance:
    """A file with images.

    Attributes:
        member: the file.
        uid: SOPInstanceUID, and `series_uid` and `series_number` of its series.
        description: of the series, as the header has it.
        modality: None where the header says nothing known.
        aside: whether it is a localizer, a screenshot or coloured, which no volume is made of.
        inverted: whether its values are to be shown dark for high, and are no quantities.
        rows: pixels from top to bottom, and `columns` from left to right.
        frames: its slices; empty where there is a `problem`.
        problem: why it cannot be part of a volume, as one line.
    """

    member: Member
    uid: str
    series_uid: str
    series_number: int | None
    description: str
    modality: str | None
    aside: bool
    inverted: bool
    rows: int
    columns: int
    frames: tuple[Frame, ...] = field(repr=False)
    problem: str | None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what pydicom and highdicom have to say of odd values, which may quote them, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def damaged(name: str, error: Exception) -> InputError:
    """The line for a file that pydicom cannot read; the error's own text may quote the header, so it is left out."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return InputError(f"{name}: is damaged or no valid DICOM ({kind}); copy or export it again, or move it away")


def read_instance(member: Member, max_bytes: int) -> Instance | None:
    """Read a file's header; None where it holds no image, such as a report or a segmentation.

    Raises:
        InputError: the file is damaged.
    """
    header = read_header(member, max_bytes, list(_TAGS))
    try:
        with quiet():
            if not ("Rows" in header and "Columns" in header) or header.get("Modality") in _WITHOUT_IMAGES:
                return None
            said = str(header.get("Modality"))
            instance = Instance(
                member=member,
                uid=str(header.get("SOPInstanceUID", "")),
                series_uid=str(header.get("SeriesInstanceUID", "")),
                series_number=_integer(header, "SeriesNumber"),
                description=str(header.get("SeriesDescription") or "")[:64],
                modality=said if said in MODALITIES else None,  # what else stands there may be anything
                aside="LOCALIZER" in _words(header.get("ImageType"))
                or str(header.get("PhotometricInterpretation")).startswith(_COLOURS)
                or f"{header.get('SOPClassUID')}.".startswith(_SCREENSHOTS),
                inverted=header.get("PhotometricInterpretation") == "MONOCHROME1" and said not in _QUANTITIES,
                rows=int(header.Rows),
                columns=int(header.Columns),
                frames=(),
                problem=None,
            )
    except Exception as error:  # as above
        raise damaged(member.name, error) from None
    try:
        return replace(instance, frames=tuple(read_frames(header, member)))
    except InputError as error:
        return replace(instance, problem=str(error))


def read_frames(header: Any, member: Member) -> list[Frame]:
    """The slices that a header describes.

    Raises:
        InputError: colours, no geometry, or values that cannot be used.
    """
    try:
        with quiet():
            return list(_frames(header, member))
    except InputError:
        raise
    except Exception as error:  # values are converted when they are looked at, and pydicom raises what it likes
        raise damaged(member.name, error) from None


def read_header(member: Member, max_bytes: int, tags: Sequence[str] | None = None) -> Any:
    """A file's data set without its pixels, whole or of some tags.

    Raises:
        InputError: the file is damaged.
    """
    with member.open() as stream:
        return _parsed(stream, member.name, max_bytes, stop_before_pixels=True, specific_tags=tags)


def read_whole(member: Member, max_bytes: int) -> tuple[Any, str]:
    """A file's data set with its pixels as they are stored, and the sha256 of its bytes.

    Raises:
        InputError: the file is damaged.
    """
    with member.open() as stream:
        return _parsed(stream, member.name, max_bytes), _digest(stream)


def file_digest(member: Member) -> str:
    """The sha256 of a file's bytes."""
    with member.open() as stream:
        return _digest(stream)


def _digest(stream: Any) -> str:
    # bytes in memory or a mapped file, neither of which is copied
    with memoryview(stream.getbuffer() if isinstance(stream, io.BytesIO) else stream) as content:
        return hashlib.sha256(content).hexdigest()


def _parsed(stream: Any, name: str, max_bytes: int, **options: Any) -> Any:
    pydicom = require("pydicom", "dicom")
    try:
        with quiet():
            stream.seek(_META)
            meta = require("pydicom.filereader", "dicom").read_dataset(
                stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag >> 16 != 2
            )
            if str(meta.get("TransferSyntaxUID")) == _DEFLATED:
                _check_deflated(stream, name, max_bytes)
            stream.seek(0)
            return pydicom.dcmread(stream, **options)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # hostile bytes bring out errors of every kind
        raise damaged(name, error) from None


def _check_deflated(stream: Any, name: str, max_bytes: int) -> None:
    """Count what a deflated data set gives before pydicom inflates it whole; the stream is behind the meta header."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (packed := stream.read(2**16)):
        while packed:
            total += len(inflater.decompress(packed, 2**22))
            packed = inflater.unconsumed_tail
            if total > max_bytes:
                raise InputError(
                    f"{name}: unpacks to more than {max_bytes / 2**30:.3g} GB; raise the limit with --max-gigabytes if "
                    "the file can be trusted"
                )


def _frames(header: Any, member: Member) -> Iterator[Frame]:
    name = member.name
    found = str(header.get("PhotometricInterpretation"))
    if int(header.get("SamplesPerPixel") or 1) != 1 or found not in ("MONOCHROME1", "MONOCHROME2"):
        kind = (
            f"its pixels are {found}" if re.fullmatch(r"[A-Z0-9_ ]{1,16}", found) else "its kind of pixels is unknown"
        )
        raise InputError(f"{name}: {kind}; expected grey ones (MONOCHROME2 or MONOCHROME1); choose another series")
    if "MOSAIC" in _words(header.get("ImageType")):
        raise InputError(
            f"{name}: is a mosaic, many slices in one picture; expected a slice in each; export it as an enhanced "
            "multi-frame image, or convert it to NIfTI with dcm2niix"
        )
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    frames = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(header.get("NumberOfFrames") or 1)
    if count < 1 or (frames and len(frames) != count):
        raise InputError(f"{name}: its header claims {count} frames and describes {len(frames)}; export it again")
    if count > 1 and not frames:
        raise InputError(
            f"{name}: holds {count} frames without a position each; expected an enhanced multi-frame image or a "
            "series of single ones; choose another series"
        )
    number = _integer(header, "InstanceNumber")
    for index, own in enumerate(frames or [None]):

        def find(sequence: str, key: str, own: Any = own) -> Any:
            for group in (own, shared) if sequence else ():
                found = _first(group.get(sequence)) if group is not None else None
                if found is not None and key in found:
                    return found[key].value
            return header.get(key)

        where = f"{name}, frame {index + 1}" if frames else name
        slope, intercept = (
            _numbers(find("PixelValueTransformationSequence", key), key, 1, where, default)[0]
            for key, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
        )
        if slope == 0:
            raise InputError(f"{where}: its RescaleSlope is 0; expected another number; export it again")
        spacing = find("PixelMeasuresSequence", "PixelSpacing")
        if not spacing and "ImagerPixelSpacing" in header:
            raise InputError(
                f"{where}: has no PixelSpacing, but the detector's (ImagerPixelSpacing), as projections have; expected "
                "slices; choose another series"
            )
        spacing = _numbers(spacing, "PixelSpacing", 2, where)
        if not ((spacing > 1e-4) & (spacing < 1e3)).all():
            raise InputError(
                f"{where}: its PixelSpacing is {spacing[0]:g} x {spacing[1]:g}; expected 0.0001 to 1000 mm; "
                "export it again"
            )
        yield Frame(
            member=member,
            index=index,
            rows=int(header.Rows),
            columns=int(header.Columns),
            position=_numbers(find("PlanePositionSequence", "ImagePositionPatient"), "ImagePositionPatient", 3, where),
            cosines=_numbers(find("PlaneOrientationSequence", _ORIENTATION), _ORIENTATION, 6, where).reshape(2, 3),
            spacing=spacing,
            slope=float(slope),
            intercept=float(intercept),
            order=(number, index),
            marks=tuple(_mark(find, places) for places in MARKS.values()),
        )


def _mark(find: Callable[[str, str], Any], places: Iterable[tuple[str, str]]) -> str | None:
    """The first value that is there, as a short text."""
    for place in places:
        with suppress(Exception):  # what only tells volumes apart is no reason to refuse one
            if (found := find(*place)) not in (None, ""):
                parts = (f"{float(p):g}" if isinstance(p, int | float) else str(p).strip() for p in _listed(found))
                return "\\".join(parts)[:64]
    return None


def _integer(header: Any, key: str) -> int | None:
    with suppress(Exception):  # it only puts things in order
        return int(header.get(key))
    return None


def _words(value: Any) -> list[str]:
    return [str(part).strip().upper() for part in _listed(value)]


def _numbers(value: Any, key: str, count: int, name: str, default: float | None = None) -> np.ndarray:
    if value is None or value == "":
        if default is not None:
            return np.array([default])
        raise InputError(f"{name}: has no {key}; expected one, as volumes have; choose another series, or export again")
    numbers = [float(number) for number in _listed(value)]
    if len(numbers) != count or not all(math.isfinite(number) and abs(number) < 1e9 for number in numbers):
        raise InputError(f"{name}: its {key} has {len(numbers)} values; expected {count} finite ones; export it again")
    return np.array(numbers)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None
