"""Files of polygons read safely: GeoPackages, shapefiles and GeoJSON.

Each is read as what its ending says, once its content is that: GDAL would take any text for one of its formats that
name other files, services or addresses. A GeoPackage is a database, which can hold programs: tables are read alone.
GeoJSON is read without GDAL, which fetches the CRS from where a file says.
"""

import contextlib
import os
import re
import sqlite3
import urllib.parse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared_backbones.documents import read_json
from shared_backbones.errors import InputError, require
from shared_backbones.files import brief, check_regular, printable
from shared_backbones.json_values import Document, Json
from shared_backbones.memory import budget, expect

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

VECTORS = (".gpkg", ".geojson", ".shp")
"""Endings of files of polygons."""
_SIDE_FILES = {".dbf": None, ".shx": None, ".prj": 2**16, ".cpg": 2**10}
"""Parts of a shapefile, and the bytes that each may have, where its size says nothing of the polygons."""
_BYTES, _TEXT_BYTES = 16, 60  # of memory for a byte of a file of numbers, and of one of text
_DATABASE, _SHAPES, _BYTE_ORDER_MARK = b"SQLite format 3\0", b"\0\0\x27\x0a", b"\xef\xbb\xbf"
_APPLICATIONS = (b"GPKG", b"GP10", b"GP11")  # what a database says that it is, at byte 68
_OPTIONS = {
    "GPKG": {"IMMUTABLE": "YES", "LIST_ALL_TABLES": "NO"},  # without the journals beside it, and what it does not list
    "ESRI Shapefile": {},
}
_JOURNALS = ("-wal", "-journal")
_CRS = re.compile(r"(urn:ogc:def:crs:)?\w{1,16}:[\w.]{0,8}:?\w{1,32}", re.A)
_WKT = re.compile(r"[A-Za-z_]+\[")
_WGS_84 = "OGC:CRS84"  # of GeoJSON that says none


@dataclass(frozen=True)
class Polygons:
    """Geometries of a file, and what it says of each.

    Attributes:
        shapes: geometries, None where one has none.
        columns: by name the values of all.
        crs: CRS of the coordinates; None where the file has none.
    """

    shapes: "Sequence[BaseGeometry | None]"
    columns: Mapping[str, Sequence[object]]
    crs: str | None


def read_polygons(path: Path) -> Polygons:
    """Read a file of polygons with an ending of `VECTORS`.

    Raises:
        InputError: it cannot be read, is of another format than its ending says, would take more memory than the
            budget, has a CRS elsewhere, or a GeoPackage whose layers are not tables.
    """
    label, suffix = printable(path), path.suffix.lower()
    try:
        parts = files_of(path)
        for part in parts:
            check_regular(part)
        expect(_BYTES * sum(part.stat().st_size for part in parts), label, "its polygons")
        with path.open("rb") as file:
            start = file.read(72)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a possible path"
        raise InputError(f"{label}: cannot be read ({reason}); expected polygons with classes") from None
    if suffix == ".geojson":
        return _of_geojson(path, label)
    if suffix == ".gpkg":
        if not start.startswith(_DATABASE) or start[68:] not in _APPLICATIONS:
            raise InputError(f"{label}: cannot be read (it is no GeoPackage); expected one, or another ending")
        _check_tables(path, label)
        return _of_gdal(path, label, "GPKG")
    if not start.startswith(_SHAPES):
        raise InputError(f"{label}: cannot be read (it is no shapefile); expected one, or another ending")
    return _of_gdal(path, label, "ESRI Shapefile")


def files_of(path: Path) -> list[Path]:
    """A file of polygons, with those that belong to it.

    Raises:
        InputError: one of these is far larger than it can be.
    """
    if path.suffix.lower() != ".shp":
        return [path]
    parts = {path.with_suffix(ending): most for ending, most in _SIDE_FILES.items()}
    for part, most in parts.items():
        if most is not None and part.is_file() and part.stat().st_size > most:
            raise InputError(f"{printable(part)}: is larger than {most:,} bytes; use an intact copy")
    return [path, *(part for part in parts if part.is_file())]


