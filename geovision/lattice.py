"""Places on the earth at the nodes of a lattice over a map, between which a page interpolates."""

import math
from dataclasses import dataclass

import numpy as np

from geovision.grids import Grid

_NODES = 33  # along each side
_OFF = 0.5  # pixels that places may be off between the nodes


@dataclass(frozen=True)
class Placed:
    """Longitudes and latitudes of a lattice over a map, between which the page interpolates.

    Attributes:
        columns, rows: Where the nodes are, in pixels.
        longitudes, latitudes: Degrees at the nodes, a list for each row; longitudes have no leap at the antimeridian.
    """

    columns: list[float]
    rows: list[float]
    longitudes: list[list[float]]
    latitudes: list[list[float]]


def placed(grid: Grid) -> Placed | None:
    """Places on the earth of a lattice over a map, dense enough to interpolate; None where it has none."""
    if not grid.on_earth:
        return None
    for count in (_NODES, 2 * _NODES, 4 * _NODES):
        columns, rows = np.linspace(0, grid.width, count), np.linspace(0, grid.height, count)
        longitudes, latitudes = _degrees(grid, columns, rows)
        if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
            return None
        if _error(grid, columns, rows, longitudes, latitudes) <= _OFF:
            return Placed(columns.tolist(), rows.tolist(), longitudes.round(9).tolist(), latitudes.round(9).tolist())
    return None


def _degrees(grid: Grid, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(columns, rows)
    longitudes, latitudes = grid.to_degrees(x.ravel(), y.ravel())
    longitudes, latitudes = longitudes.reshape(x.shape), latitudes.reshape(x.shape)
    if np.isfinite(longitudes).all():
        longitudes = np.unwrap(np.unwrap(longitudes, axis=1, period=360), axis=0, period=360)
    return longitudes, latitudes


def _error(grid: Grid, columns: np.ndarray, rows: np.ndarray, longitudes: np.ndarray, latitudes: np.ndarray) -> float:
    """How many pixels places are off in the middle between four nodes, at most."""
    middle = [(part[1:] + part[:-1]) / 2 for part in (columns, rows)]
    exact = _degrees(grid, *middle)
    if not (np.isfinite(exact[0]).all() and np.isfinite(exact[1]).all()):
        return math.inf
    means = [(part[1:, 1:] + part[1:, :-1] + part[:-1, 1:] + part[:-1, :-1]) / 4 for part in (longitudes, latitudes)]
    east = ((means[0] - exact[0] + 180) % 360 - 180) * np.cos(np.radians(exact[1]))
    return float(np.hypot(east, means[1] - exact[1]).max() * 111_320 / (grid.gsd_m or math.nan))
