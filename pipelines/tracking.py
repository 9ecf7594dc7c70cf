"""Runs, figures and registered models in MLflow: every call of it that the suite makes.

By default the store is a database `mlruns/mlflow.db` with plain artifact files beside it, in the current folder;
`MLFLOW_TRACKING_URI` names another. Nothing is pickled, nothing is logged by itself, and no usage data is sent.
"""

import contextlib
import fcntl
import importlib.metadata
import io
import json
import logging
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from shared_backbones.errors import InputError, require
from shared_backbones.weights import CARD, WEIGHTS, read_card

# Read by mlflow when it is imported.
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for name, value in (("TIMEOUT", "10"), ("MAX_RETRIES", "2"), ("BACKOFF_FACTOR", "1")):
    os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)

MODEL_URI = re.compile(r"^(models|runs):/")
_PARAMETER_LENGTH = 500  # what every store keeps of a value
_BATCH = 500  # figures sent together, at most
_SECONDS = 15.0  # between sendings


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
    try:
        if parts.scheme == "sqlite":
            path = Path(uri.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            with (path.parent / f".{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _client(uri).search_experiments(max_results=1)
        else:
            _client(uri).search_experiments(max_results=1)
    except InputError:
        raise
    except Exception as error:  # mlflow, its HTTP client and its database each raise their own kinds
        reason = str(error).partition("\n")[0][:200]
        raise InputError(
            f"tracking store {uri}: cannot be used ({reason}); start the server, or set MLFLOW_TRACKING_URI to another"
        ) from None


def start_run(
    experiment: str,
    name: str,
    *,
    uri: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[DatasetRecord],
    spool: Path,
    system_metrics: bool = False,
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
    """
    client = _client(uri)
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        experiment_id = found.experiment_id
    else:
        location = None
        if uri.startswith("sqlite:///"):
            location = str((Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri())
        experiment_id = client.create_experiment(experiment, artifact_location=location)
    known = os.environ.get("MLFLOW_RUN_ID") or _existing(client, run_id)
    if known:
        client.update_run(known, status="RUNNING")
    else:
        known = client.create_run(experiment_id, run_name=name, tags={"mlflow.runName": name}).info.run_id
    run = Run(client, uri, known, spool, system_metrics)
    run._describe(parameters, tags, datasets)
    return run


class Run:
    """One run of a store, written by one process; a context that notes how the run ended.

    Attributes:
        run_id: of the run.
    """

    def __init__(self, client: Any, uri: str, run_id: str, spool: Path, system_metrics: bool) -> None:
        self.run_id, self._client, self._uri = run_id, client, uri
        self._waiting: list[tuple[str, float, int, int]] = []
        self._sent_at = time.monotonic()
        spool.mkdir(parents=True, exist_ok=True)
        self._spool = spool / f"{run_id}.jsonl"
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
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        if self._monitor is not None:
            self._monitor.finish()
        self.flush()
        try:
            self._client.set_terminated(self.run_id, status)
        except Exception as problem:
            self._warn(f"the tracking store did not take the end of run {self.run_id}", problem)
        if self._spool.exists():
            lines = len(self._spool.read_text(encoding="utf-8").splitlines())
            self._warn(f"{lines} figures could not be sent; the next start of this run sends them", None)

    def log_metrics(self, figures: Mapping[str, float], step: int) -> None:
        """Note figures; they are sent together from time to time, and kept in a file while the store is away."""
        now = int(time.time() * 1000)
        self._waiting += [(name, float(value), now, step) for name, value in figures.items() if math.isfinite(value)]
        if len(self._waiting) >= _BATCH or time.monotonic() - self._sent_at > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits, and what an earlier failure left behind."""
        entries = self._waiting
        if self._spool.exists():
            kept = [json.loads(line) for line in self._spool.read_text(encoding="utf-8").splitlines()]
            entries = [(name, value, at, step) for name, value, at, step in kept] + entries
        self._waiting, self._sent_at = [], time.monotonic()
        while entries:
            part = entries[:_BATCH]
            try:
                from mlflow.entities import Metric

                metrics = [Metric(name, value, at, step) for name, value, at, step in part]
                self._client.log_batch(self.run_id, metrics=metrics)
            except Exception as problem:
                with tempfile.NamedTemporaryFile("w", dir=self._spool.parent, delete=False, encoding="utf-8") as file:
                    file.writelines(json.dumps(entry) + "\n" for entry in entries)
                os.replace(file.name, self._spool)
                self._warn("the tracking store does not answer; figures are kept in a file", problem)
                return
            entries = entries[len(part) :]
        self._spool.unlink(missing_ok=True)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file with the run."""
        try:
            self._client.log_artifact(self.run_id, str(path), folder or None)
        except Exception as problem:
            self._warn(f"the tracking store did not take {path.name}", problem)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as a file with the run."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            self.log_artifact(path)

    def register(self, model: Path, name: str, alias: str, example: np.ndarray) -> int:
        """Register a trained-model folder under a name and an alias; returns the version.

        It is kept as MLflow's "model from code", whose code is `served_model.py`; the folder is its only artifact.
        """
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        kinds = np.dtype(np.float32)
        inputs = TensorSpec(kinds, (-1, *example.shape[1:2], *[-1] * (example.ndim - 2)))
        signature = ModelSignature(Schema([inputs]), Schema([TensorSpec(kinds, (-1,) * example.ndim)]))
        mlflow.set_tracking_uri(self._uri)
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # what it says at every step of a registration
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of type hints, which a model from code has no use for
            bare = Path(folder) / "model"
            bare.mkdir()
            for part in (WEIGHTS, CARD):
                shutil.copyfile(model / part, bare / part)
            with mlflow.start_run(run_id=self.run_id):
                info: Any = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(Path(__file__).with_name("served_model.py")),
                    artifacts={"model": str(bare)},
                    signature=signature,
                    input_example=example,
                    pip_requirements=[f"domain-vision=={importlib.metadata.version('domain-vision')}"],
                    registered_model_name=name,
                )
        self._client.set_registered_model_alias(name, alias, info.registered_model_version)
        return int(info.registered_model_version)

    def _describe(
        self, parameters: Mapping[str, Any], tags: Mapping[str, str], datasets: Sequence[DatasetRecord]
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        there = self._client.get_run(self.run_id)
        new = {n: str(v)[:_PARAMETER_LENGTH] for n, v in _flatten(parameters) if n not in there.data.params}
        described = {**tags, **_environment()}
        self._client.log_batch(
            self.run_id,
            params=[Param(n, v) for n, v in new.items()],
            tags=[RunTag(n, str(v)) for n, v in described.items()],
        )
        known = {entry.dataset.digest for entry in there.inputs.dataset_inputs}
        inputs = [
            DatasetInput(
                Dataset(record.name, record.digest, "local", json.dumps({"digest": record.digest})),
                [InputTag("mlflow.data.context", record.context)],
            )
            for record in datasets
        ]
        if inputs and not known:
            self._client.log_inputs(self.run_id, datasets=inputs)
        self.flush()

    def _warn(self, line: str, problem: Exception | None) -> None:
        reason = f" ({str(problem).partition(chr(10))[0][:160]})" if problem is not None else ""
        print(f"warning: {line}{reason}", flush=True)


def resolve_model(uri: str, cache: Path) -> Path:
    """Bring a registered or noted model here: only `model.safetensors` and `model.json`, and no code.

    Args:
        uri: `models:/name@alias`, `models:/name/3` or `runs:/id/model`.
        cache: folder in which the model gets a folder of its own.

    Returns:
        The trained-model folder.

    Raises:
        InputError: there is no such model, or it is none of ours.
    """
    store = tracking_uri()
    open_store(store)
    import mlflow
    from mlflow.artifacts import download_artifacts, list_artifacts

    mlflow.set_tracking_uri(store)
    cache.mkdir(parents=True, exist_ok=True)
    try:
        found = next(
            (
                item.path
                for folder in ("artifacts/model", "artifacts")
                for item in list_artifacts(artifact_uri=f"{uri}/{folder}")
                if item.path.endswith(CARD)
            ),
            None,
        )
    except Exception as error:
        reason = str(error).partition("\n")[0][:160]
        raise InputError(f"model {uri}: not found in {store} ({reason}); see the names there") from None
    if found is None:
        raise InputError(f"model {uri}: holds no {CARD}; expected one that this suite registered")
    folder = Path(found).parent.as_posix()
    folder = folder[folder.index("artifacts") :]
    target = Path(tempfile.mkdtemp(dir=cache))
    for part in (CARD, WEIGHTS):
        download_artifacts(artifact_uri=f"{uri}/{folder}/{part}", dst_path=str(target))
    inner = next(target.rglob(CARD)).parent
    read_card(inner)
    return inner


def _client(uri: str) -> Any:
    require("mlflow", "train")
    from mlflow import MlflowClient

    return MlflowClient(uri)


def _existing(client: Any, run_id: str | None) -> str | None:
    """The run, if the store still has it."""
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except Exception:
        return None
    return run_id if run.info.lifecycle_stage == "active" else None


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
