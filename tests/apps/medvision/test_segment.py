"""`medvision segment` on one scan: what it writes, where, and what its options change."""

import io
import json
import re
import sys

import numpy as np
import pytest
import torch

from medvision.metrics.overlap import compare, summary
from medvision.volumes.files import read_labels, read_volume
from shared_backbones.card import ClassEntry, read_card
from tests.apps.conftest import SHAPE, contents
from tests.medvision.phantoms import load, make_affine, make_image, write_scan

RESULTS = {"scan_seg.nii.gz", "scan_seg.json", "scan_report.html", "scan_volumes.csv"}


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def labels_in(folder) -> np.ndarray:
    return read_labels(folder / "scan_seg.nii.gz").data


def sidecar_in(folder) -> dict:
    return json.loads((folder / "scan_seg.json").read_text())


def test_results_lie_beside_the_scan(segment, scan):
    before = scan.read_bytes()
    done = segment(scan)
    assert (done.code, done.err) == (0, "")
    assert names(scan.parent) == {"scan.nii.gz"} | RESULTS
    assert scan.read_bytes() == before

    labels = load(scan.parent / "scan_seg.nii.gz")
    assert labels.get_data_dtype() == np.uint8
    image = load(scan)
    for key in ("dim", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qform_code", "sform_code", "xyzt_units"):
        assert labels.header[key].tobytes() == image.header[key].tobytes(), key
    assert set(np.unique(np.asarray(labels.dataobj))) > {1, 2, 3}
    page = (scan.parent / "scan_report.html").read_text()
    assert sidecar_in(scan.parent)["case"] in page
    assert "Research use only" in page

    lines = done.out.splitlines()
    assert lines[0].startswith(f"{scan}: segmented in ")
    assert {line.split()[-1] for line in lines[1:5]} == {str(scan.parent / name) for name in RESULTS}
    flags = sidecar_in(scan.parent)["flags"]
    assert f"; {len(flags)} quality flags; {sidecar_in(scan.parent)['case']}" in lines[0]
    assert f"touches border {sum(flag['code'] == 'touches_border' for flag in flags)}" in lines[5]


@pytest.mark.parametrize("name", ["a.b.nii", "a.b.NII.GZ", "a.b.mgz"])
def test_names_follow_the_scans(segment, tmp_path, name):
    (tmp_path / "in").mkdir()
    source = write_scan(tmp_path / "in" / name, make_image(SHAPE), make_affine(spacing=(4, 4, 4)))
    assert segment(source, "-o", tmp_path / "new" / "folder").code == 0
    assert names(tmp_path / "in") == {name}
    assert names(tmp_path / "new" / "folder") == {
        "a.b_seg.nii.gz",
        "a.b_seg.json",
        "a.b_report.html",
        "a.b_volumes.csv",
    }
    assert read_volume(source).grid.differs_from(read_labels(tmp_path / "new/folder/a.b_seg.nii.gz").grid) is None


def test_two_runs_agree(segment, scan, tmp_path):
    for folder in ("a", "b"):
        assert segment(scan, "-o", tmp_path / folder).code == 0
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a["scan_seg.nii.gz"] == b["scan_seg.nii.gz"]


def test_labels_are_kept_by_name_and_number(segment, scan, tmp_path):
    assert segment(scan, "-o", tmp_path / "all").code == 0
    assert segment(scan, "-o", tmp_path / "some", "--labels", "4, cerebral_cortex,4").code == 0
    every, some = labels_in(tmp_path / "all"), labels_in(tmp_path / "some")
    assert (every == 1).any()
    assert np.array_equal(some, np.where(np.isin(every, [2, 4]), every, 0))
    sidecar = sidecar_in(tmp_path / "some")
    assert [row["id"] for row in sidecar["structures"]] == [2, 4]
    assert sidecar["structures"] == [row for row in sidecar_in(tmp_path / "all")["structures"] if row["id"] in (2, 4)]
    assert sidecar["settings"]["labels"] == [2, 4]


@pytest.mark.parametrize("views", ["axial", "axial,sagittal"])
def test_probabilities(segment, scan, views):
    assert segment(scan, "--save-probabilities", "--views", views).code == 0
    folder = scan.parent
    assert names(folder) == {"scan.nii.gz", "scan_prob.nii.gz"} | RESULTS
    image = load(folder / "scan_prob.nii.gz")
    assert image.shape == (*SHAPE, 10)
    assert image.get_data_dtype() == np.uint8
    assert image.dataobj.slope == pytest.approx(1 / 255)
    assert image.dataobj.inter == 0
    scan_header = load(scan).header
    for key in ("srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "qform_code", "sform_code", "xyzt_units"):
        assert image.header[key].tobytes() == scan_header[key].tobytes(), key
    assert image.header["pixdim"][:4].tobytes() == scan_header["pixdim"][:4].tobytes()

    stored = np.asarray(image.dataobj.get_unscaled()).astype(int)
    assert np.abs(stored.sum(-1) - 255).max() <= 10  # each of ten classes is rounded twice
    labels = labels_in(folder)
    given = np.take_along_axis(stored, labels[..., None].astype(int), -1)[..., 0]
    assert (given >= stored.max(-1) - 1).all()  # ties are settled by what rounding took away
    assert (stored.argmax(-1) == labels).mean() > 0.98


def test_reference(segment, scan, tmp_path):
    assert segment(scan, "-o", tmp_path / "first").code == 0
    labels = labels_in(tmp_path / "first")
    truth = labels.copy()
    truth[truth == 1] = 0  # now 1 is a false positive
    truth[np.argwhere(labels == 2)[0][0]] = 3  # 3 and others are scored below 1
    truth[:2, :2, :2] = 8  # 8 is missed, 9 empty in both
    reference = write_scan(tmp_path / "truth.nii", truth, read_volume(scan).grid.affine)
    done = segment(scan, "-o", tmp_path / "second", "--reference", reference)
    assert done.code == 0
    sidecar = sidecar_in(tmp_path / "second")

    classes: list[ClassEntry] = [{"id": row["id"], "name": row["name"]} for row in sidecar["structures"]]
    expected = compare(labels, truth, read_volume(scan).grid.spacing_mm, classes)
    assert sidecar["reference"]["rows"] == expected
    assert sidecar["reference"]["summary"] == summary(expected)
    states = {row["id"]: row["state"] for row in sidecar["reference"]["rows"]}
    assert states == {1: "false_positive", **dict.fromkeys(range(2, 8), "scored"), 8: "missed", 9: "both_empty"}
    assert sidecar["reference"]["nsd_tolerance_mm"] == 1.0
    assert f"mean Dice {sidecar['reference']['summary']['dice']:.3f}" in done.out
    assert "Comparison with the reference" in (tmp_path / "second/scan_report.html").read_text()

    some = segment(scan, "-o", tmp_path / "third", "--reference", reference, "--labels", "2,8", "-v")
    assert some.code == 0
    assert [row["state"] for row in sidecar_in(tmp_path / "third")["reference"]["rows"]] == ["scored", "missed"]
    assert "missed" in some.out


def test_what_changed_since_an_earlier_result_of_the_same_scan(segment, scan, tmp_path):
    assert segment(scan, "-o", tmp_path / "first").code == 0
    before = contents(tmp_path / "first")
    done = segment(scan, "-o", tmp_path / "second", "--compare", tmp_path / "first", "--labels", "1,2,3")
    assert done.code == 0 and contents(tmp_path / "first") == before
    first, second = sidecar_in(tmp_path / "first"), sidecar_in(tmp_path / "second")["earlier"]
    assert second["same_scan"] and second["case"] == first["case"]
    volumes = {row["id"]: row["volume_ml"] for row in first["structures"]}
    assert [row["earlier_ml"] for row in second["rows"]] == [volumes[number] for number in (1, 2, 3)]
    assert {row["dice"] for row in second["rows"]} == {1.0}
    page = (tmp_path / "second/scan_report.html").read_text()
    assert "Change since the earlier result" in page and "> earlier result</label>" in page
    assert "scan_seg" not in page and str(tmp_path) not in page


def test_what_changed_since_another_scan_of_the_same_person(segment, scan, tmp_path):
    assert segment(scan, "-o", tmp_path / "first").code == 0
    (tmp_path / "visit 2").mkdir()
    shape = (SHAPE[0] + 2, *SHAPE[1:])
    later = write_scan(tmp_path / "visit 2/later.nii.gz", make_image(shape), make_affine("LPS", (1.1, 1, 1)))
    table = tmp_path / "people.csv"
    arguments = ["-o", tmp_path / "second", "--compare", tmp_path / "first"]
    alone = segment(later, *arguments)
    assert alone.code == 0 and "no earlier result belongs to this scan" in alone.err
    for name in ("scan", sidecar_in(tmp_path / "first")["case"]):
        table.write_text(f"scan,earlier\nlater.nii.gz,{name}\n")
        assert segment(later, *arguments, "--compare-table", table).code == 0
        found = json.loads((tmp_path / "second/later_seg.json").read_text())["earlier"]
        assert not found["same_scan"] and all("dice" not in row for row in found["rows"])
    page = (tmp_path / "second/later_report.html").read_text()
    assert "another scan" in page and "later" not in page.split("<body")[1][:2000]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("scan\nscan.nii.gz\n", "the columns scan and earlier"),
        ("scan,earlier\na,scan\na,scan\n", "names a scan twice"),
        ("scan,earlier\nscan.nii.gz,other\n", "other is none of the results"),
        (b"\xff\xfe\x00", "no CSV file in UTF-8"),
    ],
)
def test_tables_that_pair_nothing_are_refused(segment, scan, tmp_path, table, said):
    assert segment(scan, "-o", tmp_path / "first").code == 0
    path = tmp_path / "t.csv"
    path.write_bytes(table if isinstance(table, bytes) else table.encode())
    done = segment(scan, "-o", tmp_path / "second", "--compare", tmp_path / "first", "--compare-table", path)
    assert done.code == 2 and said in done.error and not (tmp_path / "second").exists()


