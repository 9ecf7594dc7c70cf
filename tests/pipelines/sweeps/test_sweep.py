"""Sweeps as a user starts them: each a program of its own, on volumes in the layout of the hippocampus data."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest

from medvision.segmentation import Segmenter
from pipelines.sweeps.plan import Axes, plan_sweep
from pipelines.sweeps.sweep import run_sweep
from pipelines.tracking import runs
from shared_backbones import weights
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from tests.conftest import ROOT
from tests.pipelines.balls import MARKER, write_raw
from tests.pipelines.sweeps.small_recipe import QUICK, write_small_recipe

STAGES = "--stages=prepare,train,evaluate"
TABLES = ("settings.csv", "differences.csv", "runs.csv")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw"))


def start(path: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", "run", path, *QUICK, STAGES, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, (out, err)
    return out, err


def until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    line = ""
    while text not in line:
        line = process.stdout.readline()
        assert line, process.communicate()


def tables(output: Path) -> dict[str, str]:
    (folder,) = (output / "sweeps").iterdir()
    return {name: (folder / name).read_text() for name in TABLES}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def tracked(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


@pytest.mark.parametrize("known", [True, False])
def test_a_run_of_another_job_is_not_taken_up(
    raw: Path, tmp_path: Path, store: str, known: bool, monkeypatch: pytest.MonkeyPatch
):
    from mlflow import MlflowClient

    sweep = plan_sweep(write_small_recipe(tmp_path, raw), QUICK, Axes(seeds="1-2"))
    run_id = runs.schedule_run(store, "medvision", "other") if known else "0" * 32
    if known:
        MlflowClient(store).log_param(run_id, "train.epochs", "99")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(InputError, match="unset it"):
        run_sweep(sweep, task=1)
    assert not sweep.folder.exists()


def test_a_sweep_that_was_killed_gives_the_same_table_to_the_last_digit(raw: Path, tmp_path: Path, store: str):
    axes = ["--sweep", "train.learning_rate=1e-3,1e-2", "--sweep=train.optimizer=adamw,sgd", "--seeds=1-3"]
    first = start(write_small_recipe(tmp_path, raw, "killed"), *axes)
    until(first, "run 5 of 12")
    until(first, "train:")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not list((tmp_path / "killed/sweeps").rglob("settings.csv"))
    again = start(str(tmp_path / "killed.yaml"), *axes)
    whole = start(write_small_recipe(tmp_path, raw, "whole"), *axes)
    out, _ = finish(again)
    assert "prepare: 6 cases" not in out and "sweep: 12 runs, 0 failed" in out
    out, _ = finish(whole)
    assert out.count("prepare: 6 cases") == 1
    made = tables(tmp_path / "killed")
    assert made == tables(tmp_path / "whole")
    for output in ("killed", "whole"):
        assert len(list((tmp_path / output / "prepare").iterdir())) == 1
        assert len(list((tmp_path / output / "train").iterdir())) == 12
    assert len({row["test_dice"] for row in rows(made["runs.csv"])}) == 12  # as different as runs can be
    dice = [row for row in rows(made["settings.csv"]) if row["figure"] == "test_dice"]
    assert [(row["train.learning_rate"], row["train.optimizer"], row["runs"]) for row in dice] == [
        ("1e-3", "adamw", "3"), ("1e-3", "sgd", "3"), ("1e-2", "adamw", "3"), ("1e-2", "sgd", "3")
    ]  # fmt: skip
    check_tables(made, dice)
    assert all(0 <= float(row["ensemble"]) <= 1 for row in dice) and len({row["ensemble"] for row in dice}) == 4
    members = [read_card(folder)["members"] for folder in sorted((tmp_path / "whole/sweeps").glob("*/ensemble-[1-4]"))]
    assert [[member["seed"] for member in ensemble] for ensemble in members] == [[1, 2, 3]] * 4
    runs = tracked(store)
    parents = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert len(parents) == 2 and len(runs) == 26  # the killed one's runs go on
    for run in parents.values():
        children = [child for child in runs if child.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert sorted(int(child.data.tags["sweep.run"]) for child in children) == list(range(1, 13))
        assert {child.info.status for child in [run, *children]} == {"FINISHED"}
        assert run.data.metrics["test_dice_mean"] == float(dice[3]["mean"])  # the last setting's
        assert run.data.params["sweep.seeds"] == "1-3" and run.data.params["train.batch_size"] == "4"
        assert "train.learning_rate" not in run.data.params and "seed" not in run.data.params


def check_tables(made: dict[str, str], dice: list[dict[str, str]]) -> None:
    """Means, ranges and differences against what the runs' own rows say."""
    runs = rows(made["runs.csv"])
    by_setting = [[float(run["test_dice"]) for run in runs if run["setting"] == str(number)] for number in range(1, 5)]
    for row, values in zip(dice, by_setting, strict=True):
        assert float(row["mean"]) == pytest.approx(np.mean(values))
        assert (float(row["lowest"]), float(row["highest"])) == (min(values), max(values))
    for row in rows(made["differences.csv"]):
        if row["figure"] == "dice":
            assert (row["against"], row["runs"], row["cases"]) == ("1", "3", "2")
            expected = np.mean(by_setting[int(row["setting"]) - 1]) - np.mean(by_setting[0])
            assert float(row["mean"]) == pytest.approx(expected)
            assert float(row["p_holm"]) >= float(row["p"]) >= 0.5  # two cases can say no more


