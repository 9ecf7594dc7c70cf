import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from shared_backbones.classification.figures import calibration_error, class_figures, class_rows, reliability
from tests.shared_backbones.classification.drawn import drawn, softmax

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
LABELS = np.array([0, 1, 1, 1])  # the third is wrong, the third class never occurs


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
