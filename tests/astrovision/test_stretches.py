"""Stretches: values from 0 to 1, the published colours, and a line for parameters that make no sense."""

from typing import Any

import numpy as np
import pytest
from astropy.visualization import make_lupton_rgb
from hypothesis import given
from hypothesis import strategies as st

from astrovision.stretches import Stretch
from shared_backbones.errors import InputError

LINEAR = Stretch("linear", {"low": -1.0, "high": 9.0})
ASINH = Stretch("asinh", {"low": -1.0, "high": 99.0, "softening": 0.5})
LUPTON = Stretch("lupton", {"low": 0.1, "stretch": 2.0, "q": 8.0})
SDSS = Stretch("sdss", {})
ALL = [LINEAR, ASINH, LUPTON, SDSS]


def fluxes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.5, 5, shape).astype("f4") - 0.5


def test_a_linear_stretch_is_its_formula_and_is_clipped():
    values = np.array([[[-5, -1, 0, 4, 9, 20]]], "f4")
    np.testing.assert_allclose(LINEAR.apply(values), [[[0, 0, 0.1, 0.5, 1, 1]]], atol=1e-6)


def test_an_asinh_stretch_is_its_formula_and_is_clipped():
    values = np.linspace(-1, 99, 41, dtype="f4").reshape(1, 1, -1)
    expected = np.arcsinh((values + 1) / 0.5) / np.arcsinh(100 / 0.5)
    np.testing.assert_allclose(ASINH.apply(values), expected, atol=1e-6)
    np.testing.assert_array_equal(ASINH.apply(np.array([[[-7.0, 1e9]]])), [[[0, 1]]])


@pytest.mark.parametrize("low", [0.0, 0.3, -0.2])
@pytest.mark.parametrize(("stretch", "q"), [(0.5, 8.0), (5.0, 8.0), (2.0, 1.0), (10.0, 20.0)])
def test_lupton_colours_are_those_of_make_lupton_rgb(low: float, stretch: float, q: float):
    image = fluxes(3, 40, 50)
    expected = make_lupton_rgb(*image, minimum=low, stretch=stretch, Q=q)  # pyright: ignore[reportArgumentType]
    found = Stretch("lupton", {"low": low, "stretch": stretch, "q": q}).apply(image)
    assert np.abs(np.moveaxis(found, 0, -1) * 255 - expected).max() <= 1.01


def test_lupton_keeps_hues():
    image = fluxes(3, 20, 20) + 2
    found = LUPTON.apply(image)
    before, after = image - 0.1, found
    assert found.max() == 1
    np.testing.assert_allclose(after[0] * before[1], after[1] * before[0], rtol=1e-4)
    np.testing.assert_allclose(after[2] * before[1], after[1] * before[2], rtol=1e-4)


def test_colours_of_sdss_are_their_formula():
    i, r, g = 0.3, 0.2, 0.1  # nanomaggies
    bands = np.array([i + 0.02, 1.5 * r + 0.02, 2.5 * g + 0.02])
    mean = bands.mean()
    expected = bands * np.arcsinh(20 * mean) / (np.sqrt(20) * mean)
    found = SDSS.apply(np.array([i, r, g], "f4").reshape(3, 1, 1)).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    bright = SDSS.apply(np.array([300, 200, 10], "f4").reshape(3, 1, 1)).ravel()
    np.testing.assert_allclose(bright, bright.max() * np.array([300, 300, 25]) / 300, atol=1e-3)  # the hue is kept
    np.testing.assert_allclose(SDSS.apply(np.full((3, 1, 1), -5, "f4")), 0)


@given(colours=st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_fluxes_of_sdss_colours_have_these_colours(colours: list[float]):
    values = np.array(colours, "f4").reshape(3, 1, 1)
    np.testing.assert_allclose(SDSS.apply(SDSS.invert(values)), values, atol=2e-5)


@given(shape=st.lists(st.integers(0, 3), max_size=2), seed=st.integers(0, 9))
@pytest.mark.parametrize("stretch", ALL, ids=lambda stretch: stretch.kind)
def test_batches_are_stretched_image_by_image_and_left_as_they_are(stretch: Stretch, shape: list, seed: int):
    images = fluxes(*shape, 3, 5, 4, seed=seed)
    images.reshape(-1)[:3] = [np.nan, np.inf, -np.inf][: images.size]
    before = images.copy()
    found = stretch.apply(images)
    np.testing.assert_array_equal(images, before)
    assert found.shape == images.shape and found.dtype == np.float32
    assert not found.size or (found.min() >= 0 and found.max() <= 1)
    for one, whole in zip(images.reshape(-1, 3, 5, 4), found.reshape(-1, 3, 5, 4), strict=True):
        np.testing.assert_array_equal(stretch.apply(one), whole)


@pytest.mark.parametrize("stretch", ALL, ids=lambda stretch: stretch.kind)
def test_missing_values_count_as_the_lowest(stretch: Stretch):
    image = fluxes(3, 6, 6)
    image[1, 2, 3] = np.nan
    expected = image.copy()
    expected[1, 2, 3] = stretch.parameters.get("low", 0)
    np.testing.assert_array_equal(stretch.apply(image), stretch.apply(expected))


@pytest.mark.parametrize("stretch", [LINEAR, ASINH], ids=lambda stretch: stretch.kind)
def test_what_was_not_clipped_comes_back(stretch: Stretch):
    values = np.linspace(-1, 9, 50, dtype="f4").reshape(1, 5, 10)
    np.testing.assert_allclose(stretch.invert(stretch.apply(values)), values, atol=1e-4)


def test_lupton_cannot_be_inverted_and_takes_three_bands():
    with pytest.raises(ValueError, match="has no inverse"):
        LUPTON.invert(np.zeros((3, 2, 2)))
    with pytest.raises(ValueError, match="2 bands, expected three"):
        LUPTON.apply(np.zeros((2, 4, 4)))


@pytest.mark.parametrize("stretch", ALL, ids=lambda stretch: stretch.kind)
def test_a_card_gives_the_stretch_back(stretch: Stretch):
    assert Stretch.from_card(stretch.card(), "m") == stretch


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("log", {}, "stretch 'log' is unknown; expected one of linear, asinh, lupton"),
        ("linear", {"low": 0}, "stretch linear: has low, expected low, high"),
        ("linear", {"low": 0, "high": 0}, "high is 0, expected more than low, 0"),
        ("linear", {"low": 0, "high": float("nan")}, "expected finite numbers"),
        ("linear", {"low": 0, "high": "1"}, "expected finite numbers"),
        ("asinh", {"low": 0, "high": 1, "softening": 0}, "softening is 0, expected more than 0"),
        ("lupton", {"low": 0, "stretch": -1, "q": 8}, "stretch is -1, expected more than 0"),
        ("lupton", {"low": 0, "stretch": 1, "q": 0}, "q is 0, expected more than 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(kind: str, parameters: dict, message: str):
    with pytest.raises(InputError, match=message):
        Stretch(kind, parameters)


@pytest.mark.parametrize("card", [None, [], {}, {"kind": "linear"}, {"kind": "linear", "parameters": 3}])
def test_a_card_of_something_else_is_refused(card: Any):
    with pytest.raises(InputError, match=r"model m: its stretch is .* expected kind and parameters"):
        Stretch.from_card(card, "m")