def test_runs_that_fail_or_die_leave_the_others_alone(raw: Path, tmp_path: Path, store: str):
    asked = ["train.steps_per_epoch=60", "train.gradient_clip=null", "--sweep=train.learning_rate=1e-3,1e30,1e-2"]
    process = start(write_small_recipe(tmp_path, raw), *asked)
    until(process, "run 3 of 3")
    until(process, "train:")
    (worker,) = (child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline()))
    worker.kill()
    out, err = finish(process, 5)
    assert "sweep: 3 runs, 2 failed" in out
    assert "error: run 2 (train.learning_rate=1e30): training: " in err
    assert "error: run 3 (train.learning_rate=1e-2): its process was killed" in err
    made = tables(tmp_path / "run")
    states = [row["state"] for row in rows(made["runs.csv"])]
    assert states[0] == "complete" and "step" in states[1] and "killed" in states[2]
    assert rows(made["runs.csv"])[1]["test_dice"] == ""
    (folder,) = (tmp_path / "run/sweeps").iterdir()
    page = (folder / "report.html").read_text()
    assert "Failed runs" in page and "Run 3: its process was killed" in page
    assert MARKER not in page and str(tmp_path) not in page
    (parent,) = (run for run in tracked(store) if "mlflow.parentRunId" not in run.data.tags)
    assert parent.data.tags["sweep.failed"] == "2"
    # the tasks of an array, and the table that comes after them
    path = str(tmp_path / "run.yaml")
    out, _ = finish(start(path, *asked, "--task=3"))
    assert "run 3 of 3" in out and "sweep: 3 runs, 1 failed" in out  # as the last one, it makes the table
    out, _ = finish(start(path, *asked, "--task=0"), 5)
    assert "sweep: 3 runs, 1 failed" in out and "train:" not in out


def test_a_sweep_that_is_asked_to_stop_goes_on_from_there(raw: Path, tmp_path: Path, store: str):
    axes = ["train.steps_per_epoch=4000", "--seeds=1-2"]
    process = start(write_small_recipe(tmp_path, raw), *axes)
    until(process, "train:")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process, 143)
    assert "preempted; the same command goes on from here" in err
    assert not psutil.pid_exists(process.pid)
    (last,) = (tmp_path / "run/train").glob("*/last.safetensors")
    assert last.stat().st_size


def test_folds_are_validated_on_once_and_their_ensemble_is_a_model(raw: Path, tmp_path: Path, store: str):
    out, _ = finish(start(write_small_recipe(tmp_path, raw), "--folds=2"))
    assert out.count("prepare: 6 cases") == 1 and "ensemble: " in out
    sweep = plan_sweep(str(tmp_path / "run.yaml"), QUICK, Axes(folds=2), stages=("prepare", "train", "evaluate"))
    (prepared,) = (tmp_path / "run/prepare").iterdir()
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert sorted(case["split"] for case in manifest["cases"]) == ["fold-1"] * 2 + ["fold-2"] * 2 + ["test"] * 2
    assert len({case["group"] for case in manifest["cases"]}) == 6
    ensemble = sweep.folder / "ensemble"
    models = [sweep.output / json.loads((sweep.folder / f"run-00{n}.json").read_text())["model"] for n in (1, 2)]
    members = [weights.load(model) for model in models]
    card = read_card(ensemble)
    assert card["members"] == [
        {"weights_sha256": member.sha256, "seed": 1, "fold": n} for n, member in enumerate(members, start=1)
    ]
    assert [member.card["training"]["fold"] for member in members] == [{"number": 1, "of": 2}, {"number": 2, "of": 2}]
    scan = raw / "imagesTr" / f"{MARKER}_005.nii.gz"
    for fast in (False, True):
        given = []
        for number, model in enumerate([ensemble, *models]):
            Segmenter(model, fast=fast).segment(scan, keep_scores=True).save_probabilities(
                tmp_path / f"{number}.nii.gz"
            )
            given.append(np.asarray(nib.load(tmp_path / f"{number}.nii.gz").dataobj))  # pyright: ignore[reportAttributeAccessIssue]
        np.testing.assert_allclose(given[0], (given[1] + given[2]) / 2, atol=0.005)
        assert abs(given[1] - given[2]).max() > 0.01
    row = next(row for row in rows((sweep.folder / "settings.csv").read_text()) if row["figure"] == "test_dice")
    assert 0 <= float(row["ensemble"]) <= 1
