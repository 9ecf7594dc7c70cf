"""MedMNIST-C: what goes wrong with medical images, in five steps, and how errors under it are compared.

The protocol is that of Di Salvo, Doerrich and Ledig (2024, arXiv:2406.17536, package medmnistc 0.1.0): each of the 12
data sets of MedMNIST has its own corruptions and five severities, made for images of 224 x 224 pixels. Here every image
is seeded alone (`corrupt`), and neither ImageMagick nor OpenCV is needed. What has no random part gives medmnistc's
pixels, to within 1 of 255. What differs:

- random draws come from a generator for each image, not from one that runs on through a data set, so they follow the
  same distributions but are not those of the published files (for these see `medvision.datasets.medmnist_c`);
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
import math
import string
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from scipy import ndimage
from scipy.fft import next_fast_len

from shared_backbones.errors import InputError

Corruption = Callable[[np.ndarray, Any, float, np.random.Generator], np.ndarray]

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
        Of an `image` as `corrupt` takes it and a `seed`, a number or a generator, an image of the same shape. It can be
        pickled.

    Raises:
        InputError: no such data set or corruption.
    """
    for name in exclude:
        _parameters(data_set, name)
    names = tuple(name for name in _corruptions(data_set) if name not in exclude)
    return partial(_augmented, data_set, names, continuous, scaled)


