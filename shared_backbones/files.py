"""Names fit to be shown, and files and folders that appear complete or not at all."""

import contextlib
import csv
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from shared_backbones.errors import InputError
from shared_backbones.work_folders import work_folder

_FORMULAS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""Characters with which a formula begins, those of full width too; line breaks hide one."""
CellT = TypeVar("CellT")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new, empty file that takes the place of `path` when the block ends, and vanishes when the block raises.

    Raises:
        InputError: the system refused to create, write or move it (folder not writable, disk full).
    """
    target = Path(path)
    try:
        with work_folder(target.parent) as folder:
            temporary = folder / "new"  # short, as the target's name may be as long as can be
            temporary.touch()
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot be written ({error.strerror or error}); nothing was left behind; "
            "make room, or choose another output folder"
        ) from error


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that takes its name when the block ends, and vanishes when the block raises.

    Raises:
        InputError: it is there already and not empty, or cannot be written.
    """
    check_new_folder(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(target.parent) as temporary:
            try:
                yield temporary
            except InputError as error:  # it names a file where it is now, not where it was to be
                raise InputError(str(error).replace(printable(temporary), printable(target))) from error
            os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{printable(target)}: cannot be written ({error.strerror or error}); nothing was left behind; name a "
            "folder that is not there yet, in one that you may write to"
        ) from error


def check_new_folder(target: Path) -> None:
    """Refuse a folder for results that has something in it already.

    Raises:
        InputError: it has, or is no folder.
    """
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
    except OSError as error:
        raise InputError(f"{printable(target)}: cannot be read ({error.strerror}); choose another folder") from None
    raise InputError(f"{printable(target)}: already there; expected a new or empty folder: choose another one")


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a number of bytes while the block runs: what others send may not end.

    Writing beyond it raises an OSError, in any thread. Systems without such a limit go without.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import resource

            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
            hard = before[1]
            least = size if hard == resource.RLIM_INFINITY else min(size, hard)
            resource.setrlimit(resource.RLIMIT_FSIZE, (least, hard))
        yield


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Sha256 of a file's bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read ({error.strerror}); check the path") from None


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise an OSError where a path is a pipe, a device or a socket, whose end a reader would wait for."""
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "not a regular file")


def spreadsheet_safe(value: CellT) -> CellT | str:
    """A cell of a table: text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULAS else value


def write_rows(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV, the one way in which this suite does: cells as `spreadsheet_safe` gives them, None as empty.

    Args:
        file: Opened with `newline=""`.
        rows: Cells of each row, the titles first.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows(["" if cell is None else spreadsheet_safe(cell) for cell in row] for row in rows)


def printable(path: str | os.PathLike[str]) -> str:
    """The path as typed, with control and other invisible characters escaped, fit for one line on a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in os.fspath(path)
    )


def brief(error: BaseException, path: Path | None = None) -> str:
    """What a library says of a file, as part of a line: of 200 characters at most, as it may quote the file.

    Args:
        error: what it raised.
        path: the file; only its name is kept where it is named.
    """
    text = str(error) if path is None else str(error).replace(str(path), path.name)
    return printable(" ".join(text.split())[:200]) or type(error).__name__
