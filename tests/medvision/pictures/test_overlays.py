"""Pictures of slices: orientation, aspect, contours, window."""

import io
import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from medvision.pictures.colours import (
    class_colours,
    contour_colours,
    deuteranopic_distance,
    luminance,
    palette,
)
from medvision.pictures.overlays import DIFFERENCE, direction_letters, outline, render_slices
from medvision.volumes.geometry import Grid
from tests.medvision.pictures.test_contours import corners, inside

ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def oriented_grid(axes, signs, shape=(18, 20, 22), spacing=(1.0, 1.0, 1.0)):
    """A grid centred on the origin whose stored axis i runs along world axis axes[i] in direction signs[i]."""
    linear = np.zeros((3, 3))
    for stored in range(3):
        linear[axes[stored], stored] = signs[stored] * spacing[stored]
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.array(shape) - 1) / 2)
    return Grid.from_affine(shape, affine)


def world(grid):
    """World coordinates of all voxels, (3, X, Y, Z)."""
    positions = np.indices(grid.shape).reshape(3, -1)
    return (grid.affine[:3, :3] @ positions + grid.affine[:3, 3:]).reshape(3, *grid.shape)


def decoded(png):
    return np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def enclosed(item, contours):
    """Numbers (H, W) of the labels that contours enclose, in pixels of the picture."""
    drawn = np.zeros((item.height, item.width), int)
    (across, down), (left, top) = contours.scale, contours.origin
    for number, path in contours.paths.items():
        mask = Image.new("1", (item.width, item.height))
        for points in corners(path):
            loop = Image.new("1", mask.size)
            places = [(left + x * across - 0.5, top + y * down - 0.5) for x, y in points]
            ImageDraw.Draw(loop).polygon(places, fill=1)
            mask = ImageChops.logical_xor(mask, loop)
        drawn[np.array(mask)] = number
    return drawn


def one_of(rendering, plane):
    return next(item for item in rendering.slices if item.plane == plane)


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_left_anterior_superior_corner_is_drawn_in_radiological_convention(axes, signs):
    grid = oriented_grid(axes, signs)
    x, y, z = world(grid)
    corner = (x < -4) & (y > 4) & (z > 4)
    image = np.where(corner, 200, 100).astype(np.int16)
    rendering = render_slices(image, corner.astype(np.uint8), grid, window=(0, 200), count=1, side=220)

    places = {"axial": (True, True), "coronal": (True, True), "sagittal": (False, True)}  # on the right, at the top
    for plane, expected in places.items():
        item = one_of(rendering, plane)
        for pixels in (decoded(item.grey)[..., 0] > 180, enclosed(item, item.result) > 0):
            rows, columns = np.nonzero(pixels)
            assert (columns.mean() > item.width / 2, rows.mean() < item.height / 2) == expected, plane
    assert one_of(rendering, "axial").letters == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert one_of(rendering, "coronal").letters == {"left": "R", "right": "L", "top": "S", "bottom": "I"}
    assert one_of(rendering, "sagittal").letters == {"left": "A", "right": "P", "top": "S", "bottom": "I"}
    label_centre = [float(axis[corner].mean()) for axis in (z, y, x)]
    for plane, letters, value in zip(("axial", "coronal", "sagittal"), ("SI", "AP", "RL"), label_centre, strict=True):
        letter, number, unit = one_of(rendering, plane).position.split()
        assert letter == letters[value < 0] and unit == "mm"
        assert float(number) == pytest.approx(abs(value), abs=0.5)


@pytest.mark.parametrize(("degrees", "letters"), [(0, "R"), (10, "R"), (20, "RA"), (70, "AR"), (180, "L"), (-90, "P")])
def test_direction_letters_name_a_tilt(degrees, letters):
    angle = np.radians(degrees)
    assert direction_letters(np.array([np.cos(angle), np.sin(angle), 0.0]) * 2.5) == letters


def test_anisotropic_voxels_have_their_true_aspect():
    grid = oriented_grid((0, 1, 2), (1, 1, 1), shape=(60, 60, 12), spacing=(1.0, 1.0, 5.0))
    ball = np.linalg.norm(world(grid), axis=0) < 25
    image = np.full(grid.shape, 50.0, np.float32)
    rendering = render_slices(image, ball.astype(np.uint8), grid, window=(0, 100), count=1, side=240)
    for item in rendering.slices:
        assert (item.width, item.height) == (240, 240)
        rows, columns = np.nonzero(enclosed(item, item.result))
        assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=21)  # a slice of 5 mm is 20 pixels thick


