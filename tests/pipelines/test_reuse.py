"""What a run makes of results that are there already, and of trainings that went wrong."""

import math
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from apps.cli.medvision.program import app
from apps.cli.shared import program
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from pipelines.tracking.stores import open_store
from pipelines.training.tasks.segmentation import SegmentationTask
from shared_backbones.errors import InputError
from tests.pipelines.balls import MARKER, write_raw, write_recipe

QUICK = ["tracking.system_metrics=false", "train.epochs=1", "evaluate.resamples=10"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def recipe(raw: Path, tmp_path: Path) -> str:
    return write_recipe(tmp_path / "ball.yaml", raw, tmp_path / "run")


def run(recipe: str, *changes: str, stages: list[str] | None = None, **options: Any) -> Job:
    return run_stages(load_recipe(recipe, [*QUICK, *changes]), stages, **options)


def tracked(uri: str) -> list[Any]:
    """Runs of a store, the oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return sorted(found, key=lambda run: run.info.start_time)


def test_the_stages_asked_for_decide(recipe: str, store: str, capsys: pytest.CaptureFixture[str]):
    command = ["run", recipe, *QUICK]
    assert program.run(app, [*command, "--stages", "train"]) == 2
    assert "stage prepare was not finished before" in capsys.readouterr().err
    assert tracked(store) == []  # what is refused leaves no run
    assert program.run(app, [*command, "--stages", "prepare"]) == 0
    said = capsys.readouterr()
    assert "prepare: 6 cases" in said.out and "train" not in said.out and not said.err
    assert [noted.info.status for noted in tracked(store)] == ["FINISHED"]
    for stages in ("evaluate", "register", "prepare,report"):
        assert program.run(app, [*command, "--stages", stages]) == 2
        assert "stage train was not finished before" in capsys.readouterr().err
    assert [noted.info.status for noted in tracked(store)] == ["FINISHED"]
    assert program.run(app, [*command, "--stages", "train"]) == 0
    assert "evaluate:" not in capsys.readouterr().out
    assert program.run(app, [*command, "--stages", "evaluate,report,register"]) == 0
    said = capsys.readouterr().out
    assert "evaluate: 2 cases" in said and "(version 1)" in said and "prepare:" not in said
    (noted,) = tracked(store)  # one and the same
    assert {"loss", "validation_dice", "test_dice"} <= set(noted.data.metrics)


def test_a_version_that_the_store_lacks_is_registered_again(
    recipe: str, store: str, tmp_path: Path, migrated: Path, capsys: pytest.CaptureFixture[str]
):
    from mlflow import MlflowClient

    run(recipe)
    assert "registered: models:/ball@newest (version 1)" in capsys.readouterr().out
    run(recipe)
    assert "registered: models:/ball/1 (before)" in capsys.readouterr().out
    client = MlflowClient(store)
    client.delete_model_version("ball", "1")
    run(recipe)
    assert "registered: models:/ball@newest (version 2)" in capsys.readouterr().out
    # another store at the same address, where version 2 is another model
    shutil.copyfile(migrated, store.removeprefix("sqlite:///"))
    client.create_registered_model("ball")
    for _ in range(2):
        client.create_model_version("ball", "file:///elsewhere", None)
    run(recipe)
    assert "registered: models:/ball@newest (version 3)" in capsys.readouterr().out
    run(recipe, "register_as.alias=champion")  # the same model by another alias
    assert "registered: models:/ball@champion (version 3)" in capsys.readouterr().out
    assert [str(client.get_model_version_by_alias("ball", alias).version) for alias in ("newest", "champion")] == [
        "3"
    ] * 2
    run(recipe, "evaluate.protocol=monai", "register_as.name=sphere")
    assert "registered: models:/sphere@newest (version 1)" in capsys.readouterr().out


def test_a_run_that_reuses_a_training_shows_its_curves_and_a_link(recipe: str, store: str, tmp_path: Path):
    from mlflow import MlflowClient

    first = run(recipe, stages=["prepare", "train"])
    again = run(recipe, "evaluate.protocol=monai", stages=["train", "evaluate"])
    assert again.made["train"] == first.made["train"]
    client = MlflowClient(store)
    maker, reuser = tracked(store)
    assert maker.info.run_id != reuser.info.run_id
    for name in ("loss", "validation_dice", "learning_rate"):
        curves = [client.get_metric_history(noted.info.run_id, name) for noted in (maker, reuser)]
        points = [[(entry.step, entry.value) for entry in curve] for curve in curves]
        assert points[0] == points[1] and points[0]
    assert reuser.data.tags["training.run_id"] == maker.info.run_id
    link = f"#/experiments/{maker.info.experiment_id}/runs/{maker.info.run_id}"
    assert link in reuser.data.tags["mlflow.note.content"]
    assert "training.run_id" not in maker.data.tags
    run(recipe, "evaluate.protocol=monai", stages=["train", "evaluate"])
    assert len(client.get_metric_history(reuser.info.run_id, "validation_dice")) == 1  # and none twice
    other = f"sqlite:///{tmp_path}/other.db"
    open_store(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", other)
        run(recipe, stages=["train"])
    assert "validation_dice" in tracked(other)[0].data.metrics


def test_what_an_earlier_run_left_out_is_not_left_out_in_silence(recipe: str, raw: Path, store: str, tmp_path: Path):
    root = tmp_path / "raw"
    shutil.copytree(raw, root)
    path = root / "imagesTr" / f"{MARKER}_002.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    where = f"data.root={root}"
    run(recipe, where, "data.skip_unreadable=true", stages=["prepare"])
    with pytest.raises(InputError, match="1 cases or parts cannot be used: an earlier run left them out"):
        run(recipe, where, stages=["prepare"])


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_training_that_diverges_stops_with_a_tag_and_the_next_start_says_so(
    where: str, recipe: str, store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    step = SegmentationTask.training_step

    def spoilt(self: SegmentationTask, batch: Any, batch_index: int) -> torch.Tensor:
        loss = step(self, batch, batch_index)
        if self.global_step < 4:
            return loss
        if where == "loss":
            return loss * math.nan
        loss.register_hook(lambda slope: slope * math.nan)
        return loss

    monkeypatch.setattr(SegmentationTask, "training_step", spoilt)
    changes = ["train.checkpoint_every=2", "train.epochs=2"]
    with pytest.raises(InputError) as caught:
        run(recipe, *changes)
    line = str(caught.value)
    assert "at step 5, with learning rate 0.00" in line and "lower train.learning_rate" in line and "\n" not in line
    assert ("a loss of nan" if where == "loss" else "a gradient of nan, at a loss of") in line
    (noted,) = tracked(store)
    assert noted.info.status == "FAILED" and "at step 5" in noted.data.tags["training.stopped"]
    assert "validation_dice" in noted.data.metrics  # of step 3
    capsys.readouterr()
    with pytest.raises(InputError):
        run(recipe, *changes)
    said = capsys.readouterr().out
    assert "note: the last start of this training ended with a " in said and "goes on from step 4" in said
    monkeypatch.setattr(SegmentationTask, "training_step", step)  # a memory error, say
    job = run(recipe, *changes, stages=["prepare", "train"])
    assert not (job.made["train"] / "stopped.json").exists()


def test_labels_that_lack_a_class_are_named(recipe: str, raw: Path, store: str, tmp_path: Path, capsys):
    def relabelled(name: str, change: Any, *numbers: int) -> str:
        root = tmp_path / name
        shutil.copytree(raw, root)
        for number in numbers:
            path = root / "labelsTr" / f"{MARKER}_{number:03}.nii.gz"
            image: Any = nib.load(path)
            data = change(np.asarray(image.dataobj))
            nib.save(nib.Nifti1Image(data.astype(np.uint8), image.affine), path)
        return f"data.root={root}"

    everywhere = relabelled("empty", np.zeros_like, 1, 2, 3, 4)
    run(recipe, everywhere, stages=["prepare", "train"])
    said = capsys.readouterr().out
    assert "warning: no train label is of any class: the network can learn nothing" in said
    assert "warning: no validation label is of any class: its figures say nothing" in said
    run(recipe, relabelled("half", lambda data: np.where(data == 2, 1, data), 1, 2, 3, 4), stages=["prepare", "train"])
    said = capsys.readouterr().out
    assert "warning: no train label is of: front" in said and "warning: no validation label is of: front" in said
