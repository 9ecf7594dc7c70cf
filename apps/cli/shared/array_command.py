"""Verbs over many inputs: here, as one shard of them, or as an array of jobs on a cluster."""

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from apps.cli.shared.job_options import ArrayOptions, Scheduler
from apps.cli.shared.journal import Journal, forget, journal_folder, journal_of, records
from apps.cli.shared.options import Dataclass, arguments_of
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, USER_ERROR
from apps.cli.shared.sharding import NoInputs, Shard
from pipelines.runtime import preemption
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing

if TYPE_CHECKING:
    from apps.cluster.arrays import Array
    from apps.cluster.slurm import SlurmSettings

_JOB = "job"  # the file with the number of the array's last job

ShardsResumeOption = Annotated[
    bool, typer.Option("--resume", help="With --on: queue the shards alone that have no table yet.")
]


class ShardedOptions(Dataclass, Protocol):
    """Options of a verb whose input can be shared out."""

    @property
    def output(self) -> Path | None:
        """Table, or folder of results."""
        ...

    @property
    def shard(self) -> Shard | None:
        """Part of the input that is taken alone."""
        ...

    @property
    def resume(self) -> bool:
        """Whether what is there already is left out."""
        ...

    @property
    def array(self) -> ArrayOptions:
        """What is asked of a cluster."""
        ...


OptionsT = TypeVar("OptionsT", bound=ShardedOptions)


def share_out(
    options: OptionsT,
    verb: tuple[str, str],
    work: Callable[[OptionsT, Journal], int],
    *,
    check: Callable[[OptionsT], None],
    resumes: bool,
) -> int:
    """Do a verb's work, or have a cluster do it; returns the exit code.

    Args:
        options: What the user asks for.
        verb: Names of the program and of the verb.
        work: Does it, with notes of each input.
        check: Raises an InputError where the input cannot be used; called before jobs are queued.
        resumes: Whether the verb itself leaves out inputs whose results are there.

    Raises:
        InputError: the options do not go together, or the work cannot be begun.
    """
    array = options.array
    if array.on is not None:
        return _queue(options, verb, check, resumes=resumes)
    if array.job_settings or array.wait or array.dry_run or array.shards or array.at_once:
        raise InputError("options of jobs are given, but not where they run; add --on slurm or --on kubernetes")
    if options.resume and not resumes:
        raise InputError("--resume: a table is written whole; add --on, which queues the shards that have none yet")
    if array.journal is None:
        return _work(options, work, Journal())
    with journal_of(array.journal, options.shard, _command(options, verb)) as (journal, note):
        try:
            with preemption.listening(), preemption.leaving_at_once():
                code = _work(options, work, journal)
        except InputError:
            note(USER_ERROR)
            raise
        note(code)
        return code


def _work(options: OptionsT, work: Callable[[OptionsT, Journal], int], journal: Journal) -> int:
    try:
        return work(options, journal)
    except NoInputs as reason:
        print(reason, file=sys.stderr)
        return COMPLETE


def _command(options: Dataclass, verb: tuple[str, str]) -> list[str]:
    """What is typed after the program's name to do the work of any shard."""
    return [verb[1], *arguments_of(options, without=("shard", "array", "resume"))]


def _queue(options: OptionsT, verb: tuple[str, str], check: Callable[[OptionsT], None], *, resumes: bool) -> int:
    """Queue an array of jobs, or print it; returns the exit code."""
    from apps.cluster import arrays
    from apps.cluster.kubernetes import PodSettings
    from apps.cluster.slurm import SlurmSettings

    asked, output = options.array, options.output
    if asked.shards is None:
        raise InputError("--shards is needed: into how many jobs the input is shared out, such as --shards 100")
    if output is None:
        raise InputError("--output is needed: all jobs write there")
    if options.shard is not None or asked.journal is not None:
        raise InputError("--shard and --journal are those of each job; leave them out")
    command = _command(options, verb)
    arguments = [*command[1:], *(["--resume"] if resumes else [])]
    array = arrays.Array(*verb, arguments, asked.shards, journal_folder(output), asked.at_once)
    if asked.on is Scheduler.kubernetes:
        read = [path for path in _paths(options) if path != output]
        print(arrays.indexed_job(array, PodSettings.read(asked.job_settings), [output, array.journal], read), end="")
        return COMPLETE
    settings = SlurmSettings.read(asked.job_settings)
    check(options)
    done = _done(array, command, resumes=resumes) if options.resume else set()
    numbers = [number for number in range(1, array.count + 1) if number not in done]
    if asked.dry_run:
        print(arrays.slurm_script(array, settings, numbers or [1]), end="")
        return COMPLETE
    merge = [array.program, "merge", "-o", printable(output)]
    if not numbers:
        print(f"all {array.count} shards are done; to put them together: {shlex.join(merge)}")
        return COMPLETE
    job = _submit(array, settings, numbers, keep=options.resume)
    if not asked.wait:
        print(f"when it has ended: {shlex.join(merge)}")
        return COMPLETE
    try:
        arrays.wait(job)
    except KeyboardInterrupt:
        print(f"job {job} goes on; scancel {job} ends it")
        raise
    sys.stdout.flush()
    program = [sys.executable, "-m", f"apps.cli.{array.program}.program", "merge", "-o", str(output)]
    return subprocess.run(program).returncode  # noqa: S603 - this very program


def _paths(options: Dataclass) -> Iterator[Path]:
    """Files and folders that options name; a text names one where a / is in it, unless it is an address."""
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Path):
            yield value
        elif isinstance(value, str) and "/" in value and not re.match(r"[a-z]+:/", value):
            yield from (Path(part.strip()) for part in value.split(",") if part.strip())
        elif is_dataclass(value) and not isinstance(value, type | ArrayOptions):
            yield from _paths(value)


def _done(array: "Array", command: Sequence[str], *, resumes: bool) -> set[int]:
    """Numbers of the shards that need not be queued again: of this very command, and with all that they can give.

    The table of a shard is written whole, so that inputs that cannot be used are no reason to write it again.
    """
    codes = {COMPLETE} if resumes else {COMPLETE, PARTLY_FAILED}
    return {
        shard.number
        for shard, record in records(array.journal).items()
        if shard.count == array.count and record.get("command") == command and record.get("code") in codes
    }


def _submit(array: "Array", settings: "SlurmSettings", numbers: Collection[int], *, keep: bool) -> str:
    """Queue shards; returns the number of their job."""
    from apps.cluster import arrays

    last = array.journal / _JOB
    with contextlib.suppress(OSError, UnicodeDecodeError):
        before = last.read_text(encoding="utf-8").strip()
        if re.fullmatch(r"[0-9]+", before) and arrays.in_the_queue(before):
            raise InputError(f"job {before} works on this output; wait for its end, or end it with scancel {before}")
    job = arrays.submit(array, settings, numbers, before=None if keep else lambda: forget(array.journal))
    with replacing(last) as temporary:
        temporary.write_text(job, encoding="utf-8")
    print(f"job {job}: {len(numbers)} of {array.count} shards queued; logs {printable(array.log('I'))}")
    return job
