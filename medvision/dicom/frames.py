"""The slices that headers of DICOM files describe."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvision.dicom.files import Member
from medvision.dicom.numbers import attribute, numbers
from medvision.dicom.reading import damaged, quiet
from shared_backbones.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

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
"""Attributes that differ between volumes of one series, each with its functional group (none for the file)."""


@dataclass(frozen=True)
class Frame:
    """One slice of a volume, as its header describes it; positions are DICOM's: to the left, the back and up.

    Attributes:
        member: the file it is in.
        index: index of the frame in its file.
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


def read_frames(header: "Dataset", member: Member) -> list[Frame]:
    """The slices that a header describes.

    Raises:
        InputError: colours, no geometry, or values that cannot be used.
    """
    try:
        with quiet():
            _check_pixels(header, member.name)
            return [_frame(group, member) for group in _groups(header, member.name)]
    except InputError:
        raise
    except Exception as error:  # pydicom converts values when they are read, and raises errors of every kind
        raise damaged(member.name, error) from None


def _check_pixels(header: "Dataset", name: str) -> None:
    """Refuse colours, and pictures of many slices."""
    kind = str(header.get("PhotometricInterpretation"))
    if int(header.get("SamplesPerPixel") or 1) != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        known = re.fullmatch(r"[A-Z0-9_ ]{1,16}", kind)
        clause = f"its pixels are {kind}" if known else "its kind of pixels is unknown"
        raise InputError(f"{name}: {clause}; expected grey ones (MONOCHROME2 or MONOCHROME1); choose another series")
    if "MOSAIC" in words(header.get("ImageType")):
        raise InputError(
            f"{name}: is a mosaic, many slices in one picture; expected a slice in each; export it as an enhanced "
            "multi-frame image, or convert it to NIfTI with dcm2niix"
        )


@dataclass(frozen=True)
class _Group:
    """The attributes of one frame.

    Attributes:
        header: data set of the file.
        own: functional groups of the frame; None in a file of one slice.
        shared: functional groups of all frames.
        index: index of the frame in its file.
        where: Name of the frame in messages.
    """

    header: "Dataset"
    own: "Dataset | None"
    shared: "Dataset | None"
    index: int
    where: str

    def find(self, sequence: str, key: str) -> Any:
        """The value of an attribute in a functional group: the frame's own, else the shared one, else the file's."""
        for group in (self.own, self.shared) if sequence else ():
            item = _first(group.get(sequence)) if group is not None else None
            if item is not None and key in item:
                return attribute(item, key)
        return attribute(self.header, key)


def _groups(header: "Dataset", name: str) -> list[_Group]:
    """The frames of a file, whose number its header claims and describes."""
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    frames = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(header.get("NumberOfFrames") or 1)
    if count < 1 or (frames and len(frames) != count):
        raise InputError(f"{name}: its header claims {count} frames and describes {len(frames)}; export it again")
    if count > 1 and not frames:
        raise InputError(
            f"{name}: contains {count} frames without a position each; expected an enhanced multi-frame image or a "
            "series of single ones; choose another series"
        )
    if not frames:
        return [_Group(header, None, shared, 0, name)]
    return [_Group(header, own, shared, index, f"{name}, frame {index + 1}") for index, own in enumerate(frames)]


def _frame(group: _Group, member: Member) -> Frame:
    header, where = group.header, group.where
    slope, intercept = _rescale(group)
    position = group.find("PlanePositionSequence", "ImagePositionPatient")
    cosines = group.find("PlaneOrientationSequence", _ORIENTATION)
    return Frame(
        member=member,
        index=group.index,
        rows=int(header.Rows),
        columns=int(header.Columns),
        spacing=_spacing(group),
        position=np.array(numbers(position, "ImagePositionPatient", 3, where)),
        cosines=np.array(numbers(cosines, _ORIENTATION, 6, where)).reshape(2, 3),
        slope=slope,
        intercept=intercept,
        order=(integer(header, "InstanceNumber"), group.index),
        marks=tuple(_mark(group, places) for places in MARKS.values()),
    )


def _rescale(group: _Group) -> tuple[float, float]:
    """Factor and summand that make values of stored numbers."""
    slope, intercept = (
        numbers(group.find("PixelValueTransformationSequence", key), key, 1, group.where, default)[0]
        for key, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0:
        raise InputError(f"{group.where}: its RescaleSlope is 0; expected another number; export it again")
    return slope, intercept


def _spacing(group: _Group) -> np.ndarray:
    """(2,) mm between rows, and between columns."""
    value = group.find("PixelMeasuresSequence", "PixelSpacing")
    if not value and "ImagerPixelSpacing" in group.header:
        raise InputError(
            f"{group.where}: has no PixelSpacing, but the detector's (ImagerPixelSpacing), as projections have; "
            "expected slices; choose another series"
        )
    spacing = np.array(numbers(value, "PixelSpacing", 2, group.where))
    if not ((spacing > 1e-4) & (spacing < 1e3)).all():
        raise InputError(
            f"{group.where}: its PixelSpacing is {spacing[0]:g} x {spacing[1]:g}; expected 0.0001 to 1000 mm; "
            "export it again"
        )
    return spacing


def _mark(group: _Group, places: Iterable[tuple[str, str]]) -> str | None:
    """The first value that is there, as a short text."""
    for place in places:
        with suppress(Exception):  # what only tells volumes apart is no reason to refuse one
            if (value := group.find(*place)) not in (None, ""):
                parts = (f"{float(p):g}" if isinstance(p, int | float) else str(p).strip() for p in _listed(value))
                return "\\".join(parts)[:64]
    return None


def integer(header: "Dataset", key: str) -> int | None:
    """A whole number of a header; None where it says none."""
    with suppress(Exception):  # it only puts things in order
        return int(header.get(key))
    return None


def words(value: Any) -> list[str]:
    """The values of an attribute in capital letters."""
    return [str(part).strip().upper() for part in _listed(value)]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)


def _first(sequence: "Sequence[Dataset] | None") -> "Dataset | None":
    return sequence[0] if sequence else None
