"""What goes wrong with satellite images, in five steps: haze, clouds and shadows, the sensor, and what is missing.

The protocol is that of Hendrycks and Dietterich (2019): every corruption has five severities, and a model is scored on
each. Here their scales are relative to the range of each band's numbers, so that they mean the same for reflectances,
radiances and digital numbers, and every cell of such a table can be computed alone (`corrupt`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geovision.sensors import find_sensor
from shared_backbones.errors import InputError

SCALES: Mapping[str, tuple[float, float, float, float, float]] = {
    "haze": (0.1, 0.2, 0.3, 0.45, 0.6),
    "clouds": (0.1, 0.2, 0.3, 0.4, 0.55),
    "cloud_shadow": (0.15, 0.25, 0.35, 0.5, 0.65),
    "sensor_noise": (0.01, 0.02, 0.04, 0.07, 0.12),
    "striping": (0.01, 0.02, 0.04, 0.07, 0.12),
    "defocus": (0.6, 0.9, 1.3, 1.9, 2.8),
    "coarse_pixels": (1.5, 2.0, 3.0, 4.0, 6.0),
    "band_misregistration": (0.5, 1.0, 1.5, 2.5, 4.0),
    "dead_lines": (0.01, 0.03, 0.06, 0.1, 0.2),
    "missing_pixels": (0.05, 0.1, 0.2, 0.35, 0.5),
}
"""What the severities 1 to 5 mean.

- `haze`: fraction of the ground's light that haze replaces at the shortest wavelength; less at longer ones.
- `clouds`: fraction of the image that is below clouds, which are bright and have soft borders.
- `cloud_shadow`: fraction of the light that is lost in the shadow, which covers about half of the image.
- `sensor_noise`: standard deviation of noise in each pixel and band, as a fraction of the band's range.
- `striping`: standard deviation of an offset of each column of detectors in each band, as a fraction of the range.
- `defocus`: standard deviation in pixels of the Gaussian that the image is convolved with.
- `coarse_pixels`: how many times larger pixels are before the image is enlarged to its size again.
- `band_misregistration`: pixels that each band but the first is shifted by, in a direction of its own.
- `dead_lines`: fraction of the rows of each band that hold the lowest number of its range.
- `missing_pixels`: fraction of the image that has no data, from one of its borders inwards.
"""

_WAVELENGTH_POWER = -1.3  # of scattering by haze (Chavez 1988: from -4, very clear, to -0.5, very hazy)


@dataclass(frozen=True)
class Spectrum:
    """Bands of images that are corrupted.

    Attributes:
        wavelengths_nm: Centre of each band, `(C,)`.
        low: Number of a dark surface in each band, `(C,)`.
        high: Number of a bright one, `(C,)`.
    """

    wavelengths_nm: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, sensor: str, bands: Sequence[str]) -> "Spectrum":
        """The bands of a sensor, with the ranges of some images.

        They go from mean - 2 std, but no less than the smallest number, to mean + 2 std. So whichever model is measured
        on these images sees the same ones.

        Args:
            images: `(N, C, H, W)`, NaN where there are no data.
            sensor: Name of the sensor.
            bands: Names of its bands.

        Raises:
            InputError: a band has no data.
        """
        values = np.where(np.isfinite(images), images, np.nan).swapaxes(0, 1).reshape(images.shape[1], -1)
        lost = [name for name, row in zip(bands, values, strict=True) if np.isnan(row).all()]
        if lost:
            raise InputError(f"the images have no data in {lost[0]}; give others")
        mean, std = np.nanmean(values, 1, np.float64), np.nanstd(values, 1, np.float64)
        wavelengths = [find_sensor(sensor).band(name).wavelength_nm for name in bands]
        return cls(np.array(wavelengths, float), np.maximum(mean - 2 * std, np.nanmin(values, 1)), mean + 2 * std)

    @property
    def ranges(self) -> np.ndarray:
        """Range of each band, `(C, 1, 1)` float32."""
        return (self.high - self.low).astype(np.float32)[:, None, None]


Corruption = Callable[[np.ndarray, int, Spectrum, np.random.Generator], np.ndarray]


def corrupt(
    name: str, image: np.ndarray, severity: int, spectrum: Spectrum, *, seed_key: Sequence[str | int]
) -> np.ndarray:
    """An image with one corruption, the same whenever and wherever it is made.

    The generator is seeded by the sha256 of name, severity and `seed_key`.

    Args:
        name: One of `CORRUPTIONS`.
        image: `(C, H, W)` of whole numbers or floating point, NaN where there are no data; it is left as it is.
        severity: 1 to 5; `SCALES` says what they mean.
        spectrum: Bands of the image.
        seed_key: What tells this image from others, such as the run's seed and the image's number.

    Returns:
        `(C, H, W)` float32, NaN where there are no data.

    Raises:
        InputError: no such corruption or severity, or another number of bands.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"corruption {name!r} is unknown; expected one of: {', '.join(CORRUPTIONS)}")
    if image.ndim != 3 or len(image) != len(spectrum.low):
        raise InputError(f"image is {image.shape}, expected {len(spectrum.low)} bands, rows and columns")
    parts = [name, int(severity), *(part if isinstance(part, str) else int(part) for part in seed_key)]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest))
    return CORRUPTIONS[name](np.array(image, np.float32), severity, spectrum, random).astype(np.float32, copy=False)


