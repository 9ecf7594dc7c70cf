"""Small DICOM series made from nothing, in every form that a header can take, and what is expected of them."""

import random
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from medvision.dicom.series import DicomVolume, read_series
from shared_backbones.errors import InputError
from tests.medvision.phantoms import make_affine

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (9, 10, 11)
STORED = np.random.default_rng(0).integers(-1000, 3000, SHAPE).astype(np.int16)
AFFINE = make_affine("LPS", (1, 2, 3), (4, -7, 11))


def decimal(value: float) -> str:
    """A number in the 16 characters that DICOM allows for decimals."""
    return next(text for digits in range(14, 5, -1) if len(text := f"{value:.{digits}g}") <= 16)


def along(orientation: str, data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same places, stored along other axes, and the affine that says so."""
    change = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    turned = np.asarray(nib.orientations.apply_orientation(data, change))
    return turned, affine @ nib.orientations.inv_ornt_aff(change, data.shape)


def make_slices(
    data: np.ndarray, affine: np.ndarray, *, modality: str = "MR", slope: float = 1, intercept: float = 0, **tags: Any
) -> list[FileDataset]:
    """A classic series of stored integers (X, Y, Z): one data set for each plane along Z, of any affine to RAS mm."""
    lps = LPS @ affine
    edges = np.linalg.norm(lps[:3, :2], axis=0)
    uids = {
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
    }
    slices = []
    for index in range(data.shape[2]):
        dataset = _image(data[:, :, index], CTImageStorage if modality == "CT" else MRImageStorage)
        dataset.Modality = modality
        dataset.ImagePositionPatient = [decimal(part) for part in lps[:3, 3] + index * lps[:3, 2]]
        dataset.ImageOrientationPatient = [decimal(part) for part in (lps[:3, :2] / edges).T.ravel()]
        dataset.PixelSpacing = [decimal(edges[1]), decimal(edges[0])]
        dataset.RescaleSlope, dataset.RescaleIntercept = decimal(slope), decimal(intercept)
        dataset.InstanceNumber = index + 1
        for key, value in {**uids, **tags}.items():
            setattr(dataset, key, value)
        slices.append(dataset)
    return slices


def make_enhanced(
    data: np.ndarray,
    affine: np.ndarray,
    *,
    order: Sequence[int] | None = None,
    slopes: Sequence[float] | None = None,
    intercepts: Sequence[float] | None = None,
) -> FileDataset:
    """An enhanced multi-frame MR image of (X, Y, Z), its frames in any order, with slope and intercept of each."""
    lps = LPS @ affine
    edges = np.linalg.norm(lps[:3, :2], axis=0)
    order = list(range(data.shape[2]) if order is None else order)
    dataset = _image(data[:, :, order[0]], EnhancedMRImageStorage)
    dataset.Modality = "MR"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = data[:, :, order].transpose(2, 1, 0).astype("<i2").tobytes()
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=_item(
                ImageOrientationPatient=[decimal(part) for part in (lps[:3, :2] / edges).T.ravel()]
            ),
            PixelMeasuresSequence=_item(
                PixelSpacing=[decimal(edges[1]), decimal(edges[0])],
                SliceThickness=decimal(float(np.linalg.norm(lps[:3, 2]))),
            ),
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=_item(DimensionIndexValues=[index + 1]),
            PlanePositionSequence=_item(
                ImagePositionPatient=[decimal(part) for part in lps[:3, 3] + index * lps[:3, 2]]
            ),
            PixelValueTransformationSequence=_item(
                RescaleSlope=decimal(slopes[index] if slopes else 1),
                RescaleIntercept=decimal(intercepts[index] if intercepts else 0),
                RescaleType="US",
            ),
        )
        for index in order
    ]
    return dataset


def write_series(
    folder: Path,
    slices: Sequence[FileDataset],
    seed: int = 0,
    change: Callable[[int, FileDataset], None] | None = None,
    **options: Any,
) -> Path:
    """Write data sets as files whose names say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(range(len(slices)))
    random.Random(seed).shuffle(names)  # noqa: S311 - no secret
    for index, (number, dataset) in enumerate(zip(names, slices, strict=True)):
        if change:
            change(index, dataset)
        dataset.save_as(folder / f"IM{number:05}", enforce_file_format=True, **options)
    return folder


def retag(slices: Sequence[FileDataset], tags: Mapping[str, Any]) -> None:
    """Set attributes on every data set; None removes them."""
    for dataset in slices:
        for key, value in tags.items():
            if value is None:
                delattr(dataset, key)
            else:
                setattr(dataset, key, value)


def zip_of(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(folder)))
    return path


def expect(volume: DicomVolume, values: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel of the volume has the value that the array has at the same place in the world."""
    assert sorted(volume.data.shape) == sorted(values.shape)
    across = np.linalg.inv(affine) @ volume.grid.affine
    voxels = np.r_[np.indices(volume.data.shape).reshape(3, -1), np.ones((1, volume.data.size))]
    places = (across @ voxels)[:3]
    assert np.abs(places - np.rint(places)).max() < 1e-3
    assert np.array_equal(volume.data.ravel(), values[tuple(np.rint(places).astype(int))])


def refusal(call: Callable[[], Any]) -> str:
    """The one line that it ends in."""
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and line.isprintable()
    return line


def refused(folder: Path, slices: Any, **options: Any) -> str:
    """The one line that a series ends in."""
    write_series(folder, slices)
    return refusal(lambda: read_series(folder, **options))


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    for key, value in tags.items():
        setattr(item, key, DicomSequence([value]) if isinstance(value, Dataset) else value)
    return item


def _image(plane: np.ndarray, kind: UID) -> FileDataset:
    uid = generate_uid()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, uid
    for key in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(dataset, key, "")
    dataset.StudyDate = dataset.StudyTime = ""
    dataset.Columns, dataset.Rows = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = plane.T.astype("<i2").tobytes()
    return dataset
