"""AUROC of flags and confidence against overlap, on cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipelines.evaluation.flag_usefulness import VolumeState, auroc, flag_usefulness


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auroc_is_that_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, poor = [score for score, _ in pairs], [wrong for _, wrong in pairs]
    if len(set(poor)) == 1:
        assert auroc(scores, poor) is None
    else:
        assert auroc(scores, poor) == pytest.approx(roc_auc_score(poor, scores))


def state(dice: float, flags: int, confidence: float | None) -> VolumeState:
    return {
        "dice": dice, "flags": flags, "mean_confidence": confidence, "lowest_confidence": confidence,
        "dice_of": {"a": dice, "b": dice + 0.2, "nowhere": None}, "flags_of": {"a": flags, "b": 0},
        "confidence_of": {"a": confidence, "b": 0.5}, "nsd": None, "sha256": "",
    }  # fmt: skip


def test_signals_that_tell_all_and_nothing() -> None:
    found = flag_usefulness([state(0.9, 0, 0.9), state(0.8, 1, 0.8), state(0.6, 1, 0.7), state(0.1, 3, None)])
    cases, structures = found["cases"], found["structures"]
    assert (cases["count"], cases["poor"], found["dice_below"]) == (4, 2, 0.7)
    assert cases["auroc"] == {
        "any flag": 0.75,
        "number of flags": 0.875,
        "lowest confidence": 1,
        "mean confidence": 1,  # where nothing was found there is none, which is the lowest
    }
    assert (structures["count"], structures["poor"]) == (8, 3)  # a of two cases, and b of the last
    poor = np.array([0, 0, 0, 0, 1, 0, 1, 1], bool)
    flagged = [0, 0, 1, 0, 1, 0, 3, 0]
    assert structures["auroc"]["number of flags"] == pytest.approx(roc_auc_score(poor, flagged))
    alike = flag_usefulness([state(0.9, 0, 0.9)])
    assert set(alike["cases"]["auroc"].values()) == {None}