def pixelate(image: np.ndarray, share: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Fewer pixels: averaged over boxes, and enlarged again."""
    height, width = image.shape[:2]
    share = share / (share + (1 - share) * scale)  # a block of 1 / share pixels grows to 1 + (1 / share - 1) * scale
    small = max(1, int(width * share)), max(1, int(height * share))
    coarse = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image: np.ndarray, quality: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """A JPEG file of low quality."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


def gaussian_noise(image: np.ndarray, sigma: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Noise of the electronics, the same everywhere."""
    return _bytes(image / 255 + random.normal(scale=sigma, size=image.shape))


def speckle_noise(image: np.ndarray, sigma: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Noise in proportion to the signal."""
    return _bytes(image / 255 * (1 + random.normal(scale=sigma, size=image.shape)))


def impulse_noise(image: np.ndarray, share: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Salt and pepper: single values of single channels become 0 or 255."""
    hit, salt = random.random((2, *image.shape))
    return np.where(hit <= share, np.where(salt <= 0.5, 255, 0), image).astype(np.uint8)


def shot_noise(image: np.ndarray, photons: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Noise of counted photons."""
    return _bytes(random.poisson(image / 255 * photons) / photons)


def defocus_blur(image: np.ndarray, lens: tuple[float, float], scale: float, random: np.random.Generator) -> np.ndarray:
    """Out of focus: a disc, its edge softened."""
    radius, softness = lens
    places = np.arange(-max(8, math.ceil(radius)), max(8, math.ceil(radius)) + 1)
    kernel = (places[:, None] ** 2 + places**2 <= radius**2).astype(float)
    kernel /= kernel.sum()
    side = math.exp(-1 / (2 * softness**2))
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, np.array([side, 1, side]) / (1 + 2 * side), axis, mode="mirror")
    return _bytes(_convolved(image / 255, kernel, scale, "reflect"))


def motion_blur(
    image: np.ndarray, streak: tuple[float, float], scale: float, random: np.random.Generator
) -> np.ndarray:
    """Moved while exposed: half a Gaussian along a line, within 45 degrees of the horizontal.

    The taps lie on whole pixels, and the border's pixels go on, as in ImageMagick's `MotionBlurImage`.
    """
    radius, sigma = streak
    angle = math.radians(random.uniform(-45, 45))
    reach = 2 * math.ceil(radius)
    along = np.arange(reach + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2))
    rows, columns = (np.ceil(along * turn - 0.5).astype(int) for turn in (math.sin(angle), math.cos(angle)))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(kernel, (reach - rows, reach - columns), weights / weights.sum())
    return _bytes(_convolved(image / 255, kernel, scale, "edge"))


def zoom_blur(image: np.ndarray, zoom: tuple[float, float], scale: float, random: np.random.Generator) -> np.ndarray:
    """Moved towards the lens while exposed: the mean of the image and of enlarged ones."""
    factors = np.arange(1, *zoom)
    values = image.astype(np.float32) / 255
    total = values.copy()
    for factor in factors:
        total += _zoomed(values, float(factor))
    return _bytes(total / (len(factors) + 1))


def gaussian_blur(image: np.ndarray, width: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """A Gaussian of the sigma that torchvision gives a kernel of that width."""
    sigma = 0.3 * ((width - 1) * 0.5 - 1) + 0.8
    places = np.arange(-(int(width) // 2), int(width) // 2 + 1)
    weights = np.exp(-(places**2) / (2 * sigma**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    return _bytes(_convolved(image / 255, kernel, scale, "reflect") + 0.5 / 255)


def brightness(image: np.ndarray, factor: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Brighter or darker by a factor."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))


def contrast(image: np.ndarray, factor: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Differences from the mean grey, times a factor."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))


def saturate(image: np.ndarray, added: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """More saturation, hue and value (as of HSV) unchanged; what has no hue turns red, as in the protocol."""
    values = image / 255
    value, low = values.max(2, keepdims=True), values.min(2, keepdims=True)
    saturation = (value - low) / np.maximum(value, 1e-9)
    lack = np.where(value > low, (value - values) / np.maximum(value - low, 1e-9), [0, 1, 1])
    return _bytes(value - value * np.minimum(saturation + added, 1) * lack)


def gamma_correction(image: np.ndarray, gamma: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Values to a power."""
    return (255.999 * (np.arange(256) / 255) ** gamma).astype(np.uint8)[image]


def stain_deposit(
    image: np.ndarray, marks: tuple[float, float], scale: float, random: np.random.Generator
) -> np.ndarray:
    """Black ink marks on the slide: blots with a ragged edge."""
    most, size = marks
    mask, width, height = _canvas(image, scale)
    draw = ImageDraw.Draw(mask)
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = np.arange(2, 7)
    for _ in range(_between(random, 1, int(most))):
        left, top = (_between(random, 10, side - int(size) - 10) for side in (width, height))
        phases, heights = random.uniform(0, 2 * np.pi, 5), random.normal(0, 0.11, 5)
        edge = 0.86 + heights @ np.cos(waves[:, None] * turn + phases[:, None]) + random.normal(0, 0.05, 72)
        radius = size / 2 * edge.clip(0.3, 1)
        points = np.stack([left + size / 2 + radius * np.cos(turn), top + size / 2 + radius * np.sin(turn)], 1)
        draw.polygon([(float(x), float(y)) for x, y in points], fill=255)
    return _painted(image, (0, 0, 0), mask)


def bubble(image: np.ndarray, bubbles: tuple[float, float], scale: float, random: np.random.Generator) -> np.ndarray:
    """Air under the cover slip: translucent white discs with a brighter rim of 2 pixels."""
    largest, most = bubbles
    mask, width, height = _canvas(image, scale)
    draw = ImageDraw.Draw(mask)
    for _ in range(_between(random, 7, int(most))):
        radius = _between(random, 3, int(largest))
        x, y = (_between(random, radius, side - radius) for side in (width, height))
        for reach, strength in ((radius + 2, 130), (radius, 100)):
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=strength)
    return _painted(image, (255, 255, 255), mask)


def black_corner(image: np.ndarray, radius: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Only what lies within a dermatoscope's circle is seen."""
    height, width = image.shape[:2]
    rows, columns = np.ogrid[:height, :width]
    reach = int(min(height // 2, width // 2) * radius)
    return np.where(((rows - height // 2) ** 2 + (columns - width // 2) ** 2 <= reach**2)[..., None], image, 0)


def characters(
    image: np.ndarray, text: tuple[float, float, float], scale: float, random: np.random.Generator
) -> np.ndarray:
    """Small words of random letters in random colours, such as are written onto images."""
    words, letters, size = text
    fine = 4  # times the canvas, for strokes of a pixel
    for _ in range(_between(random, 1, int(words))):
        count = _between(random, 3, int(letters))
        font = ImageFont.load_default(fine * 33 * _between(random, 14, int(size * 100)) / 100)
        word = "".join(string.ascii_lowercase[number] for number in random.integers(26, size=count))
        mask, width, height = _canvas(image, scale / fine)
        left = fine * _between(random, 10, width // fine - 8 * count)
        base = fine * _between(random, 10, height // fine - 10)
        red, green, blue = (int(number) for number in random.integers(256, size=3))
        ImageDraw.Draw(mask).text((left, base), word, fill=255, font=font, anchor="ls", stroke_width=fine // 2)
        image = _painted(image, (red, green, blue), mask)
    return image


CORRUPTIONS: Mapping[str, Corruption] = {
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "gaussian_noise": gaussian_noise,
    "speckle_noise": speckle_noise,
    "impulse_noise": impulse_noise,
    "shot_noise": shot_noise,
    "defocus_blur": defocus_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "gaussian_blur": gaussian_blur,
    "brightness_up": brightness,
    "brightness_down": brightness,
    "contrast_up": contrast,
    "contrast_down": contrast,
    "saturate": saturate,
    "stain_deposit": stain_deposit,
    "bubble": bubble,
    "black_corner": black_corner,
    "characters": characters,
    "gamma_corr_up": gamma_correction,
    "gamma_corr_down": gamma_correction,
}
"""By name: of an image `(H, W, 3)` uint8, a parameter as in `SETS`, the scale of lengths and a generator."""


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
    data_set: str, name: str, image: np.ndarray, parameter: Any, scaled: bool, random: np.random.Generator
) -> np.ndarray:
    _check(image)
    colour = image.ndim == 3
    whole = np.ascontiguousarray(image if colour else np.repeat(image[:, :, None], 3, 2))
    found = CORRUPTIONS[name](whole, parameter, min(image.shape[:2]) / _SIDE if scaled else 1.0, random)
    if not colour or data_set not in COLOUR:
        found = np.asarray(Image.fromarray(found).convert("L"))
        found = np.repeat(found[:, :, None], 3, 2) if colour else found
    return np.array(found)


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
    **_: Any,  # what albumentations says about an image
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


def _bytes(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 as uint8, cut off as in the protocol; what rounding took from a whole number is given back."""
    return (values * 255 + 1e-4).clip(0, 255).astype(np.uint8)


def _convolved(values: np.ndarray, kernel: np.ndarray, scale: float, border: Any) -> np.ndarray:
    """Convolve `(H, W, C)` with a square kernel of odd side whose taps lie `scale` pixels apart, by FFT."""
    if scale != 1:
        kernel = _spread(kernel, scale)
    reach = len(kernel) // 2
    height, width = values.shape[:2]
    padded = np.pad(values, ((reach, reach), (reach, reach), (0, 0)), mode=border)
    shape: Any = [next_fast_len(length, real=True) for length in padded.shape[:2]]
    spectrum = np.fft.rfft2(padded, shape, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[..., None]
    return np.fft.irfft2(spectrum, shape, axes=(0, 1))[2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def _spread(kernel: np.ndarray, scale: float) -> np.ndarray:
    """A kernel on finer or coarser pixels: each tap is shared, linearly, by the pixels on either side of its place."""
    reach = len(kernel) // 2
    taps = np.arange(-reach, reach + 1) * scale
    far = math.ceil(reach * scale + max(0.0, scale - 1))
    weights = np.clip(1 - np.abs(np.arange(-far, far + 1)[:, None] - taps) / max(1.0, scale), 0, None)
    weights /= weights.sum(0)
    return weights @ kernel @ weights.T


def _zoomed(values: np.ndarray, factor: float) -> np.ndarray:
    """The middle of `(H, W, C)`, enlarged to the same shape by linear interpolation between corner pixels."""
    for axis in (0, 1):
        length = values.shape[axis]
        part = math.ceil(length / factor)
        whole = round(part * factor)
        at = (np.arange(length) + (whole - length) // 2) * ((part - 1) / max(1, whole - 1)) + (length - part) // 2
        low = np.floor(at).astype(int)
        weight = np.expand_dims((at - low).astype(np.float32), [a for a in range(3) if a != axis])
        high = np.minimum(low + 1, length - 1)
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values


def _canvas(image: np.ndarray, scale: float) -> tuple[Image.Image, int, int]:
    """An empty mask of the image at the protocol's scale, to draw on; its width and height."""
    height, width = (max(1, round(side / scale)) for side in image.shape[:2])
    return Image.new("L", (width, height)), width, height


def _painted(image: np.ndarray, colour: tuple[int, int, int], mask: Image.Image) -> np.ndarray:
    """An image with a colour where a mask, brought to its size, says how much."""
    picture = Image.fromarray(image)
    picture.paste(colour, (0, 0), mask.resize(picture.size, Image.Resampling.BOX))
    return np.array(picture)


def _between(random: np.random.Generator, low: int, high: int) -> int:
    """A whole number, both ends included; the lower end where there is none between."""
    return int(random.integers(low, max(low, high) + 1))
