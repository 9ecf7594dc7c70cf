"""JSON and CSV files read safely: regular, of a bounded size, and not nested too deep."""

import csv
import json
import stat
from pathlib import Path

from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, printable
from shared_backbones.json_values import Entries, Json
from shared_backbones.memory import expect

LARGEST = 16 * 2**20
"""Bytes of a card, side-car, recipe or list of labels; larger ones are none."""
DEEPEST = 64
"""Levels of lists and mappings in each other."""
_CELLS = 50  # bytes of memory that a byte of a table may take: each cell is a text of its own


class Nested(ValueError):
    """A document is nested too deep."""


def read_bounded(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    Raises:
        InputError: it cannot be read, is a device, pipe or socket, or is too large.
    """
    label = printable(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise InputError(f"{label}: is {kind}, expected a file; check the path")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a possible path"
        raise InputError(f"{label}: cannot be read ({reason}); check the path") from None
    if len(content) > largest:
        raise InputError(f"{label}: is larger than {largest / 2**20:.3g} MB, expected less; use an intact copy")
    return content


def parse_json(text: str | bytes) -> Json:
    """What a JSON text holds.

    Raises:
        Nested: it is nested too deep.
        ValueError: it is no JSON.
    """
    try:
        value: Json = json.loads(text)
    except RecursionError:
        raise Nested(f"nested more than {DEEPEST} levels deep") from None
    check_depth(value)
    return value


def read_json(path: Path, *, largest: int = LARGEST) -> Entries:
    """The object of a JSON file.

    Raises:
        InputError: it cannot be read, is no JSON object, too large, or nested too deep.
    """
    content = read_bounded(path, largest)
    try:
        value = parse_json(content)
    except ValueError as error:
        reason = str(error) if isinstance(error, Nested) else f"not JSON: {' '.join(str(error).split())[:120]}"
        raise InputError(f"{printable(path)}: cannot be read ({reason}); use an intact copy") from None
    if not isinstance(value, dict):
        raise InputError(f"{printable(path)}: contains a {type(value).__name__}, expected a JSON object")
    return value


def read_csv(path: Path) -> list[list[str]]:
    """The rows of a CSV file in UTF-8, without empty ones.

    Raises:
        InputError: it cannot be read, is no such file, or would take more memory than the budget.
    """
    label = printable(path)
    try:
        check_regular(path)
        expect(_CELLS * path.stat().st_size, label, "the table")
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); expected a CSV file") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{label}: is no CSV file in UTF-8; save it as one") from None


def read_csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the titles in its first one; a short row lacks the last.

    Raises:
        InputError: as `read_csv`.
    """
    titles, *rows = read_csv(path) or [[]]
    return [dict(zip(titles, row, strict=False)) for row in rows]


def check_depth(value: Json, deepest: int = DEEPEST) -> None:
    """Find out whether lists and mappings are nested too deep, level by level.

    Raises:
        Nested: they are; a text that refers to itself is, too.
    """
    level, depth = [value], 0
    while level:
        if depth > deepest:
            raise Nested(f"nested more than {deepest} levels deep")
        inner: dict[int, Json] = {}  # each once, however often it is referred to
        for part in level:
            parts = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
            inner |= {id(item): item for item in parts if isinstance(item, dict | list | tuple)}
        level, depth = list(inner.values()), depth + 1
