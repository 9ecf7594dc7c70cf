"""What readers say of maps: answers at points, and polygons that correct them; read from files that may be hostile."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.report.text import list_at, value_at
from shared_backbones.json_values import Json

CANNOT_TELL = "cannot tell"
"""What a reader says of a point at which the scene does not show what is there."""

_MOST_POINTS, _MOST_CLASSES, _MOST_FIXES, _MOST_CORNERS = 1000, 255, 1000, 2000
_LONGEST_NAME = 200


@dataclass(frozen=True)
class MappedClass:
    """A class of a map: its name, pixels, and hectares where the map has a place."""

    name: str
    pixels: int
    hectares: float | None


@dataclass(frozen=True)
class PointSample:
    """Points of a map's report: classes of the map, and the name of its class at each point, by the point's number."""

    classes: tuple[MappedClass, ...]
    points: Mapping[str, str]


@dataclass(frozen=True)
class Fix:
    """A polygon with the class that is there: corners in longitude and latitude, the first one not repeated."""

    name: str
    ring: tuple[tuple[float, float], ...]


def sample_in(content: Mapping[str, Json]) -> PointSample | None:
    """The sample in the JSON twin of a map's report; None where there is none.

    Raises:
        ValueError: it is no sample; the message says what was expected.
    """
    if "points" not in content:
        return None
    classes = []
    for row in list_at(content, "classes"):
        name, pixels, hectares = (value_at(row, key) for key in ("name", "pixels", "hectares"))
        if not _is_name(name) or not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 0:
            raise ValueError("classes with name and pixels")
        if hectares is not None and not (isinstance(hectares, int | float) and 0 <= hectares < math.inf):
            raise ValueError("classes with hectares, or null")
        classes.append(MappedClass(str(name), pixels, None if hectares is None else float(hectares)))
    names = {row.name for row in classes}
    if not 1 <= len(classes) <= _MOST_CLASSES or len(names) < len(classes):
        raise ValueError(f"at most {_MOST_CLASSES} classes with names of their own")
    points = {}
    for point in list_at(content, "points"):
        number, name = value_at(point, "number"), value_at(point, "class")
        if not isinstance(number, int) or name not in names:
            raise ValueError("points with number and class")
        points[str(number)] = str(name)
    if len(points) > _MOST_POINTS:
        raise ValueError(f"at most {_MOST_POINTS} points")
    return PointSample(tuple(classes), points)


def answers_in(content: Mapping[str, Json]) -> dict[str, str]:
    """Answers of a verdict by the point's number.

    Raises:
        ValueError: they are none; the message says what was expected.
    """
    given = content.get("points", {})
    if not isinstance(given, Mapping) or len(given) > _MOST_POINTS:
        raise ValueError(f"at most {_MOST_POINTS} answers by number")
    if not all(number.isdigit() and _is_name(answer) for number, answer in given.items()):
        raise ValueError("names of classes by number")
    return {number: str(answer) for number, answer in given.items()}


def fixes_in(content: Mapping[str, Json]) -> list[Fix]:
    """Polygons of a verdict.

    Raises:
        ValueError: they are none; the message says what was expected.
    """
    given = content.get("fixes", [])
    if not isinstance(given, list) or len(given) > _MOST_FIXES:
        raise ValueError(f"a list of at most {_MOST_FIXES} polygons")
    fixes = []
    for fix in given:
        name, ring = value_at(fix, "class"), list_at(fix, "ring")
        if not _is_name(name) or not 3 <= len(ring) <= _MOST_CORNERS:
            raise ValueError("polygons with a class and three corners or more")
        fixes.append(Fix(str(name), tuple(_corner(corner) for corner in ring)))
    return fixes


def _corner(corner: Json) -> tuple[float, float]:
    """Longitude and latitude; a longitude may go on beyond the antimeridian."""
    if isinstance(corner, list) and len(corner) == 2:
        longitude, latitude = corner
        if (
            isinstance(longitude, int | float)
            and isinstance(latitude, int | float)
            and abs(longitude) <= 540
            and abs(latitude) <= 90
        ):
            return float(longitude), float(latitude)
    raise ValueError("corners of polygons as longitude and latitude")


def _is_name(name: Json) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.encode("utf-8", "replace").decode() == name