def corruption_of(
    images: np.ndarray, sensor: str, bands: Sequence[str], seed: int
) -> Callable[[str, np.ndarray, int, int], np.ndarray]:
    """How images `(N, C, H, W)` such as these are corrupted: by name, image, severity and the image's number.

    Args:
        images: Images that a model is measured on, NaN where there are no data.
        sensor: Name of their sensor.
        bands: Names of their bands.
        seed: Seed of all corruptions.
    """
    spectrum = Spectrum.of(images, sensor, bands)

    def corrupted(name: str, image: np.ndarray, severity: int, number: int) -> np.ndarray:
        return corrupt(name, image, severity, spectrum, seed_key=[seed, number])

    return corrupted


def haze(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """Aerosol between ground and sensor: less of the ground's light, and scattered light of short wavelengths."""
    fading = (spectrum.wavelengths_nm / spectrum.wavelengths_nm.min()) ** _WAVELENGTH_POWER
    lost = (_scale("haze", severity) * fading).astype(np.float32)[:, None, None]
    bright = spectrum.high.astype(np.float32)[:, None, None]
    return image * (1 - lost) + bright * lost


def clouds(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """Clouds of any shape, as bright as the brightest surfaces, through whose borders the ground can be seen."""
    field = _smooth_field(image.shape[1:], random)
    border = np.quantile(field, 1 - _scale("clouds", severity))
    opacity = np.clip((field - border) / 0.25 + 0.5, 0, 1).astype(np.float32)
    bright = spectrum.high.astype(np.float32)[:, None, None]
    return image * (1 - opacity) + bright * opacity


def cloud_shadow(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """The shadow of clouds that lie beside the image."""
    depth = np.clip(_smooth_field(image.shape[1:], random) / 0.25 + 0.5, 0, 1).astype(np.float32)
    dark = spectrum.low.astype(np.float32)[:, None, None]
    return dark + (image - dark) * (1 - _scale("cloud_shadow", severity) * depth)


def sensor_noise(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """Noise of the detectors: Gaussian, independent in each pixel and band."""
    noise = random.standard_normal(image.shape, np.float32)
    return image + _scale("sensor_noise", severity) * spectrum.ranges * noise


def striping(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """Detectors of a push broom that are not calibrated alike: an offset for each column of each band."""
    offsets = random.standard_normal((len(image), 1, image.shape[2]), np.float32)
    return image + _scale("striping", severity) * spectrum.ranges * offsets


def defocus(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """A wider point-spread function."""
    from scipy.ndimage import gaussian_filter

    sigma = _scale("defocus", severity)
    return _where_known(image, lambda values: gaussian_filter(values, (0, sigma, sigma), mode="nearest"))


def coarse_pixels(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """Coarser pixels: the image is averaged onto them, and enlarged to its size again (bilinear)."""
    import torch
    import torch.nn.functional as F

    height, width = image.shape[1:]
    factor = _scale("coarse_pixels", severity)
    small = max(1, round(height / factor)), max(1, round(width / factor))

    def coarsen(values: np.ndarray) -> np.ndarray:
        coarse = F.interpolate(torch.from_numpy(values)[None], small, mode="area")
        return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0].numpy()

    return _where_known(image, coarsen)


def band_misregistration(
    image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator
) -> np.ndarray:
    """Bands that do not lie on one another: each but the first is shifted, and its border continued."""
    from scipy.ndimage import shift

    distance, angles = _scale("band_misregistration", severity), random.uniform(0, 2 * np.pi, len(image))
    moves = [(0.0, 0.0), *((distance * np.sin(angle), distance * np.cos(angle)) for angle in angles[1:])]
    return _where_known(
        image,
        lambda values: np.stack(
            [shift(band, move, order=1, mode="nearest") for band, move in zip(values, moves, strict=True)]
        ),
    )


def dead_lines(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """Rows that a band's detectors lost: they hold the lowest number of its range, and do not say so."""
    rows = random.random((len(image), image.shape[1], 1)) < _scale("dead_lines", severity)
    rows[random.integers(len(image)), random.integers(image.shape[1])] = True  # one or more
    dark = spectrum.low.astype(np.float32)[:, None, None]
    return np.where(rows & np.isfinite(image), dark, image)


def missing_pixels(image: np.ndarray, severity: int, spectrum: Spectrum, random: np.random.Generator) -> np.ndarray:
    """A border of the swath or a gap in the data: pixels without data beyond a slanted line."""
    height, width = image.shape[1:]
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:height, :width]
    along = rows * np.sin(angle) + columns * np.cos(angle)
    missing = along > np.quantile(along, 1 - _scale("missing_pixels", severity))
    return np.where(missing, np.float32(np.nan), image)


CORRUPTIONS: Mapping[str, Corruption] = {
    "haze": haze,
    "clouds": clouds,
    "cloud_shadow": cloud_shadow,
    "sensor_noise": sensor_noise,
    "striping": striping,
    "defocus": defocus,
    "coarse_pixels": coarse_pixels,
    "band_misregistration": band_misregistration,
    "dead_lines": dead_lines,
    "missing_pixels": missing_pixels,
}
"""By name: of an image `(C, H, W)` float32 that may be changed, a severity from 1 to 5, its bands and a generator."""

FAMILIES: Mapping[str, str] = {
    "haze": "atmosphere",
    "clouds": "atmosphere",
    "cloud_shadow": "atmosphere",
    "sensor_noise": "sensor",
    "striping": "sensor",
    "defocus": "sensor",
    "coarse_pixels": "sensor",
    "band_misregistration": "sensor",
    "dead_lines": "data",
    "missing_pixels": "data",
}
"""Where each comes from: the atmosphere, the sensor, or what is lost of the data."""


def _scale(name: str, severity: int) -> float:
    if severity not in range(1, 6):
        raise InputError(f"severity of {name} is {severity}, expected 1 to 5")
    return SCALES[name][int(severity) - 1]


def _smooth_field(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A random field `(H, W)` of mean 0 and standard deviation 1, smooth over a sixth of the image."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(random.standard_normal(shape), max(shape) / 6, mode="reflect")
    return (field - field.mean()) / max(float(field.std()), 1e-12)


def _where_known(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A change of an image whose pixels without data count as the band's mean, and stay without data."""
    known = np.isfinite(image)
    if known.all():
        return change(image)
    counts = np.maximum(known.sum((1, 2), keepdims=True), 1)
    means = np.where(known, image, 0).sum((1, 2), keepdims=True) / counts
    return np.where(known, change(np.where(known, image, means).astype(np.float32)), np.float32(np.nan))
