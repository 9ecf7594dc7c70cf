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

from medvision.dicom.series import read_series
from medvision.volumes.files import read_labels, read_volume
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from tests.apps.conftest import SHAPE, Outcome, contents
from tests.medvision.dicom.dicoms import make_slices, write_series, zip_of
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


def judged(output: Path, given: str = "needs_work") -> Path:
    """Results, all of which a reader judged alike."""
    verdicts = [
        {"report": json.loads(path.read_text())["report"], "verdict": given, "reviewer": "AB",
         "created": "2026-01-02T03:04:05Z"}
        for path in sorted(output.glob("*_seg.json"))
    ]  # fmt: skip
    (output / "v.json").write_text(json.dumps({"schema_version": 2, "verdicts": verdicts}))
    return output


@pytest.fixture
def forms(segment: Run, tmp_path: Path) -> dict[str, np.ndarray]:
    """Scans in forms other than a plain file, segmented and judged: their values by the name of the results."""
    scans, output, affine = tmp_path / "scans", tmp_path / "results", make_affine("LPS", (4, 4, 5), (5, -8, 3))
    images = [make_image(SHAPE, seed=seed) for seed in range(3)]
    folder = write_series(scans / "study" / "folder", make_slices(images[0], affine))
    (scans / "other").mkdir()
    packed = zip_of(scans / "other" / "packed.zip", write_series(tmp_path / "packed", make_slices(images[1], affine)))
    path = scans / "both.nii.gz"
    nib.Nifti1Image(np.stack(images[::-1], -1), affine).to_filename(path)  # type: ignore[attr-defined]
    for given in ((folder,), (packed,), (path, "--volume-index", 0)):
        assert segment(*given, "-o", output, "--quiet").code == 0
    (scans / "study" / "folder" / "notes.txt").write_text("nothing of interest")
    (scans / "broken.zip").write_bytes(b"PK\3\4")
    read = [read_series(folder).data, read_series(packed).data, images[2]]
    return dict(zip(("folder", "packed", "both"), read, strict=True))


def test_dicom_series_and_volumes_of_a_file_are_laid_out_as_they_were_read(
    medvision: Run, forms: dict[str, np.ndarray], tmp_path: Path
):
    output = judged(tmp_path / "results")
    done = medvision("review", "list", output, "-i", tmp_path / "scans", "-o", tmp_path / "to-correct")
    assert (done.code, done.err) == (0, "") and "3 of 3 scans to correct" in done.out
    for stem, values in forms.items():
        case = json.loads((output / f"{stem}_seg.json").read_text())["case"]
        image = read_volume(tmp_path / "to-correct" / "images" / f"{case}.nii.gz")
        labels = read_labels(tmp_path / "to-correct" / "labels" / f"{case}.nii.gz")
        assert np.array_equal(image.data, values) and image.grid.differs_from(labels.grid, 1e-4) is None


@pytest.mark.usefixtures("forms")
def test_a_training_on_them_runs_to_its_report(medvision: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    output, folder = judged(tmp_path / "results"), tmp_path / "to-correct"
    assert medvision("review", "list", output, "-i", tmp_path / "scans", "-o", folder).code == 0
    for path in (folder / "labels").iterdir():
        labels = nib.load(path)  # corrected: of three classes
        values = np.minimum(np.asarray(labels.dataobj), 2).astype(np.uint8)  # type: ignore[attr-defined]
        nib.Nifti1Image(values, labels.affine).to_filename(path)  # type: ignore[attr-defined]
    changes = ["data.kind=volumes", "data.layout=pairs", f"data.root={folder}", "data.options={test_share: 0.34}",
               "data.validation=0.5", "data.spacing_mm=4", "data.size=32", "data.workers=1", "data.views=[axial]",
               "train.steps=2", "train.batch_size=2", f"output={tmp_path / 'run'}"]  # fmt: skip
    done = medvision("run", "hippocampus_unet_cpu", "--stages", "prepare,train,evaluate,report", *changes)
    assert done.code == 0, done.err
    (report,) = (tmp_path / "run").rglob("report.json")
    assert json.loads(report.read_text())["report"]["id"].startswith("model-")
