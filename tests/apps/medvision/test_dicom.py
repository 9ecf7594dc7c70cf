"""`medvision segment` and `medvision series` on DICOM: what they write, ask for, and keep to themselves."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from medvision.dicom.segmentations import read_segmentation
from medvision.dicom.series import read_series
from medvision.volumes.files import read_labels
from tests.apps.conftest import SHAPE, contents
from tests.apps.test_privacy import MARKER, holds_marker, layers
from tests.medvision.dicom.dicoms import make_enhanced, make_slices, write_series
from tests.medvision.phantoms import make_affine, make_image, write_scan

AFFINE = make_affine("LPS", (4, 4, 5), (5, -8, 3))
RESULTS = {"series_seg.nii.gz", "series_seg.json", "series_report.html", "series_volumes.csv"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def sidecar_in(folder: Path, stem: str = "series") -> dict[str, Any]:
    return json.loads((folder / f"{stem}_seg.json").read_text())


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder of a classic series, alone in another one."""
    return write_series(tmp_path / "in/series", make_slices(make_image(SHAPE), AFFINE))


def test_results_lie_beside_the_folder_on_the_slices_grid(segment, series):
    before = contents(series)
    done = segment(series, "--dicom-seg")
    assert (done.code, done.err) == (0, "")
    assert names(series.parent) == {"series", "series_seg.dcm"} | RESULTS
    assert contents(series) == before
    volume = read_series(series)
    labels = read_labels(series.parent / "series_seg.nii.gz")
    assert labels.grid.differs_from(volume.grid, 1e-6) is None
    assert set(np.unique(labels.data)) > {1, 2, 3}
    back, found = read_segmentation(series.parent / "series_seg.dcm", grid=volume.grid)
    assert np.array_equal(back.data, labels.data)
    assert found[1] == "cerebral_white_matter" and len(found) == 9

    sidecar = sidecar_in(series.parent)
    assert sidecar["input"]["sha256"] == volume.sha256 and sidecar["case"] == volume.case_id
    assert (sidecar["input"]["modality"], sidecar["input"]["orientation"]) == ("MR", "LPS")
    assert sidecar["settings"]["resample_irregular"] is False
    assert set(sidecar["outputs"]) == {"labels", "report", "volumes", "dicom_seg"}
    assert "other_modality" not in {flag["code"] for flag in sidecar["flags"]} and sidecar["warnings"] == []
    assert f"  dicom_seg     {series.parent / 'series_seg.dcm'}" in done.out.splitlines()


def test_archives_and_single_files_are_taken(segment, series, tmp_path):
    assert segment(series, "-o", tmp_path / "a").code == 0
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in series.iterdir():
            packed.write(path, f"export/{path.name}.dcm")
    assert segment(archive, "-o", tmp_path / "b").code == 0
    assert names(tmp_path / "b") == {"packed_seg.nii.gz", "packed_seg.json", "packed_report.html", "packed_volumes.csv"}
    assert sidecar_in(tmp_path / "b", "packed")["case"] == sidecar_in(tmp_path / "a")["case"]
    first = read_labels(tmp_path / "a/series_seg.nii.gz")
    assert np.array_equal(read_labels(tmp_path / "b/packed_seg.nii.gz").data, first.data)

    enhanced = tmp_path / "in/enhanced.dcm"
    make_enhanced(make_image(SHAPE), AFFINE).save_as(enhanced, enforce_file_format=True)
    assert segment(enhanced, "--dicom-seg").code == 0
    assert np.array_equal(read_labels(tmp_path / "in/enhanced_seg.nii.gz").data, first.data)
    assert (tmp_path / "in/enhanced_seg.dcm").exists()


