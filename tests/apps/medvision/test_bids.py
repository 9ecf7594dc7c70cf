"""BIDS data sets in and out, folders at any depth, and references with other ids."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.cli.medvision.bids import entities, find_images, parse_filter, stem_of
from medvision.volumes.files import read_labels, read_volume
from shared_backbones.errors import InputError
from tests.apps.conftest import SHAPE, contents
from tests.medvision.phantoms import make_affine, make_image, write_scan

AFFINE = make_affine(spacing=(4, 4, 4))
IMAGES = (
    "sub-01/ses-pre/anat/sub-01_ses-pre_run-1_T1w.nii.gz",
    "sub-01/ses-post/anat/sub-01_ses-post_T1w.nii",
    "sub-02/anat/sub-02_acq-mprage_T1w.nii.gz",
)
ENDINGS = ("_dseg.nii.gz", "_dseg.json", "_dseg.tsv", "_report.html", "_volumes.csv")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set with three images of two subjects among files that are not to be segmented."""
    root = tmp_path / "dataset"
    for seed, name in enumerate(IMAGES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_scan(root / name, make_image(SHAPE, seed=seed), AFFINE)
    (root / "dataset_description.json").write_text('{"Name": "ours", "BIDSVersion": "1.10.0"}\n')
    (root / "README").write_text("What this is.\n" * 20)
    others = (
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "derivatives/other/sub-02/anat/sub-02_T1w.nii.gz",
        "sourcedata/sub-02/anat/sub-02_T1w.nii.gz",
    )
    for name in others:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"unreadable")
    return root


def derivative(root: Path) -> set[str]:
    folder = root / "derivatives" / "medvision"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def results(*images: str) -> set[str]:
    stems = [image.rpartition("_")[0] for image in images]
    return {f"{stem}_desc-brainstructures{ending}" for stem in stems for ending in ENDINGS}


COMMON = {"dataset_description.json", ".bidsignore", "index.html", "index.json", "volumes.csv"}


def test_a_data_set_becomes_a_derivative(segment, dataset: Path):
    before = contents(dataset)
    assert segment(dataset).code == 0
    copies = {f"reports/{case['case']}.html" for case in index_of(dataset)["cases"]}
    assert derivative(dataset) == results(*IMAGES) | COMMON | copies
    assert {name: content for name, content in contents(dataset).items() if name in before} == before
    described = json.loads((dataset / "derivatives/medvision/dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative" and described["GeneratedBy"][0]["Name"] == "medvision"
    folder = dataset / "derivatives/medvision"
    table = pandas.read_csv(folder / "volumes.csv")
    assert list(table["scan"]) == ["sub-01_ses-post", "sub-01_ses-pre_run-1", "sub-02_acq-mprage"]
    labels = folder / f"{IMAGES[0].rpartition('_')[0]}_desc-brainstructures_dseg.nii.gz"
    assert read_labels(labels).grid.differs_from(read_volume(dataset / IMAGES[0]).grid) is None
    meanings = pandas.read_csv(labels.with_name(labels.name.replace(".nii.gz", ".tsv")), sep="\t")
    assert list(meanings["index"]) == list(range(10))
    again = segment(dataset, "--resume")
    assert again.code == 0 and again.out.count("skipped") == 3
    assert segment(dataset).code == 0, "all of it is ours"


def index_of(root: Path) -> dict:
    return json.loads((root / "derivatives/medvision/index.json").read_text())


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("sub=02", [2]),
        ("ses=pre,ses=post", [1, 0]),
        ("sub=01,run=1", [0]),
        ("sub=01,sub=02,acq=mprage", [2]),
        ("suffix=T1w", [1, 0, 2]),
    ],
)
def test_a_filter_takes_some_images(dataset: Path, asked: str, taken: list[int]):
    found = find_images(dataset, parse_filter(asked.split(",")))
    assert [str(path.relative_to(dataset)) for path in found] == [IMAGES[number] for number in taken]


LETTERS = st.text("abcXYZ019", min_size=1, max_size=4)


