"""Runs that share an output folder at the same time, each a process of its own, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.pipelines.balls import write_raw, write_recipe

QUICK = ["tracking.system_metrics=false", "train.epochs=1"]


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "raw").mkdir()
    return write_recipe(tmp_path / "ball.yaml", write_raw(tmp_path / "raw"), tmp_path / "run")


def start(recipe: str, *arguments: str, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, "-m", "pipelines", "run", recipe, *QUICK, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def printed(*started: subprocess.Popen[str]) -> list[str]:
    """What each printed, once all have ended well."""
    said = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return [out for out, _ in said]


def runs(store: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_two_learning_rates_share_one_preparation(recipe: str, store: str, tmp_path: Path):
    rates = ("1e-3", "3e-4")
    said = printed(*(start(recipe, f"train.learning_rate={rate}") for rate in rates))
    assert sum("prepare: 6 cases" in text for text in said) == 1  # the other found it, or waited for it
    assert len(list((tmp_path / "run/prepare").iterdir())) == 1
    assert len(list((tmp_path / "run/train").iterdir())) == 2
    made = runs(store)
    assert {run.data.params["train.learning_rate"] for run in made} == {"0.001", "0.0003"}
    assert {run.info.status for run in made} == {"FINISHED"}
    from mlflow import MlflowClient

    client = MlflowClient(store)
    versions = client.search_model_versions("name = 'ball'")
    assert sorted(int(entry.version) for entry in versions) == [1, 2]
    figures = {entry.version: float(entry.tags["domain_vision.validation_dice"]) for entry in versions}
    best = client.get_model_version_by_alias("ball", "best")
    assert figures[best.version] == max(figures.values())


def test_the_same_command_twice_is_one_run_and_one_version(recipe: str, store: str):
    said = printed(start(recipe), start(recipe))
    (waited,) = (text for text in said if "waiting for what it makes" in text)
    assert sum("train: hbformer" in text for text in said) == 1
    assert "registered: models:/ball/1 (before)" in waited
    (run,) = runs(store)
    assert run.info.status == "FINISHED"
    from mlflow import MlflowClient

    assert len(MlflowClient(store).search_model_versions("name = 'ball'")) == 1
    history = MlflowClient(store).get_metric_history(run.info.run_id, "validation_dice")
    assert [entry.step for entry in history] == [3]


def test_two_jobs_of_two_processes_each_are_one_training(recipe: str, store: str, tmp_path: Path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    said = printed(*(start(recipe, "--stages=prepare,train", launcher=torchrun) for _ in range(2)))
    assert sum("prepare: 6 cases" in text for text in said) == 1
    assert sum("train: hbformer" in text for text in said) == 1
    assert sum("waiting for what it makes" in text for text in said) == 1
    (folder,) = (tmp_path / "run/train").iterdir()
    assert [text.strip().splitlines()[-1] for text in said] == [f"model: {folder / 'model'}"] * 2
    (run,) = runs(store)
    assert run.info.status == "FINISHED"


def test_one_that_waits_goes_on_when_the_other_is_killed_and_leaves_nothing_half_written(
    recipe: str, store: str, tmp_path: Path
):
    first = start(recipe, "train.checkpoint_every=1", "train.steps_per_epoch=400", "train.epochs=1")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run/train").glob("*/last.safetensors")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    (folder,) = (tmp_path / "run/train").iterdir()
    second = start(recipe, "train.checkpoint_every=3", "train.steps_per_epoch=400", "--stages=prepare,train")
    assert second.stdout is not None
    line = ""
    while "waiting for what it makes" not in line:
        line = second.stdout.readline()
        assert line, second.communicate()
    for place, content in ((folder, b"half a checkpoint"), (folder / "model", b"half a model")):
        (place / ".domain-vision-0a1b2c3d").mkdir(parents=True)
        (place / ".domain-vision-0a1b2c3d/new").write_bytes(content)
        (place / ".domain-vision-0a1b2c3d.lock").touch()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    while "step" not in line:
        line = second.stdout.readline()
        assert line, second.communicate()
    assert int(line.split()[1].partition("/")[0]) > 1
    assert not list(folder.rglob(".domain-vision-0a1b2c3d*"))
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=120)
    assert second.returncode == 143


def test_one_that_waits_can_be_told_to_leave(recipe: str, store: str, tmp_path: Path):
    from pipelines.runtime.locks import locked

    printed(start(recipe, "--stages=prepare"))
    (prepared,) = (tmp_path / "run/prepare").iterdir()
    with locked(tmp_path / "run/locks" / f"prepare-{prepared.name}.lock", "busy"):
        waiting = start(recipe)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == f"prepare: another run is at it in {prepared}; waiting for what it makes\n"
        waiting.send_signal(signal.SIGTERM)
        waiting.communicate(timeout=60)
        assert waiting.returncode == 143
    assert json.loads((prepared / "done.json").read_text()) == {}
