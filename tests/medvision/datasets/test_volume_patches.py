"""Training patches of volumes."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from medvision.datasets.slices import Augment
from medvision.datasets.volume_patches import RandomPatches
from pipelines.recipe.volumes import Augmentation

STILL = dict.fromkeys(("rotation_degrees", "scaling", "shift", "elastic", "intensity", "gamma", "noise", "blur"), 0)


@pytest.mark.parametrize("axes", [[], [1], [0, 2]])
def test_patches_are_mirrored_along_the_axes_that_are_averaged_later_and_no_others(axes: list[int]):
    image = np.random.default_rng(0).random((6, 8, 10), np.float32)
    labels = (image > 0.5).astype(np.uint8)
    augment = Augment(Augmentation(**STILL).model_dump(), image.shape, mirror_axes=axes)
    volumes: Any = [(image, labels)]
    patches = RandomPatches(volumes, image.shape, augment)
    mirrored = {
        chosen: torch.from_numpy(image).flip([axis for axis, flip in zip(axes, chosen, strict=True) if flip])
        for chosen in product([False, True], repeat=len(axes))
    }
    seen = set()
    for seed in range(40):
        patch, target = patches[0, seed]
        (chosen,) = [key for key, wanted in mirrored.items() if torch.allclose(patch[0], wanted, atol=1e-4)]
        assert torch.equal(target, (mirrored[chosen] > 0.5).to(torch.uint8))
        seen.add(chosen)
    assert seen == set(mirrored)