def test_scale_bar_has_its_length():
    grid = oriented_grid((0, 1, 2), (1, 1, 1), shape=(50, 50, 50), spacing=(2.0, 2.0, 2.0))
    image = np.full(grid.shape, 30.0, np.float32)
    rendering = render_slices(image, np.zeros(grid.shape, np.uint8), grid, window=(0, 100), side=300)
    assert rendering.scale_bar_mm == 20
    assert rendering.slices[0].bar == pytest.approx(20 * 3)  # 300 pixels show 100 mm


def test_contours_lie_exactly_on_the_label_boundary():
    grid = oriented_grid((0, 1, 2), (1, 1, 1), shape=(20, 20, 20))
    labels = np.zeros(grid.shape, np.uint8)
    labels[6:13, 7:14, 5:15] = 1
    labels[8:11, 9:12, 5:15] = 2  # a second label inside the first
    image = np.full(grid.shape, 50.0, np.float32)
    rendering = render_slices(image, labels, grid, window=(0, 100), count=1, side=200)
    item = one_of(rendering, "axial")
    shown = labels[::-1, ::-1, item.index].T
    for number in (1, 2):
        assert np.array_equal(inside(item.result.paths[number], shown.shape), shown == number)
    assert item.result.scale == (10, 10) and item.result.origin == (0, 0)
    assert list(item.result.paths) == [1, 2], "small structures lie on top of large ones"
    assert item.present == (1, 2)
    assert np.ptp(decoded(item.grey)) == 0, "the picture is free of contours"


