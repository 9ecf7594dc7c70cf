"""What class probabilities are worth: figures, reliability, calibration and prediction sets."""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15
_TEMPERATURES = (0.05, 20.0)


def class_figures(scores: np.ndarray, targets: np.ndarray, *, multi_label: bool) -> dict[str, float | None]:
    """Figures of a classification.

    Args:
        scores: probabilities `(N, K)`.
        targets: `(N, K)`, 1 for the classes that an image has.
        multi_label: whether it can have several.

    Returns:
        With one label: `accuracy`, `top5` (None below six classes), `balanced_accuracy` and `macro_f1` over the classes
        that occur, `auc` (one class against the rest, mean over those that occur beside others; None where there are
        none), `nll`, `brier` (sum over classes, mean over images) and `ece`, the calibration error over 15 equal-width
        bins. With several: `map_micro`, `map_macro` (mean average precision), `f1_micro` and `f1_macro` above 0.5, None
        where no image has any class; and, each answer about a label taken as one of two classes, `accuracy`,
        `balanced_accuracy`, `auc`, `nll`, `brier` and `ece`, as MedMNIST (Yang et al. 2023) and MedMNIST-C (Di Salvo et
        al. 2024) average over labels.
    """
    metrics: Any = importlib.import_module("sklearn.metrics")
    occurs = targets.any(0)
    if multi_label:
        found = scores > 0.5
        there, said = targets[:, occurs], scores[:, occurs]
        micro, macro, f1 = (
            (
                float(metrics.average_precision_score(there, said, average="micro")),
                float(metrics.average_precision_score(there, said, average="macro")),
                float(metrics.f1_score(there, said > 0.5, average="macro", zero_division=0)),
            )
            if occurs.any()
            else (None, None, None)
        )
        divided = [number for number in np.flatnonzero(occurs) if not targets[:, number].all()]
        areas = [metrics.roc_auc_score(targets[:, number], scores[:, number]) for number in divided]
        own = np.where(targets > 0, scores, 1 - scores)
        return {
            "map_micro": micro,
            "map_macro": macro,
            "f1_micro": float(metrics.f1_score(targets, found, average="micro", zero_division=0)),
            "f1_macro": f1,
            "accuracy": float((found == (targets > 0)).mean()),
            "balanced_accuracy": balanced_accuracy(scores, targets, multi_label=True),
            "auc": float(np.mean(areas)) if areas else None,
            "nll": float(-np.log(np.clip(own, 1e-12, 1)).mean()),
            "brier": float(np.square(scores - targets).mean()),
            "ece": calibration_error(np.maximum(scores, 1 - scores).ravel(), (found == (targets > 0)).ravel()),
        }
    labels, best = targets.argmax(1), scores.argmax(1)
    hits = best == labels
    ranks = (scores > np.take_along_axis(scores, labels[:, None], 1)).sum(1)
    present = np.flatnonzero(occurs)
    own = np.take_along_axis(scores, labels[:, None], 1)[:, 0]
    areas = [metrics.roc_auc_score(labels == number, scores[:, number]) for number in present if len(present) > 1]
    return {
        "accuracy": float(hits.mean()),
        "top5": float((ranks < 5).mean()) if scores.shape[1] > 5 else None,
        "balanced_accuracy": balanced_accuracy(scores, targets, multi_label=False),
        "macro_f1": float(metrics.f1_score(labels, best, labels=present, average="macro", zero_division=0)),
        "auc": float(np.mean(areas)) if areas else None,
        "nll": float(-np.log(np.clip(own, 1e-12, 1)).mean()),
        "brier": float(np.square(scores - targets).sum(1).mean()),
        "ece": calibration_error(scores.max(1), hits),
    }


