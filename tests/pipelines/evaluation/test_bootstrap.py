"""Intervals of figures: those of figures of images that are drawn anew, one resample after the other."""

import numpy as np
import pytest

from pipelines.evaluation.bootstrap import INTERVALS, Resampling, intervals
from shared_backbones.classification.figures import class_figures


def drawn(multi_label: bool, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and targets; the last of four classes never occurs."""
    random = np.random.default_rng(3)
    targets = np.eye(4)[random.integers(0, 3, count)]
    if multi_label:
        targets = (random.random((count, 4)) < [0.5, 0.1, 0.9, 0]).astype(float)
    scores = (random.random((count, 4)) + targets).round(1) + 0.05
    return scores / (2.1 if multi_label else scores.sum(1, keepdims=True)), targets.astype(np.uint8)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_resample_has_the_figures_of_its_images(multi_label: bool):
    scores, targets = drawn(multi_label)
    resampling = Resampling(targets, 130, seed=5, multi_label=multi_label)
    found = resampling.figures(scores)
    assert tuple(found) == INTERVALS and all(values.shape == (130,) for values in found.values())
    random = np.random.default_rng(5)
    for number in range(130):
        rows = random.integers(0, 40, 40)
        figures = class_figures(scores[rows], targets[rows], multi_label=multi_label)
        assert [found[name][number] for name in INTERVALS] == pytest.approx([figures[name] for name in INTERVALS])


def test_an_interval_is_that_of_the_binomial():
    targets, answers = np.eye(2)[np.arange(400) % 2], np.arange(400) % 8 > 1
    scores = np.where(answers[:, None], targets, 1 - targets)
    ends = intervals(Resampling(targets, 1000, seed=1, multi_label=False).figures(scores))
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert ends["accuracy_low"] == pytest.approx(0.75 - half, abs=0.01)
    assert ends["accuracy_high"] == pytest.approx(0.75 + half, abs=0.01)
    again = intervals(Resampling(targets, 1000, seed=1, multi_label=False).figures(scores))
    assert again == ends


def test_what_is_never_defined_has_no_interval_and_one_image_is_enough():
    ends = intervals(Resampling(np.array([[1, 0]]), 20, seed=0, multi_label=False).figures(np.array([[0.9, 0.1]])))
    assert ends["auc_low"] is ends["auc_high"] is None
    assert ends["accuracy_low"] == ends["balanced_accuracy_high"] == 1 and ends["ece_low"] == pytest.approx(0.1)
    nothing = Resampling(np.zeros((5, 3)), 20, seed=0, multi_label=True).figures(np.full((5, 3), 0.5))
    assert (nothing["accuracy"] == 1).all() and np.isnan(nothing["auc"]).all()
