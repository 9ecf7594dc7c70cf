"""What the headers of DICOM files say of the images in them, and nothing that pydicom raises on hostile ones."""

import hashlib
import io
import logging
import math
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medvision.dicom.files import Member
from shared_backbones.errors import InputError, require

MODALITIES = ("CT", "MR", "PT", "NM", "US", "XA", "CR", "DX", "MG", "OT", "SC", "OPT")
_META = 132  # byte at which a file begins to say how it is written
_DEFLATED = "1.2.840.10008.1.2.1.99"
_WITHOUT_IMAGES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "DOC")
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("SpecificCharacterSet", "FrameOfReferenceUID", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_ORIENTATION = "ImageOrientationPatient"


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


@dataclass(frozen=True)
class Instance:
    """A file with images: what is needed to list it, and its header for `frames`."""

    member: Member
    uid: str
    series_uid: str
    series_number: int | None
    description: str
    modality: str | None
    localizer: bool
    frame_count: int
    rows: int
    columns: int
    header: Any = field(repr=False, compare=False)

    def frames(self) -> list[Frame]:
        """The slices of the file.

        Raises:
            InputError: colours, no geometry, or values that cannot be used.
        """
        name = self.member.name
        try:
            with quiet():
                return list(_frames(self))
        except InputError:
            raise
        except Exception as error:  # values are converted when they are looked at, and pydicom raises what it likes
            raise damaged(name, error) from None


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
    """Read a file's header; None where it holds no image, such as a DICOMDIR, a report or a segmentation.

    Raises:
        InputError: the file is damaged.
    """
    header = read_header(member, max_bytes, list(_TAGS))
    try:
        with quiet():
            if not ("Rows" in header and "Columns" in header) or header.get("Modality") in _WITHOUT_IMAGES:
                return None
            number = header.get("SeriesNumber")
            said = str(header.get("Modality"))
            return Instance(
                member=member,
                uid=str(header.get("SOPInstanceUID", "")),
                series_uid=str(header.get("SeriesInstanceUID", "")),
                series_number=None if number is None else int(number),
                description=str(header.get("SeriesDescription") or "")[:64],
                modality=said if said in MODALITIES else None,  # what else stands there may be anything
                localizer="LOCALIZER" in [str(part).upper() for part in _listed(header.get("ImageType"))],
                frame_count=int(header.get("NumberOfFrames") or 1),
                rows=int(header.Rows),
                columns=int(header.Columns),
                header=header,
            )
    except Exception as error:  # as above
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
        content = stream.read()
    return _parsed(io.BytesIO(content), member.name, max_bytes), hashlib.sha256(content).hexdigest()


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
    inflater, total, packed = zlib.decompressobj(-zlib.MAX_WBITS), 0, stream.read()
    while packed and not inflater.eof:
        total += len(inflater.decompress(packed, 2**22))
        packed = inflater.unconsumed_tail
        if total > max_bytes:
            raise InputError(
                f"{name}: unpacks to more than {max_bytes / 2**30:.3g} GB; raise the limit with --max-gigabytes if the "
                "file can be trusted"
            )


def _frames(instance: Instance) -> Iterator[Frame]:
    header, name = instance.header, instance.member.name
    if int(header.get("SamplesPerPixel") or 1) != 1 or str(header.get("PhotometricInterpretation")) != "MONOCHROME2":
        found = str(header.get("PhotometricInterpretation"))
        kind = (
            f"its pixels are {found}" if re.fullmatch(r"[A-Z0-9_ ]{1,16}", found) else "its kind of pixels is unknown"
        )
        raise InputError(f"{name}: {kind}; expected grey ones, bright for high (MONOCHROME2); choose another series")
    if "ModalityLUTSequence" in header:
        raise InputError(f"{name}: scales its values by a table; expected a slope and an intercept; export it again")
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    frames = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    if instance.frame_count < 1 or (frames and len(frames) != instance.frame_count):
        raise InputError(
            f"{name}: its header claims {instance.frame_count} frames and describes {len(frames)}; export it again"
        )
    if instance.frame_count > 1 and not frames:
        raise InputError(
            f"{name}: holds {instance.frame_count} frames without a position each; expected an enhanced multi-frame "
            "image or a series of single ones; choose another series"
        )
    for index, own in enumerate(frames or [None]):

        def find(sequence: str, key: str, own: Any = own) -> Any:
            for group in (own, shared):
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
        spacing = _numbers(find("PixelMeasuresSequence", "PixelSpacing"), "PixelSpacing", 2, where)
        if not ((spacing > 1e-4) & (spacing < 1e3)).all():
            raise InputError(
                f"{where}: its PixelSpacing is {spacing[0]:g} x {spacing[1]:g}; expected 0.0001 to 1000 mm; "
                "export it again"
            )
        yield Frame(
            member=instance.member,
            index=index,
            rows=instance.rows,
            columns=instance.columns,
            position=_numbers(find("PlanePositionSequence", "ImagePositionPatient"), "ImagePositionPatient", 3, where),
            cosines=_numbers(find("PlaneOrientationSequence", _ORIENTATION), _ORIENTATION, 6, where).reshape(2, 3),
            spacing=spacing,
            slope=float(slope),
            intercept=float(intercept),
        )


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