def test_earlier_results_that_are_none_are_refused(segment, scan, tmp_path):
    assert "no such folder" in segment(scan, "--compare", tmp_path / "none").error
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/x_seg.json").write_text('{"input": 3}')
    assert "holds no result" in segment(scan, "--compare", tmp_path / "empty").error
    assert "give both or none" in segment(scan, "--compare-table", tmp_path / "t.csv").error
    assert segment(scan, "-o", tmp_path / "first").code == 0
    again = segment(scan, "-o", tmp_path / "first", "--compare", tmp_path / "first")
    assert again.code == 2 and "is an input" in again.error, "no output is an input"
    (tmp_path / "first/scan_seg.nii.gz").unlink()
    assert "is missing" in segment(scan, "-o", tmp_path / "second", "--compare", tmp_path / "first").error


def test_a_reference_of_other_labels_is_said_to_be(segment, scan):
    reference = write_scan(scan.parent / "t.nii", np.full(SHAPE, 47, np.int16), read_volume(scan).grid.affine)
    done = segment(scan, "--reference", reference)
    assert done.code == 0
    assert done.error == "warning: the reference holds labels up to 47, the model has 1 to 9; the others were ignored"
    assert sidecar_in(scan.parent)["warnings"] == [done.error.removeprefix("warning: ")]


