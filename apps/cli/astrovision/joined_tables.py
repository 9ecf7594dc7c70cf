"""Tables of shards of `astrovision classify` in one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.cli.astrovision.classify_galaxies import table_meta, unseen_warnings
from apps.cli.shared.joined_rows import join_csv
from apps.cli.shared.merging import Part
from astrovision.astropy_types import Table
from astrovision.table_writing import Column, write_catalogue
from astrovision.tables import read_table
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries


def join_tables(path: Path, parts: Sequence[Part], content: Entries) -> Entries:
    """Write the rows of all parts, with units, UCDs and descriptions as they have them; returns the side-car.

    Raises:
        InputError: parts have different columns, or a table cannot be read or written.
    """
    if path.suffix.lower() == ".csv":
        join_csv(path, [part.table for part in parts])
    else:
        tables = [read_table(part.table) for part in parts]
        for part, table in zip(parts, tables, strict=True):
            if table.colnames != tables[0].colnames:
                raise InputError(f"{printable(part.table)}: has other columns than the first part; repeat the shards")
        write_catalogue(path, [_column(name, tables) for name in tables[0].colnames], meta=table_meta(content))
    counts = {warning for part in parts for warning in unseen_warnings(part.content)}
    warnings = [warning for warning in content["warnings"] if warning not in counts]
    return {**content, "warnings": [*unseen_warnings(content), *warnings]}


def _column(name: str, tables: Sequence[Table]) -> Column:
    """A column of all tables."""
    first = tables[0][name]
    values = np.ma.concatenate([
        np.ma.MaskedArray(np.asarray(table[name]), mask=np.ma.getmaskarray(table[name])) for table in tables
    ])  # fmt: skip
    if values.dtype.kind == "f":
        values = values.filled(np.nan)  # some formats read NaN as what is missing
    ucd = str((first.info.meta or {}).get("ucd") or "")
    about = " ".join(str(first.info.description or "").split())  # astropy breaks those of VOTables into lines
    return Column(name, values, str(first.info.unit or ""), ucd, about)