def test_a_series_is_chosen_among_several(segment, medvision, tmp_path):
    for number, (folder, modality) in enumerate((("b", "MR"), ("a", "CT")), 3):
        tags = {"SeriesNumber": number, "SeriesDescription": f"{folder} \x1b[31m"}
        slices = make_slices(make_image(SHAPE), AFFINE, modality=modality, **tags)
        write_series(tmp_path / "study" / folder, slices)
    done = segment(tmp_path / "study")
    assert done.code == 2 and not (tmp_path / "study_1_seg.json").exists()
    listed = ["1 MR 'b \\x1b[31m' 20 of 24 x 28, 4 x 4 x 5 mm", "2 CT 'a \\x1b[31m' 20 of 24 x 28, 4 x 4 x 5 mm"]
    expected = f"{tmp_path / 'study'}: holds 2 series; choose with --series NUMBER or UID, of {'; '.join(listed)}"
    assert done.error == f"error: {expected}"
    shown = medvision("series", tmp_path / "study")
    assert (shown.code, shown.out.splitlines()) == (0, listed)
    described = json.loads(medvision("series", tmp_path / "study", "--json").out)
    assert [(row["number"], row["modality"], row["images"]) for row in described] == [(1, "MR", 20), (2, "CT", 20)]

    conflict = "the scan's header says CT, the model expects T1-weighted MRI"
    done = segment(tmp_path / "study", "--series", "2", "-o", tmp_path / "out")
    assert done.code == 2 and not list((tmp_path / "out").iterdir())
    assert done.error == f"error: {tmp_path / 'study'}: {conflict}; choose another scan or model, or use --any-modality"
    done = segment(tmp_path / "study", "--series", "2", "-o", tmp_path / "out", "--any-modality")
    assert done.code == 0 and "study_2_seg.json" in names(tmp_path / "out")
    assert f"warning: {conflict}: the labels cannot be relied on" in done.err
    sidecar = sidecar_in(tmp_path / "out", "study_2")
    assert sidecar["flags"][0] == {"code": "other_modality", "structure": None, "rule": conflict, "value": True}
    assert conflict in (tmp_path / "out/study_2_report.html").read_text().replace("&#39;", "'")
    assert segment(tmp_path / "study", "--series", described[0]["uid"], "-o", tmp_path / "out").code == 0
    assert "study_1_seg.json" in names(tmp_path / "out")


def test_a_volume_is_chosen_among_those_of_one_series(segment, medvision, tmp_path):
    echoes = [make_slices(make_image(SHAPE, seed=seed), AFFINE, EchoTime=str(5 + seed)) for seed in (0, 1)]
    uid = echoes[0][0].SeriesInstanceUID
    for dataset in echoes[1]:
        dataset.SeriesInstanceUID = uid
    series = write_series(tmp_path / "in/series", [*echoes[0], *echoes[1]])
    assert segment(series).error.startswith(
        f"error: {series}: holds 2 volumes in 1 series; choose with --series NUMBER"
    )
    listed = json.loads(medvision("series", series, "--json").out)
    assert [(row["id"], row["uid"], row["distinction"]) for row in listed] == [
        (f"{uid}:1", uid, "echo time 5"),
        (f"{uid}:2", uid, "echo time 6"),
    ]
    assert segment(series, "--series", f"{uid}:2", "--dicom-seg").code == 0
    assert names(series.parent) == {
        "series", "series_2_seg.nii.gz", "series_2_seg.json", "series_2_report.html", "series_2_volumes.csv",
        "series_2_seg.dcm",
    }  # fmt: skip
    sidecar = sidecar_in(series.parent, "series_2")
    assert sidecar["input"]["sha256"] == read_series(series, series="2").sha256 and "echo" not in json.dumps(sidecar)
    (referenced,) = dcmread(series.parent / "series_2_seg.dcm").ReferencedSeriesSequence
    used = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert used == {dataset.SOPInstanceUID for dataset in echoes[1]}


def test_finished_series_are_skipped_and_changed_ones_are_not(segment, series):
    assert segment(series, "--dicom-seg").code == 0
    before = contents(series.parent)
    done = segment(series, "--dicom-seg", "--resume")
    assert "skipped" in done.out and contents(series.parent) == before
    for number, path in enumerate(list(series.iterdir())):
        path.rename(series / f"renamed{number}")
    assert "skipped" in segment(series, "--resume").out
    dataset = dcmread(series / "renamed0")
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(series / "renamed0")
    assert "segmented" in segment(series, "--resume").out


def test_tilted_slices_are_refused_or_resampled(segment, tmp_path):
    sheared = make_affine("LPS", (4, 4, 5))
    sheared[1, 2] += 1
    series = write_series(tmp_path / "in/series", make_slices(make_image(SHAPE), sheared))
    done = segment(series, "-o", tmp_path / "out")
    assert done.code == 2 and "stacked 11.31 degrees off their normal" in done.error
    assert not (tmp_path / "out").exists() and names(tmp_path / "in") == {"series"}
    assert segment(series, "-o", tmp_path / "out", "--resample-irregular", "--dicom-seg").code == 0
    labels = read_labels(tmp_path / "out/series_seg.nii.gz")
    assert labels.data.shape == (24, 33, 20)
    back, _ = read_segmentation(tmp_path / "out/series_seg.dcm", grid=labels.grid)
    assert np.array_equal(back.data, labels.data)
    sidecar = sidecar_in(tmp_path / "out")
    assert sidecar["settings"]["resample_irregular"] is True and "11.31 degrees" in sidecar["warnings"][0]


