"""What stands out in the middle of an image."""

import numpy as np
import pytest
import torch

from astrovision.contrast import contrast_of_middle


def blob(x: float, y: float, light: float = 0.5, side: int = 64, noise: float = 0.01) -> torch.Tensor:
    """A source at a place from 0 to 1, `(1, 3, side, side)`."""
    rows, columns = np.mgrid[:side, :side] / side
    sky = 0.05 + np.random.default_rng(0).normal(0, noise, (1, 3, side, side))
    return torch.from_numpy(sky + light * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2 / 0.04**2))


def test_a_source_in_the_middle_stands_out_and_elsewhere_does_not():
    assert contrast_of_middle(blob(0.5, 0.5))[0] > 20
    assert abs(contrast_of_middle(blob(0.2, 0.7))[0]) < 1
    assert contrast_of_middle(blob(0.5, 0.5, light=-0.04))[0] < 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_flat_image_has_none(value: float):
    assert contrast_of_middle(torch.full((2, 1, 33, 33), value)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("side", [1, 2, 3, 8, 31])
def test_small_images_have_a_number(side: int):
    assert np.isfinite(contrast_of_middle(torch.rand(3, 3, side, side))).all()


def test_it_is_the_same_for_brighter_sky_and_other_batches():
    image = blob(0.5, 0.5)
    both = contrast_of_middle(torch.cat([image, image + 0.2]))
    np.testing.assert_allclose(both, both[0], rtol=1e-5)
