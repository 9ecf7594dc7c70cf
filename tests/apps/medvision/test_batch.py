"""`medvision segment` on a folder, runs that are resumed, and runs that end early."""

import hashlib
import json
import shutil

import numpy as np
import pytest

import apps.cli.shared.outputs
import shared_backbones.weights
from medvision.models.hbformer import HBFormer
from medvision.volumes.files import read_volume
from tests.apps.conftest import SHAPE, contents
from tests.medvision.phantoms import make_affine, make_image, write_scan


@pytest.fixture
def folder(tmp_path):
    """Three scans of which the second is damaged, among files that are none of them."""
    folder = tmp_path / "scans"
    (folder / "deeper").mkdir(parents=True)
    affine = make_affine(spacing=(4, 4, 4))
    for seed, name in enumerate(("a.nii.gz", "b.nii", "c.nii", "deeper/d.nii", ".e.nii")):
        write_scan(folder / name, make_image(SHAPE, seed=seed), affine)
    (folder / "b.nii").write_bytes((folder / "b.nii").read_bytes()[:999])
    (folder / "notes.txt").write_text("no scan")
    return folder


INDEX = {"index.html", "index.json", "volumes.csv", "reports"}
ENDINGS = ("_seg.nii.gz", "_seg.json", "_report.html", "_volumes.csv")


def results(*stems):
    return {f"{stem}{ending}" for stem in stems for ending in ENDINGS}


def index_of(folder):
    return json.loads((folder / "index.json").read_text(encoding="utf-8"))


def test_a_folder_means_its_direct_files(segment, folder, monkeypatch):
    loaded = []
    load = shared_backbones.weights.load
    monkeypatch.setattr(shared_backbones.weights, "load", lambda path: loaded.append(path) or load(path))
    before = contents(folder)
    done = segment(folder)
    assert done.code == 5
    assert len(loaded) == 1
    after = contents(folder)
    links = {case["report"] for case in index_of(folder)["cases"] if case["report"]}
    assert set(after) - set(before) == results("a", "c") | INDEX | links
    assert {name: after[name] for name in before} == before

    first, third, last = done.out.splitlines()
    assert first.startswith(f"[1/3] {folder / 'a.nii.gz'}: segmented in ")
    assert third.startswith(f"[3/3] {folder / 'c.nii'}: segmented in ")
    assert last == f"results in {folder}, worst first in index.html"
    failed, count = done.err.splitlines()
    assert failed.startswith(f"[2/3] error: {folder / 'b.nii'}: is cut short")
    cases = {name: f"case-{sha256_of(folder / name)[:8]}" for name in ("a.nii.gz", "b.nii", "c.nii")}
    assert first.endswith(f"; {cases['a.nii.gz']}") and failed.endswith(f" ({cases['b.nii']})"), (
        "for the index's reader"
    )
    assert count == "error: 1 of 3 scans failed"
    assert json.loads(after["a_seg.json"] or "")["case"] != json.loads(after["c_seg.json"] or "")["case"]

    again = segment(folder, "-q")  # its own results are no scans
    assert (again.code, again.out) == (5, "")
    assert len(again.err.splitlines()) == 2
    assert set(contents(folder)) == set(after)


def test_json_of_a_folder(segment, folder, tmp_path):
    done = segment(folder, "--json", "-o", tmp_path / "out")
    assert (done.code, done.err) == (5, "")
    assert {result["case"] for result in json.loads(done.out)["results"]} == {
        row["case"] for row in index_of(tmp_path / "out")["cases"]
    }
    statuses = {result["input"]: result["status"] for result in json.loads(done.out)["results"]}
    assert statuses == {
        str(folder / "a.nii.gz"): "done",
        str(folder / "b.nii"): "failed",
        str(folder / "c.nii"): "done",
    }
    assert json.loads(done.out)["index"] == str(tmp_path / "out" / "index.html")
    assert {path.name for path in (tmp_path / "out").iterdir()} == results("a", "c") | INDEX


def test_a_folder_without_failures(segment, folder):
    (folder / "b.nii").unlink()
    done = segment(folder)
    assert (done.code, done.err) == (0, "")


def test_two_scans_of_one_stem_fail_and_the_others_do_not(segment, folder):
    write_scan(folder / "c.nii.gz", make_image(SHAPE))
    (folder / "b.nii").unlink()
    done = segment(folder)
    assert done.code == 5 and done.out.startswith(f"[1/3] {folder / 'a.nii.gz'}: segmented")
    for name in ("c.nii", "c.nii.gz"):
        assert f"{folder / name}: would write the same results as another scan here, whose name differs in" in done.err
    assert "c.nii" not in (folder / "index.json").read_text()
    assert results("a") <= set(contents(folder)) and results("c").isdisjoint(contents(folder))
    assert segment(folder, "-o", folder / "hashed", "--pseudonyms").code == 0, "hashes are two names"


