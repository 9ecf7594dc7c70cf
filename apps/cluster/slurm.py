"""Recipes as jobs of SLURM: one batch script, queued once everything that can be checked here has been."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from pydantic import Field, PositiveInt, field_validator

from apps.cluster.settings import JobSettings, Word
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.shown import run_name
from pipelines.runtime import processes
from pipelines.tracking import runs, stores
from shared_backbones.errors import InputError

# How a run ends by how its job ended; what is not here has not ended.
_ENDS = {"COMPLETED": "FINISHED", "CANCELLED": "KILLED", "PREEMPTED": "KILLED"} | dict.fromkeys(
    ("BOOT_FAIL", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"), "FAILED"
)


_OWN = {
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), "--gpus-per-node"),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "--mem"),
    **dict.fromkeys(("requeue", "no-requeue"), "--no-requeue"),
    **{name: f"--{name}" for name in ("nodes", "cpus-per-task", "partition", "time", "account")},
}
"""Options of sbatch that are options of ours, by which one they are given."""
_SCRIPT, _LOG, _PROCESSES, _RUN = (
    "the script is made here", "the run keeps the log, across requeues", "each GPU gets a process",
    "the job needs the variables of its run",
)  # fmt: skip
_CONTRADICTIONS = {
    "array": "a job is one training, with one run and one output; give --sweep, --seeds or --folds for many",
    **dict.fromkeys(("wrap", "parsable", "test-only", "help", "usage", "version"), _SCRIPT),
    **dict.fromkeys(("output", "error", "open-mode"), _LOG),
    **dict.fromkeys(("export", "export-file"), _RUN),
    **dict.fromkeys(
        ("ntasks", "tasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket",
         "tasks-per-node", "overcommit"), _PROCESSES,
    ),
    "job-name": "it is the recipe's",
    "signal": "it is what asks for a checkpoint",
    "chdir": "paths of the recipe are relative to this folder",
    "wait": "--wait waits, through requeues, too",
    "wait-all-nodes": "all nodes start together",
    "no-kill": "processes that train together end together",
    "clusters": "the job is followed on this cluster",
    "hold": "the job would not start by itself",
    "uid": "the job is yours",
    "gid": "the job is yours",
}  # fmt: skip
"""Options of sbatch that contradict the script, and why."""


class SlurmSettings(JobSettings):
    """What a job asks for; also the content of the file that `mlflow run --backend-config` names."""

    cpus_per_task: PositiveInt | None = None
    partition: Word | None = None
    time: Word | None = None
    account: Word | None = None
    requeue: bool = True
    """Let the job go back into the queue when it is preempted, loses a node or runs out of time."""
    signal_seconds: PositiveInt = 120
    """Seconds before the end of its time at which the job is asked to write a checkpoint."""
    logs: Word = "slurm-logs"
    """Folder of the job's log."""
    sbatch: list[Word] = Field(default_factory=list)
    """More options of sbatch, such as `qos=long`; none that has an option of its own here or contradicts the script."""

    @field_validator("sbatch")
    @classmethod
    def _suits_the_script(cls, options: list[str]) -> list[str]:
        for option in options:
            name, _, value = option.partition("=")
            if not re.fullmatch(r"[a-z][a-z-]*", name):
                raise ValueError(f"found {option!r}, expected a long name without dashes before it, such as qos=long")
            reason = _contradiction(name, value)
            if reason:
                raise ValueError(f"found {option!r}, which contradicts the batch script: {reason}; leave it out")
        return options


def _contradiction(name: str, value: str) -> str | None:
    """Why an option of sbatch cannot be given; sbatch also takes the beginning of a name for the whole."""
    if name == "gres" and "gpu" in value:
        return "GPUs are asked for by --gpus-per-node"
    meant = [known for known in (*_OWN, *_CONTRADICTIONS) if known.startswith(name)]
    if not meant:
        return None
    known = name if name in meant else meant[0]
    return _CONTRADICTIONS.get(known) or f"give it as {_OWN[known]}"