@given(st.dictionaries(LETTERS, LETTERS, min_size=1, max_size=4), LETTERS, st.sampled_from([".nii", ".nii.gz"]))
def test_names_are_read_as_they_are_made(named: dict[str, str], suffix: str, ending: str):
    stem = "_".join(f"{key}-{value}" for key, value in named.items())
    path = Path(f"{stem}_{suffix}{ending}")
    assert stem_of(path) == (stem, suffix) and entities(path) == named
    assert parse_filter([f"{key}={value}" for key, value in named.items()]) == {k: [v] for k, v in named.items()}


def test_what_cannot_be_done_with_a_data_set_is_one_line(segment, dataset: Path, scan: Path):
    for options, said in (
        (("--bids-filter", "sub=09"), "contains 3 T1w images, none of which the filter lets pass"),
        (("--bids-filter", "suffix=FLAIR"), "contains no FLAIR image; expected sub-*/[ses-*/]anat/*_FLAIR.nii.gz"),
        (("--bids-filter", "suffix=T1w,suffix=T2w"), "names the suffixes T1w and T2w; expected one"),
        (("--bids-filter", "01"), "expected entities such as sub=01,ses=pre,suffix=T1w"),
        (("--pseudonyms",), "--pseudonyms: has no meaning for"),
    ):
        assert said in segment(dataset, *options).error
    assert "is no BIDS data set" in segment(scan, "--bids-filter", "sub=01").error
    assert "--recursive: has no meaning" in segment(scan, "--recursive").error
    assert not (dataset / "derivatives" / "medvision").exists()
    theirs = dataset / "derivatives" / "other"
    (theirs / "dataset_description.json").write_text('{"Name": "theirs", "BIDSVersion": "1.8.0"}')
    before = contents(theirs)
    assert "dataset_description.json: is there and was not written by this" in segment(dataset, "-o", theirs).error
    assert contents(theirs) == before
    (dataset / "sub-03").mkdir()
    (dataset / "sub-03" / "anat").write_text("no folder")
    assert "anat: cannot be listed (Not a directory)" in segment(dataset).error


def test_pairs_and_dead_links_fail_alone(segment, dataset: Path):
    image = dataset / IMAGES[2]
    write_scan(image.with_name("sub-02_acq-mprage_T1w.nii"), make_image(SHAPE), AFFINE)
    link = image.with_name("sub-02_run-2_T1w.nii.gz")
    link.symlink_to(dataset / ".git" / "annex" / "objects" / "nothing")
    done = segment(dataset, "--bids-filter", "sub=02")
    assert done.code == 5 and done.err.count("would write the same results") == 2
    assert f"{link}: is a link to a file that is not here; fetch its content first" in done.err


def test_references_of_a_data_set_are_found_by_its_names(segment, dataset: Path, tmp_path: Path):
    """Of the same name in one folder, or as a derivative has them; a scan without one fails alone."""
    truth = tmp_path / "truth"
    manual = truth / "sub-01/ses-pre/anat/sub-01_ses-pre_run-1_desc-manual_dseg.nii.gz"
    manual.parent.mkdir(parents=True)
    for path, image in ((manual, IMAGES[0]), (truth / "sub-02_acq-mprage_T1w.nii", IMAGES[2])):
        write_scan(path, np.full(SHAPE, 17, np.int16), read_volume(dataset / image).grid.affine)
    label_map = tmp_path / "map.json"
    label_map.write_text('{"17": 4}')
    done = segment(dataset, "--reference", truth, "--label-map", label_map)
    assert done.code == 5 and done.out.count("mean Dice") == 2
    assert "sub-01_ses-post_T1w.nii: no reference of that name" in done.err and "holds labels up to" not in done.err


