import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_backbones.classification.calibration import (
    conformal_quantile,
    fit_temperature,
    prediction_sets,
)
from tests.shared_backbones.classification.drawn import drawn, softmax


def test_a_temperature_is_recovered():
    logits, labels = drawn(20000, 5, 1)
    for heat in (0.4, 1.0, 3.0):
        assert fit_temperature(heat * logits, labels) == pytest.approx(heat, rel=0.05)
    assert fit_temperature((3 * logits + 100).astype(np.float32), labels) == pytest.approx(3, rel=0.05)


def test_a_temperature_never_makes_the_likelihood_worse():
    for seed in range(20):
        logits, labels = drawn(40, 3, seed, sharpness=4)
        labels = np.random.default_rng(seed).permutation(labels)
        temperature = fit_temperature(logits, labels)
        tried = [-np.log(softmax(logits / t)[np.arange(40), labels]).mean() for t in (temperature, 1.0)]
        assert 0.05 <= temperature <= 20 and tried[0] <= tried[1] + 1e-9


def test_temperatures_of_classifiers_without_a_best_one():
    labels = np.arange(12) % 3
    perfect = 10 * np.eye(3)[labels]
    assert fit_temperature(perfect, labels) == pytest.approx(0.05)
    assert fit_temperature(1000 * perfect, labels) > 0
    assert fit_temperature(-perfect, labels) == pytest.approx(20)
    assert fit_temperature(np.ones((12, 3)), labels) == 1
    assert fit_temperature(np.array([[2.0, 1.0]]), np.array([0])) == pytest.approx(0.05)


def test_the_quantile_is_the_rank_that_n_plus_one_asks_for():
    right = np.linspace(0.99, 0.01, 99)  # scores 0.01, 0.02 ... of the right classes
    scores, labels = np.stack([right, 1 - right], 1), np.zeros(99, int)
    assert conformal_quantile(scores, labels, 0.9) == pytest.approx(0.9)
    assert conformal_quantile(scores, labels, 0.901) == pytest.approx(0.91)
    assert conformal_quantile(scores, labels, 0.55) == pytest.approx(0.55)
    assert conformal_quantile(scores, labels, 0.995) == 1  # 99 images cannot tell: every class
    assert conformal_quantile(scores[:1], labels[:1], 0.9) == 1
    assert prediction_sets(scores, 1.0).all()


def test_a_set_holds_the_classes_above_the_threshold_and_may_be_empty():
    sets = prediction_sets(np.array([[0.7, 0.3, 0.0], [0.4, 0.35, 0.25]]), 0.5)
    np.testing.assert_array_equal(sets, [[True, False, False], [False, False, False]])


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("heat", [1.0, 4.0])  # exact whether the probabilities are calibrated or not
def test_mean_coverage_over_divisions_is_the_nominal_one(coverage: float, heat: float):
    logits, labels = drawn(2000, 6, 3)
    scores = softmax(heat * logits).astype(np.float32)
    random, found = np.random.default_rng(0), []
    for _ in range(200):
        order = random.permutation(len(labels))
        known, asked = order[:500], order[500:]
        sets = prediction_sets(scores[asked], conformal_quantile(scores[known], labels[known], coverage))
        found.append(sets[np.arange(len(asked)), labels[asked]].mean())
    assert coverage - 0.01 <= np.mean(found) <= coverage + 0.01


@given(st.integers(1, 60), st.floats(0.05, 0.99), st.integers(0, 999))
def test_calibration_images_themselves_are_covered(count: int, coverage: float, seed: int):
    logits, labels = drawn(count, 4, seed)
    scores = softmax(logits).astype(np.float32)
    sets = prediction_sets(scores, conformal_quantile(scores, labels, coverage))
    assert sets[np.arange(count), labels].mean() >= coverage - 1e-6
