"""Runs and figures in MLflow; of its registered models see `pipelines.tracking.registry`. No other module calls it.

By default the store is a database `mlruns/mlflow.db` with plain artifact files beside it, in the current folder;
`MLFLOW_TRACKING_URI` names another. Nothing is pickled, nothing is logged by itself, and no usage data is sent.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipelines.runtime.preemption import Preempted
from shared_backbones.errors import InputError, require

# Read by mlflow when it is imported.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # else a lock file of the current folder is kept beside a model
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for name, value in (("TIMEOUT", "10"), ("MAX_RETRIES", "2"), ("BACKOFF_FACTOR", "1")):
    os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)

_PARAMETER_LENGTH = 500  # what every store keeps of a value
_AT_ONCE = 100  # parameters in a message
_BATCH = 500  # figures in a message
_SECONDS, _SECONDS_AWAY = 15.0, 60.0  # between messages; where the last one was not taken


_Figure = tuple[str, float, int, int]  # name, value, time in ms, step


@dataclass(frozen=True)
class DatasetRecord:
    """What is noted of a data set.

    Attributes:
        name: shown in MLflow.
        digest: of its content, at most 36 characters.
        context: `train`, `validation` or `test`.
    """

    name: str
    digest: str
    context: str


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the database in the current folder; never what mlflow would find by itself."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}"


def open_store(uri: str) -> None:
    """See that a store can be used, and make a database that is not there yet.

    Several processes may call this at once: the first makes the tables, the others wait.

    Raises:
        InputError: the store cannot be reached or made, or its address holds a password.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme in {"http", "https"} and (parts.username or parts.password):
        raise InputError(
            f"MLFLOW_TRACKING_URI={parts.scheme}://...@{parts.hostname}: holds a password, which would be noted with "
            "the run; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    if parts.scheme in {"", "file"}:
        raise InputError(f"tracking store {uri}: plain folders are no store any more; use sqlite:///PATH/mlflow.db")
    require("mlflow", "train")
    with reaching(uri):
        if parts.scheme == "sqlite":
            path = Path(uri.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            with (path.parent / f".{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                client_of(uri).search_experiments(max_results=1)
        else:
            client_of(uri).search_experiments(max_results=1)


def start_run(
    experiment: str,
    name: str,
    *,
    uri: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[DatasetRecord],
    spool: Path,
    system_metrics: bool = True,
    run_id: str | None = None,
) -> "Run":
    """Begin a run, or go on with one: that of `MLFLOW_RUN_ID`, else `run_id` where the store knows it.

    Args:
        experiment: made where the store has none of that name.
        name: of the run.
        uri: of a store that `open_store` has seen.
        parameters: nested; noted under dotted names.
        tags: noted beside the code's version and the machine's kind.
        datasets: what it reads.
        spool: folder for figures that the store does not take.
        system_metrics: note the machine's load, too.
        run_id: of an earlier start of the same job.

    Raises:
        InputError: the store does not have the run of `MLFLOW_RUN_ID`, or the experiment was deleted.
    """
    with reaching(uri):
        client = client_of(uri)
        wanted = os.environ.get("MLFLOW_RUN_ID")
        known = _existing(client, wanted or run_id)
        if wanted and not known:
            raise InputError(f"MLFLOW_RUN_ID={wanted}: the tracking store has no such run; unset it")
        if known:
            client.update_run(known, status="RUNNING")
        else:
            made = client.create_run(_experiment(client, uri, experiment), run_name=name)
        run = Run(client, uri, known or made.info.run_id, spool, system_metrics, resumed=bool(known))
        run._describe(parameters, tags, datasets)
    return run


def check_seen_from_nodes(uri: str) -> None:
    """See that an address means the same store on other machines.

    Raises:
        InputError: it is that of a server on this very machine.
    """
    parts = urllib.parse.urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme in {"http", "https"} and (host in {"localhost", "::1"} or host.startswith("127.")):
        raise InputError(
            f"MLFLOW_TRACKING_URI={uri}: means another machine on every node of a cluster; give the name or address "
            "under which nodes reach the server"
        )


def schedule_run(uri: str, experiment: str, name: str) -> str:
    """Make a run for a job that is yet to start, and which finds it by `MLFLOW_RUN_ID`.

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
        uri: of the store.
        run_id: of the run.
        status: `FINISHED`, `FAILED` or `KILLED`.
        log: a file.
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
        run_id: of the run.
        client: of the store.
        uri: of the store.
    """

    def __init__(
        self, client: Any, uri: str, run_id: str, spool: Path, system_metrics: bool, *, resumed: bool = False
    ) -> None:
        self.run_id, self.client, self.uri, self._resumed = run_id, client, uri, resumed
        spool.mkdir(parents=True, exist_ok=True)
        self._spool = spool / f"{run_id}.jsonl"
        # Left behind by a process that was killed, or that had no server.
        self._waiting: list[_Figure] = _read_spool(self._spool)
        self._known: dict[str, set[tuple[str, int, float]]] = {}
        self._next = time.monotonic() + _SECONDS
        self._monitor: Any = None
        if system_metrics:
            require("psutil", "train")
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(run_id, tracking_uri=uri)

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
        """Steps and values that the store has of a figure; of a run that only this process wrote, nothing is asked."""
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

    def _describe(
        self, parameters: Mapping[str, Any], tags: Mapping[str, str], datasets: Sequence[DatasetRecord]
    ) -> None:
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
        known = {entry.dataset.digest for entry in there.inputs.dataset_inputs}
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
        print(f"warning: {line}{'' if problem is None else f' ({_reason(problem)})'}", flush=True)


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


def client_of(uri: str) -> Any:
    """The client of a store."""
    require("mlflow", "train")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it speaks of every step
    mlflow.set_tracking_uri(uri)  # some of what a client does asks the store of the whole process
    return mlflow.MlflowClient(uri)


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """What mlflow, its HTTP client and its database raise, each of their own kinds, as one line."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise InputError(
            f"tracking store {uri}: cannot be used ({_reason(error)}); start the server, or set MLFLOW_TRACKING_URI "
            "to another"
        ) from None


def _reason(problem: Exception) -> str:
    return str(problem).partition("\n")[0][:200]


def _experiment(client: Any, uri: str, name: str) -> str:
    """Id of the experiment, which is made where the store has none of that name."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None
        if uri.startswith("sqlite:///"):
            location = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(f"experiment {name}: was deleted from the tracking store; restore it or name another")
    return found.experiment_id


def _existing(client: Any, run_id: str | None) -> str | None:
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
    """Figures of a file; a line that was cut off is none."""
    found: list[_Figure] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            name, value, at, step = json.loads(line)
            found.append((name, value, at, step))
    return found


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((f"{prefix}{name}", value))
    return found


def _environment() -> dict[str, str]:
    """Versions and the kind of machine; no name of a host, a person or a folder."""
    versions = {f"version.{package}": importlib.metadata.version(package) for package in ("domain-vision", "torch")}
    found = {**versions, "version.python": platform.python_version(), "machine": platform.machine()}
    here = Path(__file__).parent
    git = shutil.which("git")
    if git:
        commit = _output(git, "-C", str(here), "rev-parse", "HEAD")
        if commit:
            changed = _output(git, "-C", str(here), "status", "--porcelain")
            found |= {"git.commit": commit, "git.dirty": str(bool(changed)).lower()}
    return found


def _output(*command: str) -> str:
    """What a program prints; nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - git, with fixed words
    return done.stdout.strip() if done.returncode == 0 else ""
