import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from shared_backbones.classification.figures import (
    calibration_error,
    class_figures,
    class_rows,
    conformal_quantile,
    fit_temperature,
    prediction_sets,
    reliability,
)

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
LABELS = np.array([0, 1, 1, 1])  # the third is wrong, the third class never occurs


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def drawn(count: int, classes: int, seed: int, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn by the probabilities that they say."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, sharpness, (count, classes))
    labels = (softmax(logits).cumsum(1) < random.random((count, 1))).sum(1)
    return logits, np.minimum(labels, classes - 1)


def test_figures_counted_by_hand():
    figures = class_figures(SCORES, np.eye(3)[LABELS], multi_label=False)
    assert figures["accuracy"] == 0.75 and figures["top5"] is None
    assert figures["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)  # class 0: 1 hit of 1, found twice
    assert figures["auc"] == pytest.approx((1 + 1) / 2)  # 0.7 is above all others, 0.2 below
    assert figures["nll"] == pytest.approx(-np.log([0.7, 0.6, 0.3, 0.7]).mean())
    assert figures["brier"] == pytest.approx((0.14 + 0.26 + 0.78 + 0.14) / 4)
    assert figures["ece"] == pytest.approx((abs(2 - 1.4) + abs(1 - 0.6) + abs(0 - 0.5)) / 4)


def test_the_area_is_the_mean_over_classes_that_occur():
    logits, labels = drawn(300, 4, 0)
    scores = softmax(logits)
    scores = np.concatenate([scores[:, :3], np.zeros((300, 1)), scores[:, 3:]], 1)
    targets = np.eye(5)[np.where(labels == 3, 4, labels)]  # class 3 never occurs
    areas = [roc_auc_score(targets[:, k], scores[:, k]) for k in (0, 1, 2, 4)]
    assert class_figures(scores, targets, multi_label=False)["auc"] == pytest.approx(np.mean(areas))


def test_a_perfect_classifier():
    targets = np.eye(6)[np.arange(12) % 6]
    figures = class_figures(targets, targets, multi_label=False)
    assert all(figures[name] == 1 for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc", "top5"))
    assert all(figures[name] == 0 for name in ("nll", "brier", "ece"))


def test_a_constant_classifier_and_a_single_image():
    scores = np.full((5, 2), 0.5)
    figures = class_figures(scores, np.eye(2)[[0, 0, 0, 0, 1]], multi_label=False)
    assert figures["auc"] == 0.5 and figures["brier"] == 0.5 and figures["balanced_accuracy"] == 0.5
    assert figures["ece"] == pytest.approx(0.3)
    alone = class_figures(SCORES[:1], np.eye(3)[[0]], multi_label=False)
    assert alone["accuracy"] == 1 and alone["auc"] is None
    assert alone["brier"] == pytest.approx(0.14) and alone["ece"] == pytest.approx(0.3)


def test_several_labels_are_still_judged():
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    figures = class_figures(np.array([[0.9, 0.1], [0.6, 0.8], [0.7, 0.3], [0.1, 0.2]]), targets, multi_label=True)
    assert figures["accuracy"] == 6 / 8 and figures["balanced_accuracy"] == 0.75 and figures["auc"] == 0.875
    assert figures["brier"] == pytest.approx(np.mean(np.square([0.1, 0.1, 0.4, 0.2, 0.7, 0.7, 0.1, 0.2])))
    assert figures["f1_micro"] == pytest.approx(2 * 3 / (4 + 4))


def test_rows_of_classes_counted_by_hand():
    first, second, third = class_rows(SCORES, np.eye(3)[LABELS], ["a", "b", "c"], multi_label=False)
    assert first == {"name": "a", "images": 1, "recall": 1, "precision": 0.5, "f1": pytest.approx(2 / 3)}
    assert second == {"name": "b", "images": 3, "recall": pytest.approx(2 / 3), "precision": 1, "f1": 0.8}
    assert third == {"name": "c", "images": 0, "recall": None, "precision": None, "f1": None}
    several = class_rows(np.array([[0.51, 0.6], [0.5, 0.9]]), np.array([[1, 1], [1, 0]]), ["a", "b"], multi_label=True)
    assert [row["recall"] for row in several] == [0.5, 1] and several[1]["precision"] == 0.5


def test_bins_counted_by_hand():
    rows = reliability(np.array([0.0, 0.1, 0.5, 1.0]), np.array([True, False, True, True]), bins=2)
    assert rows == [
        {"low": 0, "high": 0.5, "images": 2, "confidence": 0.05, "accuracy": 0.5},
        {"low": 0.5, "high": 1, "images": 2, "confidence": 0.75, "accuracy": 1},
    ]
    empty = reliability(np.array([0.9]), np.array([False]), bins=3)[0]
    assert (empty["images"], empty["confidence"], empty["accuracy"]) == (0, None, None)
    assert calibration_error(np.array([0.9]), np.array([False])) == pytest.approx(0.9)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_bins_hold_every_image_once_and_their_error_is_the_whole(pairs: list[tuple[float, bool]], bins: int):
    confidence, hits = np.array([p for p, _ in pairs]), np.array([hit for _, hit in pairs])
    rows = reliability(confidence, hits, bins)
    assert len(rows) == bins and sum(row["images"] for row in rows) == len(pairs)
    assert rows[0]["low"] == 0 and rows[-1]["high"] == 1
    for row in rows:
        if row["images"]:
            assert row["low"] - 1e-9 <= row["confidence"] <= row["high"] + 1e-9
    error = calibration_error(confidence, hits, bins)
    assert abs(hits.mean() - confidence.mean()) - 1e-9 <= error <= 1


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


def test_half_a_probability_is_no_class_as_medmnist_has_it():
    targets = np.array([[1, 0, 0], [0, 1, 0]])
    figures = class_figures(np.full((2, 3), 0.5), targets, multi_label=True)
    assert figures["accuracy"] == pytest.approx(4 / 6) and figures["f1_macro"] == 0
    rows = class_rows(np.full((2, 3), 0.5), targets, ["a", "b", "c"], multi_label=True)
    assert [row["recall"] for row in rows] == [0, 0, None]  # each image has one class, which does not make it single


def test_no_class_at_all_has_figures():
    figures = class_figures(np.full((4, 3), 0.2), np.zeros((4, 3)), multi_label=True)
    assert figures["map_micro"] is figures["map_macro"] is figures["f1_macro"] is figures["auc"] is None
    assert figures["accuracy"] == figures["balanced_accuracy"] == 1 and figures["brier"] == pytest.approx(0.04)
