"""Points of a sample: how many a class gets, where they are, and what the certainty of a map is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovision import sampling
from geovision.certainty import Certainty
from geovision.sampling import allocate, draw_points
from tests.geovision.rasters import write_scene


@given(st.dictionaries(st.integers(0, 254), st.integers(0, 10**6), max_size=30), st.integers(50, 200))
def test_every_class_has_two_points_and_none_more_than_its_pixels(pixels: dict[int, int], count: int):
    points = allocate(pixels, count)
    assert set(points) == {number for number, amount in pixels.items() if amount}
    assert all(min(2, pixels[number]) <= amount <= pixels[number] for number, amount in points.items())
    assert sum(points.values()) == max(
        min(count, sum(pixels.values())), sum(min(2, amount) for amount in pixels.values())
    )


def test_rare_classes_get_many_points_and_large_ones_most():
    assert allocate({0: 1_000_000, 1: 10_000, 2: 0}, 100) == {0: 75, 1: 25}


@pytest.fixture
def classes_map(tmp_path: Path) -> Path:
    numbers = np.full((1, 60, 70), 255, np.uint8)
    numbers[0, :50, :40], numbers[0, 10:14, 3:9], numbers[0, 55, 60] = 0, 1, 2
    return write_scene(tmp_path / "m.tif", numbers, ["class"], nodata=255)


def test_points_lie_in_their_class_once_each_and_do_not_depend_on_strips(classes_map: Path, monkeypatch):
    pixels = {0: 50 * 40 - 24, 1: 24, 2: 1, 3: 0}
    points = draw_points(classes_map, pixels, 60, 7)
    monkeypatch.setattr(sampling, "_STRIP", 70 * 9)
    assert draw_points(classes_map, pixels, 60, 7) == points != draw_points(classes_map, pixels, 60, 8)
    assert len(points) == 60 == len({point[:2] for point in points})
    for row, column, number in points:
        inside = 10 <= row < 14 and 3 <= column < 9
        assert number == (2 if (row, column) == (55, 60) else 1 if inside else 0)
    assert [point.number for point in points] != sorted(point.number for point in points), "the order tells nothing"


def test_points_are_spread_over_the_whole_class(classes_map: Path):
    pixels = {0: 50 * 40 - 24, 1: 24, 2: 1}
    drawn = [point for seed in range(30) for point in draw_points(classes_map, pixels, 60, seed) if point.number == 0]
    rows, columns = (np.array([point[axis] for point in drawn]) for axis in (0, 1))
    assert abs(rows.mean() - 24.5) < 2 and abs(columns.mean() - 19.5) < 2


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 17), st.integers(0, 99))
def test_certainty_does_not_depend_on_the_parts(height: int, width: int, longest: int, step: int, seed: int):
    generator = np.random.default_rng(seed)
    confidence = generator.random((height, width)).astype(np.float32)
    classes = generator.integers(0, 3, (height, width)).astype(np.uint8)
    valid = generator.random((height, width)) < 0.7
    certainty = Certainty((height, width), 3, longest)
    for row in range(0, height, step):
        for column in range(0, width, step):
            part = slice(row, row + step), slice(column, column + step)
            certainty.add(row, column, classes[part], confidence[part], valid[part])
    cell = certainty.cell
    for place, value in np.ndenumerate(certainty.cells):
        part = tuple(slice(at * cell, (at + 1) * cell) for at in place)
        known = confidence[part][valid[part]]
        assert np.isnan(value) if not len(known) else value == pytest.approx(known.mean(), abs=1e-6)
    assert max(certainty.cells.shape) <= longest
    for number in range(3):
        own = confidence[valid & (classes == number)]
        assert certainty.of_class(number) == (pytest.approx(own.mean(), abs=1e-6) if len(own) else None)


def test_the_worst_place_comes_first_and_none_overlap():
    confidence, valid = np.full((200, 300), 0.9, np.float32), np.ones((200, 300), bool)
    confidence[40:56, 200:216], confidence[120:136, 30:46], confidence[150:, 150:], valid[150:, 150:] = (
        0.3,
        0.5,
        0,
        False,
    )
    certainty = Certainty((200, 300), 1)
    certainty.add(0, 0, np.zeros((200, 300), np.uint8), confidence, valid)
    places = certainty.doubtful(16, 5)
    assert [(abs(place.row - row) <= 1, abs(place.column - column) <= 1) for place, (row, column) in zip(
        places, ((48, 208), (128, 38)), strict=False
    )] == [(True, True)] * 2  # fmt: skip
    assert [round(place.confidence, 2) for place in places[:2]] == [0.3, 0.5]
    assert [place.confidence for place in places] == sorted(place.confidence for place in places)
    for at, one in enumerate(places):
        assert all(max(abs(one.row - other.row), abs(one.column - other.column)) >= 16 for other in places[:at])
    assert Certainty((10, 10), 2).doubtful(4, 3) == [] and Certainty((10, 10), 2).mean is None
