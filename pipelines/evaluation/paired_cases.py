"""What two models differ in on the same test cases: per-case figures, and paired differences with their tests."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict

import numpy as np

from shared_backbones.documents import read_csv_rows
from shared_backbones.errors import InputError
from shared_backbones.files import printable

CaseFigures: TypeAlias = dict[str, dict[tuple[str, str], float]]
"""Values by figure, and by case and part of it: a structure, or the how manyth of several cases of one name."""
_SIGNS = 9999  # drawn, where there are too many cases to try all
_CHUNK = 256
_NAMES = ("case", "id", "name", "state")  # columns of `cases.csv` that hold no figure


class Difference(TypedDict):
    """A figure of one model less that of another, over the cases that both have.

    Attributes:
        figure: Name of the figure.
        cases: Number of cases.
        mean: Mean difference.
        low: Lower end of its 95 % bootstrap interval; None for a single case.
        high: Upper end.
        p: P-value of the sign-flip test that the mean difference is 0.
    """

    figure: str
    cases: int
    mean: float
    low: float | None
    high: float | None
    p: float


def read_cases(folder: Path) -> CaseFigures:
    """Per-case figures in the folder of an evaluation; empty where it left none.

    Of segmentations, those of `cases.csv`; of classifications, what `predictions.csv` makes of each image: whether it
    is right (`accuracy`), and the negative log-likelihood of its class (`nll`).

    Raises:
        InputError: they cannot be read.
    """
    for name, rows_of in (("cases.csv", _segmented), ("predictions.csv", _classified)):
        path = folder / name
        if path.is_file():
            try:
                return _of_rows(rows_of(path))
            except (KeyError, ValueError, ZeroDivisionError):
                raise InputError(f"{printable(path)}: is no table of an evaluation; run it again") from None
    return {}


def paired_differences(
    own: Sequence[CaseFigures], other: Sequence[CaseFigures], *, resamples: int, seed: int
) -> list[Difference]:
    """How runs differ from others, figure by figure.

    Differences are taken for each pair of runs, case and structure that have the figure, and averaged for each case.
    The interval is the percentile bootstrap's over cases. The test flips the signs of the cases' differences, all of
    them where there are few cases (Fisher's randomisation test).

    Args:
        own: Per-case figures of runs.
        other: Those of the runs that they are compared with, in the same order.
        resamples: Number of bootstrap resamples.
        seed: Seed of bootstrap and test.
    """
    names = [name for name in (own[0] if own else {}) if all(name in run for run in (*own, *other))]
    differences: list[Difference] = []
    for name in names:
        by_case: dict[str, list[float]] = {}
        for ours, theirs in zip(own, other, strict=True):
            for key, value in ours[name].items():
                if key in theirs[name]:
                    by_case.setdefault(key[0], []).append(value - theirs[name][key])
        if by_case:
            values = np.array([np.mean(by_case[case]) for case in sorted(by_case)])
            low, high = _interval(values, resamples, seed)
            differences.append(
                {"figure": name, "cases": len(values), "mean": float(values.mean()), "low": low, "high": high,
                 "p": sign_flip_test(values, seed)}
            )  # fmt: skip
    return differences


def sign_flip_test(values: np.ndarray, seed: int) -> float:
    """Two-sided p-value of the hypothesis that differences `(N,)` are symmetric about 0, by flipping their signs."""
    count = len(values)
    actual = abs(values.sum()) * (1 - 1e-12)  # sums in another order are rounded otherwise
    if 2**count <= _SIGNS:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float((abs(signs @ values) >= actual).mean())
    random, extreme = np.random.default_rng(seed), 0
    for start in range(0, _SIGNS, _CHUNK):
        signs = 1 - 2 * random.integers(0, 2, (min(_CHUNK, _SIGNS - start), count))
        extreme += int((abs(signs @ values) >= actual).sum())
    return (extreme + 1) / (_SIGNS + 1)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's method, in the given order."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        largest = max(largest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = largest
    return corrected


def _interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    random = np.random.default_rng(seed)
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _of_rows(rows: Iterator[tuple[str, str, Mapping[str, float]]]) -> CaseFigures:
    figures: CaseFigures = {}
    for case, part, values in rows:
        for name, value in values.items():
            figures.setdefault(name, {})[case, part] = value
    return figures


def _segmented(path: Path) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    for row in read_csv_rows(path):
        yield row["case"], row["name"], {name: float(row[name]) for name in row if name not in _NAMES and row[name]}


def _classified(path: Path) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    times: Counter[str] = Counter()
    for row in read_csv_rows(path):
        scores = {name.removeprefix("p_"): float(row[name]) for name in row if name.startswith("p_")}
        times[row["case"]] += 1
        yield row["case"], str(times[row["case"]]), _image_figures(scores, row["label"])


def _image_figures(scores: Mapping[str, float], label: str) -> dict[str, float]:
    """Whether an image's class is the most probable, and the negative logarithm of its probability."""
    if label in scores:
        right = max(scores, key=lambda name: scores[name]) == label
        return {"accuracy": float(right), "nll": -math.log(max(scores[label], 1e-5))}
    present = set(label.split("|"))  # of several classes, or none: the mean over them
    right = [(score > 0.5) == (name in present) for name, score in scores.items()]
    return {"accuracy": sum(right) / len(right)}
