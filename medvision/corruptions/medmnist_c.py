"""MedMNIST-C: what goes wrong with medical images, in five steps, and how errors under it are compared.

The protocol is that of Di Salvo, Doerrich and Ledig (2024, arXiv:2406.17536, package medmnistc 0.1.0): each of the 12
data sets of MedMNIST has its own corruptions and five severities, made for images of 224 x 224 pixels. Here every image
is seeded alone (`corrupt`), and neither ImageMagick nor OpenCV is needed. What has no random part gives medmnistc's
pixels, to within 1 of 255. What differs:

- random draws come from a generator for each image, not from one that runs on through a data set, so they follow the
  same distributions but are not those of the published files (for these see `medvision.corruptions.published`);
- `motion_blur` convolves with ImageMagick's one-sided Gaussian streak, without it: at an equal angle equal to 1 of 255;
- `stain_deposit` draws ink marks of the published sizes and coverage, not the published ten shapes;
- `characters` are set in Pillow's font, at the width and weight of OpenCV's.

Images of another size: a pixel of a 28 px image shows as much of a patient as 8 x 8 pixels of the protocol. So with
`scaled` lengths in pixels (blur kernels, marks, bubbles, letters, and what a pixelated block is larger than a pixel)
are multiplied by side / 224, side being the shorter one. Ratios, the noise of each pixel and JPEG's quality stay as
they are; JPEG's blocks have 8 pixels at any size. Without `scaled` all lengths are the protocol's pixels. At 224 px
both are the protocol.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from medvision.corruptions.images import CORRUPTIONS, Parameter
from shared_backbones.errors import InputError

_SIDE = 224  # pixels that the parameters are made for
_FADING = (0.9, 0.8, 0.7, 0.6, 0.5)
_DIMMING = (0.9, 0.8, 0.7, 0.6, 0.4)
_RISING = (1.1, 1.2, 1.3, 1.4, 1.5)
_STEEPER = (1.1, 1.2, 1.3, 1.4, 1.6)
_QUALITY = (50, 30, 15, 10, 7)
_COARSE = (0.3, 0.25, 0.2, 0.15, 0.1)
_ORGAN: Mapping[str, tuple] = {
    "pixelate": (0.7, 0.6, 0.5, 0.4, 0.35),
    "jpeg_compression": _QUALITY,
    "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
    "speckle_noise": (0.05, 0.1, 0.2, 0.3, 0.4),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.08),
    "shot_noise": (200, 100, 50, 25, 15),
    "gaussian_blur": (11, 13, 15, 17, 21),
    "brightness_up": (1.2, 1.3, 1.4, 1.5, 1.6),
    "brightness_down": (0.8, 0.75, 0.7, 0.65, 0.6),
    "contrast_up": (1.3, 1.4, 1.6, 1.7, 1.8),
    "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
    "gamma_corr_up": (1.3, 1.4, 1.6, 1.8, 2.0),
    "gamma_corr_down": _DIMMING,
}
SETS: Mapping[str, Mapping[str, tuple]] = {
    "pathmnist": {
        "pixelate": (0.8, 0.6, 0.4, 0.3, 0.25),
        "jpeg_compression": _QUALITY,
        "defocus_blur": ((3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2), (7, 0.3)),
        "motion_blur": ((5, 5), (10, 5), (15, 5), (15, 8), (15, 12)),
        "brightness_up": (1.1, 1.15, 1.2, 1.22, 1.25),
        "brightness_down": (0.85, 0.8, 0.75, 0.72, 0.7),
        "contrast_up": _STEEPER,
        "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "saturate": (0.05, 0.1, 0.15, 0.2, 0.25),
        "stain_deposit": ((1, 24), (2, 24), (3, 24), (4, 24), (5, 32)),
        "bubble": ((7, 15), (10, 15), (12, 15), (15, 20), (17, 25)),
    },
    "chestmnist": {
        "pixelate": _COARSE,
        "jpeg_compression": _QUALITY,
        "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
        "speckle_noise": (0.05, 0.15, 0.2, 0.35, 0.45),
        "impulse_noise": (0.01, 0.03, 0.06, 0.09, 0.17),
        "shot_noise": (60, 25, 18, 10, 5),
        "gaussian_blur": (3, 5, 7, 9, 11),
        "brightness_up": _RISING,
        "brightness_down": _FADING,
        "contrast_up": _STEEPER,
        "contrast_down": _DIMMING,
        "gamma_corr_up": _STEEPER,
        "gamma_corr_down": _DIMMING,
    },
    "dermamnist": {
        "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (30, 20, 15, 10, 7),
        "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
        "speckle_noise": (0.05, 0.15, 0.2, 0.35, 0.45),
        "impulse_noise": (0.01, 0.03, 0.06, 0.09, 0.17),
        "shot_noise": (60, 25, 18, 10, 5),
        "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
        "motion_blur": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "brightness_up": _RISING,
        "brightness_down": _FADING,
        "contrast_up": _STEEPER,
        "contrast_down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "black_corner": (1.1, 1.05, 1.0, 0.9, 0.95),
        "characters": ((1, 6, 0.14), (2, 7, 0.15), (3, 8, 0.16), (4, 9, 0.17), (6, 10, 0.18)),
    },
    "octmnist": {
        "pixelate": _COARSE,
        "jpeg_compression": (30, 15, 10, 7, 5),
        "speckle_noise": (0.15, 0.3, 0.4, 0.5, 0.6),
        "defocus_blur": ((0.5, 0.6), (1, 0.5), (1.5, 0.1), (2, 0.5), (2.5, 0.1)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "contrast_down": (0.6, 0.4, 0.3, 0.2, 0.15),
    },
    "pneumoniamnist": {
        "pixelate": (0.8, 0.7, 0.6, 0.5, 0.4),
        "jpeg_compression": _QUALITY,
        "gaussian_noise": (0.04, 0.05, 0.06, 0.07, 0.08),
        "speckle_noise": (0.05, 0.07, 0.1, 0.15, 0.2),
        "impulse_noise": (0.005, 0.01, 0.013, 0.017, 0.02),
        "shot_noise": (300, 200, 150, 100, 80),
        "gaussian_blur": (3, 5, 7, 9, 11),
        "brightness_up": _RISING,
        "brightness_down": _FADING,
        "contrast_up": _STEEPER,
        "contrast_down": _DIMMING,
        "gamma_corr_up": _STEEPER,
        "gamma_corr_down": _DIMMING,
    },
    "retinamnist": {
        "pixelate": (0.8, 0.6, 0.5, 0.4, 0.35),
        "jpeg_compression": (30, 25, 20, 10, 5),
        "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
        "motion_blur": ((8, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "brightness_down": _FADING,
        "contrast_down": _DIMMING,
    },
    "breastmnist": {
        "pixelate": _COARSE,
        "jpeg_compression": _QUALITY,
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "motion_blur": ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)),
        "brightness_up": (1.4, 1.5, 1.6, 1.8, 2.0),
        "brightness_down": (0.55, 0.5, 0.45, 0.4, 0.3),
        "contrast_down": _DIMMING,
    },
    "bloodmnist": {
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": _QUALITY,
        "defocus_blur": ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)),
        "motion_blur": ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9)),
        "brightness_up": (1.1, 1.2, 1.3, 1.35, 1.4),
        "brightness_down": _FADING,
        "contrast_up": (1.1, 1.15, 1.2, 1.25, 1.3),
        "contrast_down": _FADING,
        "saturate": (0.05, 0.1, 0.15, 0.17, 0.2),
        "stain_deposit": ((1, 24), (2, 24), (3, 24), (3, 24), (3, 32)),
        "bubble": ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12)),
    },
    "tissuemnist": {
        "pixelate": (0.4, 0.3, 0.2, 0.15, 0.1),
        "jpeg_compression": (25, 20, 15, 10, 7),
        "impulse_noise": (0.01, 0.015, 0.02, 0.025, 0.03),
        "gaussian_blur": (13, 15, 17, 21, 25),
        "brightness_up": (1.3, 1.4, 1.5, 1.6, 1.7),
        "brightness_down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "contrast_up": _STEEPER,
        "contrast_down": _DIMMING,
    },
    "organamnist": _ORGAN,
    "organcmnist": _ORGAN,
    "organsmnist": _ORGAN,
}
"""Parameters of the severities 1 to 5, by data set and corruption, in the protocol's order.

