"""Every layout and kind gives the splits, stored bytes, weights and figures that it gave before.

`python -m tests.golden.write_trainings` writes what is expected.
"""

import json
from pathlib import Path

import pytest

from tests.golden.summaries import differ, tolerance_of
from tests.golden.trainings import TRAININGS
from tests.golden.write_trainings import EXPECTED, run_training

ALL = json.loads(EXPECTED.read_text("utf-8"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking store for all runs: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(autouse=True)
def tracking_store(address: str, monkeypatch: pytest.MonkeyPatch):
    """The store that the trainings use."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def test_what_is_expected_is_of_these_trainings():
    assert list(ALL) == list(TRAININGS)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_gives_what_it_gave(name: str, tmp_path: Path):
    found, expected = run_training(name, tmp_path), ALL[name]
    assert found["cases"] == expected["cases"]
    assert expected["weights"].keys() <= found["weights"].keys()
    wrong = {
        tensor: (found["weights"][tensor], values)
        for tensor, values in expected["weights"].items()
        if any(differ(*pair, tolerance_of(tensor)) for pair in zip(found["weights"][tensor], values, strict=True))
    }
    assert wrong == {}
    assert expected["figures"].keys() <= found["figures"].keys()
    pairs = {figure: (found["figures"][figure], value) for figure, value in expected["figures"].items()}
    assert {figure: pair for figure, pair in pairs.items() if differ(*pair, tolerance_of(figure))} == {}
