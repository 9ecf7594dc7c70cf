"""What the headers of DICOM files say of the images in them."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from medvision.dicom.files import Member
from medvision.dicom.frames import MARKS, Frame, integer, read_frames, words
from medvision.dicom.reading import damaged, quiet, read_header
from shared_backbones.errors import InputError, require

if TYPE_CHECKING:
    from pydicom import Dataset

MODALITIES = ("CT", "MR", "PT", "NM", "US", "XA", "CR", "DX", "MG", "OT", "SC", "OPT")
_WITHOUT_IMAGES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "DOC")
_COLOURS = ("RGB", "YBR", "PALETTE")
_SCREENSHOTS = "1.2.840.10008.5.1.4.1.1.7."  # secondary captures of every kind
_QUANTITIES = ("CT", "PT", "NM")  # whose values mean the same however they are to be shown

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "InstanceNumber"),
    *("FrameOfReferenceUID", "ImagesInAcquisition"),
    *("SpecificCharacterSet", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames"),
    *("SamplesPerPixel", "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "ImagerPixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(key for places in MARKS.values() for group, key in places if not group),
)


@dataclass(frozen=True)
class Instance:
    """A file with images.

    Attributes:
        member: the file.
        uid: SOPInstanceUID, and `series_uid` and `series_number` of its series.
        description: description of the series, as the header has it.
        modality: None where the header says nothing known.
        aside: whether it is a localizer, a screenshot or coloured, which no volume is made of.
        inverted: whether its values are to be shown dark for high, and are no quantities.
        rows: pixels from top to bottom, and `columns` from left to right.
        frames: its slices; empty where there is a `problem`.
        problem: why it cannot be part of a volume, as one line.
        place: FrameOfReferenceUID, within which positions of several series can be compared; may be empty.
        expected: how many images its acquisition has, where the header says so.
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
    place: str = ""
    expected: int | None = None


def read_instance(member: Member, max_bytes: int) -> Instance | None:
    """Read a file's header; None where it contains no image, such as a report or a segmentation.

    Raises:
        InputError: the file is damaged.
    """
    header = read_header(member, max_bytes, list(_TAGS))
    try:
        with quiet():
            if not ("Rows" in header and "Columns" in header) or header.get("Modality") in _WITHOUT_IMAGES:
                _refuse_cut(header, member.name)
                return None
            said = str(header.get("Modality"))
            instance = Instance(
                member=member,
                uid=str(header.get("SOPInstanceUID", "")),
                series_uid=str(header.get("SeriesInstanceUID", "")),
                series_number=integer(header, "SeriesNumber"),
                description=str(header.get("SeriesDescription") or "")[:64],
                modality=said if said in MODALITIES else None,  # what else stands there may be anything
                aside="LOCALIZER" in words(header.get("ImageType"))
                or str(header.get("PhotometricInterpretation")).startswith(_COLOURS)
                or f"{header.get('SOPClassUID')}.".startswith(_SCREENSHOTS),
                inverted=header.get("PhotometricInterpretation") == "MONOCHROME1" and said not in _QUANTITIES,
                rows=int(header.Rows),
                columns=int(header.Columns),
                frames=(),
                problem=None,
                place=str(header.get("FrameOfReferenceUID") or ""),
                expected=integer(header, "ImagesInAcquisition"),
            )
    except InputError:
        raise
    except Exception as error:  # as above
        raise damaged(member.name, error) from None
    try:
        return replace(instance, frames=tuple(read_frames(header, member)))
    except InputError as error:
        return replace(instance, problem=str(error))


def _refuse_cut(header: "Dataset", name: str) -> None:
    """Raise the InputError of a file that ends, or is damaged, before its header says what images it has."""
    kind = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    known = require("pydicom.uid", "dicom").UID(kind).name
    if header.get("Modality") in _WITHOUT_IMAGES:
        return
    if not kind or (known.endswith("Image Storage") and "Rows" not in header):
        raise InputError(
            f"{name}: is damaged or cut short: its header has no Rows; copy or export it again, or move it away"
        )
