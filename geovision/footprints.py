"""Outlines of windows of a grid, as polygons in longitude and latitude that others read as they are meant."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from geovision.grids import Grid, crs_name
from shared_backbones.errors import InputError, require

if TYPE_CHECKING:  # shapely is imported where an outline is made
    from shapely.geometry.base import BaseGeometry

Corners = list[list[float]]
_STEPS = 16  # parts of a side where an outline bends
_AT_CORNERS = np.arange(5) * _STEPS
_BEND = 0.02  # share of an outline's extent by which its sides may bend and still be drawn straight
_CELLS = 32  # cells across a window that lies on the earth in part
_FINER = 8  # cells across one of those at the rim of the earth


def check_place(grid: Grid, label: str) -> None:
    """Raise an InputError unless a grid has a place on the earth."""
    if grid.crs is None:
        raise InputError(f"{label}: has no CRS, so its footprint is unknown; give it with --crs EPSG:CODE")
    if grid.transform.is_identity:
        raise InputError(
            f"{label}: says nowhere where its pixels lie, so its footprint is unknown; give it a georeference "
            "(gdal_translate -a_ullr)"
        )
    if not grid.on_earth:
        raise InputError(
            f"{label}: has a {crs_name(grid.crs)} CRS without a place on the earth, so its footprint is unknown; give "
            "a scene in a CRS of the earth"
        )


def footprint(grid: Grid, row: float, column: float, height: float, width: float, label: str) -> "BaseGeometry":
    """Outline of a window: longitude and latitude (WGS 84).

    A window across the antimeridian has one polygon on either side of it; one over a pole holds the pole, and its
    polygon runs along the map's upper or lower rim; of one that lies on the earth in part, it is that part.

    Args:
        grid: has a place on the earth.
        row: top of the window in pixels.
        column: its left side.
        height: in pixels.
        width: in pixels.
        label: name of the scene, for messages.

    Raises:
        InputError: no part of the window is on the earth.
    """
    shapely = require("shapely", "geo")
    around = _ring(row, column, height, width, _STEPS)
    longitude, latitude = grid.to_degrees(*around)
    known = np.isfinite(longitude) & np.isfinite(latitude)
    if not known.all():
        return _part_on_earth(grid, row, column, height, width, label)
    turned = np.concatenate([[0.0], np.cumsum((np.diff(longitude) + 180) % 360 - 180)]) + longitude[0]
    pole = _pole_inside(grid, row, column, height, width)
    if pole is not None:
        return _around_pole(longitude, latitude, pole)
    rim = np.stack([turned, latitude], 1)[:-1]
    straight = np.stack(
        [np.interp(np.arange(len(rim)), _AT_CORNERS, np.append(side[::_STEPS], side[0])) for side in rim.T], 1
    )
    bends = np.abs(rim - straight).max() > _BEND * max(np.ptp(rim, axis=0))
    outline = shapely.Polygon(rim if bends else rim[::_STEPS])
    return within_degrees(outline)


def corners(grid: Grid, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Corners of windows: `(N, 5, 2)` longitude and latitude, the first again at the end; infinite off the earth.

    They are in the order of a ring that is counter-clockwise on a north-up grid, and know of no antimeridian.
    """
    down = np.array([1, 1, 0, 0, 1]) * shape[0] + np.reshape(rows, (-1, 1)).astype(float)
    right = np.array([0, 1, 1, 0, 0]) * shape[1] + np.reshape(columns, (-1, 1)).astype(float)
    return np.stack(grid.to_degrees(right, down), -1)


