"""Frames of catalogues: which one a table's positions are in, and what they are in ICRS."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from astrovision.astropy_types import Frame, Sky, Table
from shared_backbones.errors import InputError
from shared_backbones.files import printable

SYSTEMS = {
    "galactic": {
        "lon": ("glon", "galacticlongitude", "galacticlon", "gallon", "gall", "l"),
        "lat": ("glat", "galacticlatitude", "galacticlat", "gallat", "galb", "b"),
    },
    "ecliptic": {
        "lon": ("elon", "ecllon", "eclipticlongitude", "eclipticlon"),
        "lat": ("elat", "ecllat", "eclipticlatitude", "eclipticlat"),
    },
    "supergalactic": {
        "lon": ("sgl", "slon", "supergalacticlongitude", "supergalacticlon", "supergallon"),
        "lat": ("sgb", "slat", "supergalacticlatitude", "supergalacticlat", "supergallat"),
    },
}
"""Systems with names of their own for longitude and latitude: usual names of columns, without case and signs."""
DOCUMENT_SYSTEMS = "systems of the document"
"""Key of a table's `meta` under which the different systems of a VOTable's COOSYS elements are."""
_KNOWN = {  # names of systems, without `eq_` and signs
    "icrs": "icrs", "fk5": "fk5", "fk4": "fk4", "fk4noe": "fk4noeterms", "galactic": "galactic", "gal": "galactic",
    "galacticii": "galactic", "supergalactic": "supergalactic", "ecliptic": "barycentricmeanecliptic",
    "eclfk5": "barycentricmeanecliptic", "eclfk4": "barycentricmeanecliptic",
}  # fmt: skip
_UNSAID = ("", "none", "unknown", "nan")


def frame_of(label: str, table: Table, names: Sequence[str]) -> Frame:
    """The astropy frame of positions.

    What a VOTable's COOSYS says of the columns comes first, then names such as `RAB1950`, `GLON` and `ELON`, then
    RADESYS and EQUINOX in the headers of a FITS table or the metadata of an ECSV file; ICRS where nothing is said.

    Args:
        label: name of the catalogue, for messages.
        table: its table.
        names: the columns of longitude and latitude.

    Raises:
        InputError: the two columns are in different frames, in one that cannot be turned into ICRS, or in one of
            several, and nothing says in which.
    """
    said_of_both = [_said_of(table, name) for name in names]
    systems = [(system or "icrs", equinox) for system, equinox in said_of_both]
    if systems[0] != systems[1]:
        said = [
            f"{printable(name)} in {printable(frame[0])} {printable(frame[1])}".strip()
            for name, frame in zip(names, systems, strict=True)
        ]
        raise InputError(
            f"{label}: has {' and '.join(said)}; expected one frame: give other columns with --ra and --dec"
        )
    system, equinox = systems[0]
    several = table.meta.get(DOCUMENT_SYSTEMS, ())
    if len(several) > 1 and not any(said for said, _ in said_of_both):
        raise InputError(
            f"{label}: has COOSYS {', '.join(map(printable, several))}, and does not say in which of them "
            f"{printable(names[0])} and {printable(names[1])} are; fix their ref, or give other columns with --ra and "
            "--dec"
        )
    kind = _KNOWN.get(re.sub(r"[^a-z0-9]", "", re.sub(r"^eq_", "", system.lower())))
    if kind is None:
        raise InputError(
            f"{label}: its positions are in {printable(system)}, which cannot be turned into ICRS; expected ICRS, FK5, "
            "FK4, galactic or ecliptic positions: give other columns with --ra and --dec"
        )
    from astropy.coordinates import frame_transform_graph

    cls: Frame = frame_transform_graph.lookup_name(kind)
    if not equinox or "equinox" not in cls.frame_attributes:
        return cls()
    from astropy.time import Time

    try:
        return cls(equinox=Time(equinox))
    except ValueError:
        raise InputError(
            f"{label}: its positions are of equinox {printable(equinox)}; expected one such as B1950 or J2000: fix it"
        ) from None


def to_icrs(frame: Frame, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination in degrees of positions in degrees; NaN stays NaN."""
    if frame.name == "icrs":
        return lon, lat
    from astropy.coordinates import SkyCoord

    known = np.isfinite(lon) & np.isfinite(lat)
    ra, dec = np.full(len(lon), np.nan), np.full(len(lat), np.nan)
    sky: Sky = SkyCoord(lon[known], lat[known], unit="deg", frame=frame).icrs
    ra[known], dec[known] = sky.ra.deg, sky.dec.deg
    return ra, dec


def own_system(table: Table, name: str) -> str:
    """Which of `SYSTEMS` a column's name or UCD is of; "" for others."""
    ucd = str((table[name].info.meta or {}).get("ucd") or "").lower()
    for system, axes in SYSTEMS.items():
        if any(_plain(name) in names for names in axes.values()) or f"pos.{system}" in ucd:
            return system
    return "galactic" if "pos_gal" in ucd else ""


def _said_of(table: Table, name: str) -> tuple[str, str]:
    """System and equinox of a column; "" where nothing is said."""
    coosys = (table[name].info.meta or {}).get("coosys")
    if isinstance(coosys, Mapping) and str(coosys.get("system") or "").lower() not in _UNSAID:
        system = str(coosys["system"]).lower()
        return system, _equinox(coosys.get("equinox"), system)
    if system := own_system(table, name):
        return system, ""
    if match := re.search(r"(fk[45]|icrs)|([bj])(\d{4})(?!\d|\.\d)|(1950|2000)", name.lower()):
        return _of_name(*match.groups())
    cards = {str(key).upper(): value for key, value in table.meta.items()}
    system = str(cards.get("RADESYS") or cards.get("RADECSYS") or cards.get("RADESYSA") or "").strip().lower()
    equinox = _equinox(cards.get("EQUINOX"), system) or _old_epoch(cards.get("EPOCH"))
    if system in _UNSAID:  # as the FITS standard has it
        system = "" if not equinox else "fk4" if equinox.startswith("B") else "fk5"
    return system, "" if system == "icrs" else equinox


def _of_name(frame: str | None, letter: str | None, year: str | None, plain: str | None) -> tuple[str, str]:
    """System and equinox that a column's name says: `fk4`, or a letter and a `year` as in B1950, or a year alone."""
    if frame:
        return frame, {"fk4": "B1950", "fk5": "J2000"}.get(frame, "")
    if letter == "b" or plain == "1950":
        return "fk4", f"B{year or plain}"
    return ("fk5", f"J{year}") if year and int(year) < 2000 else ("icrs", "")


def _old_epoch(value: object) -> str:
    """The equinox that EPOCH is in old headers; "" for epochs of observation, which are later."""
    equinox = _equinox(value, "")
    return equinox if equinox.startswith("B") else ""


def _equinox(value: object, system: str) -> str:
    """An equinox as astropy reads it, such as B1950; empty where none is given. FK5 has Julian years, FK4 has not."""
    text = str("" if value is None else value).strip().upper()
    try:
        year = float(text)
    except ValueError:
        return "" if text.lower() in _UNSAID else text
    besselian = "fk4" in system or ("fk5" not in system and year < 1984)
    return f"{'B' if besselian else 'J'}{year:g}" if np.isfinite(year) else ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
