"""Tables of plain text: CSV, ECSV, tabs, and columns with blanks between them, with what archives put around them."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

from astrovision.astropy_types import Table
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_FORMATS = {"csv": "csv", "tsv": "tab", "txt": "basic"}


def read_text(text: str, kind: str, label: str) -> Table:
    """An `astropy.table.Table` of a text.

    Columns of whole numbers some of which begin with 0, such as 0042, are text. Lines that begin with `#` are passed
    over, such as the `#Table1` of SkyServer; where the last of them before numbers names the columns, it is their
    header. VizieR's lines of units and dashes below the header are heeded.

    Args:
        text: text of the file.
        kind: `ecsv`, `csv`, `tsv`, or `txt`, where the first line decides between commas, tabs and blanks.
        label: name of the file, for messages.

    Raises:
        InputError: a column's name is repeated.
    """
    text_tables, units = require("astropy.io.ascii", "astro"), require("astropy.units", "astro")
    if kind == "ecsv":  # with a line break it cannot be taken for a path; the header is read by YAML's safe loader
        return text_tables.read(text + "\n", format=kind, guess=False)
    if kind == "txt" and re.match(r"#\s*1\s+[A-Za-z]\w*", text):
        return text_tables.read(text + "\n", format="sextractor", guess=False)
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    start = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if kind == "txt":
        first = lines[start] if start < len(lines) else ""
        kind = next((name for name, mark in _DELIMITERS.items() if mark in first), kind)
    delimiter = _DELIMITERS.get(kind, " ")
    header, rows = _header(lines, start, delimiter)
    names = _cells(header, delimiter)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{label}: has column {printable(repeated[0])[:60]} more than once; rename all but one")
    said: Sequence[str] = ()
    if len(rows) > 1 and delimiter == "\t" and re.fullmatch(r"-[-\t ]*", rows[1]):
        said, rows = _cells(rows[0], delimiter), rows[2:]
    # a row of a CSV whose id begins with # is one; a comment has other commas
    rows = [row for row in rows if not row.startswith("#") or (kind == "csv" and len(_cells(row, ",")) == len(names))]
    padded = [names[place] for place in _padded(rows, delimiter) if place < len(names)]
    as_text = {"converters": {name: [text_tables.convert_numpy(str)] for name in padded}} if padded else {}
    table = text_tables.read(
        "\n".join([header, *rows, ""]), format=_FORMATS[kind], guess=False, comment=None, **as_text
    )
    for name, unit in zip(table.colnames, said, strict=False):
        if unit:
            table[name].unit = units.Unit(unit, parse_strict="silent")
    return table


def _header(lines: Sequence[str], start: int, delimiter: str) -> tuple[str, list[str]]:
    """The line that names the columns, and those below it."""
    rows = list(lines[start:])
    if start and rows:
        line = lines[start - 1].lstrip("# ")
        names, first = _cells(line, delimiter), _cells(rows[0], delimiter)
        if len(names) == len(first) > 1 and any(map(_is_number, first)) and not any(map(_is_number, names)):
            return line, rows
    return (rows[0], rows[1:]) if rows else ("", [])


def _padded(rows: Sequence[str], delimiter: str) -> list[int]:
    """Places of the columns that hold whole numbers alone, some of which begin with 0, as identifiers do."""
    if not any(re.search(rf"(?:^|{delimiter})\"?0\d+\"?\s*(?:$|{delimiter})", row) for row in rows):
        return []
    columns = zip_longest(*(_cells(row, delimiter) for row in rows), fillvalue="")
    return [
        place
        for place, cells in enumerate(columns)
        if any(len(cell) > 1 and cell[0] == "0" for cell in cells) and all(re.fullmatch(r"\d*", cell) for cell in cells)
    ]


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