def noted_corners(grid: Grid, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> "list[Corners | None]":
    """Corners of windows for a record, None for windows that are off the earth in part, or have no place."""
    if not grid.on_earth or not len(rows):
        return [None] * len(rows)
    outlines = corners(grid, rows, columns, shape)
    return [outline.tolist() if np.isfinite(outline).all() else None for outline in outlines]


def bounds(outlines: Sequence["BaseGeometry"]) -> list[float]:
    """West, south, east and north of outlines; west is more than east where one of them crosses the antimeridian."""
    boxes = np.array([part.bounds for outline in outlines for part in parts_of(outline)])
    south, north = float(boxes[:, 1].min()), float(boxes[:, 3].max())
    crosses = any(
        len(parts_of(outline)) > 1 and outline.bounds[0] == -180 and outline.bounds[2] == 180 for outline in outlines
    )
    if not crosses:
        return [float(boxes[:, 0].min()), south, float(boxes[:, 2].max()), north]
    spans = sorted((west, east) for west, _, east, _ in boxes.tolist())
    gap, west, east, reached = 0.0, -180.0, 180.0, spans[0][1]
    for start, end in spans[1:]:
        if start - reached > gap:
            gap, west, east = start - reached, start, reached
        reached = max(reached, end)
    return [west, south, east, north]


def parts_of(outline: "BaseGeometry") -> list["BaseGeometry"]:
    """The polygons of an outline."""
    return list(getattr(outline, "geoms", [outline]))


def _ring(row: float, column: float, height: float, width: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows along a window's rim, counter-clockwise on a north-up grid, the first again at the end."""
    corners = [(0, 1), (1, 1), (1, 0), (0, 0), (0, 1)]
    right, down = (np.array([corner[axis] for corner in corners], float) for axis in (0, 1))
    places = np.arange(4 * steps + 1) / steps
    return (
        column + width * np.interp(places, np.arange(5), right),
        row + height * np.interp(places, np.arange(5), down),
    )


def _pole_inside(grid: Grid, row: float, column: float, height: float, width: float) -> float | None:
    """Latitude of the pole that a window of a projected grid holds; None where it holds none."""
    if grid.crs.is_geographic:
        return None
    for latitude in (90.0, -90.0):
        x, y = grid.from_degrees(0.0, latitude)
        if math.isfinite(x) and column < x < column + width and row < y < row + height:
            back = grid.to_degrees(np.array([x]), np.array([y]))[1]
            if abs(float(back[0]) - latitude) < 1e-6:
                return latitude
    return None


def _around_pole(longitude: np.ndarray, latitude: np.ndarray, pole: float) -> "BaseGeometry":
    """The rim of a window over a pole, cut open at the antimeridian and closed along the pole."""
    import shapely

    place = (longitude[:-1] + 180) % 360 - 180
    order = np.argsort(place)
    place, height = place[order], latitude[:-1][order]
    rim = np.interp(-180.0, [place[-1] - 360, place[0]], [height[-1], height[0]])
    points = [
        (-180.0, rim),
        *zip(place.tolist(), height.tolist(), strict=True),
        (180.0, rim),
        (180.0, pole),
        (-180.0, pole),
    ]
    return shapely.make_valid(shapely.Polygon(points))


def within_degrees(outline: "BaseGeometry") -> "BaseGeometry":
    """A valid outline in longitudes from -180 to 180 and latitudes from -90 to 90, in several polygons if need be."""
    import shapely

    outline = outline if shapely.is_valid(outline) else shapely.make_valid(outline, method="structure")
    west, south, east, north = outline.bounds
    return outline if west >= -180 and east <= 180 and south >= -90 and north <= 90 else _split(outline)


def _split(outline: "BaseGeometry") -> "BaseGeometry":
    """An outline beyond 180 degrees, as one polygon on either side."""
    import shapely
    from shapely.affinity import translate

    pieces = []
    for turn in (-720, -360, 0, 360, 720):
        piece = shapely.intersection(translate(outline, turn), shapely.box(-180, -90, 180, 90))
        pieces += [part for part in parts_of(piece) if part.area > 0]
    return pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)


def _part_on_earth(grid: Grid, row: float, column: float, height: float, width: float, label: str) -> "BaseGeometry":
    import shapely

    cells = _cells(grid, (row, column, height, width), _CELLS, finer=_FINER)
    if not cells:
        raise InputError(f"{label}: a window lies off the earth, so it has no footprint; leave it out (--min-valid)")
    return shapely.union_all(cells)


def _cells(
    grid: Grid, window: tuple[float, float, float, float], count: int, *, finer: int | None
) -> "list[BaseGeometry]":
    """Outlines of the cells of a window whose corners are all on the earth; of others, of the cells in them."""
    import shapely

    row, column, height, width = window
    x, y = np.meshgrid(np.linspace(column, column + width, count + 1), np.linspace(row, row + height, count + 1))
    longitude, latitude = grid.to_degrees(x, y)
    cells = []
    for i, j in np.ndindex(count, count):
        places = [(i + 1, j), (i + 1, j + 1), (i, j + 1), (i, j)]
        points = np.array([(longitude[place], latitude[place]) for place in places])
        known = np.isfinite(points).all(1)
        if known.all():
            turned = points[0, 0] + (points[:, 0] - points[0, 0] + 180) % 360 - 180
            cell = shapely.Polygon(np.stack([turned, points[:, 1]], 1))
            cells += parts_of(_split(shapely.make_valid(cell))) if cell.area else []
        elif known.any() and finer:
            inner = row + i * height / count, column + j * width / count, height / count, width / count
            cells += _cells(grid, inner, finer, finer=None)
    return cells
