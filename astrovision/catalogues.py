"""Catalogues: positions on the sky from the tables that astronomers have, and tables of results."""

import contextlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astrovision.tables import Table, TableColumn, format_of, read_table
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable, replacing

if TYPE_CHECKING:  # astropy is imported where a file is written
    from astropy.io.fits import Header

_USUAL = {  # names of columns, without case and signs
    "ra": (
        "ra", "radeg", "raj2000", "ra2000", "raicrs", "alphaj2000", "alphaskyj2000", "alphawinj2000", "rightascension",
    ),
    "dec": (
        "dec", "de", "decdeg", "dedeg", "decj2000", "dej2000", "dec2000", "de2000", "decicrs", "deicrs", "deltaj2000",
        "deltaskyj2000", "deltawinj2000", "declination",
    ),
}  # fmt: skip
_UNITS = {"degree": "deg", "degrees": "deg", "degs": "deg", "radian": "rad", "radians": "rad", "hours": "h", "hr": "h"}
_IN_HOURS = ("hourangle", "h:m:s", "hms", "hh:mm:ss")
_IN_DEGREES = ("deg", "degree", "degrees", "d:m:s", "dms", "dd:mm:ss")
_PARTS = re.compile(r"([+-]?)(\d{1,3})([:\shd°])(\d{1,2})[:\sm'](\d{1,2}(?:\.\d*)?)[s\"]?")
_SHOWN = 12  # columns that a message lists
_RESERVED = re.compile(
    r"SIMPLE|XTENSION|END|BITPIX|NAXIS\d*|[PG]COUNT|GROUPS|TFIELDS|THEAP|T[A-Z]{3,4}\d+|EXT\w*|COMMENT|HISTORY|CONTINUE|"
    r"HIERARCH|BLANK|BSCALE|BZERO|CHECKSUM|DATASUM|Z[A-Z]+\d*"
)
_WIDER = {"i1": "i2", "u2": "i4", "u4": "i8", "f2": "f4"}  # types that FITS or VOTables lack


@dataclass(frozen=True)
class Catalogue:
    """A table of sources.

    Attributes:
        label: its path, fit to be shown on a terminal.
        table: `astropy.table.Table` of all its columns, see `astrovision.tables.read_table`.
        ra_deg: `(N,)` float64 right ascension in degrees, NaN where missing; None where x and y were asked for.
        dec_deg: `(N,)` float64 declination in degrees, NaN or None as above.
        x: `(N,)` float64 pixels, 0 at the centre of the first one, NaN where missing; None where not asked for.
        y: position along columns, same unit.
    """

    label: str
    table: Table
    ra_deg: np.ndarray | None
    dec_deg: np.ndarray | None
    x: np.ndarray | None
    y: np.ndarray | None

    def __len__(self) -> int:
        return len(self.table)

    def texts(self, name: str) -> list[str]:
        """The values of a column as text, whole numbers without a point; empty where missing.

        Raises:
            InputError: there is no such column, or it contains no text or numbers.
        """
        column = _column(self.label, self.table, name)
        values, mask = np.asarray(column).tolist(), np.ma.getmaskarray(column)
        whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
        return [
            "" if missing or value != value else str(value).strip() for value, missing in zip(whole, mask, strict=True)
        ]


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


def read_catalogue(
    path: str | Path, *, ra: str | None = None, dec: str | None = None, x: str | None = None, y: str | None = None
) -> Catalogue:
    """Read a catalogue.

    The positions are in the columns that are named; else in those whose UCD is `pos.eq.ra` and `pos.eq.dec`, with
    `meta.main` where there are several; else in those that have a usual name, such as `RA`, `_RAJ2000` or
    `ALPHA_J2000`. Their units are heeded: degrees where none is given, except for text with colons, which is hours,
    minutes and seconds of right ascension, and degrees, minutes and seconds of declination. Pixel positions are taken
    from columns that are named, and from no others: programs differ in whether they count from 0 or 1.

    Args:
        path: path of a CSV, ECSV, VOTable (`.vot`, `.xml`), FITS (`.fits`, `.fit`) or Parquet file; its ending decides.
        ra: name of the column of right ascensions, ICRS.
        dec: name of the column of declinations.
        x: name of the column of pixel positions along rows, counted from 0, in place of positions on the sky.
        y: name of the column of pixel positions along columns.

    Raises:
        InputError: the file cannot be read, has no columns of positions or several, or those cannot be positions.
    """
    path = Path(path)
    label = printable(path)
    for pair, names in (((ra, dec), "--ra and --dec"), ((x, y), "--x and --y")):
        if (pair[0] is None) != (pair[1] is None):
            raise InputError(f"{label}: only one of {names} is given; expected both")
    if ra is not None and x is not None:
        raise InputError(f"{label}: --ra, --dec and --x, --y are given; expected one pair")
    table = read_table(path)
    if x is not None and y is not None:
        return Catalogue(label, table, None, None, _pixels(label, table, x), _pixels(label, table, y))
    if ra is None or dec is None:
        ra, dec = _find(label, table, "ra"), _find(label, table, "dec")
    lon, lat = _angles(label, table, ra, right_ascension=True), _angles(label, table, dec, right_ascension=False)
    for name, values, limit in ((ra, lon, 360), (dec, lat, 90)):
        odd = np.abs(values) > limit
        if odd.any():
            raise InputError(
                f"{label}: column {printable(name)} has {values[odd][0]:g} degrees in row {np.argmax(odd) + 1}, "
                f"expected -{limit} to {limit}; give the right columns with --ra and --dec"
            )
    return Catalogue(label, table, lon, lat, None, None)