def balanced_accuracy(scores: np.ndarray, targets: np.ndarray, *, multi_label: bool) -> float:
    """Mean recall of the classes that occur; with several labels the mean over labels of that of its two answers.

    Args:
        scores: probabilities `(N, K)`.
        targets: `(N, K)`, 1 for the classes that an image has.
        multi_label: whether it can have several.
    """
    if multi_label:
        pairs = [
            (np.stack([score <= 0.5, score > 0.5], 1), np.stack([1 - target, target], 1))
            for score, target in zip(scores.T, targets.T, strict=True)
        ]
        return float(np.mean([balanced_accuracy(*pair, multi_label=False) for pair in pairs]))
    labels = targets.argmax(1)
    hits = scores.argmax(1) == labels
    return float(np.mean([hits[labels == number].mean() for number in np.unique(labels)]))


def class_rows(
    scores: np.ndarray, targets: np.ndarray, names: Sequence[str], *, multi_label: bool
) -> list[dict[str, Any]]:
    """For each class its `name`, number of `images`, `recall`, `precision` and `f1`, None where undefined.

    With one label the class of the highest score counts as found; with several those of more than 0.5.
    """
    found = scores > 0.5 if multi_label else np.eye(len(names), dtype=bool)[scores.argmax(1)]
    rows = []
    for number, name in enumerate(names):
        there, said = targets[:, number] > 0, found[:, number]
        hits, images, answers = int((there & said).sum()), int(there.sum()), int(said.sum())
        rows.append(
            {
                "name": name,
                "images": images,
                "recall": hits / images if images else None,
                "precision": hits / answers if answers else None,
                "f1": 2 * hits / (images + answers) if images + answers else None,
            }
        )
    return rows


def calibration_error(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: |share right - mean confidence| over bins of equal width, weighted by images."""
    rows = [row for row in reliability(confidence, hits, bins) if row["images"]]
    return float(sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / max(1, len(hits)))


def reliability(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """For bins of equal width: `low`, `high`, `images`, mean `confidence` and share right (`accuracy`), or None.

    Args:
        confidence: highest probability of each image, `(N,)`.
        hits: whether its class was right, `(N,)`.
        bins: how many.
    """
    place = bin_numbers(confidence, bins)
    rows = []
    for number in range(bins):
        members = place == number
        rows.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "images": int(members.sum()),
                "confidence": float(confidence[members].mean()) if members.any() else None,
                "accuracy": float(hits[members].mean()) if members.any() else None,
            }
        )
    return rows


def bin_numbers(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Number of the bin that each confidence is in, of its shape; 1 is in the last one."""
    return np.minimum((confidence * bins).astype(int), bins - 1)


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
    found: Any = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return math.exp(min((0.0, low, high, float(found.x)), key=loss))


def heated(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logarithms are multiplied by a temperature: undoes a calibration with it."""
    logits = np.log(np.clip(scores, 1e-12, 1)) * temperature
    logits -= logits.max(1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def conformal_quantile(scores: np.ndarray, labels: np.ndarray, coverage: float) -> float:
    """Threshold of prediction sets that hold the class of a new image with at least a probability.

    Split conformal prediction with the score 1 - probability of the class (Sadinle et al. 2019): of the scores that are
    exact rather than cautious, the one with the smallest sets. It wants images that the network did not learn from.

    Args:
        scores: probabilities `(N, K)`.
        labels: classes `(N,)`.
        coverage: wanted, more than 0 and less than 1.

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
    share, count, z = float(sets[np.arange(len(labels)), labels].mean()), len(labels), 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return {
        "coverage": share,
        "coverage_low": float(middle - half),
        "coverage_high": float(middle + half),
        "mean_set_size": float(sets.sum(1).mean()),
    }


def mean_coverage(scores: np.ndarray, labels: np.ndarray, coverage: float, *, seed: int, divisions: int = 50) -> float:
    """Mean coverage of prediction sets over random divisions of held images into calibration and test halves."""
    random, found = np.random.default_rng(seed), []
    for _ in range(divisions):
        order = random.permutation(len(labels))
        known, asked = np.array_split(order, 2)
        quantile = conformal_quantile(scores[known], labels[known], coverage)
        found.append(prediction_sets(scores[asked], quantile)[np.arange(len(asked)), labels[asked]].mean())
    return float(np.mean(found))
