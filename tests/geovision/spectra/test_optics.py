"""Band responses and published optics: known answers, and which way each quantity moves them."""

import numpy as np
import pytest

from geovision.sensors import find_sensor
from geovision.spectra import optics
from geovision.spectra.responses import GRID, HALF_POWER, band_responses
from shared_backbones.errors import InputError


def seen(spectrum: np.ndarray, *bands: str) -> np.ndarray:
    return band_responses("sentinel2_l2a", bands) @ spectrum


@pytest.mark.parametrize("sensor", HALF_POWER)
def test_a_band_sees_the_wavelengths_around_its_centre(sensor: str):
    bands = list(HALF_POWER[sensor])
    responses = band_responses(sensor, bands)
    np.testing.assert_allclose(responses.sum(1), 1, rtol=1e-5)
    centres = [find_sensor(sensor).band(band).wavelength_nm for band in bands]
    widths = [high - low for low, high in HALF_POWER[sensor].values()]
    assert (np.abs(responses @ GRID - centres) < np.maximum(8, 0.12 * np.array(widths))).all()
    np.testing.assert_allclose(responses @ np.full_like(GRID, 0.3), 0.3, rtol=1e-5)  # grey stays grey


def test_a_band_without_a_response_is_named():
    with pytest.raises(InputError, match="B10: no response is known"):
        band_responses("sentinel2_l1c", ["B2", "B10"])


def test_water_is_blue_when_clear_green_with_algae_and_bright_with_sediment():
    clear, bloom, muddy = (optics.water(*of, 0.0) for of in ((0.05, 0.01, 0.0), (40, 0.2, 0.0), (5, 0.5, 100.0)))
    blue, green, red, nir, swir = seen(clear, "B2", "B3", "B4", "B8", "B11")
    assert blue > green > red > nir and swir < 1e-3 and blue < 0.06
    blue, green, red = seen(bloom, "B2", "B3", "B4")
    assert green > 1.5 * blue and green > red
    assert seen(muddy, "B4")[0] > 0.1 > 0.01 > seen(muddy, "B11")[0]
    np.testing.assert_allclose(optics.water(1, 0.1, 1, 0.03) - optics.water(1, 0.1, 1, 0.0), 0.03, atol=1e-12)


def test_snow_is_white_but_for_short_wave_infrared_and_darkens_with_grain_and_dirt():
    fresh, old, dirty = optics.snow(5e-5, 0), optics.snow(2e-3, 0), optics.snow(5e-5, 20)
    assert seen(fresh, "B3")[0] > 0.97 and seen(fresh, "B11")[0] < 0.35
    assert (old <= fresh).all() and seen(old, "B8")[0] < 0.85 < seen(fresh, "B8")[0]
    assert seen(dirty, "B2")[0] < 0.9 and np.ptp(seen(dirty, "B2", "B3", "B4")) < 0.03
    # Kokhanovsky et al. (2018): the logarithm goes with the root of the grain's diameter
    np.testing.assert_allclose(np.log(optics.snow(4e-4, 0)), 2 * np.log(optics.snow(1e-4, 0)))


def test_clouds_thicken_are_never_brighter_than_white_and_ice_absorbs_more():
    depths = [0, 1, 5, 20, 100]
    bright = np.stack([optics.cloud(depth, 2e-5, ice=False) for depth in depths])
    assert (np.diff(bright, axis=0) >= -1e-6).all() and bright.max() < 1 and not bright[0].any()
    ice = optics.cloud(20, 6e-5, ice=True)
    assert seen(ice, "B11")[0] < seen(bright[3], "B11")[0] < seen(bright[3], "B3")[0]


def test_air_adds_blue_takes_light_away_and_lights_shadows_blue():
    for haze in (0.02, 0.3, 1.0):
        added, passed = optics.air(haze, 1.3, 1.2)
        assert (np.diff(seen(added, "B2", "B3", "B4", "B8", "B11")) < 0).all()
        assert (passed > 0).all() and (passed < 1).all()
        assert (np.diff(seen(optics.sky(haze), "B2", "B4", "B8", "B11")) < 0).all()
    # Rayleigh optical depth at 550 nm is 0.097 (Hansen & Travis, 1974)
    assert np.interp(550, GRID, optics.rayleigh()) == pytest.approx(0.097, abs=0.002)
