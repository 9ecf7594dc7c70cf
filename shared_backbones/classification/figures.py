"""What class probabilities are worth: figures and reliability."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15


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
    return _of_labels(scores, targets) if multi_label else _of_classes(scores, targets)


def _of_labels(scores: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """Figures of images with any number of labels."""
    metrics = importlib.import_module("sklearn.metrics")
    predicted, occurs = scores > 0.5, targets.any(0)
    own = np.where(targets > 0, scores, 1 - scores)
    areas = [
        metrics.roc_auc_score(targets[:, number], scores[:, number])
        for number in np.flatnonzero(occurs)
        if not targets[:, number].all()
    ]
    figures: dict[str, float | None] = dict.fromkeys(("map_micro", "map_macro", "f1_micro", "f1_macro"))
    if occurs.any():
        present, answers = targets[:, occurs], scores[:, occurs]
        for average in ("micro", "macro"):
            figures[f"map_{average}"] = float(metrics.average_precision_score(present, answers, average=average))
        figures["f1_macro"] = float(metrics.f1_score(present, answers > 0.5, average="macro", zero_division=0))
    return figures | {
        "f1_micro": float(metrics.f1_score(targets, predicted, average="micro", zero_division=0)),
        "accuracy": float((predicted == (targets > 0)).mean()),
        "balanced_accuracy": balanced_accuracy(scores, targets, multi_label=True),
        "auc": float(np.mean(areas)) if areas else None,
        "nll": float(-np.log(np.clip(own, 1e-12, 1)).mean()),
        "brier": float(np.square(scores - targets).mean()),
        "ece": calibration_error(np.maximum(scores, 1 - scores).ravel(), (predicted == (targets > 0)).ravel()),
    }


def _of_classes(scores: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """Figures of images with one class each."""
    metrics = importlib.import_module("sklearn.metrics")
    labels, best = targets.argmax(1), scores.argmax(1)
    own = np.take_along_axis(scores, labels[:, None], 1)[:, 0]
    ranks = (scores > own[:, None]).sum(1)
    present = np.flatnonzero(targets.any(0))
    areas = [metrics.roc_auc_score(labels == number, scores[:, number]) for number in present if len(present) > 1]
    return {
        "accuracy": float((best == labels).mean()),
        "top5": float((ranks < 5).mean()) if scores.shape[1] > 5 else None,
        "balanced_accuracy": balanced_accuracy(scores, targets, multi_label=False),
        "macro_f1": float(metrics.f1_score(labels, best, labels=present, average="macro", zero_division=0)),
        "auc": float(np.mean(areas)) if areas else None,
        "nll": float(-np.log(np.clip(own, 1e-12, 1)).mean()),
        "brier": float(np.square(scores - targets).sum(1).mean()),
        "ece": calibration_error(scores.max(1), best == labels),
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
    predicted = scores > 0.5 if multi_label else np.eye(len(names), dtype=bool)[scores.argmax(1)]
    rows = []
    for number, name in enumerate(names):
        there, said = targets[:, number] > 0, predicted[:, number]
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
