"""Accuracy of a map and error-adjusted areas of its classes, from points of a stratified random sample.

The estimators are those of Olofsson et al., Good practices for estimating area and assessing accuracy of land change,
Remote Sensing of Environment 148 (2014) 42-57, equations 1 to 11, without finite population correction.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

_NORMAL = 1.96  # standard errors on each side of an interval that contains 95 %


@dataclass(frozen=True)
class Estimate:
    """An estimate, and half the width of its 95 % interval; either is None where the points do not tell it."""

    value: float | None
    margin: float | None


@dataclass(frozen=True)
class Assessment:
    """What points say of a map; a list has an estimate for each class.

    Attributes:
        accuracy: fraction of the area that the map shows right.
        users: fraction of each class on the map that is it in truth; None of a class that the map does not have.
        producers: fraction of each class in truth that the map shows as it; None of a class that was never seen.
        areas: error-adjusted area of each class, in the unit of the mapped areas.
    """

    accuracy: Estimate
    users: list[Estimate]
    producers: list[Estimate]
    areas: list[Estimate]


def assess(counts: np.ndarray, mapped: Sequence[float], complete: Collection[int] = ()) -> Assessment:
    """Assess a map from a sample that was stratified by its classes.

    Args:
        counts: Points `(K, K)`: class on the map by class in truth, in one order.
        mapped: Area of each class on the map; 0 of classes that it does not have, whose row is empty.
        complete: Numbers of classes on the map of which every pixel is a point, and so has no variance.

    Raises:
        ValueError: a class on the map has no point.
    """
    strata = [number for number, area in enumerate(mapped) if area > 0]
    points = counts.sum(1).astype(float)
    if any(points[number] == 0 for number in strata):
        raise ValueError("a class on the map has no point")
    total = float(sum(mapped))
    weights = np.array([mapped[number] / total for number in strata])
    fractions = counts[strata] / points[strata, None]  # of a stratum's points that are each class
    with np.errstate(divide="ignore", invalid="ignore"):
        # variance of each fraction, of which a single point tells nothing
        variances = np.where(points[strata, None] > 1, fractions * (1 - fractions) / (points[strata, None] - 1), np.nan)
    variances[[number in complete for number in strata]] = 0
    right = np.array([fractions[place, number] for place, number in enumerate(strata)])
    spread = np.array([variances[place, number] for place, number in enumerate(strata)])
    truth = weights @ fractions
    users = [Estimate(None, None)] * len(mapped)
    for place, number in enumerate(strata):
        users[number] = Estimate(float(right[place]), _margin(float(spread[place])))
    return Assessment(
        accuracy=Estimate(float(weights @ right), _margin(float(weights**2 @ spread))),
        users=users,
        producers=[_producers(number, strata, weights, fractions, variances) for number in range(len(mapped))],
        areas=[
            Estimate(total * float(part), _margin(float(weights**2 @ variances[:, number]), total))
            for number, part in enumerate(truth)
        ],
    )


def _producers(
    number: int, strata: Sequence[int], weights: np.ndarray, fractions: np.ndarray, variances: np.ndarray
) -> Estimate:
    """Producer's accuracy of a class: equations 3 and 7."""
    in_truth = float(weights @ fractions[:, number])
    if in_truth == 0:
        return Estimate(None, None)
    own = np.array([stratum == number for stratum in strata])
    value = float(weights[own] @ fractions[own, number]) / in_truth
    factors = np.where(own, 1 - value, value)
    return Estimate(value, _margin(float((weights * factors / in_truth) ** 2 @ variances[:, number])))


def _margin(variance: float, scale: float = 1.0) -> float | None:
    return None if math.isnan(variance) else _NORMAL * scale * math.sqrt(variance)
