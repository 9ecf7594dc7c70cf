"""The runs of a sweep on this machine: one after another in a process of their own, so that none takes others along."""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypedDict

from pipelines.outcome import figures_of
from pipelines.runtime import preemption
from pipelines.runtime.processes import first_process
from pipelines.stages import Job, run_stages
from pipelines.sweeps.plan import Child, Sweep
from pipelines.tracking.notes import read_note
from pipelines.training.outcome import Diverged
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing

TASK = "DOMAIN_VISION_TASK"
"""Variable with the number of the run that a process is at: processes that train with it read it there."""
_STOPPED = "stopped"


class Outcome(TypedDict):
    """What became of a run, as its file in the sweep's folder says.

    Attributes:
        number: Number of the run.
        recipe: Digest of its recipe.
        failed: Why it failed, in words without names of files; None where it is complete.
        run_id: Its run in the tracking store.
        model: Folder of its trained model, below the output folder; None where it was not trained.
        evaluation: Folder of its evaluation, likewise.
        figures: Figures of the validation that chose the checkpoint, and of the test.
    """

    number: int
    recipe: str
    failed: str | None
    run_id: str | None
    model: str | None
    evaluation: str | None
    figures: dict[str, float]


def run_child(sweep: Sweep, number: int, parent: str | None) -> Outcome:
    """Take one run of a sweep through its stages, and keep what became of it; what fails is said, and no error.

    Args:
        sweep: The sweep.
        number: Number of the run.
        parent: Id of the sweep's run in the tracking store.

    Raises:
        Preempted: the process was asked to stop.
    """
    child = sweep.child(number)
    os.environ.pop("MLFLOW_RUN_ID", None)  # the sweep's
    os.environ[TASK] = str(number)
    tags = {"sweep": sweep.name, "sweep.run": str(number), **({"mlflow.parentRunId": parent} if parent else {})}
    if first_process():
        print(f"run {number} of {len(sweep.children)}: {printable(child.label)}", flush=True)
    outcome = _nothing(child)
    try:
        _describe(outcome, run_stages(child.recipe, sweep.stages, tags=tags), sweep)
    except Diverged as problem:
        outcome["failed"] = problem.what
        _say(child, str(problem))
    except InputError as problem:
        outcome["failed"] = "its settings or its data cannot be used"
        _say(child, str(problem))
    except Exception as problem:
        traceback.print_exc()
        outcome["failed"] = type(problem).__name__
        _say(child, str(problem).partition("\n")[0])
    finally:
        del os.environ[TASK]
    if first_process():
        write_outcome(sweep, outcome)
    return outcome


def run_children(sweep: Sweep, parent: str | None) -> list[Outcome]:
    """All runs of a sweep, one after another, in another process that a run may take down.

    Raises:
        Preempted: the process was asked to stop; the run that was at work has kept what it did.
    """
    outcomes: list[Outcome] = []
    worker: _Worker | None = None
    try:
        for child in sweep.children:
            if worker is None:
                worker = _Worker()
            with preemption.leaving_at_once():
                answer = worker.ask(sweep, child.number, parent)
            if answer == _STOPPED:
                raise preemption.Preempted
            if isinstance(answer, str):
                outcomes.append(_killed(sweep, child))
            else:
                outcomes.append(answer)
            if isinstance(answer, str) or child.recipe.train.devices > 1:
                worker.close()  # processes that have trained together stay together until they end
                worker = None
    except (preemption.Preempted, KeyboardInterrupt):
        if worker is not None:
            worker.terminate()
        raise
    finally:
        if worker is not None:
            worker.close()
    return outcomes


def write_outcome(sweep: Sweep, outcome: Outcome) -> None:
    """Keep what became of a run, in the sweep's folder."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with replacing(sweep.folder / f"run-{outcome['number']:03}.json") as path:
        path.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")


def read_outcomes(sweep: Sweep) -> list[Outcome]:
    """What became of the runs; one that left nothing has failed."""
    outcomes: list[Outcome] = []
    for child in sweep.children:
        path = sweep.folder / f"run-{child.number:03}.json"
        try:
            outcomes.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            outcomes.append(_failed(sweep, child, "it left no result; see its log"))
    return outcomes


def all_there(sweep: Sweep) -> bool:
    """Whether every run has left what became of it."""
    return all((sweep.folder / f"run-{child.number:03}.json").exists() for child in sweep.children)


def _describe(outcome: Outcome, job: Job, sweep: Sweep) -> None:
    """Note what a run has made."""
    outcome["run_id"] = job.run_id
    if "train" not in job.made or not first_process():
        return
    outcome["model"] = job.model.relative_to(sweep.output).as_posix()
    outcome["figures"] = figures_of(job)
    if job.summary is not None:
        outcome["evaluation"] = job.made["evaluate"].relative_to(sweep.output).as_posix()


def _say(child: Child, problem: str) -> None:
    if first_process():
        print(
            f"error: run {child.number} ({printable(child.label)}): {printable(problem)}", file=sys.stderr, flush=True
        )


def _nothing(child: Child) -> Outcome:
    """The outcome of a run that has made nothing yet."""
    return {
        "number": child.number, "recipe": child.recipe.digest, "failed": None, "run_id": None, "model": None,
        "evaluation": None, "figures": {},
    }  # fmt: skip


def _failed(sweep: Sweep, child: Child, why: str) -> Outcome:
    note = read_note(sweep.output / "runs" / f"{child.recipe.digest}.json")
    return {**_nothing(child), "failed": why, "run_id": note and note["run_id"]}


def _killed(sweep: Sweep, child: Child) -> Outcome:
    outcome = _failed(sweep, child, "its process was killed, most likely for want of memory")
    _say(child, f"{outcome['failed']}; lower train.batch_size, or use a machine with more")
    write_outcome(sweep, outcome)
    return outcome


class _Worker:
    """A process that takes runs through their stages, one at a time."""

    def __init__(self) -> None:
        context = get_context("spawn")  # a fork would share threads and devices with this one
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        self.process.start()
        theirs.close()

    def ask(self, sweep: Sweep, number: int, parent: str | None) -> Outcome | str:
        """What became of a run; `stopped` where it was asked to stop, another text where the process died."""
        try:
            self.pipe.send((sweep, number, parent))
            answer: Outcome | str = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return "killed"
        return answer

    def terminate(self) -> None:
        """Ask the process to stop as a scheduler does."""
        self.process.terminate()

    def close(self) -> None:
        """Let the process end, and wait for it."""
        self.pipe.close()
        self.process.join()


def _serve(pipe: Connection) -> None:
    """Take runs through their stages until the other end of the pipe is closed, as it is when that process dies."""
    with preemption.listening():
        for sweep, number, parent in _asked(pipe):
            try:
                answer: Outcome | str = run_child(sweep, number, parent)
            except (preemption.Preempted, KeyboardInterrupt):
                answer = _STOPPED
            try:
                pipe.send(answer)
            except OSError:
                return


def _asked(pipe: Connection) -> Iterator[tuple[Sweep, int, str | None]]:
    while True:
        try:
            yield pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
