"""Whether quality flags and confidence tell good segmentations from bad ones: AUROC against overlap with the truth."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from scipy import stats

POOR = 0.7
"""Dice below which a segmentation, or a structure of one, is one that a flag should tell of."""


class VolumeState(TypedDict):
    """A segmentation of a scan, compared with a reference.

    Attributes:
        dice: Mean Dice of the structures that were compared.
        nsd: Mean normalised surface distance; None where no structure has one.
        dice_of: Dice of each structure.
        flags: Number of quality flags.
        flags_of: Number of quality flags of each structure.
        mean_confidence: Mean of the structures' confidences.
        lowest_confidence: Lowest confidence of a structure.
        confidence_of: Mean confidence of each structure.
        sha256: Hash of the voxels that were segmented.
    """

    dice: float
    nsd: float | None
    dice_of: dict[str, float | None]
    flags: int
    flags_of: dict[str, int]
    mean_confidence: float | None
    lowest_confidence: float | None
    confidence_of: dict[str, float | None]
    sha256: str


class Signals(TypedDict):
    """How many segmentations or structures there were, how many were poor, and the AUROC of each signal.

    An AUROC is None where all were poor, or none.
    """

    count: int
    poor: int
    auroc: dict[str, float | None]


class Usefulness(TypedDict):
    """What flags and confidence tell of overlap, by mean Dice of cases and by Dice of pooled structures."""

    dice_below: float
    cases: Signals
    structures: Signals


def auroc(scores: Sequence[float], poor: Sequence[bool]) -> float | None:
    """Probability that a poor case scores higher than another one, ties counting half; None where all are alike."""
    positive, values = np.asarray(poor, bool), np.asarray(scores, float)
    count = int(positive.sum())
    if count in (0, len(positive)):
        return None
    ranks = stats.rankdata(values)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def flag_usefulness(states: Sequence[VolumeState]) -> Usefulness:
    """AUROC of what can be seen without a reference, against `POOR` overlap with one.

    Args:
        states: Segmentations of one scan or of several. A missing confidence counts as 0: nothing was segmented.
    """
    pairs = [(state, name, dice) for state in states for name, dice in state["dice_of"].items() if dice is not None]
    cases = {
        "any flag": [bool(state["flags"]) for state in states],
        "number of flags": [state["flags"] for state in states],
        "lowest confidence": [1 - (state["lowest_confidence"] or 0.0) for state in states],
        "mean confidence": [1 - (state["mean_confidence"] or 0.0) for state in states],
    }
    structures = {
        "any flag": [bool(state["flags_of"].get(name)) for state, name, _ in pairs],
        "number of flags": [state["flags_of"].get(name, 0) for state, name, _ in pairs],
        "mean confidence": [1 - (state["confidence_of"].get(name) or 0.0) for state, name, _ in pairs],
    }
    return {
        "dice_below": POOR,
        "cases": _signals(cases, [state["dice"] < POOR for state in states]),
        "structures": _signals(structures, [dice < POOR for *_, dice in pairs]),
    }


def _signals(signals: Mapping[str, Sequence[float]], poor: Sequence[bool]) -> Signals:
    return {
        "count": len(poor),
        "poor": sum(map(bool, poor)),
        "auroc": {name: auroc(scores, poor) for name, scores in signals.items()},
    }
