"""Class scores: labels by blocks, the closing of gaps, and the slice in which a structure is least certain."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvision.scores import Certainty, NetworkGrid, Scores, closed, weakest_slices
from medvision.volumes.resampling import linear_weights


def test_the_slice_of_lowest_winning_scores():
    scores = torch.zeros(3, 4, 5, 6, dtype=torch.int16)
    scores[0] = 200
    scores[1, :, :3, 1:4] = 240
    scores[1, :, :3, 2] = 210
    scores[1, 0, 0, 4] = 201  # one voxel of the thirteen that a slice may have: too few
    weakest = weakest_slices(scores, 255)
    assert weakest[1][2] == (2, 210 / 255)
    assert weakest[0][2][0] in range(6) and weakest[0][2][1] == 200 / 255
    assert 2 not in weakest, "a class that wins nowhere has no slice"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slice_of_lowest_winning_scores_along_each_axis(axis):
    scores = torch.zeros(2, 7, 8, 9, dtype=torch.int16)
    scores[0] = 100
    scores[1, 1:6, 1:6, 1:6] = 250
    scores[1].select(axis, 3)[scores[1].select(axis, 3) > 0] = 150
    assert weakest_slices(scores, 255)[1][axis] == (3, 150 / 255)


def test_several_views_are_summed_scores():
    scores = torch.zeros(2, 2, 2, 3, dtype=torch.int16)
    scores[1] = 600
    scores[1, ..., 2] = 510
    assert weakest_slices(scores, 255 * 3)[1][2] == (2, 510 / 765)


def test_labels_by_blocks_are_those_of_the_whole():
    # random scores in one corner, and one class around it: blocks of both kinds
    values = torch.zeros((4, 40, 42, 44), dtype=torch.uint8)
    values[2] = 200
    values[:, 12:25, 10:30, 8:20] = torch.randint(0, 256, (4, 13, 20, 12), generator=torch.Generator().manual_seed(0))
    shapes, spacing = ((40, 42, 44), (100, 97, 53)), (0.4, 0.43, 0.83)
    box = (slice(0, 40), slice(0, 42), slice(0, 44))
    found = Scores(values, 1, NetworkGrid(box, *shapes, spacing, (1.0,) * 3, lambda array: array))
    weights = [linear_weights(n, m, s) for n, m, s in zip(*shapes, spacing, strict=True)]
    best, winner = torch.einsum("kxyz,ax,by,cz->kabc", values.float(), *weights).max(0)
    found = found.labels()
    labels, confidence = found.labels, found.confidence
    assert (labels != winner.numpy()).mean() < 1e-5  # sums in another order
    for k in range(4):
        assert confidence[k] == pytest.approx(float(best[winner == k].mean()) / 255, abs=1e-4)


@pytest.mark.parametrize("radius", [0, 1.5, 3.2])
def test_closing_by_layers_is_that_of_the_whole(radius):
    mask = np.random.default_rng(0).random((50, 30, 28)) < 0.03
    mask[14:30] = False  # an empty layer
    ball = np.linalg.norm(np.indices((9, 9, 9)) - 4, axis=0) <= radius
    padded = np.pad(mask, 10)
    expected = ndimage.binary_erosion(ndimage.binary_dilation(padded, ball), ball)[10:-10, 10:-10, 10:-10]
    assert expected.sum() >= mask.sum()
    np.testing.assert_array_equal(closed(mask, radius, thickness=6), expected)
    assert not closed(np.zeros_like(mask), radius).any()


@given(fine=st.integers(6, 24), spacing=st.sampled_from([0.8, 1.0, 1.5, 3.0]), cut=st.integers(0, 2))
@settings(max_examples=20)
def test_certainty_lies_where_its_voxels_lie(fine: int, spacing: float, cut: int):
    """Of a field that is linear in place, the nearest value is at most half a step of the network's grid away."""
    size = max(4, round(fine * spacing / 1.5))
    box = (slice(cut, size), slice(None), slice(None))
    grid = NetworkGrid(box, (size, 1, 1), (fine, 1, 1), (spacing, 1, 1), (1.5, 1, 1), lambda array: array)
    ramp = (torch.arange(size) - (size - 1) / 2) * 1.5 * 3 + 128  # 3 a mm
    found = Certainty.of(2 * ramp[cut:].view(1, -1, 1, 1), 2, grid).on_scan()[:, 0, 0].astype(float)
    places = (np.arange(fine) - (fine - 1) / 2) * spacing
    low, high = (cut - size / 2) * 1.5, size / 2 * 1.5  # borders of the box, in mm from the common centre
    inside = (places > low) & (places < high)
    assert np.abs(found - (places * 3 + 128))[inside].max(initial=0) <= 3 * 0.75 + 0.5
    assert (found[(places < low - 0.01) | (places > high + 0.01)] == 255).all()
