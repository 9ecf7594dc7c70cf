"""What goes wrong with satellite images: more of it at every severity, the same whenever it is made."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovision.corruptions import CORRUPTIONS, FAMILIES, SCALES, Spectrum, corrupt, corruption_of
from shared_backbones.errors import InputError

BANDS = ["B2", "B3", "B4", "B8", "B11", "B12"]


def images(bands: int = 6, side: int = 24, count: int = 2) -> np.ndarray:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    pattern = np.sin(9 * rows) * np.cos(7 * columns) + random.normal(0, 0.2, (count, bands, side, side))
    return (1500 + 100 * np.arange(bands)[:, None, None] + 500 * pattern).astype(np.float32)


def spectrum(values: np.ndarray) -> Spectrum:
    return Spectrum.of(values, "sentinel2_l1c", BANDS[: values.shape[1]])


def test_every_corruption_has_a_family_and_five_rising_severities():
    assert list(CORRUPTIONS) == list(FAMILIES) == list(SCALES)
    assert all(len(scales) == 5 and list(scales) == sorted(set(scales)) for scales in SCALES.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_severity_changes_more_than_the_one_before(name: str):
    values = images()
    bands = spectrum(values)
    changes = []
    for severity in range(1, 6):
        differences = []
        for seed in range(8):
            found = corrupt(name, values[0], severity, bands, seed_key=[seed])
            lost = ~np.isfinite(found)
            differences.append(np.where(lost, 1000, np.abs(found - values[0])).mean())
        changes.append(np.mean(differences))
    assert changes[0] > 0 and all(later > earlier for earlier, later in itertools.pairwise(changes))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_whenever_it_is_made_and_leaves_its_input_alone(name: str):
    values = images()
    before, corrupted = values.copy(), corruption_of(values, "sentinel2_l1c", BANDS, 3)
    first, again, other = (corrupted(name, values[0], 3, number) for number in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(values, before)
    draws = name not in {"haze", "defocus", "coarse_pixels"}
    assert (np.nan_to_num(first) != np.nan_to_num(other)).any() == draws


@given(
    st.sampled_from(sorted(CORRUPTIONS)), st.integers(1, 5), st.integers(1, 6), st.integers(2, 20), st.integers(2, 20),
    st.sampled_from([np.uint8, np.uint16, np.float32]), st.booleans(),
)  # fmt: skip
def test_images_of_any_bands_shape_and_type_stay_what_they_are(name, severity, bands, height, width, dtype, holed):
    random = np.random.default_rng(height * 100 + width)
    image = random.integers(0, 255, (bands, height, width)).astype(dtype)
    if holed and dtype is np.float32:
        image[:, 0, 0] = np.nan
    found = corrupt(name, image, severity, spectrum(image[None]), seed_key=["k", 1])
    assert found.shape == image.shape and found.dtype == np.float32
    lost, gaps = np.isnan(found), np.isnan(image.astype(np.float32))
    assert (lost >= gaps).all() and not np.isinf(found).any()
    assert (lost == gaps).all() or name == "missing_pixels"
    assert (lost == lost[:1]).all()


def test_haze_is_strongest_at_short_wavelengths_and_brightens_dark_ground():
    values = images()
    bands = spectrum(values)
    dark = np.broadcast_to(bands.low[:, None, None], (6, 8, 8)).astype(np.float32)
    added = (corrupt("haze", dark, 4, bands, seed_key=[0]) - dark)[:, 0, 0] / (bands.high - bands.low)
    assert (np.diff(added) < 0).all() and added[0] == pytest.approx(SCALES["haze"][3], rel=1e-3)


def test_clouds_cover_what_they_should_and_missing_pixels_are_missing():
    values = images(side=64)
    bands = spectrum(values)
    for severity, (covered, missing) in enumerate(zip(SCALES["clouds"], SCALES["missing_pixels"], strict=True), 1):
        black = np.zeros((6, 64, 64), np.float32)
        clouds = corrupt("clouds", black, severity, bands, seed_key=[1])
        assert np.mean(clouds[0] > bands.high[0] / 2) == pytest.approx(covered, abs=0.02)
        gaps = np.isnan(corrupt("missing_pixels", black, severity, bands, seed_key=[1])).mean()
        assert gaps == pytest.approx(missing, abs=0.02)


def test_dead_lines_are_rows_of_the_lowest_number():
    values = images()
    bands = spectrum(values)
    found = corrupt("dead_lines", values[0], 5, bands, seed_key=[2])
    dead = (found != values[0]).all(2)
    assert 0 < dead.mean() < 0.5 and ((found != values[0]) == dead[..., None]).all()
    np.testing.assert_allclose(found[dead], np.repeat(bands.low[np.nonzero(dead)[0], None], 24, 1), rtol=1e-5)


def test_what_cannot_be_corrupted_is_refused():
    values = images()
    for arguments, message in (
        (("fog", values[0], 1), "'fog' is unknown; expected one of: haze"),
        (("haze", values[0], 6), "severity of haze is 6, expected 1 to 5"),
        (("haze", values[0, :4], 1), "expected 6 bands"),
    ):
        with pytest.raises(InputError, match=message):
            corrupt(*arguments, spectrum(values), seed_key=[0])
    values[:, 2] = np.nan
    with pytest.raises(InputError, match="no data in B4"):
        spectrum(values)