def test_contours_and_image_share_pixel_centres():
    grid = oriented_grid((0, 1, 2), (1, 1, 1), shape=(20, 20, 20))
    labels = np.zeros(grid.shape, np.uint8)
    labels[7:13, 7:13, 7:13] = 1
    rendering = render_slices(labels * 100.0, labels, grid, window=(0, 100), count=1, side=128)
    item = one_of(rendering, "axial")
    contour, bright = enclosed(item, item.result) > 0, decoded(item.grey)[..., 0] > 127
    for axis in (0, 1):
        lines, tissue = np.flatnonzero(contour.any(axis=axis)), np.flatnonzero(bright.any(axis=axis))
        assert abs(lines[0] - tissue[0]) <= 1 and abs(lines[-1] - tissue[-1]) <= 1


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::5])
def test_a_place_in_a_picture_is_known_in_millimetres(axes, signs):
    """A voxel labelled alone is enclosed by a contour, whose middle in mm is the voxel's centre."""
    grid = oriented_grid(axes, signs, (12, 40, 16), (2.0, 1.0, 3.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[5, 31, 9] = 1
    centre = (grid.affine @ [5, 31, 9, 1])[:3]
    for item in render_slices(100.0 + labels, labels, grid, count=1, side=60).slices:
        points = np.array(corners(item.result.paths[1])[0])
        middle = np.array(item.result.origin) + (points.min(0) + points.max(0)) / 2 * item.result.scale
        x, y = middle / (item.width, item.height)
        assert np.allclose(item.corner + x * item.across + y * item.down, centre, atol=1e-6), item.plane


def test_outline_closes_at_the_edge_of_the_picture():
    expected = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert np.array_equal(outline(np.full((3, 3), 7)), expected)


def test_the_difference_shows_what_is_too_much_missed_and_confused():
    grid = oriented_grid((0, 1, 2), (1, 1, 1), shape=(20, 20, 20))
    labels, reference = np.zeros((2, *grid.shape), np.uint8)
    labels[4:8, 4:8] = 1  # only in the result
    reference[4:8, 12:16] = 1  # only in the reference
    labels[12:16, 4:8], reference[12:16, 4:8] = 1, 2
    labels[12:16, 12:16] = reference[12:16, 12:16] = 2
    image = np.full(grid.shape, 50.0, np.float32)
    rendering = render_slices(image, labels, grid, reference=reference, window=(0, 100), count=1, side=200)
    item = one_of(rendering, "axial")
    # radiological: x runs to the left, y upwards
    places = {"only in the result": (12, 12), "only in the reference": (4, 12), "another structure": (12, 4)}
    assert item.difference is not None and item.reference is not None
    assert len(item.difference.paths) == len(places) == len(DIFFERENCE)
    for number, name in enumerate(DIFFERENCE, start=1):
        top, left = places[name]
        expected = np.zeros((20, 20), bool)
        expected[top : top + 4, left : left + 4] = True
        assert np.array_equal(inside(item.difference.paths[number], (20, 20)), expected), name
    assert set(item.reference.paths) == {1, 2}


def test_slices_spread_over_the_labels_extent():
    grid = oriented_grid((2, 0, 1), (1, -1, 1), shape=(40, 40, 40))
    x, y, z = world(grid)
    labels = ((abs(x) < 15) & (abs(y) < 15) & (z > 0) & (z < 12)).astype(np.uint8)
    rendering = render_slices(np.ones(grid.shape, np.float32), labels, grid, window=(0, 2))
    heights = [item.index for item in rendering.slices if item.plane == "axial"]
    assert heights == [21, 23, 25, 27, 29, 31]
    assert all(item.present == (1,) for item in rendering.slices)


def test_an_empty_label_map_is_drawn_over_the_whole_volume():
    grid = oriented_grid((0, 1, 2), (-1, -1, 1), shape=(24, 24, 24))
    image = np.random.default_rng(0).normal(100, 20, grid.shape).astype(np.float32)
    rendering = render_slices(image, np.zeros(grid.shape, np.uint8), grid)
    assert [item.index for item in rendering.slices] == [2, 6, 10, 14, 18, 22] * 3
    for item in rendering.slices:
        assert not item.present and not item.result.paths


def test_window_leaves_out_air():
    grid = oriented_grid((0, 1, 2), (1, 1, 1), shape=(30, 30, 30))
    image = np.random.default_rng(0).uniform(0, 3, grid.shape).astype(np.float32)  # noisy air
    image[10:20] = np.linspace(100, 200, 10 * 30 * 30).reshape(10, 30, 30)
    image[0, 0, 0] = np.nan
    rendering = render_slices(image, np.zeros(grid.shape, np.uint8), grid, count=1)
    assert rendering.window == pytest.approx((100.5, 199.5), abs=0.2)


def test_pictures_hold_nothing_but_pixels():
    grid = oriented_grid((0, 1, 2), (1, 1, 1))
    rendering = render_slices(np.ones(grid.shape), np.ones(grid.shape, np.uint8), grid, count=1)
    for png in [item.grey for item in rendering.slices]:
        kinds, place = set(), 8
        while place < len(png):
            kinds.add(png[place + 4 : place + 8])
            place += 12 + int.from_bytes(png[place : place + 4], "big")
        assert kinds <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def test_arrays_of_another_shape_are_refused():
    grid = oriented_grid((0, 1, 2), (1, 1, 1))
    with pytest.raises(ValueError, match="do not all equal"):
        render_slices(np.ones((9, 9, 9)), np.ones(grid.shape, np.uint8), grid)


def test_no_copy_of_the_volume_is_made():
    grid = oriented_grid((1, 2, 0), (-1, 1, -1), shape=(256, 256, 128))
    image, labels = np.ones(grid.shape, np.int16), np.ones(grid.shape, np.uint8)
    tracemalloc.start()
    try:
        render_slices(image, labels, grid, count=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < image.size  # a copy as float32 would take four times this


def test_palette_is_distinct_and_bright():
    colours = palette(40)
    assert len(set(colours)) == 40
    assert all(max(colour) >= 90 for colour in colours)
    assert class_colours([{"id": 2, "name": "x"}, {"id": 1, "name": "y", "color": [300, -1, 7]}]) == {
        2: palette(2)[1],
        1: (255, 0, 7),
    }


@pytest.mark.parametrize("count", [9, 20])
@pytest.mark.parametrize("colour", [None, [10, 0, 40], [119, 170, 221]])
def test_contours_are_told_from_the_line_under_them_and_from_one_another(count, colour):
    classes: Any = [{"id": number, "name": "x"} | ({"color": colour} if colour else {}) for number in range(count + 1)]
    colours = list(contour_colours(classes).values())[1:]
    assert all((luminance(rgb) + 0.05) / 0.05 >= 3 for rgb in colours)
    if colour is None and count == 9:
        apart = [deuteranopic_distance(one, other) for one, other in itertools.combinations(colours, 2)]
        assert min(apart) >= 10


@settings(max_examples=25, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(st.integers(8, 40), st.integers(8, 40), st.integers(8, 40)),
    spacing=st.tuples(st.floats(0.1, 12), st.floats(0.1, 12), st.floats(0.1, 12)),
    seed=st.integers(0, 2**16),
)
def test_any_grid_gives_pictures_of_one_scale(orientation, shape, spacing, seed):
    axes, signs = orientation
    grid = oriented_grid(axes, signs, shape, spacing)
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 100, shape).astype(np.float32)
    rendering = render_slices(image, rng.integers(0, 3, shape, dtype=np.uint8), grid, count=2, side=120)
    assert {item.plane for item in rendering.slices} == {"axial", "coronal", "sagittal"}
    for item in rendering.slices:
        assert max(item.width, item.height) <= 120
        assert decoded(item.grey).shape == (item.height, item.width, 3)
