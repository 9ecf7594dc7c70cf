"""Tables: text, ECSV, VOTable, FITS and Parquet files, opened safely and read into astropy tables."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from astrovision.astropy_types import Hdu, Table, TableColumn, Unit
from astrovision.frames import DOCUMENT_SYSTEMS
from astrovision.planes import open_fits, reading, unpacked
from astrovision.text_tables import read_text
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.memory import expect, hold

ENDINGS = {
    ".csv": "csv", ".ecsv": "ecsv", ".vot": "votable", ".xml": "votable", ".fits": "fits", ".fit": "fits",
    ".parquet": "parquet",
}  # fmt: skip
"""Endings of table files that are written, and the format that each means."""
READ = {**ENDINGS, ".votable": "votable", ".fts": "fits", ".tsv": "tsv", ".txt": "txt"}
"""Endings of those that are read; each may be followed by one of `PACKED`."""
PACKED = (".gz", ".bz2", ".xz")
_FRAME = {"RADESYS", "RADECSYS", "EQUINOX", "EPOCH"}  # cards of a FITS header that say a frame
_UNSIGNED = {"B": -128, "I": 2**15, "J": 2**31, "K": 2**63}  # TZERO of signed bytes and unsigned integers, by TFORM
_TEXT_BYTES = 10  # of memory for a byte of text, while it is read
_OBJECT_BYTES = 100  # of a cell of text that is a Python object, beside its characters
_SHOWN = 12  # columns that a message lists


def read_table(path: Path) -> Table:
    """An `astropy.table.Table` of a file, in the format that its ending means.

    Columns of numbers, truth values and text are read, and in ECSV those of astropy's own classes; lists, bytes and
    other objects are left out. UCDs are in the columns' `meta` as `ucd`, and what a VOTable says of the frame of
    positions as `coosys`: system, equinox and epoch.

    Raises:
        InputError: no such file, another format, damaged, or it has several tables or no columns.
    """
    kind = _known(Path(path.stem) if path.suffix.lower() in PACKED else path, path, READ)
    require("astropy", "astro")
    if not os.path.isfile(path):  # and not Path's own method, which raises for names that cannot be
        raise InputError(f"{printable(path)}: no such file; expected a catalogue ending in {', '.join(READ)}")
    with contextlib.ExitStack() as stack, reading(path):
        label = printable(path)
        # a FITS file is mapped as a whole
        table = _read_fits(path) if kind == "fits" else _read_held(unpacked(path, stack), kind, label)
        with hold(label, "the table"):
            for name in table.colnames:
                _make_plain(table, name)
    if not table.colnames:
        raise InputError(f"{printable(path)}: has no columns of numbers or text; expected a catalogue")
    return table


def _read_held(path: Path, kind: str, label: str) -> Table:
    """A table of any format but FITS: one long cell makes a column wide, and a short run a long one, unannounced."""
    with hold(label, "the table"):
        if kind == "votable":
            return _read_votable(path, label)
        if kind == "parquet":
            return _read_parquet(path, label)
        expect(_TEXT_BYTES * path.stat().st_size, label, "the table")
        return read_text(path.read_text("utf-8-sig"), kind, label)


def format_of(path: Path) -> str:
    """The format that the ending of a file to be written means.

    Raises:
        InputError: none.
    """
    return _known(path, path, ENDINGS)


def listed(names: Sequence[str]) -> str:
    """Names of columns as a message has them, not all of many."""
    shown = ", ".join(printable(name)[:60] for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _known(path: Path, whole: Path, endings: Mapping[str, str]) -> str:
    kind = endings.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{printable(whole)}: ends in {printable(whole.suffix)!r}; expected {', '.join(endings)}")
    return kind


def _make_plain(table: Table, name: str) -> None:
    """Turn a column of bytes, or of objects that are all text, into text; remove one of other objects."""
    column = table[name]
    kind = getattr(getattr(column, "dtype", None), "kind", "")
    if kind not in ("O", "S"):
        return
    mask = np.ma.getmaskarray(column)
    texts = ["" if masked or text is None else text for text, masked in zip(column.tolist(), mask.flat, strict=False)]
    if column.ndim != 1 or not all(isinstance(text, str | bytes) for text in texts):
        table.remove_column(name)
        return
    values = np.array([text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts], str)
    table[name] = _column(values, mask, unit=column.unit, description=column.description, meta=column.meta)


def _column(
    values: np.ndarray,
    mask: np.ndarray,
    *,
    unit: Unit | None,
    description: str | None,
    meta: Mapping[str, str],
) -> TableColumn:
    from astropy.table import Column, MaskedColumn

    if mask.any():
        return MaskedColumn(values, mask=mask, unit=unit, description=description, meta=meta)
    return Column(values, unit=unit, description=description, meta=meta)


def _read_fits(path: Path) -> Table:
    from astropy.io import fits
    from astropy.table import Table

    with contextlib.ExitStack() as stack:
        hdus = open_fits(path, stack)
        # SExtractor's files have a table with nothing but the image's header
        tables: dict[int, Hdu] = {
            n: hdu for n, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)
        }
        tables = {n: hdu for n, hdu in tables.items() if len(hdu.columns) > 1} or tables
        if len(tables) != 1:
            names = ", ".join(f"{n} {printable(hdu.name)}" for n, hdu in tables.items()) or "none"
            raise InputError(f"{printable(path)}: has {len(tables)} tables ({names}); expected one: save it by itself")
        hdu = next(iter(tables.values()))
        expect(_fits_bytes(hdu), printable(path), "the table")
        missing = _missing(hdu)
        # a copy, as the file that it is mapped to is closed
        table = Table.read(hdu, format="fits", unit_parse_strict="silent").copy()
        for name, mask in missing.items():
            values = np.asarray(table[name])
            values = values.astype(np.int16) if values.dtype.kind == "f" else values
            table[name] = _column(values, mask, unit=table[name].unit, description=None, meta={})
        if not _FRAME & set(table.meta):  # then what the file's first header says holds
            table.meta.update({key: hdus[0].header[key] for key in _FRAME if key in hdus[0].header})
        for number, name in enumerate(hdu.columns.names, 1):
            if f"TUCD{number}" in hdu.header and name in table.colnames:
                table[name].info.meta = {"ucd": str(hdu.header[f"TUCD{number}"])}
            if f"TCOMM{number}" in hdu.header and name in table.colnames:
                table[name].info.description = str(hdu.header[f"TCOMM{number}"])
        return table


def _missing(hdu: Hdu) -> dict[str, np.ndarray]:
    """Where columns of unsigned integers, or of signed bytes, have the number that stands for none (TNULL).

    Those are stored with a TZERO, beside which astropy cannot read a TNULL: it is taken out of the columns.
    """
    masks = {}
    for column in hdu.columns:
        zero = _UNSIGNED.get(column.format.lstrip("1"))
        if zero is not None and column.bzero == zero and column.bscale in (None, "", 1):
            stored = np.recarray.field(hdu.data, column.name)
            masks[column.name] = stored == column.null if column.null is not None else np.zeros(len(stored), bool)
            column.null = None
    return masks


def _fits_bytes(hdu: Hdu) -> int:
    """Estimate of what a table takes: its mapped file and a copy, and text as objects on the way to characters."""
    texts = [hdu.columns.dtype[name] for name in hdu.columns.names if hdu.columns.dtype[name].kind in "SU"]
    return 2 * int(hdu.size) + len(hdu.data) * sum(4 * text.itemsize + _OBJECT_BYTES for text in texts)


def _read_votable(path: Path, label: str) -> Table:
    from astropy.io import votable

    _refuse_references(path, label)
    expect(_TEXT_BYTES * path.stat().st_size, label, "the table")
    document = votable.parse(path, verify="ignore")
    tables = list(document.iter_tables())
    if len(tables) != 1:
        raise InputError(f"{label}: has {len(tables)} tables; expected one: save it by itself")
    table = tables[0].to_table(use_names_over_ids=True)
    systems = {
        system.ID: {"system": system.system, "equinox": system.equinox, "epoch": system.epoch}
        for system in document.iter_coosys()
    }
    alone = next(iter(systems.values())) if len(systems) == 1 else None
    grouped = {getattr(entry, "ref", None): group.ref for group in tables[0].groups for entry in group.entries}
    table.meta[DOCUMENT_SYSTEMS] = sorted(
        {f"{each['system']} {each['equinox'] or ''}".strip() for each in systems.values()}
    )
    for name, field in zip(table.colnames, tables[0].fields, strict=False):
        if system := systems.get(field.ref) or systems.get(grouped.get(field.ID)) or alone:
            table[name].info.meta = {**(table[name].info.meta or {}), "coosys": system}
    return table


def _refuse_references(path: Path, label: str) -> None:
    """Refuse a VOTable whose data lie elsewhere, which astropy would fetch, and one that defines entities."""
    from xml.parsers import expat

    def element(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2].upper() == "STREAM" and any(key.lower().endswith("href") for key in attributes):
            raise InputError(f"{label}: its data are in another file or at an address; expected them in it")

    def entity(*_: str | int | None) -> None:
        raise InputError(f"{label}: defines XML entities, which are not read; expected a plain VOTable")

    parser = expat.ParserCreate()
    parser.StartElementHandler = element
    parser.EntityDeclHandler = entity
    with path.open("rb") as file:
        parser.ParseFile(file)


def _read_parquet(path: Path, label: str) -> Table:
    from astropy.table import Table

    pyarrow, parquet = require("pyarrow", "astro"), require("pyarrow.parquet", "astro")
    with path.open("rb") as file:
        about = parquet.ParquetFile(file).metadata
        stored = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        # runs of one value take next to nothing in the file, whatever their length
        expect(2 * max(stored, 8 * about.num_rows * about.num_columns), label, "the table")
        source = parquet.read_table(file, use_threads=False, pre_buffer=False)
    columns: dict[str, TableColumn] = {}
    for field, chunks in zip(source.schema, source.columns, strict=True):
        kind = field.type
        if pyarrow.types.is_dictionary(kind):
            kind = kind.value_type
            chunks = chunks.cast(kind)
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            values = np.array(chunks.fill_null("").to_pylist(), str)
        elif pyarrow.types.is_decimal(kind):
            values = _of_decimals(chunks.to_pylist(), kind.scale)
        elif pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind):
            values = chunks.fill_null(pyarrow.scalar(0).cast(kind)).to_numpy()
        else:
            continue
        said = {key.decode(): value.decode("utf-8", "replace") for key, value in (field.metadata or {}).items()}
        columns[field.name] = _column(
            values, np.asarray(chunks.is_null()), unit=_unit(said.get("unit")), description=said.get("description"),
            meta={"ucd": said["ucd"]} if said.get("ucd") else {},
        )  # fmt: skip
    return Table(columns, copy=False)


def _of_decimals(numbers: Sequence[Decimal | None], scale: int) -> np.ndarray:
    """Whole numbers where there are no digits after the point, as text where they are too large; else floats."""
    if scale > 0:
        return np.array([float(number or 0) for number in numbers], np.float64)
    whole = [int(number or 0) for number in numbers]
    small = all(-(2**63) <= number < 2**63 for number in whole)
    return np.array(whole, np.int64) if small else np.array([str(number) for number in whole], str)


def _unit(text: str | None) -> Unit | None:
    return require("astropy.units", "astro").Unit(text, parse_strict="silent") if text else None
