"""Dice, HD95 and NSD: known answers, the four states, laws, and agreement with MONAI."""

import importlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvision.metrics.overlap import compare, dice, hd95, nsd, summary, surface_distances
from shared_backbones.card import ClassEntry

CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "background"},
    {"id": 1, "name": "one"},
    {"id": 2, "name": "two"},
    {"id": 5, "name": "five"},
]


def box_mask(shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def sphere(shape: tuple[int, ...], radius_mm: float, spacing_mm: tuple[float, ...]) -> np.ndarray:
    axes = [(np.arange(n) - n // 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    return np.sum(np.square(np.meshgrid(*axes, indexing="ij")), axis=0) <= radius_mm**2


def blobs(seed: int, shape: tuple[int, int, int], share: float) -> np.ndarray:
    """A smooth random mask that usually reaches the edge of the array; never empty."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.2)
    return field >= np.quantile(field, 1 - share)


seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(*[st.integers(3, 14)] * 3)
spacings = st.tuples(*[st.sampled_from([0.5, 0.78, 1.0, 1.3, 3.7])] * 3)
shares = st.floats(0.02, 0.8)
tolerances = st.sampled_from([0.9, 2.1])  # between the distances that these spacings allow: MONAI rounds to float32


@pytest.mark.parametrize(("axis", "spacing"), [(0, 0.5), (1, 1.0), (2, 3.0)])
def test_shifted_plate_has_known_values(axis: int, spacing: float) -> None:
    """A one-voxel plate moved two voxels along its normal: every surface distance is twice that axis' spacing."""
    start, stop, moved_start, moved_stop = [2, 2, 2], [9, 9, 9], [2, 2, 2], [9, 9, 9]
    start[axis], stop[axis], moved_start[axis], moved_stop[axis] = 4, 5, 6, 7
    a = box_mask((12, 12, 12), tuple(start), tuple(stop))
    b = box_mask((12, 12, 12), tuple(moved_start), tuple(moved_stop))
    assert dice(a, b) == 0
    assert hd95(a, b, (0.5, 1.0, 3.0)) == pytest.approx(2 * spacing)
    assert nsd(a, b, (0.5, 1.0, 3.0), 2 * spacing) == 1
    assert nsd(a, b, (0.5, 1.0, 3.0), 1.99 * spacing) == 0


def test_cubes_half_overlapping() -> None:
    """Cubes of 4^3 voxels, two voxels apart along x: overlap a half, so Dice is 1/2; every figure counted by hand."""
    a = box_mask((10, 10, 10), (1, 3, 3), (5, 7, 7))
    b = box_mask((10, 10, 10), (3, 3, 3), (7, 7, 7))
    assert dice(a, b) == 0.5
    distances = surface_distances(a, b, (1, 1, 1))
    assert distances is not None
    # The outer shell of a 4^3 cube has 64 - 8 voxels. The plane x = 1 (16) lies 2 from b's face x = 3, x = 2 has 12 at
    # distance 1, x = 3 and x = 4 have 12 each on b's surface.
    forward, backward = distances
    assert sorted(forward) == sorted(backward)
    assert np.unique(forward, return_counts=True)[0].tolist() == [0, 1, 2]
    assert np.unique(forward, return_counts=True)[1].tolist() == [24, 16, 16]
    assert hd95(a, b, (1, 1, 1)) == 2
    assert nsd(a, b, (1, 1, 1), 1.0) == pytest.approx(40 / 56)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 1.5)])
def test_concentric_spheres_differ_by_their_radii(spacing: tuple[float, float, float]) -> None:
    shape = tuple(2 * math.ceil(20 / s) + 5 for s in spacing)
    small, large = sphere(shape, 12, spacing), sphere(shape, 18, spacing)
    assert hd95(small, large, spacing) == pytest.approx(6, abs=max(spacing))
    assert dice(small, large) == pytest.approx(2 * 12**3 / (12**3 + 18**3), rel=0.02)
    assert nsd(small, large, spacing, 6 + 2 * max(spacing)) == 1
    assert nsd(small, large, spacing, 6 - 2 * max(spacing)) == 0


def test_hd95_is_the_larger_directed_percentile() -> None:
    """A large plate against one voxel of it: one direction is 0, and the pooled percentile would be smaller."""
    plate = box_mask((3, 41, 3), (1, 0, 1), (2, 41, 2))
    point = box_mask((3, 41, 3), (1, 0, 1), (2, 1, 2))
    assert hd95(plate, point, (1, 2, 1)) == pytest.approx(2 * 38)
    assert hd95(point, plate, (1, 2, 1)) == pytest.approx(2 * 38)


