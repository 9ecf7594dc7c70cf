"""One tracking store for all tests: making its tables takes seconds."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with its tables."""
    from pipelines.tracking.stores import open_store

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/made.db"
    with pytest.MonkeyPatch.context() as patch:  # MLflow sets the variable, which later tests would write by
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        open_store(uri)
    return (folder / "made.db").rename(folder / "mlflow.db")  # where no address leads any more


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a tracking store of the test's own, which everything in it uses."""
    path = tmp_path / "mlruns" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(migrated, path)
    uri = f"sqlite:///{path}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    yield uri
    import mlflow

    while mlflow.active_run():
        mlflow.end_run()
