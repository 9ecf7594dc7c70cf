"""Catalogues: positions on the sky from the tables that astronomers have."""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrovision import frames
from astrovision.astropy_types import Sky, Table, TableColumn
from astrovision.table_writing import Column, write_catalogue
from astrovision.tables import listed, read_table
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

__all__ = ["Catalogue", "Column", "read_catalogue", "write_catalogue"]

_USUAL = {  # names of columns, without case and signs
    "ra": (
        "ra", "radeg", "raj2000", "ra2000", "raicrs", "alphaj2000", "alphaskyj2000", "alphawinj2000", "rightascension",
        "rafk5",
    ),
    "dec": (
        "dec", "de", "decdeg", "dedeg", "decj2000", "dej2000", "dec2000", "de2000", "decicrs", "deicrs", "deltaj2000",
        "deltaskyj2000", "deltawinj2000", "declination", "decfk5", "defk5",
    ),
}  # fmt: skip
_OF_1950 = {  # looked for where there are none of those
    "ra": ("rab1950", "ra1950", "alphab1950", "alpha1950", "alphaskyb1950", "alphawinb1950", "rafk4"),
    "dec": ("deb1950", "decb1950", "de1950", "dec1950", "deltab1950", "delta1950", "deltaskyb1950", "deltawinb1950",
            "decfk4", "defk4"),
}  # fmt: skip
_UNITS = {
    "deg": "deg", "degree": "deg", "degrees": "deg", "degs": "deg", "rad": "rad", "radian": "rad", "radians": "rad",
    "h": "h", "hour": "h", "hours": "h", "hr": "h", "arcmin": "arcmin", "arcsec": "arcsec", "mas": "mas",
    "arcmins": "arcmin", "arcsecs": "arcsec", "arcminutes": "arcmin", "arcseconds": "arcsec",
}  # fmt: skip
_IN_HOURS = ("hourangle", "h:m:s", "hms", "hh:mm:ss")
_IN_DEGREES = ("deg", "degree", "degrees", "d:m:s", "dms", "dd:mm:ss")
_NONE = re.compile(r"-?(9{2,}(\.9*)?|\d(\.\d+)?e\+\d+)")  # numbers that stand for none, such as -999 and 1e+20
_PARTS = re.compile(r"([+-]?)(\d{1,3})([:\shd°])(\d{1,2})[:\sm'](\d{1,2}(?:\.\d*)?)[s\"]?")


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
        notices: what a user should know of the positions.
    """

    label: str
    table: Table
    ra_deg: np.ndarray | None
    dec_deg: np.ndarray | None
    x: np.ndarray | None
    y: np.ndarray | None
    notices: tuple[str, ...] = ()

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


def read_catalogue(
    path: str | Path, *, ra: str | None = None, dec: str | None = None, x: str | None = None, y: str | None = None
) -> Catalogue:
    """Read a catalogue.

    The positions are in the columns that are named; else in the only column of an ECSV file that holds astropy's
    SkyCoord; else in those whose UCD is `pos.eq.ra` and `pos.eq.dec`, with `meta.main` where there are several; else in
    those that have a usual name, such as `RA`, `_RAJ2000`, `ALPHA_J2000`, `RAB1950` or `GLON`. Their frames are heeded
    (see `astrovision.frames.frame_of`), and what is not in ICRS is turned into it. Their units are heeded: degrees
    where none is given, except for text with colons, which is hours, minutes and seconds of right ascension, and
    degrees, minutes and seconds of declination. Rows whose position is none, such as -999, have none. Pixel positions
    are taken from columns that are named, and from no others: programs differ in whether they count from 0 or 1.

    Args:
        path: path of a table, as `astrovision.tables.read_table` takes it; its ending decides.
        ra: name of the column of right ascensions, or longitudes of another frame.
        dec: name of the column of declinations, or latitudes.
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
        coordinates = [name for name in table.colnames if hasattr(table[name], "icrs")]
        if len(coordinates) == 1:
            return Catalogue(label, table, *_of_sky(label, table, coordinates[0]), None, None)
        ra, dec = _columns(label, table)
    for name in (ra, dec):
        _column(label, table, name)
    frame = frames.frame_of(label, table, (ra, dec))
    lon = _angles(label, table, ra, right_ascension=not frames.own_system(table, ra))
    lat = _angles(label, table, dec, right_ascension=False)
    notices = _leave_out(label, {ra: (lon, 360), dec: (lat, 90)})
    return Catalogue(label, table, *frames.to_icrs(frame, lon, lat), None, None, notices)


