"""How training images are varied: albumentations, by a seed."""

import os

import numpy as np

from shared_backbones.errors import require


class Augmentation:
    """What albumentations does to an image, by a seed; where an image is turned or moved, its border is continued.

    Args:
        size: Side in pixels of what the network sees.
        bands: Number of bands of the images; the colour of three alone is varied.
        resized_crop: Smallest and largest fraction of the area that is cut out at random and resized to `size`, or
            None.
        rotation_degrees: Largest angle.
        scaling: Largest relative change of size.
        shift: Largest shift, as a fraction of the side.
        brightness: Largest relative change of brightness and contrast.
        color: Largest relative change of saturation, and a tenth of it of hue.
        noise: Largest standard deviation of added noise, in values from 0 to 1.
        blur: Largest sigma of a Gaussian blur, in pixels.
    """

    def __init__(
        self,
        size: int,
        *,
        bands: int = 3,
        resized_crop: tuple[float, float] | None = None,
        rotation_degrees: float = 180,
        scaling: float = 0.15,
        shift: float = 0.05,
        brightness: float = 0.15,
        color: float = 0.15,
        noise: float = 0.02,
        blur: float = 0.0,
    ) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations would otherwise look for updates online
        a = require("albumentations", "train")
        steps = []
        if rotation_degrees or scaling or shift:
            steps.append(
                a.Affine(
                    rotate=(-rotation_degrees, rotation_degrees), scale=(1 - scaling, 1 + scaling),
                    translate_percent=(-shift, shift), border_mode=2, p=1,
                )
            )  # fmt: skip
        if resized_crop:
            steps.append(a.RandomResizedCrop((size, size), scale=resized_crop, interpolation=2))
        if bands != 3:
            if brightness:
                steps.append(a.RandomBrightnessContrast(brightness, brightness, brightness_by_max=False, p=0.8))
        elif brightness or color:
            steps.append(
                a.ColorJitter(
                    brightness=(1 - brightness, 1 + brightness), contrast=(1 - brightness, 1 + brightness),
                    saturation=(1 - color, 1 + color), hue=(-color / 10, color / 10), p=0.8,
                )
            )  # fmt: skip
        if blur:
            steps.append(a.GaussianBlur(blur_limit=0, sigma_limit=(0.1, blur), p=0.3))
        if noise:
            steps.append(a.GaussNoise(std_range=(0, noise), p=0.5))
        self.transform = a.Compose(steps)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """A view of an image `(S, S, C)` uint8, of its shape or of `size`; the same for the same seed."""
        self.transform.set_random_seed(seed)
        return self.transform(image=image)["image"]

    def with_mask(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The same view of an image `(S, S, C)` and of labels of its pixels `(S, S)`, both uint8."""
        self.transform.set_random_seed(seed)
        varied = self.transform(image=image, mask=mask)
        return varied["image"], varied["mask"]
