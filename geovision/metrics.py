"""Figures of maps and of reconstructions."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np


class ClassFigures(TypedDict):
    """Figures of one class of a map, each None where it is undefined."""

    name: str
    pixels: int
    iou: float | None
    f1: float | None
    precision: float | None
    recall: float | None


class MapFigures(TypedDict):
    """Figures of maps, each None where it is undefined; `map_figures` explains them."""

    pixels: int
    accuracy: float | None
    majority: float | None
    mean_iou: float | None
    macro_f1: float | None
    classes: list[ClassFigures]


def confusion(prediction: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Pixels by label (rows) and predicted class (columns), `(count, count)`, without labels outside the classes."""
    known = (labels < count) & (prediction < count)
    pairs = labels[known].astype(np.int64) * count + prediction[known]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def map_figures(matrix: np.ndarray, names: Sequence[str]) -> MapFigures:
    """Figures of a confusion matrix.

    Args:
        matrix: confusion matrix, as from `confusion`.
        names: names of the classes.

    Returns:
        `pixels`; `accuracy`, the share of pixels that are right; `majority`, what the most frequent label alone would
        reach; `mean_iou` and `macro_f1`, means over the classes that occur; and of each class `pixels`, `iou`, `f1`,
        `precision` and `recall`, None where undefined.
    """
    hits, there, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    classes: list[ClassFigures] = [
        {
            "name": name,
            "pixels": int(there[i]),
            "iou": _fraction(hits[i], there[i] + predicted[i] - hits[i]) if there[i] else None,
            "f1": _fraction(2 * hits[i], there[i] + predicted[i]) if there[i] else None,
            "precision": _fraction(hits[i], predicted[i]),
            "recall": _fraction(hits[i], there[i]),
        }
        for i, name in enumerate(names)
    ]
    total = matrix.sum()
    return {
        "pixels": int(total),
        "accuracy": _fraction(hits.sum(), total),
        "majority": _fraction(there.max(initial=0), total),
        "mean_iou": _mean([row["iou"] for row in classes]),
        "macro_f1": _mean([row["f1"] for row in classes]),
        "classes": classes,
    }


def psnr(reconstruction: np.ndarray, images: np.ndarray, removed: np.ndarray, span: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB over removed pixels.

    Args:
        reconstruction: reconstructed images, `(..., H, W)`.
        images: original images, of the same shape.
        removed: bool, broadcast to their shape.
        span: range of the values: 1 for images from 0 to 1.
    """
    errors = np.square(reconstruction - images)[np.broadcast_to(removed, images.shape)]
    return float(10 * np.log10(span**2 / max(float(errors.mean()), 1e-12))) if errors.size else float("nan")


def mean_fill(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """A band `(H, W)` whose removed pixels have the mean of the others."""
    return np.where(removed, image[~removed].mean() if not removed.all() else 0.0, image)


def linear_fill(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """A band `(H, W)` whose removed pixels are interpolated from the others: linearly, and by the nearest outside."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    if removed.all():
        return np.zeros_like(image)
    # Pixels at the rim of what is visible decide; those inside only cost time.
    known, wanted = np.argwhere(~removed), np.argwhere(removed)
    if not len(wanted):
        return image.copy()
    values = image[~removed]
    filled = image.copy()
    interpolated = NearestNDInterpolator(known, values)(wanted)
    if len(known) > 3:
        inside = LinearNDInterpolator(known, values)(wanted)
        interpolated = np.where(np.isnan(inside), interpolated, inside)
    filled[removed] = interpolated
    return filled


def nearest_neighbours(features: np.ndarray, targets: np.ndarray, queries: np.ndarray, k: int = 20) -> np.ndarray:
    """Share of each class among the k nearest training images by cosine similarity, `(Q, K)`.

    Args:
        features: features of the training images, `(N, D)`.
        targets: their classes, `(N, K)`.
        queries: features `(Q, D)`.
        k: neighbours; all where there are fewer images.
    """
    known = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    k = min(k, len(known))
    scores = np.empty((len(queries), targets.shape[1]), np.float32)
    for start in range(0, len(queries), 1024):
        asked = queries[start : start + 1024]
        asked = asked / np.maximum(np.linalg.norm(asked, axis=1, keepdims=True), 1e-12)
        nearest = np.argpartition(-(asked @ known.T), k - 1, 1)[:, :k]
        scores[start : start + 1024] = targets[nearest].mean(1)
    return scores


def summarise_psnr(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of figures over images."""
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _fraction(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
