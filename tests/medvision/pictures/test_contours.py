"""Contours as vector paths: what they enclose is the label, for any label map."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medvision.pictures.contours import bounded_contours, contour_paths


def corners(path: str) -> list[list[tuple[int, int]]]:
    """Corners of each closed loop of a path."""
    loops = []
    for loop in re.findall(r"M[^z]*z", path):
        start = re.match(r"M(\d+) (\d+)", loop)
        assert start is not None
        points = [(int(start[1]), int(start[2]))]
        for axis, length in re.findall(r"([hv])(-?\d+)", loop):
            x, y = points[-1]
            points.append((x + int(length), y) if axis == "h" else (x, y + int(length)))
        loops.append(points)
    return loops


def inside(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre is inside by the even-odd rule: as many vertical borders to their left as are odd."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for points in corners(path):
        for (x, y), (_, below) in zip(points, [*points[1:], points[0]], strict=True):
            crossings[min(y, below) : max(y, below), x] += 1
    return crossings.cumsum(1)[:, :-1] % 2 == 1


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_a_path_encloses_its_label_and_nothing_else(labels: np.ndarray):
    paths = contour_paths(labels)
    assert set(paths) == set(np.unique(labels).tolist()) - {0}
    for number, path in paths.items():
        assert np.array_equal(inside(path, labels.shape), labels == number)
        for points in corners(path):
            x, y = points[-1]
            assert (x, y) == points[0] or x == points[0][0] or y == points[0][1], "z closes along the border"


def test_a_straight_border_is_one_step_and_pixels_that_touch_at_a_corner_are_two_loops():
    block = np.zeros((6, 7), np.uint8)
    block[1:5, 2:6] = 9
    assert contour_paths(block) == {9: "M2 1h4v4h-4v-4z"}
    assert contour_paths(np.eye(2, dtype=np.uint8))[1].count("M") == 2


def test_noise_is_drawn_coarser_until_it_fits():
    noise = np.random.default_rng(0).integers(0, 4, (300, 300), dtype=np.uint8)
    paths, step = bounded_contours(noise, 30_000)
    assert step > 1 and sum(map(len, paths.values())) <= 30_000
    plain = np.kron(np.eye(4, dtype=np.uint8), np.ones((75, 75), np.uint8))
    assert bounded_contours(plain, 1_000)[1] == 1