def _of_sky(label: str, table: Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination of a SkyCoord column."""
    from astropy.utils.iers import conf

    try:
        with conf.set_temp("auto_download", False):  # of the earth's rotation, for frames of an observer
            sky = table[name].icrs
        ra, dec = (np.ma.filled(np.ma.asanyarray(_bare(part)), np.nan) for part in (sky.ra, sky.dec))
    except Exception:  # frames that need a place and a time on earth raise errors of every kind
        raise InputError(
            f"{label}: column {printable(name)} cannot be turned into ICRS; give columns with --ra and --dec"
        ) from None
    return np.array(ra, np.float64), np.array(dec, np.float64)


def _bare(angle: Sky) -> np.ndarray:
    """Degrees of an astropy angle, masked where it is."""
    degrees = angle.deg
    if hasattr(degrees, "unmasked"):
        return np.ma.MaskedArray(degrees.unmasked, degrees.mask)
    return degrees


def _leave_out(label: str, columns: dict[str, tuple[np.ndarray, float]]) -> tuple[str, ...]:
    """Make positions NaN that are out of range; where these are most, and no -999 and the like, it is refused."""
    bad = np.zeros(len(next(iter(columns.values()))[0]), bool)
    for name, (values, limit) in columns.items():
        with np.errstate(invalid="ignore"):
            odd = np.abs(values) > limit
        known = np.isfinite(values).sum()
        of_none = [bool(_NONE.fullmatch(f"{value:g}")) for value in np.unique(values[odd])]
        if odd.sum() == known > 0 or (2 * odd.sum() >= known and not all(of_none)):
            raise InputError(
                f"{label}: column {printable(name)} has {values[odd][0]:g} degrees in row {np.argmax(odd) + 1}, "
                f"expected -{limit} to {limit}; give the right columns with --ra and --dec"
            )
        bad |= odd
    if not bad.any():
        return ()
    row = int(np.argmax(bad))
    pair = " ".join(f"{values[row]:g}" for values, _ in columns.values())
    for values, _ in columns.values():
        values[bad] = np.nan
    return (f"{bad.sum()} of {len(bad)} rows have no position, such as row {row + 1} with {pair}; they are left out",)


def _columns(label: str, table: Table) -> tuple[str, str]:
    """Names of the columns of positions."""
    try:
        return _find(label, table, "ra"), _find(label, table, "dec")
    except InputError:
        pairs = [
            [_described(table, f"pos.{system}.{axis}") or _named(table, names) for axis, names in axes.items()]
            for system, axes in frames.SYSTEMS.items()
        ]
        pairs = [pair for pair in pairs if [len(names) for names in pair] == [1, 1]]
        if len(pairs) != 1 or any(_named(table, _USUAL[axis]) for axis in _USUAL):
            raise
        return pairs[0][0][0], pairs[0][1][0]


def _named(table: Table, names: Iterable[str]) -> list[str]:
    return [name for name in table.colnames if re.sub(r"[^a-z0-9]", "", name.lower()) in names]


def _ucd(table: Table, name: str) -> list[str]:
    return re.split(r"[;\s]+", str((table[name].info.meta or {}).get("ucd") or "").lower())


def _described(table: Table, word: str) -> list[str]:
    return [name for name in table.colnames if _ucd(table, name)[0] == word]


def _find(label: str, table: Table, axis: str) -> str:
    """Name of the column of `ra` or `dec`."""
    named = _named(table, _USUAL[axis]) or _named(table, _OF_1950[axis])
    described, main = [], []
    for name in table.colnames:
        words = _ucd(table, name)
        if words[0] in (f"pos.eq.{axis}", f"pos_eq_{axis}", f"pos_eq_{axis}_main"):
            described.append(name)
            if "meta.main" in words or words[0].endswith("_main"):
                main.append(name)
    for candidates in (main, described if len(described) == 1 else [], named, described):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise InputError(
                f"{label}: {listed(candidates)} could all be the column of --{axis}; give the names with --ra and --dec"
            )
    raise InputError(
        f"{label}: has no column that is known to be {axis}; found {listed(table.colnames)}; give the names with --ra "
        "and --dec, or --x and --y"
    )


def _column(label: str, table: Table, name: str) -> TableColumn:
    if name not in table.colnames:
        raise InputError(f"{label}: has no column {printable(name)}; found {listed(table.colnames)}; give one of them")
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
    if text.lower() in ("", "nan", "null", "none", "n/a", "na", "-", "--"):
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
