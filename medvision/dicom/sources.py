"""Headers of a series as a DICOM segmentation can refer to them: complete, and in the standard's form."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medvision.dicom.frames import Frame
from medvision.dicom.reading import read_header
from medvision.dicom.series import DicomVolume
from shared_backbones.errors import require

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID")
"""What a segmentation has to name, in whatever form."""
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_OF_THE_PATIENT = (0x0010, 0x0012)  # groups
_OF_THE_STUDY = (*_MAY_BE_EMPTY, "ReferringPhysicianName", "StudyDescription", "PhysiciansOfRecord")
_SEXES = ("M", "F", "O", "", None)


def source_headers(volume: DicomVolume, max_bytes: int) -> "tuple[list[Dataset], list[str]]":
    """Headers of the source's files in the order of the slices, and the attributes that had to be left out.

    Left out is what has another form than the standard's, such as a sex that is a word. Sizes are those that the
    slices' positions have: headers often lack the distance of slices, or have another one.
    """
    frames = {frame.member: frame for frame in reversed(volume.frames)}
    members = dict.fromkeys(frame.member for frame in volume.frames)  # a set would lose the order
    headers = [read_header(member, max_bytes) for member in members]
    left_out: dict[str, None] = {}
    for header, member in zip(headers, members, strict=True):
        left_out |= dict.fromkeys(_keep_to_the_standard(header))
        _complete(header, frames[member], volume)
    return headers, list(left_out)


def _keep_to_the_standard(header: "Dataset") -> list[str]:
    """Remove what has another form than the standard's, at any depth; names of what the patient and study lose."""
    lost = []
    for tag in list(header.keys()):
        try:
            element = header[tag] = _of_its_type(header[tag])
            items = element.value if element.VR == "SQ" else ()
            fits = bool(items) or element.keyword in NEEDED or _fits(element.keyword, element.VR, element.value)
        except Exception:  # pydicom raises what it likes
            fits, items = False, ()
        for item in items:
            _keep_to_the_standard(item)
        if fits:
            continue
        keyword = require("pydicom.datadict", "dicom").keyword_for_tag(tag)
        del header[tag]
        if tag.group in _OF_THE_PATIENT or keyword in _OF_THE_STUDY:
            lost.append(keyword or str(tag))
    return lost


def _of_its_type(element: "DataElement") -> "DataElement":
    """The element with the type that the standard gives it.

    Raises:
        Exception: its value is none of that type; pydicom raises what it likes.
    """
    known = require("pydicom.datadict", "dicom")
    kind = known.dictionary_VR(element.tag) if known.dictionary_has_tag(element.tag) else element.VR
    if kind == element.VR or " or " in kind:
        return element
    return require("pydicom.dataelem", "dicom").DataElement(element.tag, kind, element.value)


def _fits(keyword: str, kind: str, value: Any) -> bool:
    """Whether a value has the form of its type."""
    if keyword == "PatientSex":
        return value in _SEXES
    representations = require("pydicom.valuerep", "dicom")
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    for part in value if several else [value]:
        text = str(part) if kind in ("PN", "DS", "IS") and part is not None else part
        representations.validate_value(kind, text, require("pydicom.config", "dicom").RAISE)
    return True


def _complete(header: "Dataset", frame: Frame, volume: DicomVolume) -> None:
    """Add what a source must have, from the slices as they were read."""
    between = decimal(float(volume.grid.spacing_mm[2]))
    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"  # any text can be written so, whatever its file says or leaves out
    for key in _MAY_BE_EMPTY:
        if key not in header:
            setattr(header, key, None)
    if "PerFrameFunctionalGroupsSequence" not in header:
        first = volume.frames[0]
        header.ImageOrientationPatient = [decimal(part) for part in first.cosines.ravel()]  # equal but for rounding
        if "ImagePositionPatient" not in header:
            header.ImagePositionPatient = [decimal(part) for part in frame.position]
        if "PixelSpacing" not in header:
            header.PixelSpacing = [decimal(part) for part in frame.spacing]
        header.SliceThickness = header.get("SliceThickness") or between
        header.SpacingBetweenSlices = between
        return
    shared = header.SharedFunctionalGroupsSequence[0]
    for key in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if key not in shared:
            setattr(shared, key, header.PerFrameFunctionalGroupsSequence[0][key].value)
    measures = shared.PixelMeasuresSequence[0]
    measures.SliceThickness = measures.get("SliceThickness") or between
    measures.SpacingBetweenSlices = between


def decimal(number: float) -> str:
    """A number in the 16 characters that DICOM has for one."""
    return f"{number:.10g}"[:16]
