"""Notes of a shard: which input is being worked on, so that one that kills its process is known at the next start.

A process that the system kills for want of memory, or that a library crashes, can say nothing. But the kernel keeps
what it had written: the input's digest in `I-of-N.begun`, which is emptied when the input is done. `I-of-N.json` says
how the shard ended. Notes hold no name of a scan or image.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from apps.cli.shared.sharding import Shard
from pipelines.runtime.locks import locked
from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing
from shared_backbones.json_values import Document, Entries

T = TypeVar("T")
_NOTES = re.compile(r"([0-9]{1,6})-of-([0-9]{1,6})\.(json|begun)")
KILLED = "its process was killed while it was worked on (out of memory, or a library crashed); left out, run it alone"


class LeftOut(InputError):
    """An input that is not tried again: it killed its process, or the array that it is of has ended."""


class Journal:
    """What becomes of the inputs of a shard. This class keeps no notes, for work that is not shared out.

    Attributes:
        left_out: Why inputs are not tried, by the digest of their path.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}

    def check(self, path: Path) -> None:
        """Refuse an input that is not to be tried.

        Raises:
            LeftOut: it is left out.
        """
        reason = self.left_out.get(digest_of(path))
        if reason is not None:
            raise LeftOut(f"{printable(path)}: {reason}")

    @contextlib.contextmanager
    def working_on(self, path: Path) -> Iterator[None]:
        """Note that an input is worked on, and whether it failed.

        Raises:
            LeftOut: it is not to be tried.
        """
        self.check(path)
        self._mark(path)
        try:
            yield
        except (InputError, MemoryError) as error:
            self._note_failure(path, str(error) if isinstance(error, InputError) else "out of memory")
            raise
        finally:
            self._mark(None)

    def noting(self, read: Callable[[Path], T]) -> Callable[[Path], T]:
        """The function, which reads a file, with notes of what it reads."""

        def noted(path: Path) -> T:
            with self.working_on(path):
                return read(path)

        return noted

    def _mark(self, path: Path | None) -> None:
        """Note what is worked on from now on."""

    def _note_failure(self, path: Path, reason: str) -> None:
        """Note why an input failed."""


class _ShardJournal(Journal):
    """Notes of a shard in a folder."""

    def __init__(self, folder: Path, shard: Shard, command: Sequence[str]) -> None:
        super().__init__()
        self.folder, self.shard, self.command = folder, shard, list(command)
        self.failed: dict[str, str] = {}
        begun, before = folder / f"{_stem(shard)}.begun", read_record(folder, shard)
        same = before.get("command") == self.command  # what other settings did says nothing of these
        self.killed = list(before.get("killed", ())) if same else []
        last = _read(begun) if same else {}
        if last.get("input") and not _requeued(last) and last["input"] not in self.killed:
            self.killed.append(last["input"])
        self.left_out |= dict.fromkeys(self.killed, KILLED)
        self.file = os.open(begun, os.O_RDWR | os.O_CREAT, 0o644)
        self.write(None)
        self._mark(None)

    def write(self, code: int | None) -> None:
        """Note how the shard ended: its exit code; None while it has not."""
        content: Document = {
            "code": code, "killed": self.killed, "failed": self.failed, "command": self.command, "folder": os.getcwd(),
        }  # fmt: skip
        with replacing(self.folder / f"{_stem(self.shard)}.json") as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def _mark(self, path: Path | None) -> None:
        text = b"" if path is None else json.dumps({"input": digest_of(path), **_this_start()}).encode()
        os.pwrite(self.file, text, 0)
        os.ftruncate(self.file, len(text))

    def _note_failure(self, path: Path, reason: str) -> None:
        for name in (printable(path.absolute()), printable(path), printable(path.name)):
            reason = reason.removeprefix(f"{name}: ").replace(name, "the input")
        self.failed[digest_of(path)] = reason


@contextlib.contextmanager
def journal_of(
    folder: Path, shard: Shard | None, command: Sequence[str]
) -> Iterator[tuple[Journal, Callable[[int | None], None]]]:
    """The journal of a shard, and a function that notes its exit code.

    Args:
        folder: Folder of notes.
        shard: The shard; None for a run over the whole input, which leaves out what failed in any shard.
        command: What is typed to do the work.

    Raises:
        InputError: the folder cannot be written.
    """
    if shard is None:
        journal = Journal()
        for record in records(folder).values():
            journal.left_out |= {**record.get("failed", {}), **dict.fromkeys(record.get("killed", ()), KILLED)}
        yield journal, lambda code: None
        return
    busy = f"shard {shard}: another process works on it; waiting for its end"
    with locked(folder / f"{_stem(shard)}.lock", busy):
        kept = _ShardJournal(folder, shard, command)
        try:
            yield kept, kept.write
        finally:
            os.close(kept.file)


def journal_folder(output: Path) -> Path:
    """Where the shards of a table or folder keep notes and logs: `out.csv.shards` for `out.csv`."""
    output = Path(os.path.abspath(output))
    return output.with_name(f"{output.name}.shards")


def forget(folder: Path) -> None:
    """Remove the notes of an earlier array; its logs stay."""
    for path in folder.glob("*-of-*"):
        if _NOTES.fullmatch(path.name):
            path.unlink(missing_ok=True)


def records(folder: Path) -> dict[Shard, Entries]:
    """What is noted of each shard that was started, in their order."""
    names = (_NOTES.fullmatch(path.name) for path in folder.glob("*-of-*.json"))
    shards = sorted((int(name[2]), int(name[1])) for name in names if name)
    return {Shard(number, count): read_record(folder, Shard(number, count)) for count, number in shards}


def read_record(folder: Path, shard: Shard) -> Entries:
    """What is noted of a shard; empty where it was never started, or what is there is no note.

    `code` is its exit code, None where it has not ended or was killed; `killed` and `failed` are digests of inputs;
    `command` is what is typed to do the work, in `folder`.
    """
    record = _read(folder / f"{_stem(shard)}.json")
    kinds = {"command": list, "killed": list, "failed": dict}
    return record if all(isinstance(record.get(key, kind()), kind) for key, kind in kinds.items()) else {}


def digest_of(path: Path) -> str:
    """What notes call an input."""
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:16]


def _stem(shard: Shard) -> str:
    return f"{shard.number}-of-{shard.count}"


def _read(path: Path) -> Entries:
    try:
        return read_json(path)
    except InputError:
        return {}


def _this_start() -> Entries:
    """Which job this is, and how often SLURM has put it back into the queue."""
    return {"job": os.environ.get("SLURM_JOB_ID"), "requeues": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}


def _requeued(last: Entries) -> bool:
    """Whether SLURM has put the job back since, as it does where a node is lost: that was no input's fault."""
    now = _this_start()
    return now["job"] is not None and last.get("job") == now["job"] and now["requeues"] > last.get("requeues", 0)
