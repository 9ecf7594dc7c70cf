"""Folders for unfinished results, each with a lock of the process that works in it: a dead one's lock is free."""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".domain-vision-"
_LOCK = ".lock"
_swept: set[Path] = set()


@contextlib.contextmanager
def work_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent`, by default the system's folder for temporary files, that is there while the block runs.

    Where a process is killed its folder stays, and is removed by the next one that works in `parent`: its lock is free
    then, however old it is.

    Raises:
        OSError: it cannot be made.
    """
    parent = parent or Path(tempfile.gettempdir())
    if parent.absolute() not in _swept:
        _swept.add(parent.absolute())
        sweep(parent)
    name = f"{PREFIX}{secrets.token_hex(4)}"
    folder, lock = parent / name, parent / f"{name}{_LOCK}"
    file = _locked(lock)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(file)


def sweep(parent: Path) -> None:
    """Remove what killed processes left in a folder, and say so; what a living one works in stays."""
    with contextlib.suppress(OSError):
        for lock in sorted(parent.glob(f"{PREFIX}*{_LOCK}")):
            with contextlib.suppress(OSError):
                _sweep_one(lock)


def is_work(path: Path) -> bool:
    """Whether a path is in a work folder, or the lock of one."""
    return any(part.startswith(PREFIX) for part in path.parts)


def _sweep_one(lock: Path) -> None:
    """Remove a folder whose lock is free.

    Raises:
        OSError: it is not, or this file system has no locks.
    """
    import fcntl  # which Windows lacks, where networks are imported all the same

    from shared_backbones.terminal import say  # which needs the files that are written by way of a work folder

    file = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = lock.with_name(lock.name.removesuffix(_LOCK))
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
            say(f"note: {folder}: removed, as the process that worked in it was killed", file=sys.stderr)
        lock.unlink()
    finally:
        os.close(file)


def _locked(lock: Path) -> int:
    """A new file, held by this process as long as it lives; a file system without locks keeps it for ever."""
    import fcntl

    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):  # swept between its making and its lock
            if lock.stat().st_ino == os.fstat(file).st_ino:
                return file
        os.close(file)
