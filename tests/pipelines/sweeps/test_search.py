"""Searches by Optuna: what is refused, and what a search that was killed tries again."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe.loading import load_recipe
from pipelines.sweeps.search import plan_search
from shared_backbones.errors import InputError
from tests.conftest import ROOT
from tests.pipelines.balls import write_raw, write_recipe
from tests.pipelines.sweeps.small_recipe import QUICK, write_small_recipe
from tests.pipelines.sweeps.test_sweep import until

SPACE = {
    "train.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "train.batch_size": {"low": 2, "high": 4, "step": 2},
    "data.patch": {"choices": [[16, 16, 16], [16, 16, 8]]},
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw"))


def recipe(raw: Path, folder: Path, **changes: Any) -> str:
    return write_small_recipe(folder, raw, search={"trials": 3, "space": SPACE, **changes})


def start(path: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", "run", path, *QUICK, "--stages=prepare,train", "--search=optuna"]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def test_a_search_that_was_killed_takes_up_the_trial_that_was_at_work(raw: Path, tmp_path: Path, store: str):
    path = recipe(raw, tmp_path)
    process = start(path)
    until(process, "trial 1: ")
    until(process, "train:")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = start(path)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, (out, err)
    assert "prepare: 6 cases" not in out and out.count("train: hbformer") <= 2
    (folder,) = (tmp_path / "run/searches").iterdir()
    with (folder / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert [trial["state"] for trial in trials] == ["complete", "fail", "complete", "complete"]
    keys = list(SPACE)
    assert [trials[1][key] for key in keys] == [trials[2][key] for key in keys]
    done = [trial for trial in trials if trial["state"] == "complete"]
    best = max(done, key=lambda trial: float(trial["validation_dice"]))
    chosen = load_recipe(str(folder / "best.yaml"))
    assert chosen.train.learning_rate == float(best["train.learning_rate"]) and chosen.search is None
    assert {int(trial["train.batch_size"]) for trial in done} <= {2, 4}
    assert str(tmp_path) not in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"space": {"train.learning_rat": {"low": 1, "high": 2}}}, "did you mean learning_rate"),
        ({"space": {"train.learning_rate": {"low": -1, "high": 2}}}, "greater than 0, found -1"),
        ({"space": {"train.learning_rate": {"low": 2, "high": 1}}}, "low to be less than high"),
        ({"space": {"train.learning_rate": {"low": 0, "high": 1, "log": True}}}, "needs a low above 0"),
        ({"space": {"train.optimizer": {"choices": []}}}, "search.space.train.optimizer.choices: List should have"),
        ({"space": {"train.optimizer": {"choices": ["sgd"], "low": 1}}}, "give either choices, or low and high"),
        ({"space": {"train.optimizer": {}}}, "expected choices, or low to be less than high"),
        ({"space": {"train.optimizer": {"choices": ["adam"]}}}, "'adamw' or 'sgd', found 'adam'"),
        ({"space": {"seed": {"low": 1, "high": 2}}}, "space.seed: cannot be searched"),
        ({"space": {"data.split_seed": {"low": 1, "high": 2}}}, "decides which cases trials are judged on"),
        ({"space": {"data.validation": {"low": 0.1, "high": 0.2}}}, "decides which cases trials are judged on"),
        ({"space": {"evaluate.protocol": {"choices": ["monai"]}}}, "cannot be searched"),
        ({"space": {}}, "at least 1 item"),
        ({"trials": 0}, "greater than 0"),
        ({"pruner": "x"}, "'none' or 'median'"),
        ({"trial": 2}, "did you mean trials"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_line(raw: Path, tmp_path: Path, section: dict[str, Any], message: str):
    with pytest.raises(InputError) as caught:
        plan_search(recipe(raw, tmp_path, **section), [])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_recipe_without_a_space_says_so(raw: Path, tmp_path: Path):
    with pytest.raises(InputError, match="has no section search"):
        plan_search(write_recipe(tmp_path / "ball.yaml", raw, tmp_path / "run"), [])
