"""How far readers agree: percent, Cohen's kappa with quadratic weights, and Krippendorff's alpha for ordered verdicts.

Intervals are 95 % ones: Wilson's of percentages; of kappa and alpha percentiles of a bootstrap over cases. Where
readers disagree on no case, no resample can disagree either, and kappa and alpha have no interval.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

RESAMPLES, SEED = 2000, 0
NOT_JUDGED = -1


class Estimate(TypedDict):
    """A figure and the ends of its 95 % interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


class PairAgreement(TypedDict):
    """Two readers.

    Attributes:
        readers: Their names.
        cases: Cases that both judged.
        table: Cases by the first reader's category (rows) and the second one's (columns).
        alike: Fraction of cases with the same category.
        kappa: Cohen's kappa with quadratic weights.
    """

    readers: list[str]
    cases: int
    table: list[list[int]]
    alike: Estimate
    kappa: Estimate


class Agreement(TypedDict):
    """All readers.

    Attributes:
        readers: Cases in each category, by reader.
        cases: Cases that two readers or more judged.
        gaps: Cases that some of the readers did not judge.
        pairs: Each two readers who judged a case in common.
        alpha: Krippendorff's alpha.
    """

    readers: dict[str, list[int]]
    cases: int
    gaps: int
    pairs: list[PairAgreement]
    alpha: Estimate


def readers_agreement(verdicts: Mapping[str, Sequence[int]], categories: int) -> Agreement:
    """How far readers agree.

    Args:
        verdicts: Category from 0, or `NOT_JUDGED`, of each case, by reader; cases in one order, categories in theirs.
        categories: How many categories there are.
    """
    cases = len(next(iter(verdicts.values()), ()))
    codes = np.array(list(verdicts.values()), np.int64).reshape(len(verdicts), cases).T
    judged = (codes != NOT_JUDGED).sum(1)
    names = list(verdicts)
    pairs = [
        _pair([names[first], names[second]], codes[:, [first, second]], categories)
        for first in range(len(names))
        for second in range(first + 1, len(names))
    ]
    return {
        "readers": {name: [list(given).count(category) for category in range(categories)]
                    for name, given in verdicts.items()},
        "cases": int((judged > 1).sum()),
        "gaps": int(((judged > 0) & (judged < len(names))).sum()),
        "pairs": [pair for pair in pairs if pair["cases"]],
        "alpha": krippendorff_alpha(codes, categories),
    }  # fmt: skip


def proportion(count: int, total: int) -> Estimate:
    """A fraction of cases with Wilson's interval."""
    if not total:
        return {"value": None, "low": None, "high": None}
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(method="wilson")
    return {"value": count / total, "low": float(interval.low), "high": float(interval.high)}


def krippendorff_alpha(codes: np.ndarray, categories: int) -> Estimate:
    """Alpha with the ordinal difference (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", C and D).

    Args:
        codes: `(N, J)`, category from 0 that each reader gave each case, or `NOT_JUDGED`.
        categories: How many categories there are.
    """
    patterns, weights = _resampled(codes[(codes != NOT_JUDGED).sum(1) > 1])
    counts = (patterns[:, :, None] == np.arange(categories)).sum(1)  # (P, K)
    pairs = counts[:, :, None] * counts[:, None] - counts[:, :, None] * np.eye(categories)
    coincidences = np.tensordot(weights, pairs / np.maximum(1, counts.sum(1) - 1)[:, None, None], 1)  # (R, K, K)
    sizes = coincidences.sum(2)
    middles = sizes.cumsum(1) - sizes / 2
    differences = (middles[:, :, None] - middles[:, None]) ** 2
    observed = (coincidences * differences).sum((1, 2))
    expected = (sizes[:, :, None] * sizes[:, None] * differences).sum((1, 2)) / np.maximum(1, sizes.sum(1) - 1)
    return _estimate(observed, expected)


def _pair(names: list[str], codes: np.ndarray, categories: int) -> PairAgreement:
    both = codes[(codes != NOT_JUDGED).all(1)]
    patterns, weights = _resampled(both)
    tables = np.zeros((len(weights), categories, categories))
    for (first, second), weight in zip(patterns, weights.T, strict=True):
        tables[:, first, second] = weight
    numbers = np.arange(categories)
    penalties = (numbers[:, None] - numbers) ** 2
    chance = tables.sum(2)[:, :, None] * tables.sum(1)[:, None] / max(1, len(both))
    return {
        "readers": names,
        "cases": len(both),
        "table": tables[0].astype(int).tolist(),
        "alike": proportion(int(np.trace(tables[0])), len(both)),
        "kappa": _estimate((tables * penalties).sum((1, 2)), (chance * penalties).sum((1, 2))),
    }


def _resampled(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different rows `(P, J)`, and how often each occurs `(1 + R, P)`: as they are, then in resamples of the rows."""
    patterns, counts = np.unique(codes, axis=0, return_counts=True)
    if not len(codes):
        return patterns, np.zeros((1, 0))
    draws = np.random.default_rng(SEED).multinomial(len(codes), counts / len(codes), RESAMPLES)
    return patterns, np.vstack([counts, draws]).astype(float)


def _estimate(observed: np.ndarray, expected: np.ndarray) -> Estimate:
    """1 less observed over expected disagreement, of the cases as they are and of resamples."""
    figures = 1 - np.divide(observed, expected, out=np.full(len(observed), np.nan), where=expected > 0)
    if np.isnan(figures[0]):
        return {"value": None, "low": None, "high": None}
    if observed[0] == 0:
        return {"value": 1.0, "low": None, "high": None}
    low, high = np.nanpercentile(figures[1:], [2.5, 97.5])
    return {"value": float(figures[0]), "low": float(low), "high": float(high)}
