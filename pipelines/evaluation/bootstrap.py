"""How sure the figures of a classification are: the percentile bootstrap over its images."""

from collections.abc import Mapping

import numpy as np

from shared_backbones.classification.figures import BINS, bin_numbers

INTERVALS = ("accuracy", "balanced_accuracy", "auc", "ece")
"""Figures of `class_figures` that have intervals."""
_CHUNK = 100  # resamples that are counted at once


class Resampling:
    """Images drawn anew with replacement; the same ones whatever is asked about, so that differences are paired.

    Args:
        targets: `(N, K)`, 1 for the classes that an image has.
        resamples: How often images are drawn.
        seed: Seed of the draws.
        multi_label: Whether an image can have several classes.
    """

    def __init__(self, targets: np.ndarray, resamples: int, seed: int, *, multi_label: bool) -> None:
        self.targets, self.multi_label = targets.astype(np.float64), multi_label
        count, random = len(targets), np.random.default_rng(seed)
        drawn = (np.bincount(random.integers(0, count, count), minlength=count) for _ in range(resamples))
        self.draws = np.stack([counts.astype(np.uint8) for counts in drawn])  # few times each: a byte is enough

    def figures(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """The figures `INTERVALS` of probabilities `(N, K)` in every resample, `(R,)` each; NaN where undefined."""
        right, kinds, hits = self._hits(scores)
        gaps = self._gaps(scores)
        parts = []
        for start in range(0, len(self.draws), _CHUNK):
            draw = self.draws[start : start + _CHUNK].astype(np.float64)
            recalls = _divided(draw @ hits, draw @ kinds)
            if self.multi_label:  # of each label, the mean of sensitivity and specificity
                recalls = _mean(np.stack(np.split(recalls, 2, 1)), 0)
            areas = np.stack([_areas(draw, *pair) for pair in zip(scores.T, self.targets.T, strict=True)], 1)
            accuracy, error = draw @ right / len(right), abs(draw @ gaps).sum(1) / len(right)
            parts.append((accuracy, _mean(recalls, 1), _mean(areas, 1), error))
        return dict(zip(INTERVALS, (np.concatenate(part) for part in zip(*parts, strict=True)), strict=True))

    def _hits(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far each image is right `(N,)`, the answers that it asks for, and those that were right, `(N, K)` each.

        Where an image can have several labels, each label and its absence are answers of their own.
        """
        targets = self.targets
        if not self.multi_label:
            hits = scores.argmax(1) == targets.argmax(1)
            return hits[:, None].mean(1), targets, hits[:, None] * targets
        hits = (scores > 0.5) == (targets > 0)
        kinds = np.concatenate([targets, 1 - targets], 1)
        return hits.mean(1), kinds, np.concatenate([hits * targets, hits * (1 - targets)], 1)

    def _gaps(self, scores: np.ndarray) -> np.ndarray:
        """What each image adds to the gap between accuracy and confidence of each bin, `(N, BINS)`."""
        if self.multi_label:
            hits, confidence = (scores > 0.5) == (self.targets > 0), np.maximum(scores, 1 - scores)
        else:
            hits = (scores.argmax(1) == self.targets.argmax(1))[:, None]
            confidence = scores.max(1, keepdims=True)
        gaps = np.zeros((len(scores), BINS))
        rows = np.arange(len(scores))[:, None]
        np.add.at(gaps, (rows, bin_numbers(confidence)), (hits - confidence) / hits.shape[1])
        return gaps


def intervals(figures: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """95 % intervals of resampled figures, `<name>_low` and `<name>_high`; None where a figure is never defined."""
    ends: dict[str, float | None] = {}
    for name, values in figures.items():
        known = values[~np.isnan(values)]
        low, high = map(float, np.percentile(known, [2.5, 97.5])) if len(known) else (None, None)
        ends |= {f"{name}_low": low, f"{name}_high": high}
    return ends


def _areas(draw: np.ndarray, score: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Area under the curve of a class's score in resamples `(R, N)`, `(R,)`: pairs in order, ties as half of one."""
    order = np.argsort(score, kind="stable")
    ranks = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # where a higher score begins
    counts = draw[:, order]
    with_it, without = (np.add.reduceat(counts * part[order], ranks, 1) for part in (target, 1 - target))
    below = without.cumsum(1) - without / 2
    return _divided((with_it * below).sum(1), with_it.sum(1) * without.sum(1))


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is defined."""
    defined = ~np.isnan(values)
    return _divided(np.where(defined, values, 0).sum(axis), defined.sum(axis))