def write_catalogue(path: str | Path, columns: Sequence[Column], *, meta: Mapping[str, str]) -> None:
    """Write a table; it appears complete or not at all.

    Units, UCDs, descriptions and `meta` are in the file as its format has them: attributes and INFO elements of a
    VOTable; TUNIT, TUCD, TCOMM and header cards of FITS (COMMENT where a card cannot have the name, or has no room);
    `meta` of the table and of its columns in ECSV; metadata of schema and fields in Parquet; nowhere in CSV. Characters
    that FITS or XML have no place for are escaped.

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
            f"{printable(path)}: columns {_list(names)}: some differ in case alone, which FITS does not tell apart; "
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
            table = _table(columns, arrays)
            table.meta.update(meta if kind == "ecsv" else {})
            table.write(temporary, format=f"ascii.{kind}", overwrite=True)


def _find(label: str, table: Table, axis: str) -> str:
    """Name of the column of `ra` or `dec`."""
    named = [name for name in table.colnames if re.sub(r"[^a-z0-9]", "", name.lower()) in _USUAL[axis]]
    described, main = [], []
    for name in table.colnames:
        words = re.split(r"[;\s]+", str((table[name].info.meta or {}).get("ucd") or "").lower())
        if words[0] in (f"pos.eq.{axis}", f"pos_eq_{axis}", f"pos_eq_{axis}_main"):
            described.append(name)
            if "meta.main" in words or words[0].endswith("_main"):
                main.append(name)
    for candidates in (main, described if len(described) == 1 else [], named, described):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise InputError(
                f"{label}: {_list(candidates)} could all be the column of --{axis}; give the names with --ra and --dec"
            )
    raise InputError(
        f"{label}: has no column that is known to be {axis}; found {_list(table.colnames)}; give the names with --ra "
        "and --dec, or --x and --y"
    )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name)[:60] for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _column(label: str, table: Table, name: str) -> TableColumn:
    if name not in table.colnames:
        raise InputError(f"{label}: has no column {printable(name)}; found {_list(table.colnames)}; give one of them")
    column = table[name]
    if column.ndim != 1 or getattr(column, "dtype", np.dtype("V")).kind not in "iufU":
        raise InputError(f"{label}: column {printable(name)} does not hold one number for each row; give another one")
    return column


def _numbers(column: TableColumn) -> np.ndarray:
    values = np.array(np.ma.getdata(np.asarray(column)), np.float64)
    values[np.ma.getmaskarray(column) | np.isinf(values)] = np.nan
    return values


def _pixels(label: str, table: Table, name: str) -> np.ndarray:
    column = _column(label, table, name)
    unit = str(column.unit or "").strip()
    if len(column) and (column.dtype.kind == "U" or unit.lower() not in ("", "pix", "pixel", "pixels")):
        raise InputError(
            f"{label}: column {printable(name)} has {f'unit {printable(unit)}' if unit else 'text'}, expected pixels; "
            "give another column"
        )
    return _numbers(column) if column.dtype.kind != "U" else np.empty(0)


def _angles(label: str, table: Table, name: str, *, right_ascension: bool) -> np.ndarray:
    """Degrees of a column, NaN where missing."""
    units = require("astropy.units", "astro")
    column = _column(label, table, name)
    said = str(column.unit or "").strip().strip('"')
    hours = said.lower() in _IN_HOURS
    if column.dtype.kind == "U":
        if said and not hours and said.lower() not in _IN_DEGREES:
            raise InputError(
                f"{label}: column {printable(name)} has text with unit {printable(said)}, expected d:m:s or h:m:s; "
                "give another column, or fix the unit"
            )
        default = 15 if hours or (right_ascension and not said) else 1
        texts = np.ma.filled(np.ma.asanyarray(column), "").tolist()
        degrees = [_degrees(text.strip(), bool(said), default, 15 if hours else 1) for text in texts]
        if None in degrees:
            row = degrees.index(None)
            raise InputError(
                f"{label}: column {printable(name)} has '{printable(str(column[row])[:40])}' in row {row + 1}, "
                "expected degrees, or three parts such as 12:34:56.7; fix it, or give another column"
            )
        return np.array(degrees, np.float64)
    numbers = _numbers(column)
    unit = units.Unit(_UNITS.get(said.lower(), said), parse_strict="silent") if said else units.deg
    if hours or (right_ascension and unit == units.hour):
        return numbers * 15
    if unit == units.dimensionless_unscaled:
        return numbers
    try:
        return numbers * unit.to(units.deg)
    except (units.UnitsError, ValueError):
        raise InputError(
            f"{label}: column {printable(name)} has unit {printable(said)}, which is no angle; expected deg, rad or "
            "hourangle: give another column, or fix the unit"
        ) from None


def _degrees(text: str, known: bool, of_parts: int, of_number: int) -> float | None:
    """Degrees of a text, NaN where it is empty, None where it is no angle.

    Args:
        text: a number, or three parts with letters, colons, or, if the column's unit is `known`, spaces between them.
        known: whether the unit is known to be degrees, as `text` explains.
        of_parts: degrees to one of the first of three parts that no letter names.
        of_number: degrees to one of a plain number.
    """
    if text.lower() in ("", "nan", "null", "none", "--"):
        return float("nan")
    match = _PARTS.fullmatch(text)
    if match is None:
        with contextlib.suppress(ValueError):
            return float(text) * of_number
        return None
    sign, first, mark, minutes, seconds = match.groups()
    if int(minutes) >= 60 or float(seconds) >= 60 or (mark == "h" and of_parts == 1) or (mark.isspace() and not known):
        return None
    value = int(first) + int(minutes) / 60 + float(seconds) / 3600
    return (-value if sign == "-" else value) * (1 if mark in "d°" else of_parts)


def _array(column: Column) -> np.ma.MaskedArray:
    values = np.ma.MaskedArray(np.asarray(np.ma.getdata(column.values)), mask=np.ma.getmaskarray(column.values))
    if values.ndim != 1 or values.dtype.kind not in "biufU":
        raise ValueError(f"column {column.name}: {values.shape} {values.dtype}, expected (N,) numbers, bools or text")
    return values


def _table(columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray]) -> Table:
    table, units = require("astropy.table", "astro"), require("astropy.units", "astro")
    result = table.Table()
    for column, values in zip(columns, arrays, strict=True):
        masked = np.ma.getmaskarray(values).any()
        result[column.name] = (table.MaskedColumn if masked else table.Column)(
            values if masked else np.ma.getdata(values), description=column.description or None,
            unit=units.Unit(column.unit, parse_strict="silent") if column.unit else None,
            meta={"ucd": column.ucd} if column.ucd else {},
        )  # fmt: skip
    return result


def _fitted(
    columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray], fit: Callable[[str], str]
) -> tuple[list[Column], list[np.ma.MaskedArray]]:
    """Columns whose texts `fit` has been over, and whose types FITS and VOTables have."""
    fitted, values = [], []
    for column, array in zip(columns, arrays, strict=True):
        fitted.append(Column(fit(column.name), None, fit(column.unit), fit(column.ucd), fit(column.description)))
        if array.dtype.kind == "U":
            data = np.array([fit(text) for text in np.ma.getdata(array).tolist()], str)
            array = np.ma.MaskedArray(data, mask=np.ma.getmaskarray(array))
        values.append(array.astype(_WIDER.get(array.dtype.str[1:], array.dtype)))
    return fitted, values


def _write_votable(
    path: Path, columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray], meta: Mapping[str, str]
) -> None:
    votable = require("astropy.io.votable", "astro")
    document = votable.from_table(_table(*_fitted(columns, arrays, printable)))
    for name, value in meta.items():
        document.resources[0].infos.append(votable.tree.Info(name=printable(name), value=printable(value)))
    document.to_xml(str(path))


def _write_fits(
    path: Path, columns: Sequence[Column], arrays: Sequence[np.ma.MaskedArray], meta: Mapping[str, str]
) -> None:
    from astropy.io import fits

    columns, arrays = _fitted(columns, arrays, _ascii)
    # units and descriptions go into the header here: astropy keeps those that are in no standard in comments of its own
    bare = [Column(column.name, None) for column in columns]
    hdu = fits.table_to_hdu(_table(bare, arrays))
    for number, column in enumerate(columns, 1):
        for key, value in (("TUNIT", column.unit), ("TUCD", column.ucd), ("TCOMM", column.description)):
            if value:
                hdu.header[f"{key}{number}"] = value
    for name, value in meta.items():
        _add_card(hdu.header, _ascii(name), _ascii(value))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)


def _add_card(header: "Header", name: str, value: str) -> None:
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
