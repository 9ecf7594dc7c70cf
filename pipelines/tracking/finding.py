"""Runs of the tracking store, found by id or name and read back."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking.answers import files_of
from pipelines.tracking.stores import client_of, open_store, reaching, shown_uri, tracking_uri
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

_FIGURES = ("test_", "validation_")


@dataclass(frozen=True)
class TrackedRun:
    """A run of the store.

    Attributes:
        client: Client of the store.
        uri: Address of the store.
        stored: The run as MLflow gives it.
    """

    client: "MlflowClient"
    uri: str
    stored: "StoredRun"

    @property
    def label(self) -> str:
        """Name and id."""
        return f"{self.stored.info.run_name} ({self.stored.info.run_id})"

    @property
    def settings(self) -> dict[str, str]:
        """Parameters by dotted key."""
        return dict(self.stored.data.params)

    @property
    def data(self) -> dict[str, str]:
        """Digest of the data of each split."""
        inputs = self.stored.inputs.dataset_inputs if self.stored.inputs else []
        return {
            next((tag.value for tag in entry.tags if tag.key == "mlflow.data.context"), entry.dataset.name): (
                entry.dataset.digest
            )
            for entry in inputs
        }

    @property
    def figures(self) -> dict[str, float]:
        """The latest figures of validation and test."""
        metrics = self.stored.data.metrics
        return {name: value for name, value in sorted(metrics.items()) if name.startswith(_FIGURES)}

    def download(self, folder: str, names: Sequence[str], target: Path) -> None:
        """Fetch files of a folder of the run's artifacts, where it has them."""
        with reaching(self.uri), files_of(self.uri), contextlib.suppress(OSError):
            there = {entry.path for entry in self.client.list_artifacts(self.stored.info.run_id, folder)}
            for name in names:
                if f"{folder}/{name}" in there:
                    path = self.client.download_artifacts(self.stored.info.run_id, f"{folder}/{name}", str(target))
                    Path(path).rename(target / name)


def find_run(name: str) -> TrackedRun:
    """The run of an id, or the only one of a name; else the only one of a recipe of that name.

    Raises:
        InputError: the store cannot be used, or has no such run, or several of that name.
    """
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:") and not file.exists():
        raise InputError(
            f"run {printable(name)}: no such folder, and no tracking store {file}; set MLFLOW_TRACKING_URI"
        )
    open_store(uri)
    with reaching(uri):
        client = client_of(uri)
        with contextlib.suppress(MlflowException):
            return TrackedRun(client, uri, client.get_run(name))
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        quoted = name.replace("'", "")
        for filter_string in (f"attributes.run_name = '{quoted}'", f"tags.recipe = '{quoted}'"):
            named = client.search_runs(experiments, filter_string, max_results=6)
            if named:
                break
    if not named:
        raise InputError(
            f"run {printable(name)}: neither a folder nor a run of {shown_uri(uri)}; give an id, a name or an output "
            "folder, or set MLFLOW_TRACKING_URI"
        )
    if len(named) > 1:
        ids = ", ".join(run.info.run_id for run in named[:5])
        raise InputError(f"run {printable(name)}: several have that name; give one by its id: {ids}")
    return TrackedRun(client, uri, named[0])
