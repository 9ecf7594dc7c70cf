"""Thick slices: a recipe learns from scans without labels, is judged beside bicubic, and its model is used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from medvision.enhancing import Enhancer
from medvision.volumes.files import read_volume
from pipelines.kinds.kind import find_kind
from pipelines.kinds.thick_slices import Squares
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.medvision.phantoms import make_affine, write_scan

SMALL = [
    "data.patch=24", "data.options={test_share: 0.3}", "model.arguments.dim=8", "train.steps=4", "train.batch_size=4",
    "train.threads=1", "train.warmup_steps=1", "tracking.system_metrics=false", "data.validation=0.3",
]  # fmt: skip


def scans(folder: Path, count: int = 4) -> Path:
    """Scans of stripes, whose slices lie across the third axis, each in a black surrounding."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        places = np.meshgrid(np.arange(60), np.arange(52), np.arange(10), indexing="ij")
        values = 300 + 100 * np.sin(places[0] / (2 + number)) * np.cos(places[1] / 3)
        values[:24] = 0
        write_scan(folder / f"s{number}.nii.gz", values.astype(np.int16), make_affine(spacing=(1, 1, 3)))
    return folder


def start(root: Path, output: Path, *overrides: str) -> Job:
    return run_stages(load_recipe("slices_thin", [f"data.root={root}", f"output={output}", *SMALL, *overrides]))


def test_a_recipe_learns_and_its_model_is_used(tmp_path: Path, store: str) -> None:
    root = scans(tmp_path / "scans")
    job = start(root, tmp_path / "out")
    assert job.summary is not None
    figures = job.summary["figures"]
    assert {"psnr", "psnr_bicubic", "ssim", "ssim_bicubic"} <= {*figures} and np.isfinite(figures["psnr"])
    assert [row[0] for row in job.summary["tables"][0]["rows"]] == ["model", "bicubic"]
    model = job.made["train"] / "model"
    card: Any = weights.read_card(model)
    assert card["thinning"] == {"ratio": 3, "mtf": 0.25} and "s0" not in json.dumps(card)
    volume = read_volume(root / "s0.nii.gz")
    result = Enhancer(model, threads=1).enhance(volume)
    assert result.data.shape == (60, 52, 30) and result.rms < 0.05
    assert start(root, tmp_path / "out").made == job.made  # nothing has changed, so nothing is made anew


def test_background_is_left_out_and_splits_are_of_scans(tmp_path: Path, store: str) -> None:
    overrides = [f"data.root={scans(tmp_path / 'scans')}", f"output={tmp_path / 'out'}", *SMALL]
    kind = find_kind(load_recipe("slices_thin", overrides))
    assert sorted(case.split for case in kind.cases) == ["test", "train", "train", "validation"]
    folder = tmp_path / "store"
    folder.mkdir()
    kind.prepare(kind.find_sources(), folder)
    squares = Squares(kind.open(folder), "train")
    assert len(squares) == 2 * 10 * 2  # of two rows of squares the second, in both columns of ten planes
    values = np.stack([squares[number]["squares"].numpy() for number in range(len(squares))])
    assert values.shape[1:] == (24, 24) and values.std((1, 2)).min() >= 0.2
    assert np.array_equal(squares[(5, 77)]["squares"], values[5])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.patch=25"], "expected a multiple of data.ratio 3"),
        (["data.least_contrast=9"], "no training square"),
        (["model.architecture=hat", "model.arguments={in_chans: 1}"], "upscale=1"),
        (["data.options={}"], "no test scan"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, store: str, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        start(scans(tmp_path / "scans"), tmp_path / "out", *overrides)


def test_scans_without_labels_are_no_data_to_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = scans(tmp_path / "scans")
    given = [f"data.root={root}", "data.layout=scans", "data.options={test_share: 0.3}", f"output={tmp_path / 'out'}"]
    assert run(app, ["run", "hippocampus", *given]) == 2
    assert "has scans without labels" in capsys.readouterr().err
