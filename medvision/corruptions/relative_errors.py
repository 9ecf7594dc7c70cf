"""Errors under corruption in units of a baseline's, as MedMNIST-C compares models (Di Salvo et al. 2024, section 3)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from medvision.corruptions.medmnist_c import SETS
from shared_backbones.errors import InputError

_ALEXNET = {
    "pathmnist": (0.088393, (0.209342, 0.247093, 0.462126, 0.368908, 0.415516, 0.281169, 0.233893, 0.137187, 0.334114,
        0.249308, 0.108183)),
    "chestmnist": (0.283906, (0.448951, 0.345757, 0.476883, 0.456879, 0.485536, 0.492697, 0.31768, 0.299372, 0.297115,
        0.28751, 0.295474, 0.287462, 0.289164)),
    "dermamnist": (0.398578, (0.510512, 0.477163, 0.770161, 0.768878, 0.799555, 0.839155, 0.700832, 0.626641,
        0.527767, 0.447399, 0.577297, 0.430415, 0.539821, 0.759146, 0.446192)),
    "octmnist": (0.202, (0.3124, 0.2964, 0.386, 0.3084, 0.4892, 0.4196)),
    "pneumoniamnist": (0.100855, (0.221026, 0.279829, 0.441453, 0.345726, 0.45812, 0.410684, 0.273077, 0.146496,
        0.278205, 0.095299, 0.237436, 0.096068, 0.16641)),
    "retinamnist": (0.558206, (0.6017, 0.679522, 0.704083, 0.613526, 0.688291, 0.707576, 0.584479, 0.609288)),
    "breastmnist": (0.145363, (0.461278, 0.298622, 0.387093, 0.259023, 0.319799, 0.211278, 0.158647)),
    "bloodmnist": (0.018369, (0.059756, 0.139762, 0.223998, 0.184519, 0.069463, 0.079008, 0.052154, 0.079661,
        0.034786, 0.185361, 0.128988)),
    "tissuemnist": (0.391779, (0.492729, 0.50807, 0.797087, 0.480514, 0.461827, 0.519819, 0.502623, 0.536934)),
    "organamnist": (0.050054, (0.075897, 0.102332, 0.558868, 0.500898, 0.600512, 0.570455, 0.233407, 0.147635,
        0.264645, 0.109779, 0.126842, 0.1036, 0.105771)),
    "organcmnist": (0.075968, (0.121613, 0.107545, 0.573654, 0.513096, 0.599778, 0.549248, 0.316896, 0.160118,
        0.232427, 0.099918, 0.153274, 0.142642, 0.123909)),
    "organsmnist": (0.243005, (0.312594, 0.26997, 0.588912, 0.54501, 0.601011, 0.551913, 0.446665, 0.35985, 0.359287,
        0.28717, 0.312824, 0.302532, 0.311602)),
}  # fmt: skip
ALEXNET: Mapping[str, tuple[float, Mapping[str, float]]] = {
    name: (clean, dict(zip(SETS[name], errors, strict=True))) for name, (clean, errors) in _ALEXNET.items()
}
"""The protocol's baseline by data set: AlexNet's clean error, and its mean error over the severities by corruption.

From medmnistc 0.1.0, at 224 px: errors of images of another size are not comparable with them.
"""
_SMALLEST_DENOMINATOR = 0.01  # of rBE, below which it is flagged


class RelativeRow(TypedDict):
    """Errors under one corruption in units of a baseline's; None where one would be divided by 0.

    Attributes:
        errors: errors at severities 1 to 5.
        mean_error: their mean.
        baseline_error: mean error of the baseline.
        be: mean error over that of the baseline.
        rbe: growth of the error over that of the baseline.
        rbe_denominator: growth of the baseline's error.
        flagged: whether that denominator is less than 0.01.
    """

    errors: list[float]
    mean_error: float
    baseline_error: float
    be: float | None
    rbe: float | None
    rbe_denominator: float
    flagged: bool


class RelativeErrors(TypedDict):
    """Errors under corruption in units of a baseline's; means over None or over nothing are None.

    Attributes:
        be: plain mean of `be` over the corruptions, as published.
        rbe: plain mean of `rbe` over the corruptions, as published.
        rbe_unflagged: mean of `rbe` over the corruptions that are not flagged.
        flagged: names of the corruptions that are.
        clean_error: error without corruption.
        baseline_clean_error: error of the baseline without corruption.
        corruptions: the figures of each corruption, by name.
    """

    be: float | None
    rbe: float | None
    rbe_unflagged: float | None
    flagged: list[str]
    clean_error: float
    baseline_clean_error: float
    corruptions: dict[str, RelativeRow]


def relative_errors(
    errors: Mapping[str, Sequence[float]], clean_error: float, baseline: tuple[float, Mapping[str, float]]
) -> RelativeErrors:
    """Errors under corruption in units of a baseline's: BE and rBE of MedMNIST-C, section 3.

    With e_c the mean error over the severities of corruption c, e_0 the clean error, and A for the baseline:
    BE_c = e_c / e_c^A, and rBE_c = (e_c - e_0) / (e_c^A - e_0^A). Where the baseline hardly suffers, or gets better,
    the denominator of rBE_c is next to 0 or negative, and rBE_c says nothing: it is flagged.

    Args:
        errors: errors at severities 1 to 5, by corruption.
        clean_error: error without corruption.
        baseline: clean error of the baseline, and its mean error by corruption, such as `ALEXNET["octmnist"]`.

    Raises:
        InputError: no corruption, one that the baseline lacks, not five severities, or an error outside 0 to 1.
    """
    baseline_clean, baseline_errors = baseline
    if not errors:
        raise InputError("there are no errors, expected those of one corruption or more")
    rows: dict[str, RelativeRow] = {}
    for name, at_severities in errors.items():
        if name not in baseline_errors:
            raise InputError(f"the baseline has no {name!r}; expected some of: {', '.join(baseline_errors)}")
        rows[name] = _row(name, at_severities, clean_error, float(baseline_errors[name]), baseline_clean)
    return {
        "be": _mean(row["be"] for row in rows.values()),
        "rbe": _mean(row["rbe"] for row in rows.values()),
        "rbe_unflagged": _mean(row["rbe"] for row in rows.values() if not row["flagged"]),
        "flagged": [name for name, row in rows.items() if row["flagged"]],
        "clean_error": float(clean_error),
        "baseline_clean_error": float(baseline_clean),
        "corruptions": rows,
    }


def _row(
    name: str, errors: Sequence[float], clean_error: float, baseline_error: float, baseline_clean: float
) -> RelativeRow:
    values = np.array([*errors, clean_error], float)
    if len(values) != 6 or not ((values >= 0) & (values <= 1)).all():
        given = ", ".join(f"{value:g}" for value in values)
        raise InputError(f"errors of {name} and the clean one are {given}; expected 5 and 1, from 0 to 1")
    mean, denominator = float(values[:5].mean()), baseline_error - baseline_clean
    return {
        "errors": values[:5].tolist(),
        "mean_error": mean,
        "baseline_error": baseline_error,
        "be": mean / baseline_error if baseline_error else None,
        "rbe": (mean - clean_error) / denominator if denominator else None,
        "rbe_denominator": denominator,
        "flagged": denominator < _SMALLEST_DENOMINATOR,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    figures = list(values)
    defined = [value for value in figures if value is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(figures) else None