- `pixelate`: share of its side that an image is reduced to; `jpeg_compression`: quality.
- `gaussian_noise`, `speckle_noise`: standard deviation, added or multiplied, in values from 0 to 1; `impulse_noise`:
  share of values that become 0 or 1; `shot_noise`: photons of a white pixel.
- `defocus_blur`: radius of the disc and sigma that softens its edge; `motion_blur`: radius and sigma of the streak;
  `gaussian_blur`: width of the kernel; all in pixels. `zoom_blur`: end of the zoom factors, from 1, and their step.
- `brightness_*`, `contrast_*`: factor; `saturate`: added saturation; `gamma_corr_*`: exponent.
- `stain_deposit`: most marks and their size; `bubble`: largest radius and most bubbles; `black_corner`: radius of what
  stays visible, in half sides; `characters`: most words, most letters and size of the letters in 33 pixels.

As published, some do not rise: stains of bloodmnist and the black corner of dermamnist, whose 4 is worse than its 5. A
sixth value, which medmnistc has for some blurs and which only its augmentation uses, is left out.
"""
COLOUR = frozenset({"pathmnist", "dermamnist", "retinamnist", "bloodmnist"})
"""Data sets whose images are in colour."""
FOLDS: Mapping[str, tuple[str, ...]] = {
    "digital": ("pixelate", "jpeg_compression"),
    "noise": ("gaussian_noise", "speckle_noise", "impulse_noise", "shot_noise"),
    "blur": ("defocus_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "colour": ("brightness_up", "brightness_down", "contrast_up", "contrast_down", "saturate"),
    "task-specific": ("stain_deposit", "bubble", "black_corner", "characters", "gamma_corr_up", "gamma_corr_down"),
}
"""Families of corruptions, as the protocol groups them."""


def corrupt(
    data_set: str,
    name: str,
    image: np.ndarray,
    severity: int,
    *,
    seed_key: Sequence[str | int],
    scaled: bool = True,
) -> np.ndarray:
    """An image with one corruption, the same whenever and wherever it is made.

    The generator is seeded by the sha256 of data set, name, severity and `seed_key`.

    Args:
        data_set: one of `SETS`.
        name: one of its corruptions.
        image: `(H, W)` or `(H, W, 3)` uint8; it is left as it is. As in the protocol it is corrupted in RGB, and
            converted back where it, or the data set, is grey.
        severity: 1 to 5.
        seed_key: what tells this image from others, such as the run's seed and the image's number.
        scaled: multiply lengths in pixels by side / 224.

    Returns:
        Shape and dtype of `image`.

    Raises:
        InputError: no such data set, corruption or severity, or not such an image.
    """
    parameters = _parameters(data_set, name)
    if severity not in range(1, 6):
        raise InputError(f"severity of {name} is {severity}, expected 1 to 5")
    parts = [data_set, name, int(severity), *(part if isinstance(part, str) else int(part) for part in seed_key)]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest))
    return _applied(data_set, name, image, parameters[int(severity) - 1], scaled, random)


def augmentation(
    data_set: str, exclude: Sequence[str] = (), *, continuous: bool = True, scaled: bool = True
) -> Callable[..., np.ndarray]:
    """Training augmentation: one corruption of a data set for each image, or, as likely as any of them, none.

    To measure robustness to what was not trained on, exclude it. Within an albumentations pipeline it is
    `Lambda(image=functools.partial(augment, seed=generator))`, with a generator for each worker.

    Args:
        data_set: one of `SETS`.
        exclude: corruptions that are left out.
        continuous: draw the severity anywhere from 1 to 5, with parameters between those of its neighbours, instead
            of one of the five.
        scaled: as in `corrupt`.

    Returns:
        A function of an `image` as `corrupt` takes it and a `seed`, a number or a generator, that returns an image of
        the same shape. It can be pickled.

    Raises:
        InputError: no such data set or corruption.
    """
    for name in exclude:
        _parameters(data_set, name)
    names = tuple(name for name in _corruptions(data_set) if name not in exclude)
    return partial(_augmented, data_set, names, continuous, scaled)


def _corruptions(data_set: str) -> Mapping[str, tuple]:
    if data_set not in SETS:
        raise InputError(f"data set {data_set!r} has no corruptions; expected one of: {', '.join(SETS)}")
    return SETS[data_set]


def _parameters(data_set: str, name: str) -> tuple:
    names = _corruptions(data_set)
    if name not in names:
        raise InputError(f"corruption {name!r} is unknown for {data_set}; expected one of: {', '.join(names)}")
    return names[name]


def _applied(
    data_set: str, name: str, image: np.ndarray, parameter: Parameter, scaled: bool, random: np.random.Generator
) -> np.ndarray:
    _check(image)
    colour = image.ndim == 3
    whole = np.ascontiguousarray(image if colour else np.repeat(image[:, :, None], 3, 2))
    corrupted = CORRUPTIONS[name](whole, parameter, min(image.shape[:2]) / _SIDE if scaled else 1.0, random)
    if not colour or data_set not in COLOUR:
        corrupted = np.asarray(Image.fromarray(corrupted).convert("L"))
        corrupted = np.repeat(corrupted[:, :, None], 3, 2) if colour else corrupted
    return np.array(corrupted)


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        raise InputError(
            f"image is {image.dtype} of shape {image.shape}, expected uint8 of shape (H, W) or (H, W, 3); convert it"
        )


def _augmented(
    data_set: str,
    names: Sequence[str],
    continuous: bool,
    scaled: bool,
    image: np.ndarray,
    seed: int | np.random.Generator,
    **_: np.ndarray,  # what albumentations says about an image
) -> np.ndarray:
    random = np.random.default_rng(seed)  # a generator is taken as it is
    drawn = int(random.integers(len(names) + 1))
    severity = float(random.uniform(1, 5)) if continuous else float(random.integers(1, 6))
    if drawn == len(names):
        _check(image)
        return image.copy()
    values = np.array(SETS[data_set][names[drawn]], float)
    low = min(int(severity), 4)
    between = values[low - 1] + (severity - low) * (values[low] - values[low - 1])
    return _applied(data_set, names[drawn], image, between.tolist(), scaled, random)