def run_recipe(
    recipe: Recipe,
    arguments: Sequence[str],
    settings: SlurmSettings,
    *,
    dry_run: bool = False,
    wait: bool = False,
) -> None:
    """Run a recipe as a job.

    Args:
        recipe: Recipe, which is checked here.
        arguments: Arguments of `python -m pipelines run`, from which the job reads it again.
        settings: Settings of the job.
        dry_run: Whether the batch script is only printed.
        wait: Whether to wait until the job has ended, however often it is requeued.

    Raises:
        InputError: the recipe does not suit the number of processes, SLURM or the tracking store refuses the job, or
            it was waited for and did not complete.
    """
    processes.share_of(recipe.train.batch_size, settings.processes)
    command = [sys.executable, "-m", "pipelines", "run", *arguments]
    script = batch_script(settings, recipe.name, shlex.join(command))
    if dry_run:
        print(script, end="")
        return
    uri = stores.tracking_uri()
    stores.check_seen_from_nodes(uri)
    stores.open_store(uri)
    check(script)
    experiment = recipe.tracking.experiment
    run_id = os.environ.get("MLFLOW_RUN_ID") or runs.schedule_run(
        uri, experiment or recipe.domain, run_name(recipe), asked=experiment is not None
    )
    job = submit(script, settings, uri=uri, run_id=run_id)
    print(f"job {job}: queued; run {run_id}; log {job.log}")
    if wait:
        wait_for(job)


def wait_for(job: "SlurmJob") -> None:
    """Wait until a job has ended, and say how.

    Raises:
        InputError: it did not complete.
    """
    try:
        state = job.wait()
    except KeyboardInterrupt:
        print(f"job {job} goes on; scancel {job} ends it")
        raise
    print(f"job {job}: {state}")
    if state != "COMPLETED":
        raise InputError(f"job {job}: ended as {state}; its log says more: {job.log}")


def batch_script(settings: SlurmSettings, name: str, command: str, *, array: int = 0) -> str:
    """The script that sbatch takes.

    Args:
        settings: Settings of the job.
        name: Name of the recipe.
        command: Shell command, which is started once for each process.
        array: Number of tasks of an array, from 1; 0 for a job that is none.
    """
    options = {
        "array": f"1-{array}" if array else None,
        "job-name": f"domain-vision-{name}",
        "nodes": settings.nodes,
        "ntasks-per-node": max(1, settings.gpus_per_node),
        "gpus-per-node": settings.gpus_per_node or None,
        **settings.model_dump(include={"cpus_per_task", "mem", "partition", "time", "account"}),
        "signal": f"USR1@{settings.signal_seconds}",
        "output": f"{settings.logs}/job-%j.log",
        "open-mode": "append",
    }
    lines = [f"{key.replace('_', '-')}={value}" for key, value in options.items() if value is not None]
    lines += ["requeue" if settings.requeue else "no-requeue", *settings.sbatch]
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - a shell script, whose values are quoted for the shell
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["quote"] = shlex.quote
    return templates.get_template("job.sbatch.j2").render(
        options=lines,
        logs=settings.logs,
        cpus=settings.cpus_per_task,
        seconds=settings.signal_seconds,
        command=command,
    )


def check(script: str, folder: str | None = None) -> None:
    """Ask SLURM whether it would take a job, without queueing it.

    Raises:
        InputError: it would not, or there is no SLURM here.
    """
    ask_sbatch(script, ["--test-only"], folder=folder)


class SlurmJob:
    """A job and the run of the tracking store that it belongs to."""

    def __init__(self, number: str, log: Path, uri: str, run_id: str) -> None:
        self.number, self.log, self.uri, self.run_id = number, log, uri, run_id

    def __str__(self) -> str:
        return self.number

    def state(self) -> str | None:
        """SLURM's name of its state; None where SLURM has forgotten it, or does not answer now.

        An array is in the state of the first task that has not ended, and after all of the first that did not complete.
        """
        asked = output_of("squeue", "-h", "-t", "all", "-j", self.number, "-o", "%T")
        if not asked and shutil.which("sacct"):
            asked = output_of("sacct", "-n", "-X", "-P", "-o", "State", "-j", self.number)
        states = [line.split()[0] for line in asked.splitlines() if line.strip()]
        rest = [state for state in states if state not in _ENDS] or [state for state in states if state != "COMPLETED"]
        return (rest or states or [None])[0]

    def status(self) -> str:
        """State of its run in the tracking store: `SCHEDULED`, `RUNNING`, `FINISHED`, `FAILED` or `KILLED`."""
        state = self.state() or "RUNNING"
        return _ENDS.get(state, "SCHEDULED" if state == "PENDING" else "RUNNING")

    def wait(self, seconds: float = 3.0) -> str:
        """Wait until it has ended, however often it is requeued; then note its end and its log with the run.

        Returns:
            SLURM's name of the final state; `UNKNOWN` where SLURM has forgotten the job.
        """
        before, silent = "", 0
        while True:
            state = self.state()
            silent = 0 if state else silent + 1
            if silent >= 20:
                return "UNKNOWN"
            # twice: a job on its way back into the queue looks ended for a moment
            if state in _ENDS and state == before:
                break
            before = state or before
            time.sleep(seconds)
        runs.close_run(self.uri, self.run_id, _ENDS[state], self.log)
        return state

    def cancel(self) -> None:
        """Take it out of the queue, or end it."""
        output_of("scancel", self.number)

    def note_failure(self) -> None:
        """Note with its run that the job did not complete, unless it has been queued again since."""
        end = _ENDS.get(self.state() or "FAILED")
        if end is not None:
            runs.close_run(self.uri, self.run_id, end, self.log)