@pytest.mark.parametrize(
    "header", [{"version": 2}, {"qform_code": 0, "sform_code": 4}, {"qform_code": 3, "sform_code": 0}]
)
def test_a_reference_may_say_the_same_grid_in_other_ways(segment, scan, tmp_path, header):
    reference = write_scan(tmp_path / "t.nii.gz", np.ones(SHAPE, np.int32), read_volume(scan).grid.affine, **header)
    assert segment(scan, "--reference", reference).code == 0


def test_fast_and_views_are_recorded(segment, scan, model):
    spacing = read_card(model)["input"]["spacing_mm"]
    for options, views, spacing_mm in (
        ((), ["axial"], spacing),
        (("--fast",), ["axial"], 1.25 * spacing),
        (("--views", "coronal,sagittal"), ["coronal", "sagittal"], spacing),
    ):
        assert segment(scan, *options).code == 0
        settings = sidecar_in(scan.parent)["settings"]
        assert (settings["views"], settings["spacing_mm"]) == (views, spacing_mm)
        assert settings["fast"] == ("--fast" in options)


def test_threads_are_set(segment, scan):
    before = torch.get_num_threads()
    try:
        assert segment(scan, "--threads", before + 1).code == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_one_volume_of_several(segment, tmp_path):
    data = np.stack([make_image(SHAPE), np.flip(make_image(SHAPE, seed=1), 0)], -1)
    scan = write_scan(tmp_path / "scan.nii", data, make_affine(spacing=(4, 4, 4)))
    alone = write_scan(tmp_path / "alone.nii", data[..., 1], make_affine(spacing=(4, 4, 4)))
    assert segment(scan, "--volume-index", 1).code == segment(alone).code == 0
    assert np.array_equal(labels_in(tmp_path), read_labels(tmp_path / "alone_seg.nii.gz").data)
    assert labels_in(tmp_path).ndim == 3