def test_a_dicom_segmentation_is_a_reference(segment, series, tmp_path):
    assert segment(series, "--dicom-seg", "--labels", "2,4", "-o", tmp_path / "a").code == 0
    done = segment(series, "--labels", "2,4", "--reference", tmp_path / "a/series_seg.dcm", "-o", tmp_path / "b")
    assert done.code == 0 and "mean Dice 1.000" in done.out
    reference = sidecar_in(tmp_path / "b")["reference"]
    assert [row["id"] for row in reference["rows"]] == [2, 4]  # by the segments' labels, as their numbers are 1 and 2
    assert done.code == segment(series, "--reference", tmp_path / "a/series_seg.nii.gz", "-o", tmp_path / "c").code


def test_options_of_the_other_kind_are_refused(segment, series, scan, tmp_path):
    for options in (("--volume-index", 0), ("--use-sform",), ("--allow-nonfinite",)):
        done = segment(series, *options)
        assert done.code == 2 and f"{options[0]}: has no meaning for {series}, which is a DICOM input" in done.error
    for options in (("--series", 1), ("--resample-irregular",), ("--dicom-seg",)):
        done = segment(scan, *options)
        assert done.code == 2 and f"{options[0]}: has no meaning for {scan}, which is no DICOM input" in done.error
    assert "lies in the folder of the DICOM series" in segment(series, "-o", series / "out").error
    assert "lies in the folder of the DICOM series" in segment(series, "-o", series).error
    write_scan(series / "scan.nii.gz", make_image(SHAPE))
    assert "holds both DICOM files" in segment(series).error
    assert names(series.parent) == {"series"}


def test_what_a_segmentation_cannot_refer_to_is_refused_before_the_network_runs(segment, tmp_path):
    slices = make_slices(make_image(SHAPE), AFFINE)
    for dataset in slices:
        del dataset.FrameOfReferenceUID
    series = write_series(tmp_path / "in/series", slices)
    done = segment(series, "--dicom-seg")
    assert done.code == 2 and "has no FrameOfReferenceUID" in done.error
    assert names(tmp_path / "in") == {"series"}


def test_what_is_named_like_dicom_and_is_none_is_refused(segment, tmp_path):
    for name in ("a.dcm", "a.zip"):
        (tmp_path / name).write_bytes(b"x" * 1000)
        assert f"{name}: contains no DICOM file; expected files with DICM at byte 128" in segment(tmp_path / name).error


def test_without_the_extra_one_line_says_how_to_get_it(segment, series, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    done = segment(series)
    assert done.code == 2 and 'pip install "domain-vision[dicom]"' in done.error


def test_only_the_dicom_object_names_the_patient(segment, tmp_path):
    texts = ("PatientName", "PatientID", "PatientComments", "StudyDescription", "SeriesDescription", "InstitutionName",
             "OperatorsName", "StudyID", "AccessionNumber", "ProtocolName", "ImageComments", "StationName")  # fmt: skip
    slices = make_slices(make_image(SHAPE), AFFINE, **dict.fromkeys(texts, MARKER), Modality="DOE JOHN42")
    uids = [str(slices[0][f"{kind}UID"].value) for kind in ("StudyInstance", "SeriesInstance", "FrameOfReference")]
    del slices[4]  # warnings are part of the side-car and of the page
    series = write_series(tmp_path / f"of {MARKER}/series", slices)
    for path in list(series.iterdir()):
        path.rename(series / f"{MARKER}{path.name}")
    output = tmp_path / "results"
    done = segment(series, "--resample-irregular", "--dicom-seg", "--save-probabilities", "-o", output)
    assert done.code == 0
    assert names(output) == {"series_seg.dcm", "series_prob.nii.gz"} | RESULTS
    for path in output.iterdir():
        assert holds_marker(path.read_bytes()) == (path.suffix == ".dcm"), path.name
        assert any(uid.encode() in layer for layer in layers(path.read_bytes()) for uid in uids) == (
            path.suffix == ".dcm"
        )
    found = dcmread(output / "series_seg.dcm")
    assert found.PatientName == MARKER and found.PatientID == MARKER
    assert sidecar_in(output)["warnings"] and sidecar_in(output)["input"]["modality"] is None
