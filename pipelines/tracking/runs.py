"""Runs of a tracking store: their figures, parameters and files, whatever happens to the process or the server."""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from pipelines.runtime.preemption import Preempted
from pipelines.tracking.stores import client_of, open_store, reaching, reason, tracking_uri
from shared_backbones.errors import InputError, require
from shared_backbones.json_values import Document, Json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_PARAMETER_LENGTH = 500  # what every store keeps of a value
_AT_ONCE = 100  # parameters in a message
_BATCH = 500  # figures in a message
_SECONDS, _SECONDS_AWAY = 15.0, 60.0  # between messages; where the last one was not taken

_Figure: TypeAlias = tuple[str, float, int, int]  # name, value, time in ms, step


@dataclass(frozen=True)
class DatasetRecord:
    """What a run notes about a data set.

    Attributes:
        name: Name that MLflow shows.
        digest: Digest of its content, at most 36 characters.
        context: Use of it, `train`, `validation` or `test`.
    """

    name: str
    digest: str
    context: str


def start_run(
    experiment: str,
    name: str,
    *,
    uri: str,
    parameters: Document,
    tags: Mapping[str, str],
    datasets: Sequence[DatasetRecord],
    spool: Path,
    system_metrics: bool = True,
    run_id: str | None = None,
) -> "Run":
    """Begin a run, or go on with one: that of `MLFLOW_RUN_ID`, else `run_id` where the store knows it.

    Args:
        experiment: Name of the experiment, which is made where the store has none of that name.
        name: Name of the run.
        uri: Address of the store, which `open_store` has checked.
        parameters: Nested parameters, which are noted under dotted names.
        tags: Tags, noted beside the code's version and the kind of machine.
        datasets: Data sets that the run reads.
        spool: Folder for figures that the store does not take.
        system_metrics: Whether the machine's load is noted, too.
        run_id: Id of the run that an earlier start of the same job made.

    Raises:
        InputError: the store does not have the run of `MLFLOW_RUN_ID`, or the experiment was deleted.
    """
    with reaching(uri):
        client = client_of(uri)
        needed = os.environ.get("MLFLOW_RUN_ID")
        known = _existing(client, needed or run_id)
        if needed and not known:
            raise InputError(f"MLFLOW_RUN_ID={needed}: the tracking store has no such run; unset it")
        if known:
            client.update_run(known, status="RUNNING")
        else:
            made = client.create_run(_experiment(client, uri, experiment), run_name=name)
        run = Run(client, uri, known or made.info.run_id, spool, system_metrics, resumed=bool(known))
        run._describe(parameters, tags, datasets)
    return run


def schedule_run(uri: str, experiment: str, name: str) -> str:
    """Make a run for a job that has yet to start, and that takes it up by `MLFLOW_RUN_ID`.

    Returns:
        Its id.
    """
    with reaching(uri):
        client = client_of(uri)
        run_id = client.create_run(_experiment(client, uri, experiment), run_name=name).info.run_id
        client.update_run(run_id, status="SCHEDULED")
    return run_id


def close_run(uri: str, run_id: str, status: str, log: Path | None = None) -> None:
    """Note how the job of a run ended, where the job could not do so itself, and keep its log.

    Args:
        uri: Address of the store.
        run_id: Id of the run.
        status: State to note: `FINISHED`, `FAILED` or `KILLED`.
        log: Path of the job's log.
    """
    with reaching(uri):
        client = client_of(uri)
        if log is not None and log.exists():
            client.log_artifact(run_id, str(log), "logs")
        if client.get_run(run_id).info.status != status:
            client.set_terminated(run_id, status)


