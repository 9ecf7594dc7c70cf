"""Panoptic quality: by hand, and as torchmetrics counts it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.detection import PanopticQuality as Reference

from pipelines.evaluation.panoptic import PanopticQuality

CLASSES = ["field", "water", "road"]


def test_a_value_that_is_worked_out_by_hand() -> None:
    truth, found = np.zeros((4, 8), int), np.zeros((4, 8), int)
    truth[:, :4], truth[:, 4:6], truth[:, 6:] = 1, 2, 3  # 16, 8 and 8 pixels
    found[:, :3], found[:, 3:5], found[:, 6:] = 1, 2, 3  # 12 of 16; 4 of 8 beside 4 others: 1/3; all, as another class
    quality = PanopticQuality(CLASSES)
    quality.update(found, [0, 0, 2], truth, [0, 0, 1])
    field, water, road = quality.counts
    assert (field.matched, field.false, field.missed, field.overlap) == (1, 1, 1, pytest.approx(0.75))
    assert (field.segmentation, field.recognition, field.quality) == pytest.approx((0.75, 0.5, 0.375))
    assert (water.matched, water.missed) == (0, 1) and (road.matched, road.false) == (0, 1)
    assert water.quality == road.quality == 0
    assert quality.mean() == pytest.approx(0.125)


def test_what_is_ignored_counts_for_nothing() -> None:
    truth, found = np.ones((2, 6), int), np.ones((2, 6), int)
    truth[:, 3:] = 0
    found[:, 4:] = 2
    quality = PanopticQuality(CLASSES[:2])
    quality.update(found, [0, 1], truth, [0], ignored=truth == 0)
    assert quality.counts[0].quality == 1 and not quality.counts[1].present  # the second lies in it
    assert np.isnan(quality.counts[1].quality) and quality.mean() == 1
    with pytest.raises(ValueError, match="expected the same shape"):
        quality.update(found, [0, 1], truth[:1], [0])


@st.composite
def segmentation(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    count = draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = random.integers(1, count + 1, (3, 4))
    noise = random.random((9, 12)) < 0.15
    labels = np.where(noise, random.integers(1, count + 1, (9, 12)), np.kron(coarse, np.ones((3, 3), int)))
    return labels, random.integers(0, 3, count).tolist()


@given(st.lists(st.tuples(segmentation(), segmentation(), st.integers(0, 40)), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_equals_torchmetrics(images: list) -> None:
    quality = PanopticQuality(CLASSES)
    reference = Reference(
        things={0, 1, 2}, stuffs={7}, allow_unknown_preds_category=True, return_per_class=True, return_sq_and_rq=True
    )
    for (found, found_classes), (truth, truth_classes), void in images:
        ignored = np.zeros(truth.shape, bool)
        ignored.ravel()[:void] = True
        if void % 2:  # the same pixels are right in both
            found, found_classes = truth, truth_classes
        quality.update(found, found_classes, truth, truth_classes, ignored)
        codes = [
            np.stack([np.append(classes, 99)[labels - 1], labels], -1)
            for labels, classes in ((found, found_classes), (truth, truth_classes))
        ]
        codes[1][ignored] = [99, 0]  # a class that it does not know
        reference.update(torch.tensor(codes[0][None]), torch.tensor(codes[1][None]))
    expected = reference.compute().numpy()[:3]
    found = np.array([[count.quality, count.segmentation, count.recognition] for count in quality.counts])
    np.testing.assert_allclose(np.nan_to_num(found), expected, atol=1e-6)