def test_a_folder_of_references(segment, folder, tmp_path):
    references = tmp_path / "references"
    references.mkdir()
    (folder / "b.nii").unlink()
    affine = read_volume(folder / "a.nii.gz").grid.affine
    write_scan(references / "a.nii", np.ones(SHAPE, np.uint8), affine)
    done = segment(folder, "--reference", references)
    assert done.code == 5
    assert "mean Dice" in done.out.splitlines()[0]
    assert f"c.nii: no reference of that name in {references}" in done.err
    assert results("c").isdisjoint(contents(folder))

    write_scan(references / "c.nii", np.ones(SHAPE, np.uint8), read_volume(folder / "c.nii").grid.affine)
    write_scan(references / "a.nii.gz", np.ones(SHAPE, np.uint8), affine)
    two = segment(folder, "--reference", references)
    assert two.code == 5 and f"a.nii.gz: 2 files in {references} may be its reference" in two.err
    assert "mean Dice" in two.out
    before = contents(folder)
    assert "expected a folder" in segment(folder, "--reference", references / "a.nii").error
    assert "expected a label map" in segment(folder / "a.nii.gz", "--reference", references).error
    assert contents(folder) == before


def test_a_scan_too_large_for_memory_does_not_stop_the_others(segment, folder, monkeypatch):
    reached = []

    def forward(network, x):
        if len(x) > 1 and not reached:
            reached.append(x)
            raise MemoryError
        return real(network, x)

    real = HBFormer.forward
    monkeypatch.setattr(HBFormer, "forward", forward)
    (folder / "b.nii").unlink()
    done = segment(folder)
    assert done.code == 5
    assert "error: a.nii.gz: out of memory" in done.err
    assert results("a").isdisjoint(contents(folder))
    assert results("c") <= set(contents(folder))


# --------------------------------------------------------------------------------------------------------- resume


def test_resume_skips_only_what_is_the_same(segment, scan, model, other_model, tmp_path):
    output = tmp_path / "out"

    def status(*options):
        done = segment(scan, "-o", output, "--resume", "--json", *options)
        assert done.code == 0, done.err
        return json.loads(done.out)["results"][0]["status"]

    def once_then_never(why, *options):
        assert status(*options) == "done", why
        kept = contents(output)
        assert status(*options) == "skipped", why
        assert contents(output) == kept, why

    once_then_never("nothing is there")
    affine = read_volume(scan).grid.affine
    first, second = (write_scan(tmp_path / f"{k}.nii", np.full(SHAPE, k, np.uint8), affine) for k in (1, 2))
    reference = shutil.copy(first, tmp_path / "reference.nii")
    options = ["--save-probabilities"]
    for change in (
        ["--labels", "1,2"],
        ["--views", "coronal"],
        ["--fast"],
        ["--reference", reference],
        ["--allow-nonfinite"],
        ["--use-qform"],
        ["--volume-index", "0"],
        ["--model", other_model],
    ):
        options += change
        assert status(*options) == "done", change
    once_then_never("one setting less", *options[:-2])
    assert status(*options[:-2], "--labels", "2,1,2") == "skipped", "the same labels"
    assert status(*options[:-2], "--precision", "float32", "--threads", "1") == "skipped", "what `auto` chose"
    shutil.copy(second, reference)
    assert status(*options[:-2]) == "done", "another reference"
    write_scan(scan, make_image(SHAPE, seed=7), affine)
    assert status("--save-probabilities") == "done", "another scan"
    for name in ("scan_seg.nii.gz", "scan_report.html", "scan_prob.nii.gz", "scan_volumes.csv"):
        (output / name).unlink()
        assert status("--save-probabilities") == "done", f"{name} is gone"


def test_resume_of_a_folder(segment, folder):
    assert segment(folder).code == 5
    (folder / "a_report.html").unlink()
    done = segment(folder, "--resume")
    assert done.code == 5
    assert len(done.err.splitlines()) == 2
    first, third, _ = done.out.splitlines()
    assert "segmented in" in first
    assert third == f"[3/3] {folder / 'c.nii'}: skipped, its results are there already"


# ---------------------------------------------------------------------------------------------------- early ends


def stopping(error):
    """A network that ends its first batch with an error; what a model is tried with when it is loaded passes."""
    real = HBFormer.forward

    def forward(network, x):
        if len(x) > 1:
            raise error
        return real(network, x)

    return forward


def test_an_interrupt_leaves_nothing_behind(segment, scan, monkeypatch):
    assert segment(scan, "--save-probabilities").code == 0
    before = contents(scan.parent)
    monkeypatch.setattr(HBFormer, "forward", stopping(KeyboardInterrupt()))
    done = segment(scan, "--save-probabilities", "--fast")
    assert done.code == 130
    assert done.error == "error: interrupted; nothing was left half-written"
    assert contents(scan.parent) == before


def test_an_interrupt_while_results_are_put_in_place(segment, scan, monkeypatch):
    assert segment(scan).code == 0
    before = contents(scan.parent)
    replace, moved = apps.cli.shared.outputs.os.replace, []

    def interrupted(source, target):
        moved.append(target)
        if len(moved) == 8:  # all but the new table is in place, and the old one moved away
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(apps.cli.shared.outputs.os, "replace", interrupted)
    assert segment(scan, "--fast").code == 130
    assert contents(scan.parent) == before