def test_a_derivative_passes_the_validator(segment, dataset: Path):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    for name in ("sub-02/anat/sub-02_T2w.nii.gz", "sub-02/func/sub-02_task-rest_bold.nii.gz"):
        (dataset / name).unlink()
    assert segment(dataset, "--save-probabilities").code == 0
    run = subprocess.run(
        [validator, str(dataset / "derivatives/medvision"), "--json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(run.stdout[run.stdout.index("{") :])["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


# ------------------------------------------------------------------------------------------------- at any depth


def test_scans_at_any_depth_have_their_results_in_the_same_folders(segment, tmp_path: Path):
    folder = tmp_path / "scans"
    for seed, name in enumerate(("a.nii.gz", "x/a.nii.gz", "x/y/b.nii", ".hidden/c.nii")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_scan(folder / name, make_image(SHAPE, seed=seed), AFFINE)
    assert len(json.loads(segment(folder, "--json").out)["results"]) == 1, "its direct files alone"
    output = folder / "results"
    assert segment(folder, "--recursive", "-o", output).code == 0
    assert {str(path.relative_to(output)) for path in output.rglob("*_seg.nii.gz")} == {
        "a_seg.nii.gz", "x/a_seg.nii.gz", "x/y/b_seg.nii.gz",
    }  # fmt: skip
    assert list(pandas.read_csv(output / "volumes.csv")["scan"]) == ["a", "x/a", "x/y/b"]
    done = segment(folder, "--recursive", "-o", output, "--resume")
    assert (done.code, done.out.count("skipped")) == (0, 3), "no result is a scan"
    other = segment(folder, "--recursive", "--json")
    assert {Path(result["input"]).name for result in json.loads(other.out)["results"]} == {"a.nii.gz", "b.nii"}
    hidden = tmp_path / "hashed"
    assert segment(folder, "-r", "-o", hidden, "--pseudonyms").code == 0
    assert {path.parent for path in hidden.rglob("*.nii.gz")} == {hidden}
    (tmp_path / "none" / "deeper").mkdir(parents=True)
    assert "contains no scan at any depth" in segment(tmp_path / "none", "-r").error


def test_a_data_set_may_be_taken_for_a_plain_folder(segment, dataset: Path, tmp_path: Path):
    for name in ("derivatives", "sourcedata", "sub-02"):
        shutil.rmtree(dataset / name)
    assert segment(dataset, "--recursive", "--pseudonyms", "-o", tmp_path / "out").code == 0
    assert len(list((tmp_path / "out").glob("case-*_seg.nii.gz"))) == 2


# ------------------------------------------------------------------------------------------------------ label map


def test_a_label_map_says_what_the_ids_of_a_reference_are(segment, scan: Path, tmp_path: Path):
    assert segment(scan, "-o", tmp_path / "first").code == 0
    labels = read_labels(tmp_path / "first/scan_seg.nii.gz").data
    other = labels.astype(np.int16)
    other[labels > 0] += 1000
    other[0, 0, 0] = 500  # which no pair names
    reference = write_scan(tmp_path / "truth.nii", other, read_volume(scan).grid.affine)
    pairs = {str(number + 1000): number for number in range(1, 10)}
    label_map = tmp_path / "map.json"
    label_map.write_text(json.dumps(pairs))
    options = ("-o", tmp_path / "second", "--reference", reference)
    done = segment(scan, *options, "--label-map", label_map, "--json")
    (result,) = json.loads(done.out)["results"]
    assert all(row["dice"] is None or row["dice"] > 0.999 for row in result["sidecar"]["reference"]["rows"])
    assert result["sidecar"]["warnings"] == []
    skipped = segment(scan, *options, "--label-map", label_map, "--resume")
    assert "skipped" in skipped.out
    label_map.write_text(json.dumps({**pairs, "1001": 2}))
    assert "skipped" not in segment(scan, *options, "--label-map", label_map, "--resume").out, "another map"
    label_map.write_text('{"1": 77}')
    assert "names class 77, expected the model's ids 0 to 9" in segment(scan, *options, "--label-map", label_map).error
    assert "--label-map is of --reference" in segment(scan, "--label-map", label_map).error


def test_a_filter_that_names_nothing_is_refused():
    with pytest.raises(InputError, match="expected entities such as"):
        parse_filter(["sub="])
