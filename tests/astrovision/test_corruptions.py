import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from astrovision.corruptions import CORRUPTIONS, SCALES, corrupt
from shared_backbones.errors import InputError
from tests.needs import missing


def phantom(side: int = 64, seed: int = 0) -> np.ndarray:
    """A disc with a bright core and a companion on a noisy sky, `(3, side, side)` float32."""
    y, x = np.mgrid[:side, :side] - side / 2 + 0.5
    light = 0.4 * np.exp(-np.hypot(x, 2 * y) / (side / 12)) + 0.5 * np.exp(-np.hypot(x, y) / (side / 40))
    light += 0.6 * np.exp(-np.hypot(x - side / 4, y - side / 4) / (side / 50))
    sky = np.random.default_rng(seed).normal(0.05, 0.01, (3, side, side))
    return (light * np.array([1.0, 0.8, 0.6])[:, None, None] + sky).clip(0, 1).astype(np.float32)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_keeps_shape_range_and_its_own_pixels(name: str):
    image = phantom()
    image.setflags(write=False)
    for severity in range(1, 6):
        found = CORRUPTIONS[name](image, severity, generator())
        assert found.shape == image.shape and found.dtype == np.float32 and not np.shares_memory(found, image)
        assert found.min() >= 0 and found.max() <= 1 and (found != image).any()
    np.testing.assert_array_equal(image, phantom())


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [48, 96])
def test_a_higher_severity_changes_more(name: str, side: int):
    image = phantom(side)
    changes = [np.abs(CORRUPTIONS[name](image, severity, generator()) - image).mean() for severity in range(1, 6)]
    assert (np.diff(changes) > 0).all(), changes


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_changes_real_galaxies_more(name: str, data_root: Path):
    paths = sorted((data_root / "astro" / "galaxyzoo1_256" / "images").glob("*.jpg"))[::500]
    if not paths:
        missing("data", "no cut-outs of Galaxy Zoo")
    images = [np.asarray(Image.open(path)).transpose(2, 0, 1).astype(np.float32) / 255 for path in paths]
    changes = [
        np.mean([np.abs(corrupt(name, image, s, seed_key=[n]) - image).mean() for n, image in enumerate(images)])
        for s in range(1, 6)
    ]
    assert (np.diff(changes) > 0).all(), changes


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_cell_can_be_made_alone(name: str):
    image = phantom(32)
    alone = corrupt(name, image, 3, seed_key=["galaxy", 7])
    for other in CORRUPTIONS:
        corrupt(other, image, 3, seed_key=["galaxy", 8])
    np.testing.assert_array_equal(corrupt(name, image, 3, seed_key=("galaxy", 7)), alone)
    digest = hashlib.sha256(json.dumps([name, 3, "galaxy", 7]).encode()).digest()
    seeded = CORRUPTIONS[name](image, 3, generator(int.from_bytes(digest, "big")))
    np.testing.assert_array_equal(seeded, alone)


@pytest.mark.parametrize("name", ["sky_noise", "cosmic_rays"])
def test_the_key_decides_the_draw(name: str):
    draws = [corrupt(name, phantom(), 3, seed_key=key).tobytes() for key in ([1], ["1"], [1, 1], [11])]
    assert len(set(draws)) == 4


def test_unknown_corruptions_and_severities_are_refused():
    with pytest.raises(InputError, match="'clouds' is unknown; expected one of: sky_noise, psf_blur, pixel_scale, mis"):
        corrupt("clouds", phantom(), 1, seed_key=[])
    for severity in (0, 6, -1):
        with pytest.raises(InputError, match=f"severity of psf_blur is {severity}, expected 1 to 5"):
            corrupt("psf_blur", phantom(), severity, seed_key=[])


def test_scales_rise_and_belong_to_the_corruptions():
    assert set(SCALES) == set(CORRUPTIONS)
    assert all(sorted(set(values)) == list(values) and len(values) == 5 for values in SCALES.values())


