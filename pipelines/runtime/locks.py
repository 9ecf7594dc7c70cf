"""Locks between runs that share an output folder, on one machine or on several that share a file system."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.runtime import preemption, processes
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_SECONDS = 0.2  # between two attempts


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock while the block runs; the system lets go of it for a process that dies.

    The file stays, and says which job holds the lock, for `held_by_us`.

    Args:
        path: File of the lock, which is made where it is absent.
        busy: Line to print once where another run holds the lock, before this one waits for it.

    Raises:
        InputError: the file cannot be made.
        Preempted: the process was asked to stop while it waited.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be made ({error.strerror}); choose another output") from None
    with file:
        said = False
        while not _taken(file.fileno()):
            if not said:
                print(busy, flush=True)
            said = True
            with preemption.leaving_at_once():
                time.sleep(_SECONDS)
        file.truncate(0)
        file.write(processes.job_name())
        file.flush()
        yield


def held_by_us(path: Path) -> bool:
    """Whether the first process of this very job holds a lock."""
    with contextlib.suppress(FileNotFoundError), path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read() == processes.job_name()
        except OSError:  # see `_taken`
            return True
    return False


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        print(
            f"warning: this file system has no locks ({os.strerror(error.errno or 0)}); start no second run with this "
            "output folder",
            file=sys.stderr,
        )
    return True