def test_hd95_interpolates_and_ignores_a_lone_voxel() -> None:
    line = box_mask((40, 3, 3), (0, 1, 1), (19, 2, 2))
    outlier = line.copy()
    outlier[39, 1, 1] = True  # 21 away from the end of the line
    distances = surface_distances(outlier, line, (1, 1, 1))
    assert distances is not None
    assert sorted(distances[0])[-2:] == [0, 21]
    assert hd95(outlier, line, (1, 1, 1)) == pytest.approx(0.05 * 21)


def test_mask_at_the_edge_has_a_surface_there() -> None:
    full = np.ones((5, 5, 5), dtype=bool)
    inner = box_mask((5, 5, 5), (1, 1, 1), (4, 4, 4))
    distances = surface_distances(full, inner, (1, 1, 1))
    assert distances is not None
    assert len(distances[0]) == 125 - 27
    assert len(distances[1]) == 27 - 1
    assert distances[0].min() == 1


def test_states_and_summary() -> None:
    prediction, reference = np.zeros((2, 8, 8, 8), dtype=np.uint8)
    classes: list[ClassEntry] = [*CLASSES, {"id": 7, "name": "seven"}]
    prediction[1:3, 1:3, 1:3] = reference[1:3, 1:3, 1:4] = 1  # scored: 8 of 8 and 12 voxels
    reference[5, 5, 5] = 2  # missed
    prediction[7, 7, 7] = 5  # false positive
    prediction[0, 0, 7] = reference[0, 7, 0] = 9  # a label nobody asked for
    rows = compare(prediction, reference, (1, 1, 2), classes)
    assert rows == [
        {"id": 1, "name": "one", "state": "scored", "dice": 0.8, "hd95_mm": 2.0, "nsd": pytest.approx(16 / 20)},
        {"id": 2, "name": "two", "state": "missed", "dice": 0.0, "hd95_mm": None, "nsd": None},
        {"id": 5, "name": "five", "state": "false_positive", "dice": 0.0, "hd95_mm": None, "nsd": None},
        {"id": 7, "name": "seven", "state": "both_empty", "dice": None, "hd95_mm": None, "nsd": None},
    ]
    assert summary(rows) == {
        "dice": pytest.approx(0.8 / 3),
        "hd95_mm": 2.0,
        "nsd": pytest.approx(0.8),
        "states": {"scored": 1, "missed": 1, "false_positive": 1, "both_empty": 1},
    }
    figures = [value for row in [*rows, summary(rows)] for value in row.values()]
    assert {type(value) for value in figures} <= {int, str, float, type(None), dict}
    assert json.loads(json.dumps(rows)) == rows


def test_summary_without_anything_scored() -> None:
    empty = np.zeros((8, 8, 8), dtype=np.uint8)
    result = summary(compare(empty, empty, (1, 1, 1), CLASSES))
    assert result["dice"] is result["hd95_mm"] is result["nsd"] is None
    assert result["states"]["both_empty"] == 3
    assert summary([])["states"] == {"scored": 0, "missed": 0, "false_positive": 0, "both_empty": 0}


def test_compare_uses_its_tolerance() -> None:
    a = np.pad(np.ones((1, 4, 4), dtype=np.uint8), 2)
    b = np.roll(a, 1, axis=0)
    scores = {t: compare(a, b, (1.5, 1, 1), CLASSES[:2], nsd_tolerance_mm=t)[0]["nsd"] for t in (1.0, 1.5)}
    assert scores == {1.0: 0, 1.5: 1}
    assert compare(a, b, (1.5, 1, 1), CLASSES[:2])[0]["nsd"] == 0  # 1 mm unless told


def test_mask_functions_know_the_empty_mask() -> None:
    empty, full = np.zeros((4, 4, 4), dtype=bool), np.ones((4, 4, 4), dtype=bool)
    assert dice(empty, empty) is None
    assert dice(empty, full) == dice(full, empty) == 0
    for a, b in [(empty, empty), (empty, full), (full, empty)]:
        assert hd95(a, b, (1, 1, 1)) is nsd(a, b, (1, 1, 1)) is None


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, math.nan), (1, math.inf, 1)])
def test_spacing_that_does_not_fit_raises(spacing: tuple[float, ...]) -> None:
    labels = np.ones((4, 4, 4), dtype=np.uint8)
    with pytest.raises(ValueError, match="spacing"):
        compare(labels, labels, spacing, CLASSES)


