"""Label maps as DICOM segmentations, on the slices of the series that they were made from."""

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from medvision.dicom.codes import Code, clean, codes_of
from medvision.dicom.decoding import Decoder
from medvision.dicom.files import Member, find_members
from medvision.dicom.frames import Frame, read_frames
from medvision.dicom.pixels import decode
from medvision.dicom.reading import damaged, quiet, read_header, read_whole
from medvision.dicom.series import DicomVolume
from medvision.dicom.sources import NEEDED, source_headers
from medvision.dicom.stacks import LPS_TO_RAS, make_affine
from medvision.pictures.colours import class_colours
from medvision.volumes.files import Volume
from medvision.volumes.geometry import CONFLICT_TOLERANCE_VOXELS, Grid
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable, replacing
from shared_backbones.memory import limit

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import Dataset

_PROBE: ClassEntry = {"id": 1, "name": "structure", "color": [255, 0, 0]}


def write_segmentation(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    volume: DicomVolume,
    card: Mapping[str, Any],
    model_sha256: str,
    *,
    kept: Sequence[int] | None = None,
    max_bytes: int | None = None,
) -> None:
    """Write labels as a DICOM segmentation of one binary segment for each class.

    It refers to the instances of the series, or to the frames of its multi-frame image, and takes patient and study
    from them. Slices without a label are left out. Labels on a resampled volume keep its grid, and refer to the series
    as a whole.

    Args:
        path: file to write; replaced where it exists.
        labels: (X, Y, Z) uint8 on `volume`, 0 for background.
        volume: read from DICOM.
        card: card of the model, with its classes, name and version.
        model_sha256: digest of the model's weights.
        kept: ids of the classes that were asked for. Segments are numbered from 1 in this order, and so by the classes'
            ids where all are kept; a segment's label is always the class's name.
        max_bytes: largest size of one file of the series.

    Raises:
        InputError: the series lacks what the standard needs of a source, or the file cannot be written.
    """
    _check_references(volume)
    classes = [entry for entry in card["classes"] if entry["id"] and (kept is None or entry["id"] in kept)]
    numbers = np.zeros(256, np.uint8)
    for number, entry in enumerate(classes, 1):
        numbers[entry["id"]] = number
    headers, _ = source_headers(volume, limit(max_bytes))
    with _blaming(volume):
        descriptions = _descriptions(classes, card, model_sha256)
        segmentation = _built(numbers[labels], volume, headers, descriptions, str(card.get("name") or "a model"))
        with replacing(path) as temporary:
            segmentation.save_as(temporary, enforce_file_format=True)


@contextmanager
def _blaming(volume: DicomVolume) -> Iterator[None]:
    """Turn what highdicom raises on the source's values, which it may quote, into one line."""
    try:
        with quiet():
            yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
        raise InputError(
            f"--dicom-seg: {volume.frames[0].member.name}: a segmentation cannot refer to its header ({kind}); export "
            "the series again, or run without --dicom-seg"
        ) from error


def _built(
    segments: np.ndarray,
    volume: DicomVolume,
    headers: "list[Dataset]",
    descriptions: "list[SegmentDescription]",
    model: str,
) -> "Segmentation":
    """The data set of a segmentation, of segment numbers (X, Y, Z)."""
    highdicom, uid = require("highdicom", "dicom"), require("pydicom.uid", "dicom")
    segmentation = highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=_pixels(segments, volume),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=uid.generate_uid(),
        series_number=1001,
        sop_instance_uid=uid.generate_uid(),
        instance_number=1,
        manufacturer="domain-vision",
        manufacturer_model_name="medvision segment",
        software_versions=version("domain-vision"),
        device_serial_number="none",
        content_label="SEGMENTATION",
        content_description="Research use only, not for diagnosis",
        series_description=clean(f"Segmentation by {model}"),
    )
    segmentation.ContentCreatorName = None  # the standard needs it there, empty where no person was
    return segmentation


def check_source(volume: Volume, max_bytes: int | None = None) -> list[str]:
    """Refuse, before any work is done, a volume that no DICOM segmentation can refer to; one of a voxel is tried.

    Returns:
        A clause where attributes of patient and study are left out, as they have another form than the standard's.

    Raises:
        InputError: not read from DICOM, from several multi-frame images, without a frame of reference, or with headers
            that cannot be referred to.
    """
    if not isinstance(volume, DicomVolume):
        raise InputError(f"--dicom-seg: {volume.case_id} is no DICOM series; expected one; run without --dicom-seg")
    _check_references(volume)
    with _blaming(volume):
        headers, left_out = source_headers(volume, limit(max_bytes))
        voxel = np.zeros(volume.data.shape, np.uint8)
        voxel[0, 0, 0] = 1
        segmentation = _built(voxel, volume, headers, _descriptions([_PROBE], {}, "0" * 64), "a model")
        segmentation.save_as(io.BytesIO(), enforce_file_format=True)
    if not left_out:
        return []
    listed = ", ".join(left_out)
    return [f"the DICOM segmentation lacks attributes whose values have another form than the standard's: {listed}"]


