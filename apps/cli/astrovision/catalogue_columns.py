"""What is taken from a catalogue: identifiers, columns that are kept in a table of results, and labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from astrovision.astropy_types import Table, TableColumn
from astrovision.table_writing import Column
from astrovision.tables import listed, read_table
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_NAMES = ("id", "objid", "objectid", "sourceid", "name", "designation", "number")  # of a catalogue's column, as usual
_EXACT = 2**53  # whole numbers beyond which floating point has gaps


def identifiers(table: Table, notices: list[str]) -> tuple[np.ndarray, str]:
    """What a catalogue knows its sources by: a column's values, or numbers of rows from 1, and what they are.

    Args:
        table: table of the catalogue.
        notices: what a user should know is added to these.
    """
    described, main, named = [], [], []
    for name in table.colnames:
        column = table[name]
        if not is_plain(column):
            continue
        words = str((column.info.meta or {}).get("ucd") or "").lower().split(";")
        if words[0] == "meta.id":
            described.append(name)
            if "meta.main" in words:
                main.append(name)
        if name.lower().replace("_", "") in _NAMES:
            named.append(name)
    for names in (main, described if len(described) == 1 else [], named):
        if names:
            return _values(names[0], np.ma.asarray(table[names[0]]), notices), f"{printable(names[0])} of the catalogue"
    return np.arange(1, len(table) + 1), "row of the catalogue, from 1"


def _values(name: str, values: np.ma.MaskedArray, notices: list[str]) -> np.ma.MaskedArray:
    """Identifiers; whole numbers where they were kept as floating-point ones."""
    if values.dtype.kind != "f":
        return values
    mask = np.ma.getmaskarray(values) | ~np.isfinite(np.ma.getdata(values))
    whole = np.where(mask, 0, np.ma.getdata(values).astype(np.float64))
    notices.append(
        f"column {printable(name)} holds floating-point numbers; identifiers beyond {_EXACT} may have lost digits"
    )
    if not (whole == np.round(whole)).all() or np.abs(whole).max(initial=0) >= 2**63:
        return values
    return np.ma.MaskedArray(whole.astype(np.int64), mask=mask if mask.any() else np.ma.nomask)


def kept_columns(table: Table, names: Sequence[str] | None, label: str, notices: list[str]) -> list[Column]:
    """Columns of a catalogue that are kept in the table of results.

    Args:
        table: table of the catalogue.
        names: names of the columns; `all` alone for all that hold one number, truth value or text for each row.
        label: name of the catalogue, for messages.
        notices: what a user should know is added to these.

    Raises:
        InputError: a column is absent, or cannot be kept.
    """
    if names is None:
        return []
    plain = [name for name in table.colnames if is_plain(table[name])]
    wanted = plain if names == ["all"] else list(dict.fromkeys(names))
    for name in wanted:
        if name not in plain:
            what = "holds more than one value for each row" if name in table.colnames else "is not there"
            raise InputError(f"{label}: column {printable(name)} {what}; --keep-columns takes {listed(plain)}, or all")
    if names == ["all"] and len(plain) < len(table.colnames):
        lost = [name for name in table.colnames if name not in plain]
        notices.append(f"columns {listed(lost)} hold no single values and were not kept")
    return [_kept(name, table[name]) for name in wanted]


def labels_by_id(path: Path, name: str, classes: Sequence[str]) -> dict[str, int]:
    """Numbers of classes by the identifiers of a table's rows, of those whose label is a class.

    Args:
        path: the table.
        name: its column of labels.
        classes: names of the classes, in the order of their numbers.

    Raises:
        InputError: the table cannot be read, has no such column, or no label is a class.
    """
    table, label = read_table(path), printable(path)
    if name not in table.colnames or not is_plain(table[name]):
        plain = [column for column in table.colnames if is_plain(table[column])]
        raise InputError(f"{label}: has no column {printable(name)}; --label-column takes {listed(plain)}")
    ids, _ = identifiers(table, [])
    numbers = {text: number for number, text in enumerate(classes)}
    given = [printable(str(text)) for text in np.ma.filled(np.ma.asarray(table[name]).astype(str), "")]
    known = {printable(str(key)): numbers[text] for key, text in zip(ids, given, strict=True) if text in numbers}
    if not known:
        raise InputError(
            f"{label}: no value of column {printable(name)} is a class of the model ({listed(classes)}); name another "
            "one with --label-column"
        )
    return known


def is_plain(column: TableColumn) -> bool:
    """Whether a column holds one number, truth value or text for each row."""
    return column.ndim == 1 and getattr(column, "dtype", np.dtype("V")).kind in "biufU" and hasattr(column, "info")


def _kept(name: str, column: TableColumn) -> Column:
    ucd = str((column.info.meta or {}).get("ucd") or "")
    ucd = ";".join(word for word in ucd.split(";") if word != "meta.main")
    values = np.ma.MaskedArray(np.asarray(column), mask=np.ma.getmaskarray(column))
    about = str(column.info.description or "") or "as in the catalogue"
    return Column(name, values, str(column.info.unit or ""), ucd, about)
