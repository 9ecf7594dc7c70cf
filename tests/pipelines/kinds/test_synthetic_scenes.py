"""Scenes drawn from spectra through the stages: nothing is read, and the same command gives the same weights."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from shared_backbones import weights
from shared_backbones.errors import InputError

SMALL = [
    "data.size=16", "data.validation_scenes=8", "data.test_scenes=16", "model.arguments.width=8", "train.steps=50",
    "train.warmup_steps=5", "train.ema_decay=0.8", "train.batch_size=4", "train.validate_every=50",
    "train.checkpoint_every=25", "train.threads=1", "tracking.system_metrics=false",
]  # fmt: skip


def start(output: Path, *changes: str) -> Job:
    return run_stages(
        load_recipe("surface_types", [f"output={output}", *SMALL, *changes]), ["prepare", "train", "evaluate", "report"]
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory, migrated: Path) -> Job:
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        store = folder / "mlflow.db"
        store.write_bytes(migrated.read_bytes())
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        return start(folder / "out")


def test_a_training_is_judged_on_drawn_scenes_and_calibrated(job: Job):
    assert job.summary is not None
    figures = job.summary["figures"]
    assert 0 < figures["accuracy"] <= 1 and 0 <= figures["calibration_error"] < 0.5
    assert len([name for name in figures if name.startswith("recall_")]) == 10
    card: Any = weights.read_card(job.model)
    assert card["temperature"] > 0 and card["input"]["needed"] == ["green", "red", "nir", "swir"]
    assert "earthlib" in card["training"]["spectra"] and weights.load(job.model).sha256 == card["weights_sha256"]
    assert list(job.made["report"].glob("*.html"))


def test_fifty_steps_give_the_same_bytes_again(job: Job, tmp_path: Path, store: str):
    again = start(tmp_path / "again")
    assert weights.read_card(again.model)["weights_sha256"] == weights.read_card(job.model)["weights_sha256"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["train.steps=null", "train.epochs=2"], "give train.steps"),
        (["data.sensors=[planetscope]"], "no band responses are known of planetscope"),
        (["model.architecture=smp_unet", "model.arguments={num_classes: 10, in_chans: 6}"], "expected spectral_mapper"),
        (["card.classes=[{id: 0, name: a, color: [0, 0, 0]}, {id: 1, name: b, color: [1, 1, 1]}]"], "that are drawn"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: list[str], message: str):
    with pytest.raises(InputError, match=message):
        find_kind(load_recipe("surface_types", change))