def _check_references(volume: DicomVolume) -> None:
    require("highdicom", "dicom")
    members = {frame.member for frame in volume.frames}
    if len(members) > 1 and len(members) < len(volume.frames):
        raise InputError(
            f"--dicom-seg: the series has {len(members)} multi-frame files; a segmentation can refer to one only; "
            "run without --dicom-seg"
        )
    header = read_header(volume.frames[0].member, 2**40, list(NEEDED))
    missing = [key for key in NEEDED if not header.get(key)]
    if missing:
        raise InputError(
            f"--dicom-seg: {volume.frames[0].member.name} has no {missing[0]}, which a segmentation has to name; "
            "run without --dicom-seg"
        )


def read_segmentation(
    path: str | os.PathLike[str],
    *,
    grid: Grid | None = None,
    segments: Sequence[int] | None = None,
    max_bytes: int | None = None,
) -> tuple[Volume, dict[int, str]]:
    """Read a DICOM segmentation (binary or label map) as a label map.

    Args:
        path: one file.
        grid: where the labels are to lie; the segmentation must cover the same places or a part of them, in any
            orientation. By default a grid of its own, from its first to its last slice.
        segments: numbers of the segments to read; by default all.
        max_bytes: largest size that the headers may claim.

    Returns:
        The volume with `data` (X, Y, Z) uint8 or uint16, voxels being segment numbers, and the segments' labels by
        number.

    Raises:
        InputError: not such a file, segments that overlap, or places off the grid.
    """
    max_bytes = limit(max_bytes)
    members, _ = find_members(path, max_bytes)
    name = printable(path)
    if len(members) != 1:
        raise InputError(f"{name}: holds {len(members)} DICOM files; expected one segmentation; give its file")
    dataset, sha256 = read_whole(members[0], max_bytes)
    try:
        with quiet():
            frames, numbers, names, between = _described(dataset, members[0], name)
    except InputError:
        raise
    except Exception as error:  # values are converted when they are looked at
        raise damaged(name, error) from None
    own, places = _own_grid(frames, between, name, max_bytes)
    data = np.zeros(own.shape, np.uint8 if max(names, default=0) < 256 else np.uint16, order="F")
    kept = set(names if segments is None else segments)
    with Decoder() as decoder:
        decoded = decode(dataset, frames, name, decoder)
        for (_, values), number, index in zip(decoded, numbers, places, strict=True):
            _mark(data[:, :, index], values, number, kept, name)
    if grid is not None:
        data = _placed(data, own, grid, name)
    return Volume(data, grid or own, sha256, [], "SEG"), names


def _mark(plane: np.ndarray, values: np.ndarray, number: int | None, kept: set[int], name: str) -> None:
    """Write a frame into a plane of labels, in place.

    Args:
        plane: (X, Y) labels.
        values: (X, Y) values of the frame: 0 or 1 for a frame of one segment, else segment numbers.
        number: segment of the frame; None where the values are segment numbers.
        kept: segments to read.
        name: how errors call the file.
    """
    marked = (values > 0) & (np.isin(values, list(kept)) if number is None else number in kept)
    if plane[marked].any():
        raise InputError(
            f"{name}: segments {int(plane[marked].max())} and {number} overlap; expected one label a voxel; "
            "read them one by one"
        )
    plane[marked] = values[marked] if number is None else number


def _pixels(labels: np.ndarray, volume: DicomVolume) -> Any:
    """Planes (frames, rows, columns) in the order of the source's; on other places, with their own geometry."""
    planes = np.ascontiguousarray(labels.transpose(2, 1, 0))
    several = len({frame.member for frame in volume.frames}) > 1
    header = read_header(volume.frames[0].member, 2**40, ["FrameOfReferenceUID", "NumberOfFrames"])
    if volume.resampled or not (several or header.NumberOfFrames == len(planes)):
        highdicom = require("highdicom", "dicom")
        affine = (LPS_TO_RAS @ volume.grid.affine)[:, [2, 1, 0, 3]]
        return highdicom.Volume(planes, affine, "PATIENT", frame_of_reference_uid=header.FrameOfReferenceUID)
    return planes if several else planes[np.argsort([frame.index for frame in volume.frames])]


def _descriptions(
    classes: Sequence[ClassEntry], card: Mapping[str, Any], model_sha256: str
) -> "list[SegmentDescription]":
    highdicom = require("highdicom", "dicom")
    concept = require("highdicom.sr", "dicom").CodedConcept
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=clean(str(card.get("name") or "unnamed model")),
        family=concept("123110", "DCM", "Artificial Intelligence"),
        version=clean(str(card.get("version") or "unknown")),
        source="domain-vision",
        parameters={"model_sha256": model_sha256},
    )

    def coded(code: Code) -> Any:
        scheme, value, meaning = code
        return concept(value, scheme, meaning)

    colours = class_colours(classes)
    descriptions = []
    for number, entry in enumerate(classes, 1):
        codes = codes_of(entry)
        description = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=clean(entry["name"]),
            segmented_property_category=coded(codes.category),
            segmented_property_type=coded(codes.kind),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*colours[entry["id"]]),
        )
        if codes.modifiers:  # which highdicom has no argument for
            kind = description.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [coded(code) for code in codes.modifiers]
        descriptions.append(description)
    return descriptions