def test_noise_has_its_standard_deviation():
    flat = np.full((3, 64, 64), 0.5, np.float32)
    for severity in (1, 2, 3):
        noise = CORRUPTIONS["sky_noise"](flat, severity, generator()) - flat
        assert noise.std() == pytest.approx(SCALES["sky_noise"][severity - 1], rel=0.03)


def test_blur_has_its_width_and_keeps_the_light():
    point = np.zeros((1, 65, 65), np.float32)
    point[0, 32, 32] = 1
    for severity in range(1, 6):
        found = CORRUPTIONS["psf_blur"](point, severity, generator())[0]
        assert found.sum() == pytest.approx(1, abs=1e-3)
        variance = (found * (np.arange(65) - 32) ** 2).sum()
        width = SCALES["psf_blur"][severity - 1]
        assert 2.355 * np.sqrt(variance) == pytest.approx(width, rel=0.03)


def test_coarse_pixels_keep_what_is_flat_and_lose_what_is_fine():
    stripes = np.zeros((1, 48, 48), np.float32)
    stripes[:, :, ::2] = 1
    np.testing.assert_allclose(CORRUPTIONS["pixel_scale"](stripes, 1, generator()), 0.5, atol=1e-6)
    flat = np.full((1, 48, 40), 0.3, np.float32)
    np.testing.assert_allclose(CORRUPTIONS["pixel_scale"](flat, 5, generator()), 0.3, atol=1e-6)


def test_one_band_is_dimmed_to_its_background():
    image = phantom()
    bands = set()
    for seed in range(12):
        found = CORRUPTIONS["missing_band"](image, 5, generator(seed))
        [band] = np.flatnonzero((found != image).any((1, 2)))
        assert np.ptp(found[band]) == 0 and found[band, 0, 0] == pytest.approx(0.05, abs=0.01)
        bands.add(int(band))
    assert bands == {0, 1, 2}
    half = CORRUPTIONS["missing_band"](image, 2, generator(0))
    band = int(np.abs(half - image).sum((1, 2)).argmax())
    assert (half[band].max() - 0.05) == pytest.approx(0.6 * (image[band].max() - 0.05), abs=0.01)


def test_cores_are_flat_and_bleed_along_columns_alone():
    image = np.zeros((1, 41, 41), np.float32)
    image[0, 18:23, 18:23] = 0.8
    found = CORRUPTIONS["saturation"](image, 5, generator())[0]
    assert found.max() == pytest.approx(0.8) and (found[18:23, 18:23] == found.max()).all()
    assert (found[17, 18:23] > 0.2).all() and (np.diff(found[:18, 20]) > 0).all()
    assert not found[:, :18].any() and not found[:, 23:].any()


def test_tracks_are_straight_and_in_one_band():
    image = np.zeros((3, 100, 100), np.float32)
    found = CORRUPTIONS["cosmic_rays"](image, 1, generator(3))
    [band] = np.flatnonzero(found.any((1, 2)))
    rows, columns = np.nonzero(found[band])
    assert 5 <= len(rows) <= 90 and len(np.unique(found[band])) == 2 and found.max() >= 0.5
    places = np.stack([rows, columns]) - np.array([[rows.mean()], [columns.mean()]])
    assert np.linalg.svd(places, compute_uv=False)[1] / np.sqrt(len(rows)) < 0.5  # pixels off the line
    more = CORRUPTIONS["cosmic_rays"](image, 4, generator(3))
    assert (more[found > 0] >= found[found > 0]).all() and (more > 0).sum() > 3 * (found > 0).sum()


@given(st.sampled_from(sorted(CORRUPTIONS)), st.integers(1, 5), st.integers(1, 4), st.integers(1, 20), st.floats(0, 1))
def test_flat_images_of_any_shape_are_taken(name: str, severity: int, bands: int, side: int, value: float):
    image = np.full((bands, side, side + 1), value, np.float32)
    found = corrupt(name, image, severity, seed_key=["flat"])
    assert found.shape == image.shape and np.isfinite(found).all() and 0 <= found.min() <= found.max() <= 1