def _of_gdal(path: Path, label: str, driver: str) -> Polygons:
    pyogrio, shapely = require("pyogrio.raw", "geo"), require("shapely", "geo")
    try:
        with warnings.catch_warnings():  # such as of times that are read as texts
            warnings.simplefilter("ignore")
            about, _, geometry, fields = pyogrio.read(os.path.abspath(path), **_OPTIONS[driver])
            if geometry is None:
                raise ValueError("it has no geometry")
            shapes = [None if part is None else shapely.from_wkb(part) for part in geometry]
    except Exception as error:  # pyogrio's errors, GDAL's, and those of damaged files have no class in common
        raise InputError(f"{label}: cannot be read ({brief(error, path)}); expected polygons with classes") from None
    crs = about["crs"]
    if crs is not None and not (_CRS.fullmatch(crs) or _WKT.match(crs)):  # which is looked up by what it is called
        raise InputError(f"{label}: has a CRS that is not known ({printable(crs)[:60]}); save it with another")
    columns = zip(map(str, about["fields"]), fields, strict=True)
    return Polygons(shapes, {name: values.tolist() for name, values in columns}, crs)


def _check_tables(path: Path, label: str) -> None:
    """Refuse a GeoPackage of which a layer, or a table that describes them, is a program that runs when it is read.

    Raises:
        InputError: one is a view or a virtual table, or has a column that is computed; or there is a journal.
    """
    for beside in (path.with_name(f"{path.name}{ending}") for ending in _JOURNALS):
        if os.path.lexists(beside):  # which SQLite would write into the file, or remove
            raise InputError(
                f"{label}: has changes beside it, in {printable(beside.name)}, that are not in it; close the program "
                "that has it open, or copy the file alone"
            )
    address = f"file:{urllib.parse.quote(os.path.abspath(path))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            listed = database.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
            kinds = {str(name).lower(): str(kind) for name, kind in listed}
            read = {name for name in kinds if name.startswith(("gpkg_", "gpkgext_"))}
            if all(kinds[name] == "table" for name in read):
                read |= {str(name).lower() for (name,) in database.execute("SELECT table_name FROM gpkg_contents")}
            for name in sorted(read):
                query = "SELECT count(*) FROM pragma_table_xinfo(?) WHERE hidden <> 0"
                if kinds.get(name) != "table" or database.execute(query, [name]).fetchone() != (0,):
                    raise InputError(
                        f"{label}: {name[:60]!r} is computed when it is read (a view, a virtual table or column); "
                        "expected plain tables: save the layer as a new file"
                    )
    except sqlite3.Error as error:
        raise InputError(f"{label}: cannot be read ({brief(error)}); expected polygons with classes") from None


def _of_geojson(path: Path, label: str) -> Polygons:
    shapely = require("shapely.geometry", "geo")
    expect(_TEXT_BYTES * path.stat().st_size, label, "its polygons")
    content = read_json(path, largest=budget())
    try:
        features = content["features"] if content.get("type") == "FeatureCollection" else [content]
        about = [dict(feature["properties"] or {}) for feature in features]
        with np.errstate(all="ignore"):  # of coordinates that are no numbers
            shapes = [
                None if feature["geometry"] is None else shapely.shape(feature["geometry"]) for feature in features
            ]
    except Exception as error:  # shapely raises errors of every kind
        reason = f"lacks {error}" if isinstance(error, KeyError) else brief(error)
        raise InputError(f"{label}: is no sound GeoJSON ({reason[:200]}); expected features with geometries") from None
    names = dict.fromkeys(name for properties in about for name in properties)
    columns = {name: [properties.get(name) for properties in about] for name in names}
    return Polygons(shapes, columns, _crs_of(content.get("crs"), label))


def _crs_of(said: Json, label: str) -> str:
    """The CRS that GeoJSON names; longitude and latitude where it names none."""
    if said is None:
        return _WGS_84
    properties: Document = said.get("properties") if isinstance(said, dict) else None  # pyright: ignore
    name = properties.get("name") if isinstance(properties, dict) else None
    if not isinstance(name, str) or not _CRS.fullmatch(name):
        raise InputError(f"{label}: has a CRS that is no name such as urn:ogc:def:crs:EPSG::32633; save it with one")
    return name
