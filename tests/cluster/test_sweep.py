"""A sweep as an array of the real SLURM: the table that one machine makes."""

from pathlib import Path

from tests.cluster.conftest import Home
from tests.cluster.small_cluster import SmallCluster

AXES = ("--sweep=train.learning_rate=1e-3,1e-2", "--folds=2", "--stages=prepare,train,evaluate")
SHORT = {"train.steps": 20, "train.validate_every": 10}
TABLES = ("settings.csv", "differences.csv", "runs.csv")


def tables(home: Home, output: str) -> dict[str, str]:
    (folder,) = (home.folder / output / "sweeps").iterdir()
    return {name: (folder / name).read_text() for name in TABLES}


def test_an_array_makes_the_table_of_one_machine(home: Home, cluster: SmallCluster):
    queued = home.medvision(
        "run", *home.overrides("array", **SHORT), *AXES, "--on=slurm", "--wait", environment=cluster.environment
    )
    assert "4 runs queued" in queued and "COMPLETED" in queued
    home.medvision("run", *home.overrides("here", **SHORT), *AXES)
    assert tables(home, "array") == tables(home, "here")
    assert len(list((home.folder / "array/prepare").iterdir())) == 1
    check_parent(home, home.folder / "array")


def check_parent(home: Home, output: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(home.uri)
    (folder,) = (output / "sweeps").iterdir()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.sweep = '{folder.name}'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 5
    assert len({run.data.tags.get("mlflow.parentRunId") for run in runs}) == 2
