"""Files of polygons that reach elsewhere, compute what they give, or claim more than they hold; all are harmless."""

import contextlib
import functools
import json
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.formats import FORMATS
from tests.hostile.sound_files import geojson, polygons

Bomb = tuple[Callable[[Path], Path], Callable[[Path], Any]]
VECTOR_BOMBS: dict[str, Bomb] = {}
ADDRESS = "http://127.0.0.1:9/x"
"""Where a file says that a part of it is; a test puts that of its own listener in its place."""
_READ = FORMATS["geojson"][1][0]
_CORNERS = [[12, 0], [18, 0], [15, 80], [12, 0]]

# Text that GDAL would take for a format of services or other files, whatever its ending
OTHERS: dict[str, str] = {
    "a virtual layer": f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/vsicurl/{ADDRESS}</SrcDataSource>'
    "</OGRVRTLayer></OGRVRTDataSource>",
    "a layer of another file": '<OGRVRTDataSource><OGRVRTLayer name="scene"><SrcDataSource>scene.tif</SrcDataSource>'
    "</OGRVRTLayer></OGRVRTDataSource>",
    "a service": f"<OGRWFSDataSource><URL>{ADDRESS}</URL></OGRWFSDataSource>",
}


def _other(path: Path, text: str, ending: str) -> Path:
    target = polygons(path, ending) if ending != ".geojson" else geojson(path)
    target.write_text(text)
    return target


for _name, _text in OTHERS.items():
    for _ending in (".gpkg", ".shp", ".geojson"):
        VECTOR_BOMBS[f"{_name} named {_ending}"] = functools.partial(_other, text=_text, ending=_ending), _READ

# GeoJSON


def _named(name: str) -> dict[str, Any]:
    return {"type": "name", "properties": {"name": name}}


def _nested(depth: int) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": "Polygon", "coordinates": [_CORNERS]}
    for _ in range(depth):
        shape = {"type": "GeometryCollection", "geometries": [shape]}
    return shape


PLACES: dict[str, dict[str, Any]] = {
    "a CRS at an address": {"crs": {"type": "link", "properties": {"href": ADDRESS, "type": "ogcwkt"}}},
    "a CRS of an old form at an address": {"crs": {"type": "url", "properties": {"url": ADDRESS}}},
    "a CRS named like an address": {"crs": _named(ADDRESS)},
    "a CRS in a file": {"crs": _named("/etc/hostname")},
    "a CRS that is a list": {"crs": [1]},
    "a CRS that nobody knows": {"crs": _named("EPSG:99999999")},
}
FEATURES: dict[str, dict[str, Any]] = {
    "collections in collections": {"geometry": _nested(100)},
    "enormous coordinates": {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1e308, 0], [1, 1], [0, 0]]]}},
    "places beyond the poles": {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 500], [1, 1], [0, 0]]]}},
    "coordinates that are no numbers": {
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [float("nan"), 0], [1, 1], [0, 0]]]}
    },
    "coordinates that are texts": {"geometry": {"type": "Polygon", "coordinates": "x"}},
    "a geometry of no kind": {"geometry": {"type": "Sphere"}},
    "a geometry that is a list": {"geometry": [1]},
    "a class of a million letters": {"properties": {"class": "x" * 10**6}},
    "a class of thousands of digits": {"properties": {"class": "9" * 5000}},
    "a class that is no number": {"properties": {"class": float("nan")}},
    "a class without end": {"properties": {"class": float("inf")}},
    "a class that is a list": {"properties": {"class": [1]}},
    "a class with an odd digit": {"properties": {"class": "\u00b2"}},
    "five hundred long columns": {"properties": {f"c{number}" * 100: 1 for number in range(500)}},
}
for _name, _changes in (PLACES | FEATURES).items():
    VECTOR_BOMBS[f"geojson: {_name}"] = (lambda path, changes=_changes: geojson(path, **changes)), _READ


def _many_vertices(path: Path) -> Path:
    target, vertices = geojson(path), "[0,0],[1,0],[1,1]," * 2_000_000
    target.write_text(target.read_text().replace(json.dumps(_CORNERS), f"[{vertices}[0,0]]"))
    return target


def _features_that_are_numbers(path: Path) -> Path:
    target = geojson(path)
    target.write_text('{"type": "FeatureCollection", "features": [1, 2]}')
    return target


VECTOR_BOMBS["geojson: six million vertices"] = _many_vertices, _READ
VECTOR_BOMBS["geojson: features that are numbers"] = _features_that_are_numbers, _READ

# GeoPackages, which are databases: what is read must be there, and not be computed


def _changed(path: Path, statements: tuple[str, ...]) -> Path:
    target = polygons(path, ".gpkg")
    with contextlib.closing(sqlite3.connect(target)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')  # of functions that GDAL has, and Python has not
        for statement in statements:
            database.execute(statement)
        database.commit()
    return target


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_LISTED = ("UPDATE gpkg_contents SET table_name = '{0}'", "UPDATE gpkg_geometry_columns SET table_name = '{0}'")
COMPUTED: dict[str, tuple[str, ...]] = {
    "a layer without end": (
        f"CREATE VIEW v AS {_ENDLESS} SELECT i AS fid, 1 AS class, (SELECT geom FROM labels) AS geom FROM n",  # noqa: S608
        *(statement.format("v") for statement in _LISTED),
    ),
    "a list of layers without end": (
        "ALTER TABLE gpkg_contents RENAME TO other",
        f"CREATE VIEW gpkg_contents AS {_ENDLESS} SELECT other.* FROM other, n",  # noqa: S608
    ),
    "a layer that is a function": tuple(statement.format("pragma_table_list") for statement in _LISTED),
    "a layer that is a virtual table": (
        "CREATE VIRTUAL TABLE r USING rtree(fid, class, geom)",
        *(statement.format("r") for statement in _LISTED),
    ),
    "a column that is computed": ("ALTER TABLE labels ADD COLUMN big AS (hex(zeroblob(100000000)))",),
    "a layer that is not there": tuple(statement.format("nowhere") for statement in _LISTED),
    "a name that ends a statement": tuple(statement.format('a"; DROP TABLE labels; --') for statement in _LISTED),
    "no class": ("UPDATE labels SET class = NULL",),
    "a CRS that is an address": (
        f"UPDATE gpkg_spatial_ref_sys SET definition = '{ADDRESS}', organization = 'http'",  # noqa: S608
    ),
}
for _name, _statements in COMPUTED.items():
    VECTOR_BOMBS[f"geopackage: {_name}"] = functools.partial(_changed, statements=_statements), _READ

# Shapefiles, whose parts contradict each other


def _patched(path: Path, ending: str, at: int, content: bytes) -> Path:
    target = polygons(path, ".shp")
    part = target.with_suffix(ending)
    before = part.read_bytes()
    part.write_bytes(before[:at] + content + before[at + len(content) :])
    return target


PARTS: dict[str, tuple[str, int, bytes]] = {
    "rows of sixty thousand bytes": (".dbf", 10, struct.pack("<H", 65_535)),
    "half a billion shapes": (".shx", 24, struct.pack(">I", 2**31 - 1)),
    "a projection of a megabyte": (".prj", 0, b"x" * 2**20),
    "a projection at an address": (".prj", 0, ADDRESS.encode().ljust(2000)),
    "an encoding of a megabyte": (".cpg", 0, b"x" * 2**20),
}
for _name, _part in PARTS.items():
    VECTOR_BOMBS[f"shapefile: {_name}"] = (lambda path, part=_part: _patched(path, *part)), _READ