def _described(
    dataset: "Dataset", member: Member, name: str
) -> tuple[list[Frame], list[int | None], dict[int, str], float | None]:
    """Frames, the segment of each (None where voxels say it), the segments' labels, and the slices' distance in mm."""
    kind = str(dataset.get("SegmentationType"))
    if dataset.get("Modality") != "SEG" or kind not in ("BINARY", "LABELMAP"):
        description = "a fractional segmentation" if kind == "FRACTIONAL" else "not a DICOM segmentation"
        raise InputError(f"{name}: is {description}; expected a binary one or a label map; convert it")
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in dataset.SegmentSequence}
    names.pop(0, None)  # a label map may describe its background
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    # the parts that every image has say the same of a segmentation
    if "PhotometricInterpretation" in dataset and dataset.PhotometricInterpretation == "PALETTE COLOR":
        dataset.PhotometricInterpretation = "MONOCHROME2"
    frames = read_frames(dataset, member)
    shared = dataset.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in dataset else {}
    numbers: list[int | None] = []
    for group in groups:
        identification = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
        number = None if kind == "LABELMAP" or not identification else int(identification[0].ReferencedSegmentNumber)
        if kind == "BINARY" and number not in names:
            raise InputError(f"{name}: has a frame of segment {number}, which it does not describe; convert it again")
        numbers.append(number)
    measures = shared.get("PixelMeasuresSequence") or [{}]
    return frames, numbers, names, float(measures[0].get("SpacingBetweenSlices") or 0) or None


def _own_grid(frames: Sequence[Frame], between: float | None, name: str, max_bytes: int) -> tuple[Grid, list[int]]:
    """Grid from the first to the last slice, and the place of each frame on it."""
    first = frames[0]
    if any(
        np.abs(f.cosines - first.cosines).max() > 1e-3 or np.abs(f.spacing - first.spacing).max() > 1e-3 for f in frames
    ):
        raise InputError(f"{name}: mixes orientations or spacings; expected one; convert it again")
    normal = np.cross(*first.cosines)
    positions = np.array([frame.position for frame in frames])
    distances = positions @ normal
    lowest = int(np.argmin(distances))
    distances = distances - distances[lowest]
    steps = np.diff(np.unique(np.round(distances, 3)))
    if between is None or not 1e-3 < between < 1e3 or np.abs(distances / between % 1 - 0.5).min() < 0.4:
        between = float(steps.min()) if len(steps) else 1.0  # not there, or not of these slices
    steps_from_first = distances / between
    places = np.rint(steps_from_first).astype(int)
    if np.abs(steps_from_first - places).max() > CONFLICT_TOLERANCE_VOXELS:
        raise InputError(f"{name}: its slices are not a multiple of {between:.3g} mm apart; convert it again")
    count = int(places.max()) + 1
    if 2.0 * first.columns * first.rows * count > max_bytes:
        raise InputError(
            f"{name}: its headers claim {2.0 * first.columns * first.rows * count / 2**30:.3g} GB of voxels; the limit "
            f"is {max_bytes / 2**30:.3g} GB; raise it with --max-gigabytes if the file can be trusted"
        )
    farthest = int(np.argmax(distances))
    span = positions[farthest] - positions[lowest]
    step = span / (count - 1) if count > 1 else normal * between
    affine = make_affine(first.cosines, first.spacing, step, positions[lowest])
    return Grid.from_affine((first.columns, first.rows, count), affine), places.tolist()


def _placed(data: np.ndarray, own: Grid, grid: Grid, name: str) -> np.ndarray:
    """The labels on another grid that has the same voxels, in any orientation, and perhaps more of them."""
    across = np.linalg.inv(grid.affine) @ own.affine  # voxel to voxel
    turn = np.rint(across[:3, :3])
    first = np.rint(across[:3, 3])
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(data.shape)[:, None] - 1)
    exact, nearest = across[:3, :3] @ corners + across[:3, 3:], turn @ corners + first[:, None]
    off = np.abs(exact - nearest).max()
    if off > CONFLICT_TOLERANCE_VOXELS or not (np.abs(turn).sum(axis=0) == 1).all() or abs(np.linalg.det(turn)) != 1:
        raise InputError(f"{name}: its voxels lie {off:.2g} voxels off the scan's grid; resample it to the scan")
    if nearest.min() < 0 or (nearest.max(axis=1) >= grid.shape).any():
        raise InputError(f"{name}: reaches beyond the scan; expected the scan's own places; resample it to the scan")
    axes = np.abs(turn).argmax(axis=1)  # for each axis of the grid, the one of the segmentation
    signs = turn.sum(axis=1).astype(int)
    out = np.zeros(grid.shape, data.dtype, order="F")
    low, high = nearest.min(axis=1).astype(int), nearest.max(axis=1).astype(int)
    box = tuple(slice(start, stop + 1) for start, stop in zip(low, high, strict=True))
    flips = tuple(slice(None, None, sign) for sign in signs)
    out[box] = data.transpose(axes)[flips]
    return out
