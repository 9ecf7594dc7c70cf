"""`medvision review list`: what readers did not accept is laid out to be corrected, and a recipe takes it."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medvision.volumes.files import read_labels
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from tests.apps.conftest import SHAPE, Outcome, contents
from tests.medvision.phantoms import make_affine, make_image, write_scan

Run = Callable[..., Outcome]
GIVEN = {"one": "accept", "two": "needs_work", "three": "reject", "four": "reject"}


@pytest.fixture
def results(segment: Run, tmp_path: Path) -> Path:
    """Four scans, segmented and judged; the last scan itself is bad. A mark lies at a voxel of the second."""
    scans = tmp_path / "scans"
    scans.mkdir()
    affine = make_affine("LPI", (4, 4, 5), (5, -8, 3))
    for seed, name in enumerate(GIVEN):
        write_scan(scans / f"Jane {name}.nii.gz", make_image(SHAPE, seed=seed), affine)
    output = tmp_path / "results"
    assert segment(scans, "-o", output, "--quiet").code == 0
    verdicts = []
    for name, given in GIVEN.items():
        report = json.loads((output / f"Jane {name}_seg.json").read_text())["report"]
        mm = [round(float(part), 1) for part in (affine @ [7, 9, 4, 1])[:3]]
        mark = {"plane": "axial", "position": "S 1.0 mm", "x": 0.5, "y": 0.25, "word": "leaks"}
        verdicts.append({
            "report": report, "verdict": given, "reviewer": "AB", "created": "2026-01-02T03:04:05Z",
            "cause": "scan" if name == "four" else "", "comment": f"about {name}", "structures": {"cortex": "fix"},
            "marks": [mark | {"mm": mm}, mark] if name == "two" else [],
        })  # fmt: skip
    (output / "v.json").write_text(json.dumps({"schema_version": 2, "verdicts": verdicts}))
    return output


def case_of(results: Path, name: str) -> str:
    return json.loads((results / f"Jane {name}_seg.json").read_text())["case"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def lay_out(medvision: Run, results: Path, tmp_path: Path) -> Run:
    moved = tmp_path / "archive" / "2026"
    moved.parent.mkdir()
    (tmp_path / "scans").rename(moved)
    for number, path in enumerate(sorted(moved.iterdir())):
        path.rename(moved / f"{number}.nii.gz")  # known by their content, not their names

    def call(*arguments: object) -> Outcome:
        given = ("-i", moved.parent, "-o", tmp_path / "to-correct")
        return medvision("review", "list", results, *given, *arguments)

    return call


def test_scans_are_found_by_content_and_laid_out_with_labels_and_marks(lay_out: Run, results: Path, tmp_path: Path):
    done = lay_out()
    assert (done.code, done.err) == (0, "")
    assert "2 of 2 scans to correct, 1 left out as the scan itself is bad" in done.out
    folder = tmp_path / "to-correct"
    two, three = case_of(results, "two"), case_of(results, "three")
    assert {name for name, content in contents(folder).items() if content is not None} == {
        "cases.csv", "marks.csv", "list.json", f"marks/{two}.mrk.json",
        *(f"{kind}/{case}.nii.gz" for kind in ("images", "labels") for case in (two, three)),
    }  # fmt: skip
    assert (folder / "labels" / f"{two}.nii.gz").read_bytes() == (results / "Jane two_seg.nii.gz").read_bytes()
    assert np.array_equal(nib.load(folder / "images" / f"{two}.nii.gz").dataobj, make_image(SHAPE, seed=1))  # type: ignore[attr-defined]
    by_case = {row["case"]: row for row in rows(folder / "cases.csv")}
    assert by_case[two]["comments"] == "AB: about two" and by_case[three]["verdict"] == "reject"
    assert by_case[two]["structures"] == "AB: cortex fix" and by_case[two]["input"].endswith(".nii.gz")


def test_marks_are_where_slicer_and_itksnap_look_for_them(lay_out: Run, results: Path, tmp_path: Path):
    assert lay_out("--verdict", "needs_work").code == 0
    folder, case = tmp_path / "to-correct", case_of(results, "two")
    markup = json.loads((folder / "marks" / f"{case}.mrk.json").read_text())["markups"][0]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "RAS")
    (point,) = markup["controlPoints"]
    affine = read_labels(folder / "labels" / f"{case}.nii.gz").grid.affine
    assert np.allclose(point["position"], (affine @ [7, 9, 4, 1])[:3], atol=0.05) and point["label"] == "leaks"
    placed, old = rows(folder / "marks.csv")
    assert [placed[key] for key in "ijk"] == ["8", "10", "5"], "ITK-SNAP counts voxels from 1"
    assert (old["word"], old["r_mm"], old["i"]) == ("leaks", "", ""), "a mark of an earlier version has no place in mm"


def test_a_recipe_takes_the_folder_and_reads_corrected_labels(lay_out: Run, results: Path, tmp_path: Path):
    assert lay_out().code == 0
    folder, case = tmp_path / "to-correct", case_of(results, "two")
    path = folder / "labels" / f"{case}.nii.gz"
    corrected = nib.load(path)
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 3:9, 3:9] = 2
    nib.Nifti1Image(labels, corrected.affine).to_filename(path)  # type: ignore[attr-defined]
    other = folder / "labels" / f"{case_of(results, 'three')}.nii.gz"
    nib.Nifti1Image(np.minimum(labels, 1), corrected.affine).to_filename(other)  # type: ignore[attr-defined]
    changes = ["data.kind=volumes", "data.layout=pairs", f"data.root={folder}", "data.options={}", "data.validation=0",
               "data.spacing_mm=4", "data.workers=1"]  # fmt: skip
    kind: Any = find_kind(load_recipe("hippocampus_unet_cpu", changes))
    (tmp_path / "store").mkdir()
    kind.prepare(kind.find_sources(), tmp_path / "store")  # as the stage prepare does
    store = kind.open(tmp_path / "store")
    assert len(store.cases("train")) == 2
    assert kind.label_counts(store, "train")[1:] == [6**3, 6**3], "the corrected label maps are what is read"


def test_a_correction_is_never_replaced(lay_out: Run, results: Path, tmp_path: Path):
    assert lay_out().code == 0
    assert lay_out().code == 0, "our own files are replaced"
    path = tmp_path / "to-correct" / "labels" / f"{case_of(results, 'two')}.nii.gz"
    path.write_bytes(b"hours of work")
    before = contents(tmp_path / "to-correct")
    done = lay_out()
    assert done.code == 2 and "was changed since this program wrote it" in done.error
    assert contents(tmp_path / "to-correct") == before


def test_what_cannot_be_laid_out_is_a_line_and_the_rest_is_there(lay_out: Run, results: Path, tmp_path: Path):
    with (results / "Jane two_seg.nii.gz").open("ab") as file:
        file.write(b"corrected in place")
    done = lay_out()
    assert done.code == 5 and "Jane two_seg.nii.gz: was changed since it was judged" in done.error
    assert "1 of 2 scans to correct" in done.out
    shutil.rmtree(tmp_path / "to-correct")
    (tmp_path / "archive" / "2026" / "2.nii.gz").unlink()
    done = lay_out()
    assert done.code == 2 and "no scan of 2 can be laid out" in done.error and not (tmp_path / "to-correct").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--verdict", "bad"), "expected some of accept, needs_work, reject, disagree"),
        (("--verdict", "disagree"), "no segmentation here has the verdict disagree"),
        (("--inputs", "nowhere"), "no such folder"),
        (("--inputs", "."), "contains no scan"),
        (("--consensus", "best"), "no such rule"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    lay_out: Run, tmp_path: Path, monkeypatch: Any, arguments: tuple[str, ...], says: str
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    done = lay_out(*arguments)
    assert done.code == 2 and says in done.error and not (tmp_path / "to-correct").exists()
