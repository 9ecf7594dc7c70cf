"""Rows of several tables in one file: CSV and Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.memory import hold


def join_rows(path: Path, tables: Sequence[Path], meta: Mapping[str, str]) -> None:
    """Write the rows of tables one after another; `meta` is in Parquet's schema, and nowhere in CSV.

    Raises:
        InputError: their columns differ.
    """
    if path.suffix.lower() == ".csv":
        join_csv(path, tables)
        return
    pyarrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
    parts = []
    for table in tables:
        with table.open("rb") as file, hold(printable(table), "the table"):
            parts.append(parquet.read_table(file, use_threads=False, pre_buffer=False))
        if parts[-1].schema != parts[0].schema:
            raise _differing(table)
    parquet.write_table(pyarrow.concat_tables(parts).replace_schema_metadata(dict(meta)).combine_chunks(), path)


def join_csv(path: Path, tables: Sequence[Path]) -> None:
    """Write the rows of CSV files one after another, below the line that they begin with.

    Raises:
        InputError: these lines differ.
    """
    first = b""
    with path.open("wb") as whole:
        for table in tables:
            with table.open("rb") as part:
                header = part.readline()
                if not first:
                    first = header
                    whole.write(header)
                elif header != first:
                    raise _differing(table)
                while block := part.read(2**20):
                    whole.write(block)


def _differing(table: Path) -> InputError:
    return InputError(f"{printable(table)}: has other columns than the part before; repeat the shards with one model")