def test_different_shapes_raise() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4, 4\).*\(4, 4, 5\)"):
        compare(np.ones((4, 4, 4), np.uint8), np.ones((4, 4, 5), np.uint8), (1, 1, 1), CLASSES)


@settings(max_examples=40, deadline=None)
@given(seeds, shapes, spacings, shares, shares, st.floats(0.1, 8))
def test_laws(
    seed: int, shape: tuple[int, int, int], spacing: tuple[float, ...], share_a: float, share_b: float, factor: float
) -> None:
    """Symmetry, identity, independence of place and axis order, and distances that scale with the spacing."""
    a, b = blobs(seed, shape, share_a), blobs(seed + 1, shape, share_b)
    figures = overlap, distance, near = dice(a, b), hd95(a, b, spacing), nsd(a, b, spacing, 1.1)
    assert overlap is not None and distance is not None and near is not None
    assert 0 <= overlap <= 1 and 0 <= near <= 1
    assert (dice(b, a), hd95(b, a, spacing), nsd(b, a, spacing, 1.1)) == pytest.approx(figures)
    assert (dice(a, a), hd95(a, a, spacing), nsd(a, a, spacing, 0)) == (1, 0, 1)

    moved_a, moved_b = (np.pad(mask, ((3, 0), (1, 5), (0, 2))) for mask in (a, b))
    assert (dice(moved_a, moved_b), hd95(moved_a, moved_b, spacing), nsd(moved_a, moved_b, spacing, 1.1)) == (
        pytest.approx(figures)
    )
    turned = spacing[::-1]
    assert (dice(a.T, b.T), hd95(a.T, b.T, turned), nsd(a.T, b.T, turned, 1.1)) == pytest.approx(figures)
    scaled = tuple(s * factor for s in spacing)
    assert hd95(a, b, scaled) == pytest.approx(distance * factor)
    assert nsd(a, b, scaled, 1.1 * factor) == pytest.approx(near)


@settings(max_examples=20, deadline=None)
@given(seeds, shapes, spacings)
def test_compare_equals_the_mask_functions(seed: int, shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
    """Cropping to the joint box changes nothing."""
    maps = np.random.default_rng(seed).choice([0, 1, 2, 5], size=(2, *shape), p=[0.9, 0.05, 0.04, 0.01])
    prediction, reference = maps.astype(np.uint8)
    for row in compare(prediction, reference, spacing, CLASSES, 1.2):
        a, b = prediction == row["id"], reference == row["id"]
        assert row["dice"] == dice(a, b)
        assert row["hd95_mm"] == pytest.approx(hd95(a, b, spacing))
        assert row["nsd"] == nsd(a, b, spacing, 1.2)


@pytest.fixture(scope="module")
def monai_metrics() -> Any:
    """Imported here: MONAI takes seconds, and only the cross-check needs it."""
    return importlib.import_module("monai.metrics")


# MONAI 1.6 passes an argument to its own `get_mask_edges` that it has deprecated.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")
@settings(max_examples=60, deadline=None)
@given(
    seed=seeds, shape=shapes, spacing=spacings, share_a=shares, share_b=shares, tolerance=st.sampled_from([0.9, 2.1])
)
def test_agrees_with_monai(
    monai_metrics: Any,
    seed: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    share_a: float,
    share_b: float,
    tolerance: float,
) -> None:
    import torch

    a, b = blobs(seed, shape, share_a), blobs(seed + 1, shape, share_b)
    one_hot = [torch.from_numpy(np.stack([~mask, mask])[None]) for mask in (a, b)]
    theirs = monai_metrics.compute_dice(*one_hot, include_background=False).item()
    assert dice(a, b) == pytest.approx(theirs, rel=1e-5)
    theirs = monai_metrics.compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing).item()
    assert hd95(a, b, spacing) == pytest.approx(theirs, rel=1e-5)
    theirs = monai_metrics.compute_surface_dice(*one_hot, [tolerance], spacing=spacing, use_subvoxels=False).item()
    assert nsd(a, b, spacing, tolerance) == pytest.approx(theirs, rel=1e-5)