def test_flags_that_let_odd_scans_pass(segment, tmp_path):
    data = make_image(SHAPE, np.float32)
    data[3, 4, 5] = np.nan
    affine = make_affine(spacing=(4, 4, 4))
    scan = write_scan(tmp_path / "scan.nii", data, affine, fields={"srow_x": [-4, 0, 0, 90]})
    assert "--use-sform or --use-qform" in segment(scan).error
    assert "1 NaN and 0 infinite" in segment(scan, "--use-qform").error
    assert names(tmp_path) == {"scan.nii"}
    for form in ("qform", "sform"):
        done = segment(scan, "--allow-nonfinite", f"--use-{form}")
        assert done.code == 0
        assert "1 NaN and 0 infinite" in done.error
        sidecar = sidecar_in(tmp_path)
        assert sidecar["settings"]["geometry"] == form
        assert sidecar["input"]["orientation"] == {"qform": "RAS", "sform": "LAS"}[form]


# ------------------------------------------------------------------------------------------------------- terminal


def test_json_is_one_document(segment, scan):
    done = segment(scan, "--json")
    document = json.loads(done.out)
    assert (done.code, done.err, document["schema_version"]) == (0, "", 1)
    (result,) = document["results"]
    assert (result["input"], result["status"]) == (str(scan), "done")
    assert result["sidecar"] == sidecar_in(scan.parent)
    assert result["outputs"] == {
        "labels": str(scan.parent / "scan_seg.nii.gz"),
        "sidecar": str(scan.parent / "scan_seg.json"),
        "report": str(scan.parent / "scan_report.html"),
        "volumes": str(scan.parent / "scan_volumes.csv"),
    }


def test_quiet_and_verbose(segment, scan):
    quiet = segment(scan, "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    verbose = segment(scan, "-v").out
    for row in sidecar_in(scan.parent)["structures"]:
        assert f" {row['id']} {row['name'].replace('_', ' ')} " in verbose
        assert str(row["voxels"]) in verbose
    assert "network" in verbose.splitlines()[-1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_and_other_streams_none(segment, scan, monkeypatch):
    named = scan.rename(scan.with_name("[red]\x1b[31m\n.nii.gz"))
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert segment(named).code == 0
    shown = terminal.getvalue()
    assert r"[red]\x1b[31m\n.nii.gz" in shown
    assert "%" in shown
    assert segment(named).err == ""


def test_work_that_lasts_has_a_line_for_each_stage(segment, scan, monkeypatch):
    monkeypatch.setattr("apps.cli.medvision.terminal._PATIENCE", 0.0)
    lines = segment(scan).err.splitlines()
    stages = [line.removeprefix("scan.nii.gz: ") for line in lines if line.startswith("scan.nii.gz: ")]
    slices = [stage for stage in stages if stage.endswith(" slices")]
    assert [stage for stage in stages if stage not in slices] == [
        "reading", "segmenting", "measuring", "writing the results",
    ]  # fmt: skip
    assert slices and all(re.fullmatch(r"segmenting, \d+ of \d+ slices", line) for line in slices)
    assert segment(scan, "-q").err == segment(scan, "--json").err == ""


def test_structures_are_in_words_where_people_read(segment, scan):
    done = segment(scan, "-v")
    assert "cerebral white matter" in done.out and "cerebral_white_matter" not in done.out
    page = (scan.parent / "scan_report.html").read_text()
    assert "cerebral white matter" in page and "other CSF" in page and "cerebral_white_matter" not in page
    assert "not stated; the model expects T1-weighted MRI" in page
    assert sidecar_in(scan.parent)["input"]["modality"] is None


# --------------------------------------------------------------------------------------------------------- device


def test_auto_takes_the_cpu_and_says_why(segment, scan, monkeypatch):
    real = torch.zeros

    def zeros(*size, device=None, **options):
        if device == "cuda":
            raise RuntimeError("CUDA driver version is insufficient\nand more")
        return real(*size, device=device, **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", zeros)
    done = segment(scan, "--device", "auto")
    assert done.code == 0
    assert "the CPU was used" in done.error
    assert sidecar_in(scan.parent)["device"] == "cpu"
    assert done.error.removeprefix("warning: ") in sidecar_in(scan.parent)["warnings"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_an_absent_device_is_an_error(segment, scan, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    done = segment(scan, "--device", device)
    assert done.code == 2
    assert done.error.startswith(f"error: device {device}: ")
    assert "--device cpu" in done.error
    assert names(scan.parent) == {"scan.nii.gz"}
