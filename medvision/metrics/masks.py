"""How well a mask of one thing agrees with its reference: the figures that papers on polyps report.

- Dice and IoU of the mask at a probability of one half.
- MAE: mean absolute difference of the probabilities from the reference.
- Weighted F-measure (Margolin et al., 2014, beta 1): errors count less beside the thing's own pixels that are right,
  and more far from it.
- E-measure (Fan et al., 2018, arXiv 1805.10421) of the mask: how far both deviate from their means alike, over pixels.
"""

from typing import TypedDict

import numpy as np
from scipy import ndimage

FIGURES = ("dice", "iou", "mae", "weighted_f", "e_measure")


class MaskRow(TypedDict):
    """Figures of a mask, from 0 to 1; all but `mae` are None where neither it nor the reference has a pixel."""

    dice: float | None
    iou: float | None
    mae: float
    weighted_f: float | None
    e_measure: float | None


def mask_figures(probabilities: np.ndarray, reference: np.ndarray) -> MaskRow:
    """Compare a mask with its reference.

    Args:
        probabilities: Probability of each pixel, `(H, W)` floating, from 0 to 1.
        reference: `(H, W)` bool.

    Raises:
        ValueError: the shapes differ.
    """
    if probabilities.shape != reference.shape:
        raise ValueError(f"probabilities have shape {probabilities.shape}, the reference {reference.shape}")
    mask, values = probabilities >= 0.5, probabilities.astype(np.float64)
    both, total = int(np.count_nonzero(mask & reference)), int(mask.sum() + reference.sum())
    row: MaskRow = {
        "dice": None, "iou": None, "mae": float(abs(values - reference).mean()), "weighted_f": None, "e_measure": None,
    }  # fmt: skip
    if not total:
        return row
    weighted = _weighted_f(values, reference) if reference.any() else 0.0
    figures: MaskRow = {
        **row,
        "dice": 2 * both / total,
        "iou": both / (total - both),
        "weighted_f": weighted,
        "e_measure": _e_measure(mask, reference),
    }
    return figures


def _weighted_f(values: np.ndarray, reference: np.ndarray) -> float:
    error = abs(values - reference)
    # both are asked for, and so both are given
    distance, nearest = ndimage.distance_transform_edt(~reference, return_indices=True)  # pyright: ignore
    # a background pixel has the error of the nearest pixel of the thing, so that smoothing stays within it
    inside = np.where(reference, error, error[nearest[0], nearest[1]])
    offsets = np.arange(-3, 4)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 5**2))
    smoothed = ndimage.convolve(inside, kernel / kernel.sum(), mode="constant")
    least = np.where(reference & (smoothed < error), smoothed, error)
    importance = np.where(reference, 1.0, 2 - np.exp(np.log(0.5) / 5 * distance))
    counted = least * importance
    hits = reference.sum() - counted[reference].sum()
    recall, false = 1 - counted[reference].mean(), counted[~reference].sum()
    precision = hits / (hits + false) if hits + false > 0 else 0.0
    return float(2 * recall * precision / (recall + precision)) if recall + precision > 0 else 0.0


def _e_measure(mask: np.ndarray, reference: np.ndarray) -> float:
    if not reference.any() or reference.all():  # nothing deviates from its mean
        return float((mask == reference).mean())
    a, b = mask - mask.mean(), reference - reference.mean()
    aligned = 2 * a * b / (a**2 + b**2 + np.finfo(float).eps)
    return float(((aligned + 1) ** 2 / 4).mean())
