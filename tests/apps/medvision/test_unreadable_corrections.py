"""`medvision review list`: what cannot be read is left out by name; scans of a file a channel are laid out."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medvision.datasets.layouts import find_cases
from medvision.dicom.series import read_series
from medvision.models.monai_network import MonaiNetwork
from medvision.volumes.files import read_labels, read_volume
from pipelines.kinds.kind import find_kind
from pipelines.kinds.labelled_volumes import StoredVolumes
from pipelines.recipe.loading import load_recipe
from shared_backbones import weights
from tests.apps.conftest import SHAPE, Outcome, contents
from tests.medvision.dicom.dicoms import make_slices, write_series, zip_of
from tests.medvision.phantoms import make_affine, make_image, write_scan
from tests.medvision.test_segmentation import make_card

Run = Callable[..., Outcome]
AFFINE = make_affine("LPS", (4, 4, 5), (5, -8, 3))
DAMAGED = b"\0" * 128 + b"DICM"


def judge(output: Path, given: str = "needs_work", **others: str) -> Path:
    """Give the results in a folder a verdict, those of some names another one."""
    verdicts = [
        {"report": json.loads(path.read_text())["report"], "reviewer": "AB", "created": "2026-01-02T03:04:05Z",
         "verdict": others.get(path.name.removesuffix("_seg.json"), given)}
        for path in sorted(output.glob("*_seg.json"))
    ]  # fmt: skip
    (output / "v.json").write_text(json.dumps({"schema_version": 2, "verdicts": verdicts}))
    return output


@pytest.fixture
def results(segment: Run, tmp_path: Path) -> Path:
    """Results of scans of every form, of which most cannot be read any more."""
    scans, output = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    for seed, name in enumerate(("good", "gone", "cut")):
        write_scan(scans / f"{name}.nii.gz", make_image(SHAPE, seed=seed), AFFINE)
    assert segment(scans, "-o", output, "--quiet").code == 0
    shapes = {"beside": SHAPE, "slices": SHAPE, "packed": SHAPE, "large": (64, 64, 72)}
    for seed, (name, shape) in enumerate(shapes.items(), 3):
        write_series(scans / name, make_slices(make_image(shape, seed=seed), AFFINE))
    (scans / "beside" / "x.dcm").write_bytes(DAMAGED)
    packed = zip_of(scans / "packed.zip", scans / "packed")
    shutil.rmtree(scans / "packed")
    for given in (packed, scans / "slices", scans / "large"):
        assert segment(given, "-o", output, "--quiet").code == 0
    assert segment(scans / "beside", "-o", output, "--quiet", "--skip-unreadable").code == 0
    (scans / "gone.nii.gz").unlink()
    (scans / "cut.nii.gz").write_bytes((scans / "cut.nii.gz").read_bytes()[:-100])
    packed.write_bytes(packed.read_bytes()[:-100])
    next((scans / "slices").iterdir()).write_bytes(DAMAGED)
    return judge(output, large="reject")


def test_what_cannot_be_read_is_left_out_by_its_name_and_the_rest_is_laid_out(
    medvision: Run, results: Path, tmp_path: Path
):
    scans, output = tmp_path / "scans", tmp_path / "scans" / "to-correct"
    command = ["review", "list", results, "-i", scans, "-o", output, "--max-gigabytes", 0.001]
    done = medvision(*command)
    assert done.code == 5 and "2 of 7 scans to correct" in done.out
    lines = done.err.splitlines()
    assert all(line.startswith("error: ") for line in lines) and "--skip-unreadable" not in done.err
    for part in (
        f"{scans / 'packed.zip'}: is a damaged zip archive",
        f"{scans / 'slices'}: 1 damaged DICOM files among the slices cannot be read",
        f"{scans / 'large'}: its headers claim 0.0011 GB of voxels",
        *(f"{name}_seg.json: no scan of its content is in {scans}" for name in ("gone", "cut", "packed", "slices")),
    ):
        assert sum(part in line for line in lines) == 1, part
    cases = {json.loads((results / f"{name}_seg.json").read_text())["case"]: name for name in ("good", "beside")}
    for folder in ("images", "labels"):
        assert {path.name.removesuffix(".nii.gz") for path in (output / folder).iterdir()} == {*cases}
    with (output / "cases.csv").open(encoding="utf-8", newline="") as file:
        assert {cases[row["case"]]: row["input"] for row in csv.DictReader(file)} == {
            "good": str(scans / "good.nii.gz"), "beside": str(scans / "beside")
        }  # fmt: skip
    listed = json.loads((output / "list.json").read_text())
    assert listed["count"] == 2 and len(listed["outputs"]) == 6
    beside = next(case for case, name in cases.items() if name == "beside")
    expected = read_series(scans / "beside", skip_unreadable=True).data
    assert np.array_equal(read_volume(output / "images" / f"{beside}.nii.gz").data, expected)
    assert medvision(*command).code == 5, "what was laid out before is not taken for a scan"
    before = contents(output)

    done = medvision(*command, "--verdict", "reject")
    assert done.code == 2 and "no scan of 1 can be laid out" in done.error and f"{scans / 'large'}: its" in done.error
    assert contents(output) == before


@pytest.fixture
def two_channels(tmp_path: Path) -> Path:
    """A model of two channels with random weights."""
    card = make_card(channels=["T2", "ADC"], spacing_mm=4.0, patch=[16, 16, 16], normalisation=["zscore", "zscore"])
    torch.manual_seed(0)
    weights.save(tmp_path / "model", MonaiNetwork("UNet", 4, in_chans=2, channels=[8, 16], strides=[2]), card)
    return tmp_path / "model"


def test_scans_of_a_file_a_channel_are_laid_out_as_a_recipe_takes_them(
    segment: Run, medvision: Run, two_channels: Path, tmp_path: Path
):
    scans, output, folder = tmp_path / "scans", tmp_path / "results", tmp_path / "to-correct"
    scans.mkdir()
    images = {name: [make_image(SHAPE, seed=10 * n + k) for k in range(2)] for n, name in enumerate(("one", "two"))}
    for name, channels in images.items():
        for number, image in enumerate(channels):
            write_scan(scans / f"{name}_{number:04}.nii.gz", image, AFFINE)
    write_scan(scans / "one_0002.nii.gz", make_image((*SHAPE, 2), seed=5), AFFINE)  # a scan of its own
    done = segment(scans, "-o", output, "--model", two_channels, "--quiet")
    assert (done.code, done.err) == (0, "")
    (output / "one_0002_seg.json").unlink()
    done = medvision("review", "list", judge(output), "-i", scans, "-o", folder)
    assert (done.code, done.err) == (0, "") and "2 of 2 scans to correct" in done.out
    for name, channels in images.items():
        case = json.loads((output / f"{name}_seg.json").read_text())["case"]
        volume = read_volume(folder / "images" / f"{case}.nii.gz", channels=["T2", "ADC"])
        assert all(np.array_equal(*pair) for pair in zip(volume.channels, channels, strict=True))
    assert len(find_cases("pairs", folder)) == 2
    for path in (folder / "labels").iterdir():  # corrected: of the three classes of the recipe
        labels = read_labels(path)
        write_scan(path, np.minimum(labels.data, 2).astype(np.uint8), labels.grid.affine)
    changes = ["data.kind=volume_patches", "data.layout=pairs", f"data.root={folder}", "data.channels=[T2,ADC]",
               "data.normalisation=zscore", "data.spacing_mm=4", "data.patch=[16,16,16]", "data.validation=0",
               "data.options={}", "data.workers=1", "model.arguments.in_chans=2"]  # fmt: skip
    kind: Any = find_kind(load_recipe("hippocampus", changes))
    (tmp_path / "store").mkdir()
    kind.prepare(kind.find_sources(), tmp_path / "store")
    image, labels = StoredVolumes(kind.open(tmp_path / "store"), "train")[0]
    assert image.shape == (2, *labels.shape)
