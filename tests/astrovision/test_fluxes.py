"""Units of fluxes as headers spell them."""

import warnings

import numpy as np
import pytest

from astrovision.fluxes import FluxScale
from shared_backbones.errors import InputError


def factor(given: str, wanted: str) -> float:
    ours, theirs = (FluxScale(unit, (None,)) for unit in (given, wanted))
    return float(ours.factors(theirs, "m.fits")[0][0])


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        ("NJY", "nJy", 1), ("1e-9 Jy", "nJy", 1), ("nanomaggies", "nanomaggy", 1), ("NMGY", "nanomaggy", 1),
        ("maggies", "nmgy", 1e9), ("counts/s", "count/s", 1), ("COUNTS/S", "ct / s", 1), ("cts/s", "counts/s", 1),
        ("ELECTRONS/S", "electron/s", 1), ("JY/BEAM", "mJy/beam", 1000), ("MJy", "mJy", 1e9), ("ADU", "adu", 1),
        ("Foo", "foo", 1), ("ERG/S/CM2/HZ", "erg s-1 cm-2 Hz-1", 1),
    ],
)  # fmt: skip
def test_units_are_known_by_every_usual_spelling(given: str, wanted: str, expected: float):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert factor(given, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "wanted"), [("MJY", "mJy"), ("mjy", "MJy"), ("counts", "counts/s"), ("1", "nJy"), ("adu", "count")]
)
def test_a_unit_that_may_be_another_one_is_refused(given: str, wanted: str):
    with pytest.raises(InputError, match=f"m.fits: has BUNIT {given}, the model takes {wanted}"):
        factor(given, wanted)


def test_a_zero_point_of_zero_counts():
    factors, notices = FluxScale("", (25.0,)).factors(FluxScale("", (0.0,)), "m.fits")
    np.testing.assert_allclose(factors, 1e-10)
    assert not notices