def test_an_interrupt_ends_the_whole_batch(segment, folder, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr(HBFormer, "forward", stopping(KeyboardInterrupt()))
    assert segment(folder).code == 130
    assert contents(folder) == before


def test_memory_that_runs_out(segment, scan, monkeypatch):
    monkeypatch.setattr(HBFormer, "forward", stopping(MemoryError()))
    done = segment(scan)
    assert (done.code, done.error[:20]) == (2, "error: out of memory")
    assert list(contents(scan.parent)) == [scan.name]


def test_a_bug_is_not_dressed_up(segment, scan, monkeypatch):
    monkeypatch.setattr(HBFormer, "forward", stopping(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        segment(scan)
    assert list(contents(scan.parent)) == [scan.name]


# ---------------------------------------------------------------------------------------------------------- index


def test_the_index_is_worst_first_and_links_copies_named_by_hash(segment, folder, tmp_path):
    output = tmp_path / "out"
    references = tmp_path / "references"
    references.mkdir()
    (folder / "b.nii").unlink()
    write_scan(folder / "z.nii", make_image(SHAPE, seed=9), make_affine(spacing=(4, 4, 4)))
    for name, labels in {"a": np.ones(SHAPE), "c": np.full(SHAPE, 8)}.items():
        affine = read_volume(folder / f"{name}.nii.gz" if name == "a" else folder / f"{name}.nii").grid.affine
        write_scan(references / f"{name}.nii", labels.astype(np.uint8), affine)
    assert segment(folder, "-o", output, "--reference", references).code == 5
    index = index_of(output)
    assert index["count"] == {"scans": 3, "failed": 1, "done": 2}
    failed, *done = index["cases"]
    case = f"case-{hashlib.sha256((folder / 'z.nii').read_bytes()).hexdigest()[:8]}"
    assert (failed["case"], failed["status"], failed["report"], failed["structures"]) == (case, "failed", None, None)
    assert failed["reason"].startswith("no reference of that name in [path left out]; add it")
    assert [row["place"] for row in index["cases"]] == [1, 2, 3]
    assert done[0]["mean_dice"] < done[1]["mean_dice"]
    for row in done:
        stem = next(path.stem for path in folder.glob("[ac].nii*") if row["case"][5:] in sha256_of(path))[0]
        sidecar = json.loads((output / f"{stem}_seg.json").read_text())
        assert row["report"] == f"reports/{row['case']}.html"
        assert (output / row["report"]).read_bytes() == (output / f"{stem}_report.html").read_bytes()
        assert row["flags"] == [{"code": f["code"], "structure": f["structure"]} for f in sidecar["flags"]] != []
        assert row["mean_dice"] == sidecar["reference"]["summary"]["dice"]
        judged = [r for r in sidecar["structures"] if r["mean_confidence"] is not None and r["id"] != 6]
        least = min(judged, key=lambda r: r["mean_confidence"])
        assert (row["lowest_confidence"], row["least_certain"]) == (least["mean_confidence"], least["name"])
        assert row["structures_found"] == sum(r["voxels"] > 0 for r in sidecar["structures"])


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_index_of_a_run_that_goes_on_holds_what_was_done_before(segment, folder):
    assert segment(folder).code == 5
    first = index_of(folder)
    assert segment(folder, "--resume").code == 5
    again = index_of(folder)
    assert again["count"] == {"scans": 3, "failed": 1, "skipped": 2}
    for before, after in zip(first["cases"], again["cases"], strict=True):
        assert {**before, "status": None} == {**after, "status": None}


def test_a_page_that_is_no_index_is_not_written_over(segment, folder):
    (folder / "index.html").write_text("<title>my notes</title>")
    before = contents(folder)
    assert "index.html: is there and was not written by this program" in segment(folder).error
    assert contents(folder) == before


def test_a_single_scan_has_no_index(segment, scan):
    assert segment(scan).code == 0
    assert INDEX.isdisjoint(contents(scan.parent))


def test_pseudonyms_name_every_result(segment, folder):
    assert segment(folder, "--pseudonyms").code == 5
    cases = [f"case-{sha256_of(folder / name)[:8]}" for name in ("a.nii.gz", "c.nii")]
    made = set(contents(folder)) - {"a.nii.gz", "b.nii", "c.nii", ".e.nii", "deeper", "deeper/d.nii", "notes.txt"}
    assert made == results(*cases) | INDEX - {"reports"}, "reports need no copies"
    links = {row["report"] for row in index_of(folder)["cases"]}
    assert links == {f"{case}_report.html" for case in cases} | {None}
    again = segment(folder, "--pseudonyms", "--resume", "--json")  # its own results are no scans
    assert [result["status"] for result in json.loads(again.out)["results"]] == ["skipped", "failed", "skipped"]
