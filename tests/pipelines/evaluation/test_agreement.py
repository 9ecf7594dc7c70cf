"""Agreement of readers: against scikit-learn, a published worked example, and the asymptotic error of kappa."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from pipelines.evaluation.agreement import (
    NOT_JUDGED,
    Estimate,
    krippendorff_alpha,
    proportion,
    readers_agreement,
)

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units, gaps.
WORKED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
codes_of_two = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


def worked() -> np.ndarray:
    rows = [line.split() for line in WORKED.strip().splitlines()]
    return np.array([[NOT_JUDGED if text == "." else int(text) - 1 for text in row] for row in rows]).T


def known(estimate: Estimate) -> tuple[float, float, float]:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    assert value is not None and low is not None and high is not None
    return value, low, high


def test_alpha_is_that_of_the_published_worked_example():
    value, low, high = known(krippendorff_alpha(worked(), 5))
    assert value == pytest.approx(0.815, abs=5e-4)  # section D, "ordinal"
    assert low < value < high


@given(codes_of_two)
@settings(max_examples=60, deadline=None)
def test_kappa_is_that_of_scikit_learn(codes: list[tuple[int, int]]):
    first, second = ([pair[number] for pair in codes] for number in (0, 1))
    agreement = readers_agreement({"A": first, "B": second}, 3)
    (pair,) = agreement["pairs"]
    value = pair["kappa"]["value"]
    if len({*first, *second}) == 1:
        assert value is None, "with one category there is nothing to agree on beyond chance"
        return
    assert value == pytest.approx(cohen_kappa_score(first, second, labels=[0, 1, 2], weights="quadratic"))
    assert pair["alike"]["value"] == pytest.approx(np.mean(np.equal(first, second)))
    assert np.sum(pair["table"]) == len(codes)
    if first == second:
        assert pair["kappa"] == {"value": 1.0, "low": None, "high": None}


def test_the_interval_of_kappa_is_as_wide_as_large_samples_make_it():
    """Fleiss, Cohen and Everitt (1969), as Fleiss, Levin and Paik (3rd edition, formula 18.36) have it."""
    table = np.array([[300, 40, 10], [50, 200, 40], [10, 30, 120]])
    first, second = (np.repeat(part.ravel(), table.ravel()) for part in np.indices(table.shape))
    (pair,) = readers_agreement({"A": first.tolist(), "B": second.tolist()}, 3)["pairs"]
    weights = 1 - (np.subtract.outer(range(3), range(3)) / 2) ** 2
    part = table / table.sum()
    rows, columns = part.sum(1), part.sum(0)
    chance = (weights * np.outer(rows, columns)).sum()
    value, low, high = known(pair["kappa"])
    means = (weights @ columns)[:, None] + weights.T @ rows
    spread = (part * (weights - means * (1 - value)) ** 2).sum() - (value - chance * (1 - value)) ** 2
    error = np.sqrt(spread / table.sum()) / (1 - chance)
    assert low == pytest.approx(value - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(value + 1.96 * error, abs=0.2 * error)


def test_gaps_are_left_out_of_pairs_and_counted():
    readers = {"A": [0, 0, 1, 2], "B": [0, 1, NOT_JUDGED, 2], "C": [NOT_JUDGED, NOT_JUDGED, NOT_JUDGED, 0]}
    agreement = readers_agreement(readers, 3)
    assert agreement["readers"] == {"A": [2, 1, 1], "B": [1, 1, 1], "C": [1, 0, 0]}
    assert (agreement["cases"], agreement["gaps"]) == (3, 3)
    assert [(pair["readers"], pair["cases"]) for pair in agreement["pairs"]] == [
        (["A", "B"], 3), (["A", "C"], 1), (["B", "C"], 1)
    ]  # fmt: skip
    assert agreement["pairs"][0]["table"] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert agreement["pairs"][1]["alike"]["value"] == 0


def test_readers_with_nothing_in_common_have_no_figure():
    agreement = readers_agreement({"A": [0, NOT_JUDGED], "B": [NOT_JUDGED, 1]}, 3)
    assert (agreement["pairs"], agreement["cases"]) == ([], 0)
    assert agreement["alpha"] == {"value": None, "low": None, "high": None}
    assert readers_agreement({}, 3)["alpha"]["value"] is None


def test_the_interval_of_a_fraction_is_wilsons():
    """Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, and 0 of 20."""
    assert known(proportion(81, 263)) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    assert known(proportion(0, 20)) == pytest.approx((0, 0, 0.1611), abs=5e-5)
    assert proportion(0, 0)["value"] is None
