"""Places on the earth between the nodes of a lattice."""

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geovision.grids import Grid
from geovision.lattice import placed
from geovision.pictures import drawn_size, scale_bar


def grid(code: int, x: float, y: float, side: float, size: int = 10_980) -> Grid:
    return Grid(CRS.from_epsg(code), from_origin(x, y, side, side), size, size)


def interpolated(nodes, column: float, row: float) -> tuple[float, float]:
    """As the page does it."""
    (left, across), (top, down) = (
        (place := min(len(part) - 2, int(at / part[1])), at / part[1] - place)
        for part, at in ((nodes.columns, column), (nodes.rows, row))
    )
    values = []
    for table in (nodes.longitudes, nodes.latitudes):
        upper, lower = (line[left] * (1 - across) + line[left + 1] * across for line in (table[top], table[top + 1]))
        values.append(upper * (1 - down) + lower * down)
    return values[0], values[1]


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 10_979.9), st.floats(0, 10_979.9), st.sampled_from([(32633, 4e5), (32733, 9e6), (32633, 8.9e6)]))
def test_places_are_right_within_half_a_pixel_over_a_whole_tile(column: float, row: float, where: tuple[int, float]):
    tile = grid(where[0], 3e5, where[1], 10)
    nodes = placed(tile)
    assert nodes is not None
    longitude, latitude = interpolated(nodes, column, row)
    exact = [part[0] for part in tile.to_degrees(np.array([column]), np.array([row]))]
    metres = (longitude - exact[0]) * 111_320 * np.cos(np.radians(exact[1])), (latitude - exact[1]) * 111_320
    assert np.hypot(*metres) < 5


def test_longitudes_do_not_leap_at_the_antimeridian():
    nodes = placed(grid(32601, 1e5, 5e6, 100, 2000))
    assert nodes is not None
    steps = np.abs(np.diff(np.array(nodes.longitudes), axis=1))
    assert steps.max() < 0.2 and (np.abs(nodes.longitudes) > 180).any()


@pytest.mark.parametrize("crs", [None, CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')])
def test_a_grid_without_a_place_has_no_lattice(crs):
    assert placed(Grid(crs, from_origin(0, 0, 1, 1), 10, 10)) is None


def test_north_is_up_in_a_plain_grid_and_turned_away_from_the_zone_s_middle():
    middle, west = grid(32633, 499_000, 5.1e6, 10, 200), grid(32633, 200_000, 5.1e6, 10, 200)
    assert middle.north_deg == pytest.approx(0, abs=0.01) and 2 < (west.north_deg or 0) < 4
    assert Grid(None, from_origin(0, 0, 1, 1), 10, 10).north_deg is None


@pytest.mark.parametrize("latitude", [0, 45, 60, -80])
def test_pixels_in_degrees_are_drawn_as_wide_as_they_are_on_the_ground(latitude: int):
    place = Grid(CRS.from_epsg(4326), from_origin(15, latitude, 1e-4, 1e-4), 100, 300)
    assert place.aspect == pytest.approx(1 / math.cos(math.radians(latitude)), rel=0.01)
    width, height = drawn_size(place, 512)
    assert max(width, height) == 512 and height / width == pytest.approx(place.aspect / 3)
    turned = Grid(place.crs, place.transform * Affine.rotation(30), 100, 300)
    east, north = turned.to_degrees(np.array([150.5, 150.5]), np.array([50, 50.5]))
    assert np.isfinite([*east, *north]).all() and turned.north_deg is not None
    assert drawn_size(Grid(None, from_origin(0, 0, 1, 1), 10, 20), 40) == (40, 20), "nothing tells it"


@given(st.floats(0.1, 5000), st.integers(30, 3000))
def test_scale_bars_are_round_and_fit(side: float, width: int):
    length, text = scale_bar(grid(32633, 4e5, 5e6, side, 64), width)
    number, unit = text.split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    assert length == pytest.approx(metres * width / (side * 64), rel=0.01) and 0.1 * width < length <= 0.3 * width
    assert f"{metres:e}"[0] in "125" and f"{metres:.0e}"[1:2] == "e"