class Run:
    """One run of a store, written by one process; a context that notes how the run ended. Made by `start_run`.

    Attributes:
        run_id: Id of the run.
        client: Client of the store.
        uri: Address of the store.
    """

    def __init__(
        self, client: "MlflowClient", uri: str, run_id: str, spool: Path, system_metrics: bool, *, resumed: bool = False
    ) -> None:
        self.run_id, self.client, self.uri, self._resumed = run_id, client, uri, resumed
        spool.mkdir(parents=True, exist_ok=True)
        self._spool = spool / f"{run_id}.jsonl"
        # Left behind by a process that was killed, or that had no server.
        self._waiting: list[_Figure] = _read_spool(self._spool)
        self._known: dict[str, set[tuple[str, int, float]]] = {}
        self._next = time.monotonic() + _SECONDS
        self._monitor = _monitor(run_id, uri) if system_metrics else None

    def __enter__(self) -> "Run":
        if self._monitor is not None:
            self._monitor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | Preempted)
        status = "FINISHED" if kind is None else "KILLED" if stopped else "FAILED"
        if self._monitor is not None:
            self._monitor.finish()
        self.flush()
        try:
            self.client.set_terminated(self.run_id, status)
        except Exception as problem:
            self._warn(f"the tracking store did not take the end of run {self.run_id}", problem)
        if self._waiting:
            self._warn(f"{len(self._waiting)} figures could not be sent; the next start of this run sends them", None)

    def log_metrics(self, figures: Mapping[str, float], step: int) -> None:
        """Note figures: in a file at once, so that none is lost, and from time to time in the store.

        Characters of a name that MLflow does not take become `_`. What is not finite is left out.
        """
        now = int(time.time() * 1000)
        new = [(_key(name), float(value), now, step) for name, value in figures.items() if math.isfinite(value)]
        with self._spool.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in new)
        self._waiting += new
        if time.monotonic() > self._next:
            self.flush()

    def flush(self) -> None:
        """Send what waits; figures of steps that a resumed run does again are sent once."""
        from mlflow.entities import Metric

        try:
            while self._waiting:
                part = {(name, step, value): at for name, value, at, step in self._waiting[:_BATCH]}
                new = [key for key in part if key not in self._sent(key[0])]
                if new:
                    metrics = [Metric(name, value, part[name, step, value], step) for name, step, value in new]
                    self.client.log_batch(self.run_id, metrics=metrics)
                if self._resumed:
                    for key in new:
                        self._known[key[0]].add(key)
                del self._waiting[:_BATCH]
        except Exception as problem:  # whatever it is, training goes on
            self._warn("the tracking store does not take figures; they are kept in a file", problem)
            self._next = time.monotonic() + _SECONDS_AWAY
            return
        self._spool.unlink(missing_ok=True)
        self._next = time.monotonic() + _SECONDS

    def _sent(self, name: str) -> set[tuple[str, int, float]]:
        """Steps and values of a figure that the store has; it is asked only where another process wrote to the run."""
        if self._resumed and name not in self._known:
            history = self.client.get_metric_history(self.run_id, name)
            self._known[name] = {(name, noted.step, noted.value) for noted in history}
        return self._known.get(name, set())

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file with the run."""
        try:
            self.client.log_artifact(self.run_id, str(path), folder or None)
        except Exception as problem:
            self._warn(f"the tracking store did not take {path.name}", problem)

    def _describe(self, parameters: Document, tags: Mapping[str, str], datasets: Sequence[DatasetRecord]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        there = self.client.get_run(self.run_id)
        new = [
            Param(_key(name), str(value)[:_PARAMETER_LENGTH])
            for name, value in _flatten(parameters)
            if _key(name) not in there.data.params
        ]
        described = [RunTag(name, str(value)) for name, value in {**tags, **_environment()}.items()]
        self.client.log_batch(self.run_id, tags=described)
        for start in range(0, len(new), _AT_ONCE):
            self.client.log_batch(self.run_id, params=new[start : start + _AT_ONCE])
        known = {entry.dataset.digest for entry in there.inputs.dataset_inputs} if there.inputs else set()
        inputs = [
            DatasetInput(
                Dataset(record.name, record.digest, "local", json.dumps({"digest": record.digest})),
                [InputTag("mlflow.data.context", record.context)],
            )
            for record in datasets
        ]
        if inputs and not known:
            self.client.log_inputs(self.run_id, datasets=inputs)

    def _warn(self, line: str, problem: Exception | None) -> None:
        print(f"warning: {line}{'' if problem is None else f' ({reason(problem)})'}", flush=True)


def _monitor(run_id: str, uri: str) -> "SystemMetricsMonitor":
    require("psutil", "train")
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    return SystemMetricsMonitor(run_id, tracking_uri=uri)


def log_to_run(run_id: str, figures: Mapping[str, float], files: Sequence[Path], *, folder: str) -> None:
    """Note figures and keep files with a run that is there already, whatever its state, which stays as it is.

    Raises:
        InputError: the store cannot be used, or has no such run.
    """
    from mlflow.entities import Metric

    store = tracking_uri()
    open_store(store)
    with reaching(store):
        client = client_of(store)
        if _existing(client, run_id) is None:
            raise InputError(f"run {run_id}: not in {store}; see the ids there, or set MLFLOW_TRACKING_URI")
        now = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(_key(name), float(value), now, 0) for name, value in figures.items()])
        for path in files:
            client.log_artifact(run_id, str(path), folder)


def _experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment, which is made where the store has none of that name."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None
        if uri.startswith("sqlite:///"):
            location = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise InputError(f"experiment {name}: was deleted from the tracking store; restore it or name another")
    return experiment.experiment_id


def _existing(client: "MlflowClient", run_id: str | None) -> str | None:
    """The run, if the store still has it."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run_id if run.info.lifecycle_stage == "active" else None


def _read_spool(path: Path) -> "list[_Figure]":
    """Figures of a file; a line that was cut off is left out."""
    figures: list[_Figure] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            name, value, at, step = json.loads(line)
            figures.append((name, value, at, step))
    return figures


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _flatten(parameters: Document, prefix: str = "") -> list[tuple[str, Json]]:
    flat = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{name}.")
        elif value is not None:
            flat.append((f"{prefix}{name}", value))
    return flat


def _environment() -> dict[str, str]:
    """Versions and the kind of machine; no name of a host, a person or a folder."""
    versions = {f"version.{package}": importlib.metadata.version(package) for package in ("domain-vision", "torch")}
    machine = {**versions, "version.python": platform.python_version(), "machine": platform.machine()}
    here = Path(__file__).parent
    git = shutil.which("git")
    if git:
        commit = _output(git, "-C", str(here), "rev-parse", "HEAD")
        if commit:
            changed = _output(git, "-C", str(here), "status", "--porcelain")
            machine |= {"git.commit": commit, "git.dirty": str(bool(changed)).lower()}
    return machine


def _output(*command: str) -> str:
    """What a program prints; nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - git, with fixed words
    return done.stdout.strip() if done.returncode == 0 else ""
