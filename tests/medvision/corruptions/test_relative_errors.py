"""Errors in units of a baseline's: by hand, of a perfect and of a constant classifier, and what is no table of them."""

import json

import numpy as np
import pytest

from medvision.corruptions.medmnist_c import SETS
from medvision.corruptions.relative_errors import ALEXNET, relative_errors
from shared_backbones.errors import InputError


def test_relative_errors_by_hand():
    baseline = 0.2, {"pixelate": 0.4, "contrast_up": 0.19, "gamma_corr_up": 0.205, "saturate": 0.3}
    errors = {"pixelate": [0.1, 0.2, 0.3, 0.4, 0.5], "contrast_up": [0.1] * 5, "gamma_corr_up": [0.11] * 5}
    found = relative_errors(errors, 0.1, baseline)
    rows = found["corruptions"]
    assert rows["pixelate"]["mean_error"] == pytest.approx(0.3) and rows["pixelate"]["errors"] == errors["pixelate"]
    assert [row["be"] for row in rows.values()] == pytest.approx([0.75, 0.1 / 0.19, 0.11 / 0.205])
    assert [row["rbe"] for row in rows.values()] == pytest.approx([1.0, 0.0, 2.0])
    assert [row["rbe_denominator"] for row in rows.values()] == pytest.approx([0.2, -0.01, 0.005])
    assert found["flagged"] == ["contrast_up", "gamma_corr_up"] and not rows["pixelate"]["flagged"]
    assert found["be"] == pytest.approx((0.75 + 0.1 / 0.19 + 0.11 / 0.205) / 3)
    assert found["rbe"] == pytest.approx(1.0) and found["rbe_unflagged"] == pytest.approx(1.0)
    assert found["clean_error"] == 0.1 and found["baseline_clean_error"] == 0.2
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("data_set", SETS)
def test_relative_errors_of_the_baseline_a_perfect_and_a_constant_classifier(data_set: str):
    clean, errors = ALEXNET[data_set]
    same = relative_errors({name: [error] * 5 for name, error in errors.items()}, clean, ALEXNET[data_set])
    assert [same[key] for key in ("be", "rbe", "rbe_unflagged")] == pytest.approx([1, 1, 1])
    perfect = relative_errors(dict.fromkeys(errors, [0.0] * 5), 0, ALEXNET[data_set])
    assert [perfect[key] for key in ("be", "rbe", "rbe_unflagged")] == [0, 0, 0]
    constant = relative_errors(dict.fromkeys(errors, [0.75] * 5), 0.75, ALEXNET[data_set])
    assert constant["be"] is not None and constant["be"] > 0.9
    assert constant["rbe"] == constant["rbe_unflagged"] == 0
    flagged = {
        "chestmnist": ["contrast_up", "gamma_corr_up", "gamma_corr_down"],
        "pneumoniamnist": ["contrast_up", "gamma_corr_up"],
    }
    assert same["flagged"] == flagged.get(data_set, [])


def test_relative_errors_are_none_where_nothing_defines_them():
    found = relative_errors({"pixelate": [0.5] * 5}, 0.1, (0.0, {"pixelate": 0.0}))
    assert found["be"] is found["rbe"] is found["rbe_unflagged"] is None and found["flagged"] == ["pixelate"]


def test_relative_errors_refuse_what_is_not_a_table_of_errors():
    with pytest.raises(InputError, match="no errors"):
        relative_errors({}, 0.1, ALEXNET["octmnist"])
    with pytest.raises(InputError, match="baseline has no 'saturate'; expected some of: pixelate, jpeg_comp"):
        relative_errors({"saturate": [0.1] * 5}, 0.1, ALEXNET["octmnist"])
    for errors, clean in (
        ([0.1] * 4, 0.1),
        ([0.1] * 6, 0.1),
        ([0.1] * 4 + [1.1], 0.1),
        ([np.nan] * 5, 0.1),
        ([0.1] * 5, -1),
    ):
        with pytest.raises(InputError, match="expected 5 and 1, from 0 to 1"):
            relative_errors({"pixelate": errors}, clean, ALEXNET["octmnist"])
