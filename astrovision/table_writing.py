"""Tables of results: VOTable, FITS, ECSV, CSV and Parquet files that hold what they were given, and what it means."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from astrovision.astropy_types import Header, Table
from astrovision.tables import format_of, listed
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable, replacing, spreadsheet_safe

_RESERVED = re.compile(
    r"SIMPLE|XTENSION|END|BITPIX|NAXIS\d*|[PG]COUNT|GROUPS|TFIELDS|THEAP|T[A-Z]{3,4}\d+|EXT\w*|COMMENT|HISTORY|CONTINUE|"
    r"HIERARCH|BLANK|BSCALE|BZERO|CHECKSUM|DATASUM|Z[A-Z]+\d*"
)
_ICRS = "coosys-icrs"  # of the element that names the frame
_WIDER = {"i1": "i2", "u2": "i4", "u4": "i8", "f2": "f4"}  # types that FITS or VOTables lack


@dataclass(frozen=True)
class Column:
    """A column of a table that is written.

    Attributes:
        name: name of the column.
        values: `(N,)` numbers, truth values or text; what is missing is masked or NaN.
        unit: as the VO standard writes it.
        ucd: Unified Content Descriptor, such as `pos.eq.ra;meta.main`.
        description: one line.
    """

    name: str
    values: Any
    unit: str = ""
    ucd: str = ""
    description: str = ""

    def part(self, rows: "slice | np.ndarray") -> "Column":
        """The column of some rows."""
        return Column(self.name, self.values[rows], self.unit, self.ucd, self.description)


def write_catalogue(path: str | Path, columns: Sequence[Column], *, meta: Mapping[str, str]) -> None:
    """Write a table; it appears complete or not at all.

    Units, UCDs, descriptions and `meta` are in the file as its format has them: attributes and INFO elements of a
    VOTable; TUNIT, TUCD, TCOMM and header cards of FITS (COMMENT where a card cannot have the name, or has no room);
    `meta` of the table and of its columns in ECSV; metadata of schema and fields in Parquet; nowhere in CSV. Characters
    that FITS or XML have no place for are escaped. Columns with the UCDs `pos.eq.ra;meta.main` and
    `pos.eq.dec;meta.main` are taken to be in ICRS, which VOTables (COOSYS) and FITS (RADESYS) then say. What is missing
    is marked by a value that no other row of a FITS column has; unsigned 64-bit numbers beyond the signed ones are
    written as text to FITS and VOTables.

    Args:
        path: ending in `.vot`, `.xml`, `.fits`, `.fit`, `.ecsv`, `.csv` or `.parquet`.
        columns: columns of one length, with different names.
        meta: what is to be known of the table, such as the model's hash.

    Raises:
        InputError: another ending, FITS of names that differ in case alone, or the file cannot be written.
        ValueError: names are repeated, or columns are none, differ in length or hold something else.
    """
    path = Path(path)
    kind = format_of(path)
    names = [column.name for column in columns]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"columns are {names}, expected one or more different ones")
    arrays = [_array(column) for column in columns]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"columns have {[len(array) for array in arrays]} values, expected one length")
    if kind == "fits" and len({name.lower() for name in names}) < len(names):
        raise InputError(
            f"{printable(path)}: columns {listed(names)}: some differ in case alone, which FITS does not tell apart; "
            "write another format"
        )
    require("astropy.table", "astro")
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units and names that are in no standard, and are written as they are
        if kind == "parquet":
            _write_parquet(temporary, columns, arrays, meta)
        elif kind == "fits":
            _write_fits(temporary, columns, arrays, meta)
        elif kind == "votable":
            _write_votable(temporary, columns, arrays, meta)
        else:
            if kind == "csv":
                columns, arrays = _fitted(columns, arrays, spreadsheet_safe)
            table = _table(columns, arrays)
            table.meta.update(meta if kind == "ecsv" else {})
            table.write(temporary, format=f"ascii.{kind}", overwrite=True)


def _array(column: Column) -> np.ma.MaskedArray:
    values = np.ma.MaskedArray(np.asarray(np.ma.getdata(column.values)), mask=np.ma.getmaskarray(column.values))
    if values.ndim != 1 or values.dtype.kind not in "biufU":
        raise ValueError(f"column {column.name}: {values.shape} {values.dtype}, expected (N,) numbers, bools or text")
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = _as_type(values, np.float64)  # which is all that the formats have
    return _as_type(values, values.dtype.newbyteorder("="))  # FITS tables are big-endian, which Parquet has not


def _as_type(values: np.ma.MaskedArray, dtype: DTypeLike) -> np.ma.MaskedArray:
    return np.ma.MaskedArray(np.ma.getdata(values).astype(dtype), mask=np.ma.getmaskarray(values))


def _table(columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray]) -> Table:
    table, units = require("astropy.table", "astro"), require("astropy.units", "astro")
    result = table.Table()
    for column, values in zip(columns, arrays, strict=True):
        masked = np.ma.getmaskarray(values).any()
        result[column.name] = (table.MaskedColumn if masked else table.Column)(
            values if masked else np.ma.getdata(values), **({"fill_value": values.fill_value} if masked else {}),
            description=column.description or None,
            unit=units.Unit(column.unit, parse_strict="silent") if column.unit else None,
            meta={"ucd": column.ucd} if column.ucd else {},
        )  # fmt: skip
    return result


def _fitted(
    columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray], fit: Callable[[str], str]
) -> tuple[list[Column], list[np.ma.MaskedArray]]:
    """Columns whose texts `fit` has been over, and whose types FITS and VOTables have.

    Unsigned numbers of 64 bits, for which those have no type that all programs read, become signed ones, or text where
    one is too large.
    """
    fitted, values = [], []
    for column, array in zip(columns, arrays, strict=True):
        fitted.append(Column(fit(column.name), None, fit(column.unit), fit(column.ucd), fit(column.description)))
        if array.dtype.kind == "U":
            data = np.array([fit(text) for text in np.ma.getdata(array).tolist()], str)
            array = np.ma.MaskedArray(data, mask=np.ma.getmaskarray(array))
        if array.dtype.kind == "u" and array.dtype.itemsize == 8:
            small = len(array) == 0 or int(array.max() if array.count() else 0) <= np.iinfo(np.int64).max
            array = _as_type(array, np.int64 if small else str)
        values.append(_as_type(array, _WIDER.get(array.dtype.str[1:], array.dtype)))
    return fitted, values


def _with_fill_value(array: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """The array, whose fill value stands for what is missing, and is that of no other row; widened where all are."""
    if array.dtype.kind not in "iu" or not np.ma.getmaskarray(array).any():
        return array
    taken, limits = set(array.compressed().tolist()), np.iinfo(array.dtype)
    free = next((value for value in range(limits.max, limits.min - 1, -1) if value not in taken), None)
    if free is None:
        return _with_fill_value(_as_type(array, f"i{2 * array.dtype.itemsize}"))
    result = array.copy()
    result.fill_value = free
    return result


def _write_votable(
    path: Path, columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray], meta: Mapping[str, str]
) -> None:
    votable, tree = require("astropy.io.votable", "astro"), require("astropy.io.votable.tree", "astro")
    columns, arrays = _fitted(columns, arrays, printable)
    table = _table(columns, arrays)
    document = votable.from_table(table)
    resource, written = document.resources[0], document.get_first_table()
    for number, (column, field) in enumerate(zip(columns, written.fields, strict=True)):
        if field.datatype == "bit":  # which has no value for what is missing
            written.fields[number] = field = tree.Field(
                document, name=column.name, ID=field.ID, datatype="boolean", ucd=column.ucd or None
            )
            field.description = column.description or None
        if _is_position(column):
            field.ref = _ICRS
    if any(map(_is_position, columns)):
        resource.coordinate_systems.append(tree.CooSys(ID=_ICRS, system="ICRS"))
    for name, value in meta.items():
        resource.infos.append(tree.Info(name=printable(name), value=printable(value)))
    document.to_xml(str(path))


def _is_position(column: Column) -> bool:
    """Whether a column is of the main positions, which are in ICRS."""
    return column.ucd in ("pos.eq.ra;meta.main", "pos.eq.dec;meta.main")


def _write_fits(
    path: Path, columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray], meta: Mapping[str, str]
) -> None:
    from astropy.io import fits

    columns, arrays = _fitted(columns, arrays, _ascii)
    # FITS has a truth value that is missing, astropy writes true for it
    arrays = [_as_type(a, np.int16) if a.dtype.kind == "b" and np.ma.getmaskarray(a).any() else a for a in arrays]
    # units and descriptions go into the header here: astropy keeps those that are in no standard in comments of its own
    bare = [Column(column.name, None) for column in columns]
    hdu = fits.table_to_hdu(_table(bare, [_with_fill_value(array) for array in arrays]))
    for number, column in enumerate(columns, 1):
        for key, value in (("TUNIT", column.unit), ("TUCD", column.ucd), ("TCOMM", column.description)):
            if value:
                hdu.header[f"{key}{number}"] = value
    if any(map(_is_position, columns)):
        hdu.header["RADESYS"] = "ICRS"
    for name, value in meta.items():
        _add_card(hdu.header, _ascii(name), _ascii(value))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)


def _add_card(header: Header, name: str, value: str) -> None:
    """A card, over several lines where the value is long; a comment where there can be none of its name or length."""
    free = name.upper() not in header and not _RESERVED.fullmatch(name.upper())
    if free and re.fullmatch(r"[A-Z0-9_-]{1,8}", name.upper()):
        header[name] = value
    elif free and re.fullmatch(r"[A-Za-z0-9_-]+", name) and len(name) + len(value.replace("'", "''")) <= 60:
        header[f"HIERARCH {name}"] = value
    else:
        header.add_comment(f"{name}: {value}")


def _write_parquet(
    path: Path, columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray], meta: Mapping[str, str]
) -> None:
    pyarrow, parquet = require("pyarrow", "astro"), require("pyarrow.parquet", "astro")
    fields, values = [], []
    for column, array in zip(columns, arrays, strict=True):
        values.append(pyarrow.array(np.ma.getdata(array), mask=np.ma.getmaskarray(array)))
        said = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
        said = {key: value for key, value in said.items() if value}
        fields.append(pyarrow.field(column.name, values[-1].type, metadata=said or None))
    schema = pyarrow.schema(fields, metadata=dict(meta) or None)
    parquet.write_table(pyarrow.Table.from_arrays(values, schema=schema), path)


def _ascii(text: str) -> str:
    """The text with all that FITS has no characters for escaped."""
    return printable(text).encode("ascii", "backslashreplace").decode()
