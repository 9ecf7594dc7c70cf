"""The bundled model on a real head: the labels are the same, whether it comes as DICOM or as NIfTI."""

from pathlib import Path

import numpy as np
import pytest

from medvision.dicom.segmentations import read_segmentation
from medvision.models.catalogue import model_card
from medvision.volumes.files import read_labels, read_volume
from medvision.volumes.resampling import resize_linear
from tests.medvision.dicom.dicoms import along, make_slices, write_series
from tests.medvision.dicom.test_segmentations import assert_same_places, dcmqi_map
from tests.medvision.phantoms import make_affine, write_scan

SPACING = (2.0, 2.0, 2.0)
AFFINE = make_affine("RAS", SPACING, (8, -5, 12), origin=(-80, -110, -70))
SLOPE, INTERCEPT = 0.125, 125.0
OPTIONS = ("--fast", "--device", "cpu", "--threads", 1)


@pytest.fixture(scope="module")
def stored(data_root: Path) -> np.ndarray:
    """A whole head of 2 mm, as integers that want a slope and an intercept."""
    scan = read_volume(data_root / "medical/brain_t1/chris_t1.nii.gz")
    small = resize_linear(scan.data, scan.grid.spacing_mm, SPACING).numpy()
    return np.rint((small - INTERCEPT) / SLOPE).astype(np.int16)


def test_labels_are_those_of_the_same_head_as_nifti(medvision, tmp_path, stored):
    inputs = {"nifti": write_scan(tmp_path / "head.nii.gz", stored, AFFINE, slope=SLOPE, inter=INTERCEPT)}
    for name, acquired in (("axial", "LPS"), ("sagittal", "PIR")):
        slices = make_slices(*along(acquired, stored, AFFINE), slope=SLOPE, intercept=INTERCEPT)
        inputs[name] = write_series(tmp_path / name / "head", slices)
    for name, given in inputs.items():
        options = () if name == "nifti" else ("--dicom-seg",)
        done = medvision("segment", "-i", given, "-o", tmp_path / f"of {name}", *OPTIONS, *options)
        assert (done.code, done.err) == (0, "")
    expected = read_labels(tmp_path / "of nifti/head_seg.nii.gz")
    assert set(np.unique(expected.data)) == set(range(10))

    for name, orientation in (("axial", "LPS"), ("sagittal", "PIR")):
        found = read_labels(tmp_path / f"of {name}/head_seg.nii.gz")
        assert found.grid.orientation == orientation
        assert_same_places(found, expected.data, expected.grid)
        back, names = read_segmentation(tmp_path / f"of {name}/head_seg.dcm", grid=found.grid)
        assert np.array_equal(back.data, found.data) and names[5] == "ventricles"

        # in a second reader, too, and as heads are: the cerebellum below and behind the ventricles
        other = dcmqi_map(tmp_path / f"of {name}/head_seg.dcm", tmp_path)
        assert_same_places(other, expected.data, expected.grid)
        centre = {
            entry["name"]: (other.grid.affine @ np.r_[np.argwhere(other.data == entry["id"]).mean(axis=0), 1])[:3]
            for entry in model_card("brain-structures")["classes"][1:]
        }
        assert (centre["cerebellar_cortex"] < centre["ventricles"] - 20)[1:].all()
