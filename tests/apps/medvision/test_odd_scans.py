"""`medvision segment` on scans with odd values, headers and modalities: one line for each, in the side-car as well."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Pair

from tests.apps.conftest import SHAPE
from tests.medvision.dicom.dicoms import make_slices, write_series
from tests.medvision.phantoms import make_affine, make_image, write_scan

AFFINE = make_affine("LPS", (4, 4, 5))
FLOATS = make_image(SHAPE, np.float32)


def with_value(value: float) -> np.ndarray:
    data = FLOATS.copy()
    data[3, 4, 5] = value
    return data


def sidecar_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_name(path.name.partition(".")[0] + "_seg.json").read_text())


@pytest.mark.parametrize("value", [1e6, -1e9, 1e30, -3e38, 3e38])
def test_a_voxel_of_any_value_leaves_no_librarys_warning(segment, tmp_path: Path, value: float):
    scan = write_scan(tmp_path / "a.nii", with_value(value), AFFINE)
    with warnings.catch_warnings(action="error"):
        done = segment(scan)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e9])
def test_scales_leave_no_librarys_warning(segment, tmp_path: Path, scale: float):
    with warnings.catch_warnings(action="error"):
        done = segment(write_scan(tmp_path / "a.nii", (FLOATS * scale).astype(np.float32), AFFINE))
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(("slope", "inter"), [(3e38, 0), (1, 3e38), (1e-3, -2e30)])
def test_slopes_that_overflow_end_in_one_line(segment, tmp_path: Path, slope: float, inter: float):
    scan = write_scan(tmp_path / "a.nii", make_image(SHAPE), AFFINE, slope=slope, inter=inter)
    with warnings.catch_warnings(action="error"):
        done = segment(scan)
    assert done.code == 2 and "its header scales voxels by slope" in done.error


def test_a_warning_is_printed_once_and_in_the_sidecar(segment, tmp_path: Path):
    scan = write_scan(tmp_path / "a.nii.gz", FLOATS, AFFINE, qform_code=0, fields={"pixdim": [1] + [1.5] * 3 + [0] * 4})
    scan.write_bytes(scan.read_bytes() + b"behind")
    done = segment(scan)
    noted = sidecar_of(scan)["warnings"]
    assert done.code == 0 and len(noted) == 2
    assert done.err == "".join(f"warning: {text}\n" for text in noted)
    assert "voxel sizes (pixdim) are 1.5 x 1.5 x 1.5 mm" in noted[0] and "behind its gzip stream" in noted[1]


def test_a_background_of_nan_is_read_as_the_lowest_value(segment, tmp_path: Path):
    outside = FLOATS < 60
    scans = [
        write_scan(tmp_path / name, np.where(outside, value, FLOATS - 100).astype(np.float32), AFFINE)
        for name, value in (("nan.nii", np.nan), ("lowest.nii", (FLOATS - 100)[~outside].min()))
    ]
    for scan in scans:
        assert segment(scan, "--allow-nonfinite").code == 0
    digests = {sidecar_of(scan)["outputs"]["labels"]["sha256"] for scan in scans}
    assert len(digests) == 1


def test_a_reference_need_not_have_the_form_that_is_chosen(segment, tmp_path: Path):
    other = make_affine("RAS", (4, 4, 5))
    rows = {f"srow_{axis}": AFFINE[row] for row, axis in enumerate("xyz")}
    scan = write_scan(tmp_path / "a.nii", make_image(SHAPE), other, fields=rows)
    reference = write_scan(tmp_path / "b.nii", np.ones(SHAPE, np.uint8), AFFINE, sform_code=0)
    done = segment(scan, "--use-sform", "--reference", reference)
    assert done.code == 0, done.err


def test_pairs_are_segmented(segment, tmp_path: Path):
    (tmp_path / "in").mkdir()
    Nifti1Pair(make_image(SHAPE), AFFINE).to_filename(tmp_path / "in/a.hdr")
    for given in (tmp_path / "in/a.hdr", tmp_path / "in/a.img", tmp_path / "in"):
        assert segment(given, "-o", tmp_path / "out").code == 0
    assert {path.name for path in (tmp_path / "out").glob("a*")} == {
        "a_seg.nii.gz", "a_seg.json", "a_report.html", "a_volumes.csv",
    }  # fmt: skip
    assert segment(tmp_path / "in/a.hdr", "-o", tmp_path / "out", "--resume").out.endswith("are there already\n")


def test_values_that_look_like_a_ct_are_warned_of_where_the_model_takes_mr(segment, tmp_path: Path):
    ct = np.where(FLOATS > 60, FLOATS - 120, -1000).astype(np.float32)
    scan = write_scan(tmp_path / "a.nii", ct, AFFINE)
    expected = "its values look like Hounsfield units (air near -1000), the model expects T1-weighted MRI"
    done = segment(scan)
    assert done.code == 0 and done.err == f"warning: {expected}\n"
    assert sidecar_of(scan)["warnings"] == [expected]
    assert segment(scan, "--any-modality").err == ""


# DICOM


def test_a_series_with_an_empty_file_is_refused_and_listed_with_a_warning(segment, medvision, tmp_path: Path):
    folder = write_series(tmp_path / "study/a", make_slices(make_image(SHAPE), AFFINE))
    (folder / "last").touch()
    (folder / "notes.txt").write_text("x")
    done = segment(folder, "-o", tmp_path / "out")
    assert done.code == 2 and "1 empty files among the slices cannot be read" in done.error
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    listed = medvision("series", folder)
    assert listed.code == 0 and listed.out.startswith("1 MR")
    remarks = listed.err.splitlines()
    assert len(remarks) == 2 and "1 files that are no DICOM (.txt)" in remarks[0] and "--skip-unreadable" in remarks[1]
    described = json.loads(medvision("series", folder, "--json").out)
    assert described[0]["refusal"] and described[0]["warnings"]
    done = segment(folder, "-o", tmp_path / "out", "--skip-unreadable")
    assert done.code == 0
    assert done.err == "warning: 1 empty files, 1 files that are no DICOM (.txt) were left out\n"
    noted = json.loads((tmp_path / "out/a_seg.json").read_text())
    assert noted["settings"]["skip_unreadable"] is True and len(noted["warnings"]) == 1
    done = segment(write_scan(tmp_path / "a.nii", make_image(SHAPE), AFFINE), "--skip-unreadable")
    assert done.code == 2 and "no DICOM input" in done.error


def test_odd_attributes_of_the_patient_are_named_once_and_left_out(segment, tmp_path: Path):
    slices = make_slices(make_image(SHAPE), AFFINE)
    with warnings.catch_warnings(action="ignore"):
        for dataset in slices:
            dataset.StudyTime, dataset.PatientBirthDate, dataset.PatientSex = "10:10:10", "unknown", "Male"
        folder = write_series(tmp_path / "study/a", slices)
        done = segment(folder, "--dicom-seg", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert done.err.count("\n") == 1 and "StudyTime, PatientBirthDate, PatientSex" in done.err
    assert (tmp_path / "out/a_seg.dcm").exists()
    (noted,) = json.loads((tmp_path / "out/a_seg.json").read_text())["warnings"]
    assert not any(word in noted for word in ("10:10", "unknown", "Male"))
