"""Ensembles of folds through the programs of other domains: maps of scenes, and calibrated classes of images."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from apps.cli.geovision.program import app as geovision
from apps.cli.medvision.program import app as medvision
from apps.cli.shared.program import run
from medvision.classification import MedicalClassifier
from pipelines.sweeps.children import Outcome
from pipelines.sweeps.ensemble import make_ensembles
from pipelines.sweeps.plan import Axes, plan_sweep
from shared_backbones.card import read_card
from tests.pipelines.kinds.test_medical_images import npz
from tests.pipelines.kinds.test_scenes import MARKER, SMALL, make_scenes

SHORT = ["--folds=2", "--stages=prepare,train,evaluate", "tracking.system_metrics=false"]
VIT = (
    "{name: vit_tiny_patch16_224, num_classes: 2, in_chans: 1, img_size: 28, patch_size: 7, embed_dim: 32, depth: 2, "
    "num_heads: 2}"
)


@pytest.mark.parametrize("recipe", ["scenes_pretraining", "scenes_sharpen", "slices_thin", "scenes_pem"])
def test_networks_whose_answers_have_no_mean_have_no_ensemble(recipe: str, tmp_path: Path):
    sweep = plan_sweep(recipe, [f"output={tmp_path}", f"data.root={tmp_path}"], Axes(seeds="1-2"))
    done = Outcome(number=1, recipe="", failed=None, run_id=None, model="train/a/model", evaluation=None, figures={})
    outcomes = [done, {**done, "number": 2}]
    assert make_ensembles(sweep, outcomes) == {} and not sweep.folder.exists()


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_scenes_are_mapped_by_the_folds_ensemble(tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]):
    make_scenes(tmp_path / "data")
    where = [f"data.root={tmp_path / 'data'}", f"output={tmp_path / 'out'}"]
    split = [
        "data.split={by: blocks, block: 16, test: 0.3}",
        "data.patch=16",
        "train.steps=10",
        "train.validate_every=10",
    ]
    assert run(geovision, ["run", "scenes", *where, *SMALL["scenes"], *split, *SHORT]) == 0
    ensemble = only(tmp_path / "out", "sweeps/*/ensemble")
    assert len(read_card(ensemble)["members"]) == 2
    scene = tmp_path / "data/images" / f"{MARKER}_0.tif"
    assert (
        run(
            geovision,
            [
                "map",
                "-i",
                str(scene),
                "--sensor=sentinel2_l1c",
                "--model",
                str(ensemble),
                "-o",
                str(tmp_path / "map.tif"),
            ],
        )
        == 0
    )
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(scene) as given:
        assert made.shape == given.shape and made.transform == given.transform
    assert "test_mean_iou" in only(tmp_path / "out", "sweeps/*/settings.csv").read_text()


def test_images_are_classified_by_the_folds_ensemble(tmp_path: Path, store: str):
    npz(tmp_path / "pneumoniamnist.npz", counts=(32, 12, 12))
    settings = [
        "model.architecture=timm_classifier", f"model.arguments={VIT}", "data.corruption_images=0", "data.smoothing=0",
        "data.balance=0", "train.epochs=null", "train.steps=10", "train.batch_size=8", "train.warmup_steps=2",
        "train.validate_every=10", "evaluate.resamples=10",
    ]  # fmt: skip
    where = [f"data.root={tmp_path / 'pneumoniamnist.npz'}", f"output={tmp_path / 'out'}"]
    assert run(medvision, ["run", "pneumoniamnist_medvitv2_cpu", *where, *settings, *SHORT]) == 0
    ensemble = only(tmp_path / "out", "sweeps/*/ensemble")
    members = [MedicalClassifier(folder, device="cpu") for folder in (tmp_path / "out/train").glob("*/model")]
    together = MedicalClassifier(ensemble, device="cpu")
    images = together.prepare(torch.from_numpy(np.load(tmp_path / "pneumoniamnist.npz")["test_images"][:, None]))
    expected = np.mean([member.predict(images).probabilities for member in members], 0)
    given = together.predict(images)
    np.testing.assert_allclose(given.probabilities, expected, atol=1e-5)
    assert all(member.temperature != 1 for member in members)  # each has its own
    assert given.sets is None and given.outlier_score is not None
    assert members[0].quantile is not None  # which the ensemble has no images left for
