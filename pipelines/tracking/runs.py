"""Runs of a tracking store: their figures, parameters and files, whatever happens to the process or the server."""

import contextlib
import functools
import math
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pipelines.runtime.preemption import Preempted
from pipelines.tracking.answers import files_of
from pipelines.tracking.datasets import DatasetRecord, as_input
from pipelines.tracking.experiments import EXPERIMENT_ID, EXPERIMENT_NAME, find_experiment
from pipelines.tracking.figures import Sender, now
from pipelines.tracking.source import environment_tags
from pipelines.tracking.stores import client_of, open_store, reaching, reason, shown_uri, tracking_uri
from shared_backbones.errors import InputError, require
from shared_backbones.json_values import Document, leaves

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_PARAMETER_LENGTH = 500  # what every store keeps of a value
_AT_ONCE = 100  # parameters in a message
_SECONDS_TO_END = 10.0


def start_run(
    experiment: str,
    name: str,
    *,
    asked: bool = False,
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
        experiment: Name of the experiment, which is made where the store has none of that name; MLFLOW_EXPERIMENT_NAME
            or MLFLOW_EXPERIMENT_ID name another, unless it is `asked` for.
        name: Name of the run.
        asked: Whether the user asked for that experiment: variables may not contradict it then.
        uri: Address of the store, which `open_store` has checked.
        parameters: Nested parameters, which are noted under dotted names.
        tags: Tags, noted beside the code's version and the kind of machine.
        datasets: Data sets that the run reads.
        spool: Folder for figures that the store does not take.
        system_metrics: Whether the machine's load is noted, too.
        run_id: Id of the run that an earlier start of the same job made.

    Raises:
        InputError: the store does not have the run of `MLFLOW_RUN_ID`, or that is a run of other settings; or the
            experiment was deleted, or is not the one that MLflow's variables name.
    """
    with reaching(uri):
        client = client_of(uri)
        needed = os.environ.get("MLFLOW_RUN_ID")
        known = _existing(client, needed or run_id)
        find = functools.partial(find_experiment, client, uri, experiment, asked)
        if not _suits(client, known, needed, find, parameters):
            known = None
        if known:
            client.update_run(known, status="RUNNING")
        else:
            made = client.create_run(find(), run_name=name)
        run = Run(client, uri, known or made.info.run_id, spool, system_metrics, resumed=bool(known))
        run._describe(parameters, tags, datasets)
    return run


def run_of_environment(uri: str, experiment: str, *, asked: bool, parameters: Document) -> str | None:
    """Id of the run that `MLFLOW_RUN_ID` names, where it is set; see `start_run`.

    Raises:
        InputError: the store has no such run, or it is one of another experiment or of other settings.
    """
    needed = os.environ.get("MLFLOW_RUN_ID")
    if needed:
        with reaching(uri):
            client = client_of(uri)
            find = functools.partial(find_experiment, client, uri, experiment, asked)
            _suits(client, _existing(client, needed), needed, find, parameters)
    return needed


def _suits(
    client: "MlflowClient", run_id: str | None, needed: str | None, find: Callable[[], str], parameters: Document
) -> bool:
    """Whether there is a run, and it can be gone on with.

    Raises:
        InputError: it is the one of `MLFLOW_RUN_ID`, and cannot.
    """
    if run_id is None:
        if needed:
            raise InputError(f"MLFLOW_RUN_ID={needed}: the tracking store has no such run; unset it")
        return False
    there = client.get_run(run_id)
    chosen = bool(os.environ.get(EXPERIMENT_NAME) or os.environ.get(EXPERIMENT_ID))
    elsewhere = chosen and find() != there.info.experiment_id
    if needed is None:
        return not elsewhere
    if elsewhere:
        raise InputError(
            f"MLFLOW_RUN_ID={needed}: is a run of another experiment than {EXPERIMENT_NAME} or {EXPERIMENT_ID} says; "
            "unset these, or MLFLOW_RUN_ID"
        )
    for key, value in as_parameters(parameters).items():
        if there.data.params.get(key, value) != value:
            raise InputError(
                f"MLFLOW_RUN_ID={needed}: is a run with {key}={there.data.params[key]}, found {key}={value} now; unset "
                "it, or run what it was made for"
            )
    return True


def schedule_run(uri: str, experiment: str, name: str, *, asked: bool = False) -> str:
    """Make a run for a job that has yet to start, and that takes it up by `MLFLOW_RUN_ID`; see `start_run`.

    Returns:
        Its id.
    """
    with reaching(uri):
        client = client_of(uri)
        run_id = client.create_run(find_experiment(client, uri, experiment, asked), run_name=name).info.run_id
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
            try:
                with files_of(uri):
                    client.log_artifact(run_id, str(log), "logs")
            except InputError as error:
                print(f"warning: the log of run {run_id} is not kept with it ({error})", flush=True)
        if client.get_run(run_id).info.status != status:
            client.set_terminated(run_id, status)


class Run:
    """One run of a store, written by one process; a context that notes how the run ended. Made by `start_run`.

    Attributes:
        run_id: Id of the run.
        experiment_id: Id of its experiment.
        client: Client of the store.
        uri: Address of the store.
        parameters: Parameters, under dotted names.
        datasets: Data sets that the run reads.
    """

    def __init__(
        self, client: "MlflowClient", uri: str, run_id: str, spool: Path, system_metrics: bool, *, resumed: bool = False
    ) -> None:
        self.run_id, self.client, self.uri, self.experiment_id = run_id, client, uri, ""
        self.parameters: dict[str, str] = {}
        self.datasets: Sequence[DatasetRecord] = ()
        spool.mkdir(parents=True, exist_ok=True)
        self._figures = Sender(client, run_id, spool / f"{run_id}.jsonl", resumed, self._not_taken)
        self._monitor = _monitor(run_id, uri, resumed) if system_metrics else None

    def __enter__(self) -> "Run":
        self._figures.start()
        if self._monitor is not None:
            self._monitor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | Preempted)
        status = "FINISHED" if kind is None else "KILLED" if stopped else "FAILED"
        if self._monitor is not None:  # which asks the store, for as long as that takes
            ending = threading.Thread(target=self._monitor.finish, daemon=True)
            ending.start()
            ending.join(_SECONDS_TO_END)
        left = self._figures.close()
        try:
            if self._figures.away:
                raise ConnectionError("it took no figures")
            self.client.set_terminated(self.run_id, status)
        except Exception as problem:
            self._warn(f"the tracking store did not take the end of run {self.run_id}", problem)
        if left:
            self._warn(f"{left} figures could not be sent; the next start of this run sends them", None)

    def log_metrics(self, figures: Mapping[str, float], step: int) -> None:
        """Note figures: in a file at once, so that none is lost, and from time to time, by a thread, in the store.

        Characters of a name that MLflow does not take become `_`. What is not finite is left out.
        """
        at = now()
        self._figures.add(
            [(key_of(name), float(value), at, step) for name, value in figures.items() if math.isfinite(value)]
        )

    def flush(self) -> None:
        """Send what waits; figures of steps that a resumed run does again are sent once."""
        self._figures.flush()

    def show_training(self, history: Sequence[tuple[int, Mapping[str, float]]], maker: Document) -> None:
        """Show the curves of a training that another run has made, with a link to that run.

        Args:
            history: Figures by step.
            maker: `run_id` and `experiment_id` of that run, where it was tracked.
        """
        if maker.get("run_id") == self.run_id:
            return
        for step, figures in history:
            self.log_metrics(figures, step)
        with contextlib.suppress(Exception):  # which never stops what follows training
            if _existing(self.client, maker.get("run_id")) is None:
                return  # not tracked, or in another store, or deleted
            address = f"#/experiments/{maker['experiment_id']}/runs/{maker['run_id']}"
            self.set_tag("training.run_id", maker["run_id"])
            self.set_tag("mlflow.note.content", f"Trained by [another run]({address}), whose curves are shown here.")

    def set_tag(self, name: str, value: str) -> None:
        """Note a tag."""
        try:
            self.client.set_tag(self.run_id, name, value)
        except Exception as problem:
            self._warn(f"the tracking store did not take the tag {name}", problem)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file with the run."""
        try:
            with files_of(self.uri):
                self.client.log_artifact(self.run_id, str(path), folder or None)
        except Exception as problem:
            self._warn(f"the tracking store did not take {path.name}", problem)

    def _describe(self, parameters: Document, tags: Mapping[str, str], datasets: Sequence[DatasetRecord]) -> None:
        from mlflow.entities import Param, RunTag

        self.parameters, self.datasets = as_parameters(parameters), datasets
        there = self.client.get_run(self.run_id)
        self.experiment_id = there.info.experiment_id
        if not self.uri.startswith(("sqlite:", "http:", "https:")) and _is_local(there.info.artifact_uri):
            self._warn(
                "files of this run are kept in a folder of this machine, where others do not find them; use a tracking "
                "server, or an experiment whose artifact location all machines share",
                None,
            )
        new = [Param(*pair) for pair in self.parameters.items() if pair[0] not in there.data.params]
        tags = {**tags, **environment_tags()}
        source = {name: value for name, value in tags.items() if name.startswith("mlflow.source.")}
        if there.data.tags.get("mlflow.source.type") == "PROJECT":  # `mlflow run` made the run, and said what it runs
            tags = {name: value for name, value in tags.items() if name not in source}
        self.client.log_batch(self.run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])
        for start in range(0, len(new), _AT_ONCE):
            self.client.log_batch(self.run_id, params=new[start : start + _AT_ONCE])
        known = {entry.dataset.digest for entry in there.inputs.dataset_inputs} if there.inputs else set()
        inputs = [as_input(record, source) for record in datasets]
        if inputs and not known:
            self.client.log_inputs(self.run_id, datasets=inputs)

    def _not_taken(self, problem: Exception) -> None:
        self._warn("the tracking store does not take figures; they are kept in a file", problem)

    def _warn(self, line: str, problem: Exception | None) -> None:
        print(f"warning: {line}{'' if problem is None else f' ({reason(problem, self.uri)})'}", flush=True)


def _is_local(artifacts: str | None) -> bool:
    return artifacts is not None and urllib.parse.urlsplit(artifacts).scheme in {"", "file"}


def _monitor(run_id: str, uri: str, resumed: bool) -> "SystemMetricsMonitor":
    require("psutil", "train")
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    return SystemMetricsMonitor(run_id, tracking_uri=uri, resume_logging=resumed)


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
            raise InputError(f"run {run_id}: not in {shown_uri(store)}; see the ids there, or set MLFLOW_TRACKING_URI")
        at = now()
        client.log_batch(run_id, metrics=[Metric(key_of(name), float(value), at, 0) for name, value in figures.items()])
        with files_of(store):
            for path in files:
                client.log_artifact(run_id, str(path), folder)


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


def key_of(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def as_parameters(parameters: Document) -> dict[str, str]:
    """Nested parameters as a store keeps them, under dotted names."""
    values = leaves(parameters).items()
    return {key_of(name): str(value)[:_PARAMETER_LENGTH] for name, value in values if value not in (None, {})}
