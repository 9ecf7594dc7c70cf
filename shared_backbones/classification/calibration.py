"""Calibrated probabilities and prediction sets: temperature scaling and split conformal prediction."""

import math
from typing import Any

import numpy as np

_TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that logits `(N, K)` are divided by for the highest likelihood of labels `(N,)`.

    It is sought from 0.05 to 20: a classifier that is always right gets the lower end, one that is always wrong the
    upper, and one whose logits are all equal, which no temperature changes, keeps 1 (Guo et al. 2017, section 4.2).
    """
    from scipy.optimize import minimize_scalar

    shifted = (logits - logits.max(1, keepdims=True)).astype(np.float64)
    own = np.take_along_axis(shifted, labels[:, None], 1)[:, 0]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float((np.log(np.exp(shifted * scale).sum(1)) - own * scale).mean())

    low, high = map(math.log, _TEMPERATURES)
    optimum: Any = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return math.exp(min((0.0, low, high, float(optimum.x)), key=loss))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities `(N, K)` as they are once their logits are divided by a temperature."""
    logits = np.log(np.clip(probabilities, 1e-12, 1)) * (1 / temperature)
    logits -= logits.max(1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def conformal_quantile(scores: np.ndarray, labels: np.ndarray, coverage: float) -> float:
    """Threshold of prediction sets that hold the class of a new image with at least a probability.

    Split conformal prediction with the score 1 - probability of the class (Sadinle et al. 2019): of the scores that are
    exact rather than cautious, the one with the smallest sets. It needs images that the network did not learn from.

    Args:
        scores: probabilities `(N, K)`.
        labels: classes `(N,)`.
        coverage: nominal coverage, more than 0 and less than 1.

    Returns:
        The ceil((N + 1) coverage)-th smallest score; 1, every class, where there are too few images for that.
    """
    rank = math.ceil((len(labels) + 1) * coverage - 1e-9)  # 100 * 0.55 is a little more than 55
    if rank > len(labels):
        return 1.0
    return float(np.sort(1 - np.take_along_axis(scores, labels[:, None], 1)[:, 0])[rank - 1])


def prediction_sets(scores: np.ndarray, quantile: float) -> np.ndarray:
    """Classes that an image may have, `(N, K)` bool: those with 1 - probability up to `conformal_quantile`.

    A set can be empty: then no class is as likely as right ones usually are. Adding the most probable class to such
    sets would cover more than was asked for.
    """
    return 1 - scores <= quantile


def coverage_of(sets: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Share of images whose set holds their class, its 95 % interval (Wilson), and the sets' mean size."""
    covered, count, z = float(sets[np.arange(len(labels)), labels].mean()), len(labels), 1.96
    middle = (covered + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(covered * (1 - covered) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return {
        "coverage": covered,
        "coverage_low": float(middle - half),
        "coverage_high": float(middle + half),
        "mean_set_size": float(sets.sum(1).mean()),
    }


def mean_coverage(scores: np.ndarray, labels: np.ndarray, coverage: float, *, seed: int, divisions: int = 50) -> float:
    """Mean coverage of prediction sets over random divisions of images into calibration and test halves."""
    random, coverages = np.random.default_rng(seed), []
    for _ in range(divisions):
        order = random.permutation(len(labels))
        known, asked = np.array_split(order, 2)
        quantile = conformal_quantile(scores[known], labels[known], coverage)
        coverages.append(prediction_sets(scores[asked], quantile)[np.arange(len(asked)), labels[asked]].mean())
    return float(np.mean(coverages))
