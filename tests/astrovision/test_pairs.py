"""Pairs of galaxies made of two images: two that overlap, or one with a neighbour at its border."""

import numpy as np
import pytest

from astrovision.datasets.pairs import FAR, NEAR, add_galaxy

SIDE, SKY = 96, 8


def galaxy(brightness: int) -> np.ndarray:
    """A round galaxy in the middle of a sky that is not black."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    light = brightness * np.exp(-np.hypot(x, y) / 4)[..., None]
    return np.clip(SKY + light, 0, 255).astype(np.uint8).repeat(3, 2)


def peaks(image: np.ndarray) -> list[np.ndarray]:
    """Places of the brightest pixel, and of the brightest that is not near it."""
    left, places = image[..., 0].astype(float), []
    for _ in range(2):
        place = np.array(np.unravel_index(left.argmax(), left.shape))
        places.append(place)
        y, x = np.mgrid[:SIDE, :SIDE]
        left[np.hypot(y - place[0], x - place[1]) < NEAR[0] * SIDE * 0.8] = 0
    return places


@pytest.mark.parametrize("seed", range(20))
def test_a_pair_overlaps_with_the_middle_of_the_image_between_its_galaxies(seed: int):
    pair = add_galaxy(galaxy(200), galaxy(150), np.random.default_rng(seed), near=True)
    first, second = peaks(pair)
    distance = float(np.hypot(*(second - first)))
    assert NEAR[0] * SIDE - 2 <= distance <= NEAR[1] * SIDE + 2
    middle = (SIDE - 1) / 2
    assert float(np.hypot(*(first - middle))) <= distance / 2 + 2 and pair[first[0], first[1], 0] > 150
    assert 0 <= int(pair[0, 0, 0]) - SKY <= 3  # the sky is added once


@pytest.mark.parametrize("seed", range(20))
def test_a_neighbour_leaves_the_galaxy_where_it_is(seed: int):
    image = galaxy(200)
    shown = add_galaxy(image, galaxy(150), np.random.default_rng(seed), near=False)
    middle = slice(SIDE // 2 - 12, SIDE // 2 + 12)
    assert np.abs(shown[middle, middle].astype(int) - image[middle, middle]).max() <= 12
    changed = np.argwhere(shown[..., 0] > image[..., 0] + 40)
    if len(changed):  # otherwise it lies beyond a corner
        assert np.hypot(*(changed - SIDE / 2).T).max() > (FAR[0] - 0.05) * SIDE


def test_the_same_generator_gives_the_same_pair():
    first, second = (add_galaxy(galaxy(200), galaxy(90), np.random.default_rng(7), near=True) for _ in range(2))
    assert np.array_equal(first, second) and not np.array_equal(first, galaxy(200))
