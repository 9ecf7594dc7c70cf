"""Drawn galaxies: the same for the same seed, in the middle, and turning the way that they are said to."""

import numpy as np
import pytest

from astrovision.datasets.phantoms import PHANTOMS, phantom


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize("side", [32, 92])
def test_a_phantom_is_an_image_with_its_light_in_the_middle(name: str, side: int):
    image = phantom(name, np.random.default_rng(3), side)
    assert image.shape == (side, side, 3) and image.dtype == np.uint8
    assert np.array_equal(image, phantom(name, np.random.default_rng(3), side))
    assert not np.array_equal(image, phantom(name, np.random.default_rng(4), side))
    mean = np.mean([phantom(name, np.random.default_rng(seed), side) for seed in range(20)], (0, 3))
    middle = slice(side // 2 - side // 8, side // 2 + side // 8)
    assert mean[middle, middle].mean() > 2 * np.concatenate([mean[0], mean[-1], mean[:, 0], mean[:, -1]]).mean()


def test_spirals_of_one_draw_differ_by_the_way_they_turn():
    """Seen in polar coordinates around its middle, an arm moves outwards with the angle, or against it."""
    turned = {"spiral_acw": [], "spiral_cw": []}
    for name, found in turned.items():
        for seed in range(40):
            found.append(winding(phantom(name, np.random.default_rng(seed), 92).astype(float).sum(2)))
    signs = {name: np.sign(values) for name, values in turned.items()}
    assert np.mean(signs["spiral_acw"] == -signs["spiral_cw"]) > 0.8
    assert max(abs(values.mean()) for values in signs.values()) > 0.6


def winding(image: np.ndarray) -> float:
    """How the angle of the brightest structure changes with the logarithm of the radius, over its first harmonics."""
    radii, angles = np.geomspace(6, 26, 24), np.linspace(0, 2 * np.pi, 128, endpoint=False)
    centre = (len(image) - 1) / 2
    columns = np.round(centre + radii[:, None] * np.cos(angles)).astype(int)
    rows = np.round(centre + radii[:, None] * np.sin(angles)).astype(int)
    polar = image[rows, columns]
    polar = (polar - polar.mean(1, keepdims=True)) / polar.std(1, keepdims=True)
    power = np.square(np.abs(np.fft.fft2(polar)))
    up, down = power[1:6, 1:6].sum(), power[-5:, 1:6].sum()
    return float((up - down) / (up + down))


def test_an_unknown_phantom_is_a_bug():
    with pytest.raises(ValueError, match="'quasar' is unknown; expected one of: elliptical"):
        phantom("quasar", np.random.default_rng(0), 32)
