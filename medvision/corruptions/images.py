"""What goes wrong with an image: a corruption is a function of pixels, a parameter, a scale of lengths and a generator.

Images are `(H, W, 3)` uint8. Lengths in pixels (kernels, marks, letters) are multiplied by `scale`; which parameters a
severity has, and what differs from medmnistc's, is in `medvision.corruptions.medmnist_c`.
"""

import math
import string
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from scipy import ndimage
from scipy.fft import next_fast_len

Parameter: TypeAlias = Any  # a number, or several: each corruption has its own
Corruption = Callable[[np.ndarray, Parameter, float, np.random.Generator], np.ndarray]


def pixelate(image: np.ndarray, fraction: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Fewer pixels: averaged over boxes, and enlarged again."""
    height, width = image.shape[:2]
    # a block of 1 / fraction pixels grows to 1 + (1 / fraction - 1) * scale
    fraction = fraction / (fraction + (1 - fraction) * scale)
    small = max(1, int(width * fraction)), max(1, int(height * fraction))
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


def impulse_noise(image: np.ndarray, fraction: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Salt and pepper: single values of single channels become 0 or 255."""
    hit, salt = random.random((2, *image.shape))
    return np.where(hit <= fraction, np.where(salt <= 0.5, 255, 0), image).astype(np.uint8)


def shot_noise(image: np.ndarray, photons: float, scale: float, random: np.random.Generator) -> np.ndarray:
    """Noise of counted photons."""
    return _bytes(random.poisson(image / 255 * photons) / photons)


def defocus_blur(image: np.ndarray, lens: tuple[float, float], scale: float, random: np.random.Generator) -> np.ndarray:
    """Out of focus: a disc with a softened border."""
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
        outline = 0.86 + heights @ np.cos(waves[:, None] * turn + phases[:, None]) + random.normal(0, 0.05, 72)
        radius = size / 2 * outline.clip(0.3, 1)
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


def _bytes(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 as uint8, cut off as in the protocol; what rounding took from a whole number is given back."""
    return (values * 255 + 1e-4).clip(0, 255).astype(np.uint8)


def _convolved(values: np.ndarray, kernel: np.ndarray, scale: float, border: Literal["reflect", "edge"]) -> np.ndarray:
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
