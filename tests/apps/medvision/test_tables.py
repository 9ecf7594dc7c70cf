"""The tables of `medvision segment`, and `medvision models export-labels`."""

import json
from pathlib import Path
from typing import Any, Literal

import pandas
import pytest

from medvision.findings.label_tables import FORMATS
from medvision.segmentation import Segmenter
from tests.apps.conftest import SHAPE, contents
from tests.medvision.phantoms import make_affine, make_image, write_scan


def read(path: Path, **options: Any) -> Any:
    return pandas.read_csv(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scans and a damaged one."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed, name in enumerate(("a.nii.gz", "b=1.nii", "c.nii")):
        write_scan(folder / name, make_image(SHAPE, seed=seed), make_affine(spacing=(4, 4, 4)))
    (folder / "c.nii").write_bytes(b"damaged")
    return folder


@pytest.mark.parametrize("form", ["wide", "long"])
def test_tables_of_a_batch_hold_what_the_side_cars_say(segment, folder: Path, tmp_path: Path, form: str):
    output = tmp_path / "out"
    assert segment(folder, "-o", output, "--stats", form).code == 5
    table = read(output / "volumes.csv")
    assert list(table.columns[:3]) == ["scan", "status", "case"]
    assert list(dict.fromkeys(table["scan"])) == ["a", "b=1", "c"]
    assert set(table[table["scan"] == "c"]["status"]) == {"failed"} and len(table[table["scan"] == "c"]) == 1
    for stem in ("a", "b=1"):
        sidecar = json.loads((output / f"{stem}_seg.json").read_text())
        own = read(output / f"{stem}_volumes.csv")
        rows = table[table["scan"] == stem].drop(columns=["scan", "status"]).reset_index(drop=True)
        pandas.testing.assert_frame_equal(rows, own, check_dtype=False)
        assert set(own["case"]) == {sidecar["case"]}
        for entry in sidecar["structures"]:
            name = entry["name"]
            if form == "wide":
                volume, confidence = own[f"{name}_ml"][0], own[f"{name}_confidence"][0]
            else:
                (row,) = own[own["structure"] == name].to_dict("records")
                volume, confidence = row["volume_ml"], row["confidence"]
                assert row["id"] == entry["id"] and row["voxels"] == entry["voxels"]
            assert volume == pytest.approx(entry["volume_ml"] or float("nan"), abs=1e-4, nan_ok=True)
            assert confidence == pytest.approx(entry["mean_confidence"] or float("nan"), abs=1e-4, nan_ok=True)
        if form == "wide":
            assert own["flags"][0] == len(sidecar["flags"])

    index = json.loads((output / "index.json").read_text())
    wide = {case["case"]: case["volumes"] for case in index["cases"]}
    assert wide[table["case"].iloc[-1]] == {}
    if form == "wide":
        for record in table[table["status"] == "done"].to_dict("records"):
            said = wide[record["case"]]
            assert {key: None if value != value else value for key, value in record.items() if key in said} == said
    page = (output / "index.html").read_text()
    assert "Cerebral cortex" in page and "volumes.csv" in page


def test_a_result_in_python_gives_the_same_rows(segment, scan: Path, model: Path):
    assert segment(scan).code == 0
    result = Segmenter(model, device="cpu").segment(scan)
    forms: tuple[Literal["wide", "long"], ...] = ("wide", "long")
    for form in forms:
        if form == "long":
            assert segment(scan, "--stats", "long").code == 0
        written = read(scan.parent / "scan_volumes.csv", keep_default_na=True)
        rows = read(scan.parent / "scan_volumes.csv", dtype=str, keep_default_na=False).to_dict("records")
        given = [
            {key: "" if value is None else str(value) for key, value in row.items()} for row in result.volumes(form)
        ]
        assert rows == given and len(written) == len(given)


def test_pseudonyms_name_no_scan_in_the_table(segment, folder: Path, tmp_path: Path):
    assert segment(folder, "-o", tmp_path / "out", "--pseudonyms").code == 5
    table = read(tmp_path / "out" / "volumes.csv")
    assert list(table["scan"]) == list(table["case"])


def test_labels_are_exported_and_never_written_over(medvision, model: Path, tmp_path: Path):
    output = tmp_path / "new" / "folder"
    done = medvision("models", "export-labels", "brain-structures", "-o", output)
    assert done.code == 0 and len(done.out.splitlines()) == 4
    assert set(contents(output)) == {f"brain_structures{ending}" for ending, _ in FORMATS.values()}
    before = contents(output)
    assert medvision("models", "export-labels", "brain-structures", "-o", output).code == 0, "the same is ours"
    assert contents(output) == before
    table = output / "brain_structures_dseg.tsv"
    table.write_text("mine")
    refused = medvision("models", "export-labels", "brain-structures", "-o", output, "--format", "slicer,bids")
    assert refused.code == 2 and f"{table}: is there and was not written by this program" in refused.error
    forced = ("--format", "bids", "--overwrite")
    assert medvision("models", "export-labels", model, "-o", output, *forced).code == 0
    assert (output / "brain_structures_dseg.tsv.bak").read_text() == "mine"
    unknown = medvision("models", "export-labels", model, "--format", "nix")
    assert "expected some of freesurfer, itksnap, slicer, bids" in unknown.error