def submit(
    script: str,
    settings: SlurmSettings,
    *,
    uri: str,
    run_id: str,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
    after_failure: str | None = None,
) -> SlurmJob:
    """Queue a job, and behind it a small one that notes in the run that it failed: one that dies with its node cannot.

    Args:
        script: Batch script, from `batch_script`.
        settings: Settings that it was made with.
        uri: Address of the tracking store.
        run_id: Id of the run that the job continues at every start.
        folder: Folder in which it runs; by default the current one.
        environment: Environment variables beside those that are set here.
        after_failure: Shell command of the small job, in place of noting the failure.

    Raises:
        InputError: SLURM does not take it; the run is then noted as failed.
    """
    logs = Path(folder or ".", settings.logs).absolute()
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": run_id, **(environment or {})}
    try:
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{logs}: cannot be made ({error.strerror}); name another folder for logs") from None
        number = ask_sbatch(script, ["--parsable"], folder=folder, variables=variables).partition(";")[0]
    except InputError:
        runs.close_run(uri, run_id, "FAILED")
        raise
    job = SlurmJob(number, logs / f"job-{number}.log", uri, run_id)
    _follow(job, settings, folder, variables, after_failure)
    return job


def _follow(
    job: SlurmJob, settings: SlurmSettings, folder: str | None, variables: Mapping[str, str], command: str | None
) -> None:
    """Queue a job that runs when the first one fails, and that SLURM drops when it completes."""
    allowed = [option for option in settings.sbatch if option.startswith(("qos=", "reservation="))]
    asked = {"partition": settings.partition, "account": settings.account}
    options = [
        "parsable", f"dependency=afternotok:{job}", "kill-on-invalid-dep=yes", "job-name=domain-vision-failure",
        "nodes=1", "ntasks=1", "time=10", f"output={job.log}", "open-mode=append", *allowed,
        *(f"{name}={value}" for name, value in asked.items() if value is not None),
    ]  # fmt: skip
    command = command or shlex.join([sys.executable, "-m", "apps.cluster.slurm", job.number, str(job.log)])
    try:
        ask_sbatch(
            f"#!/bin/bash\n{command}\n", [f"--{option}" for option in options], folder=folder, variables=variables
        )
    except InputError as error:
        print(f"warning: should job {job} die with its node, its run stays as it is ({error})", file=sys.stderr)


def ask_sbatch(
    script: str, options: Sequence[str], *, folder: str | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """What sbatch says of a script."""
    program = shutil.which("sbatch")
    if program is None:
        raise InputError("sbatch: not found; run this where SLURM's programs are installed, or without --on slurm")
    # A job is no step of the job that it may have been queued from.
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
    done = subprocess.run(  # noqa: S603 - the words are checked by SlurmSettings
        [program, *options],
        input=script,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**own, **(variables or {})},
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = re.sub(r"^(sbatch: )?(error: |allocation failure: )?", "", lines[-1]) if lines else "no reason given"
        raise InputError(
            f"SLURM does not take this job ({reason}); see partitions and nodes with sinfo, and change --partition, "
            "--nodes, --gpus-per-node, --time or --account"
        )
    return done.stdout.strip()


def output_of(*command: str) -> str:
    """What a program of SLURM prints; nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - fixed words and a job's number
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":  # started by the job of `_follow`
    SlurmJob(
        sys.argv[1], Path(sys.argv[2]), os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_RUN_ID"]
    ).note_failure()
