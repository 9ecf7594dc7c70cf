"""Whether quality flags and confidence tell good segmentations from bad ones: AUROC against overlap with the truth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

POOR = 0.7
"""Dice below which a segmentation, or a structure of one, is one that a flag should tell of."""


def auroc(scores: Sequence[float], poor: Sequence[bool]) -> float | None:
    """Chance that a poor case scores higher than another one, ties counting half; None where all are alike."""
    positive, values = np.asarray(poor, bool), np.asarray(scores, float)
    count = int(positive.sum())
    if count in (0, len(positive)):
        return None
    ranks = stats.rankdata(values)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def flag_usefulness(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """AUROC of what can be seen without a reference, against `POOR` overlap with one.

    Args:
        states: what `pipelines.evaluation.volume_robustness.measure_volume` returns, `clean` and `cells` of one scan or
            of several: `dice` and `dice_of`, `flags` and `flags_of`, `mean_confidence`, `lowest_confidence` and
            `confidence_of`. A missing confidence counts as 0: nothing was segmented.

    Returns:
        `dice_below`, and of `cases` (mean Dice) and `structures` (each one's Dice, pooled): how many there were
        (`count`), how many were `poor`, and `auroc` by signal, None where all were poor or none.
    """
    names = [(state, name) for state in states for name, dice in state["dice_of"].items() if dice is not None]
    cases = {
        "any flag": [bool(state["flags"]) for state in states],
        "number of flags": [state["flags"] for state in states],
        "lowest confidence": [1 - (state["lowest_confidence"] or 0.0) for state in states],
        "mean confidence": [1 - (state["mean_confidence"] or 0.0) for state in states],
    }
    structures = {
        "any flag": [bool(state["flags_of"].get(name)) for state, name in names],
        "number of flags": [state["flags_of"].get(name, 0) for state, name in names],
        "mean confidence": [1 - (state["confidence_of"].get(name) or 0.0) for state, name in names],
    }
    return {
        "dice_below": POOR,
        "cases": _figures(cases, [state["dice"] < POOR for state in states]),
        "structures": _figures(structures, [state["dice_of"][name] < POOR for state, name in names]),
    }


def _figures(signals: Mapping[str, Sequence[float]], poor: Sequence[bool]) -> dict[str, Any]:
    return {
        "count": len(poor),
        "poor": sum(map(bool, poor)),
        "auroc": {name: auroc(scores, poor) for name, scores in signals.items()},
    }
