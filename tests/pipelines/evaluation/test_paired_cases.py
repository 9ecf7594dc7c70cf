"""Paired differences over test cases, against SciPy and against answers that are known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.evaluation.paired_cases import holm, paired_differences, read_cases, sign_flip_test


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=9))
def test_few_cases_are_tested_exactly(values: list[float]):
    data = np.array(values)
    expected = stats.permutation_test(
        (data,), lambda x, axis: abs(x.mean(axis=axis)), permutation_type="samples", alternative="greater"
    )
    assert sign_flip_test(data, 0) == pytest.approx(expected.pvalue)


def test_many_cases_are_tested_as_scipy_does():
    data = np.random.default_rng(0).normal(0.2, 1, 60)
    p = sign_flip_test(data, 0)
    expected = stats.permutation_test((data,), lambda x, axis: x.mean(axis=axis), permutation_type="samples")
    assert p == pytest.approx(expected.pvalue, abs=0.02)
    assert sign_flip_test(np.ones(60), 0) == pytest.approx(1e-4)
    assert sign_flip_test(np.zeros(60), 0) == 1


def test_holm_multiplies_by_the_number_of_tests_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1, 1]


def segmented(folder: Path, dice: dict[tuple[str, str], str]) -> Path:
    folder.mkdir()
    lines = [f"{case},1,{name},scored,{value},,\n" for (case, name), value in dice.items()]
    (folder / "cases.csv").write_text("case,id,name,state,dice,hd95_mm,nsd\n" + "".join(lines))
    return folder


def test_differences_are_over_cases_that_both_have(tmp_path: Path):
    own = segmented(tmp_path / "own", {("a", "x"): "0.9", ("a", "y"): "0.5", ("b", "x"): "0.8", ("c", "x"): "0.1"})
    other = segmented(tmp_path / "other", {("a", "x"): "0.7", ("a", "y"): "", ("b", "x"): "0.7", ("d", "x"): "0.3"})
    (difference,) = paired_differences([read_cases(own)], [read_cases(other)], resamples=100, seed=0)
    assert (difference["figure"], difference["cases"]) == ("dice", 2)
    assert difference["mean"] == pytest.approx(0.15) and difference["p"] == 0.5
    assert difference["low"] == pytest.approx(0.1) and difference["high"] == pytest.approx(0.2)


def test_classified_images_are_right_or_wrong(tmp_path: Path):
    (tmp_path / "predictions.csv").write_text(
        "case,label,p_a,p_b\ncase-1,a,0.75000,0.25000\ncase-1,b,0.60000,0.40000\ncase-2,b,0.00000,1.00000\n"
    )
    figures = read_cases(tmp_path)
    assert figures["accuracy"] == {("case-1", "1"): 1.0, ("case-1", "2"): 0.0, ("case-2", "1"): 1.0}
    assert figures["nll"]["case-1", "2"] == pytest.approx(-np.log(0.4))
    (tmp_path / "predictions.csv").write_text("case,label,p_a,p_b\ncase-1,a|b,0.75000,0.25000\ncase-2,,0.1,0.2\n")
    assert read_cases(tmp_path) == {"accuracy": {("case-1", "1"): 0.5, ("case-2", "1"): 1.0}}
    assert read_cases(tmp_path / "none") == {}
