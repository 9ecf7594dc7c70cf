"""Names fit to be shown, and files that appear complete or not at all."""

import contextlib
import csv
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from shared_backbones.errors import InputError

LEFT_OVERS = ".tmp-*"
"""Names of the files that `replacing` leaves where the process is killed."""
_FORMULAS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""Characters with which a formula begins, those of full width too; line breaks hide one."""
CellT = TypeVar("CellT")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new, empty file beside `path` that takes its place when the block ends, and vanishes when the block raises.

    Raises:
        InputError: the system refused to create, write or move it (folder not writable, disk full).
    """
    target = Path(path)
    temporary = (
        target.parent / f"{LEFT_OVERS[:-1]}{secrets.token_hex(4)}"
    )  # short, as the target's name may be as long as can be
    try:
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot be written ({error.strerror or error}); nothing was left behind; "
            "make room, or choose another output folder"
        ) from error


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
