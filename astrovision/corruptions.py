"""What goes wrong with images of galaxies, in five steps: noise, seeing, sampling, bands, saturation, cosmic rays.

The protocol is that of Hendrycks and Dietterich (2019): every corruption has five severities, and a model is scored on
each. Here their scales are physical, and every cell of such a table can be computed alone (`corrupt`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from shared_backbones.errors import InputError

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

SCALES: Mapping[str, tuple[float, float, float, float, float]] = {
    "sky_noise": (0.02, 0.04, 0.07, 0.11, 0.16),
    "psf_blur": (2.0, 3.0, 4.5, 6.5, 9.0),
    "pixel_scale": (2.0, 3.0, 4.0, 6.0, 8.0),
    "missing_band": (0.2, 0.4, 0.6, 0.8, 1.0),
    "saturation": (1.25, 1.6, 2.2, 3.2, 5.0),
    "cosmic_rays": (1.0, 2.0, 4.0, 8.0, 16.0),
}
"""What the severities 1 to 5 mean.

- `sky_noise`: standard deviation of noise added to each pixel and band, in values from 0 to 1.
- `psf_blur`: full width at half maximum, in pixels, of a Gaussian that the image is convolved with.
- `pixel_scale`: how many times larger pixels are, in arcsec, before the image is enlarged to its size again.
- `missing_band`: share of a band's light above its background that is lost.
- `saturation`: exposure, in units of the one whose full well is the brightest value; what is above it bleeds along
  the columns.
- `cosmic_rays`: tracks for each 10,000 pixels, and at least as many as the severity.
"""
_BLEEDING = 8.0  # pixels over which a trail falls to 1/e
_TRACK = 10.0, 40.0  # shortest and longest track in pixels


def corrupt(name: str, image: np.ndarray, severity: int, *, seed_key: Sequence[str | int]) -> np.ndarray:
    """An image with one corruption, the same whenever and wherever it is made.

    The generator is seeded by the sha256 of name, severity and `seed_key`.

    Args:
        name: one of `CORRUPTIONS`.
        image: `(C, H, W)`, values from 0 to 1; it is left as it is.
        severity: 1 to 5, see `SCALES`.
        seed_key: what tells this image from others, such as the run's seed and the image's key.

    Returns:
        `(C, H, W)` float32, values from 0 to 1.

    Raises:
        InputError: no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"corruption {name!r} is unknown; expected one of: {', '.join(CORRUPTIONS)}")
    parts = [name, int(severity), *(part if isinstance(part, str) else int(part) for part in seed_key)]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return CORRUPTIONS[name](image, severity, np.random.default_rng(int.from_bytes(digest)))


def sky_noise(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Noise of a brighter sky or a shorter exposure: Gaussian, the same everywhere."""
    noise = random.standard_normal(image.shape, np.float32)
    return _limited(image + _scale("sky_noise", severity) * noise)


def psf_blur(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Worse seeing: a wider point-spread function."""
    from scipy.ndimage import gaussian_filter

    sigma = _scale("psf_blur", severity) / (2 * np.sqrt(2 * np.log(2)))
    return _limited(gaussian_filter(np.asarray(image, np.float32), (0, sigma, sigma), mode="nearest"))


def pixel_scale(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Coarser pixels: the image is averaged onto them, and enlarged to its size again (bilinear)."""
    import torch
    import torch.nn.functional as F

    height, width = image.shape[1:]
    factor = _scale("pixel_scale", severity)
    small = max(1, round(height / factor)), max(1, round(width / factor))
    values = torch.from_numpy(np.array(image, np.float32))[None]  # a copy: torch takes no read-only view
    coarse = F.interpolate(values, small, mode="area")
    return _limited(F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0].numpy())


def missing_band(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """A drawn band that lost light, down to the background at severity 5: the median of the image's border."""
    corrupted = np.array(image, np.float32)
    band = int(random.integers(len(corrupted)))
    border = np.concatenate([corrupted[band, [0, -1]].ravel(), corrupted[band, :, [0, -1]].ravel()])
    background = np.median(border)
    corrupted[band] = background + (1 - _scale("missing_band", severity)) * (corrupted[band] - background)
    return _limited(corrupted)


def saturation(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """A longer exposure: cores beyond the full well are flat, and their light bleeds up and down the columns."""
    from scipy.ndimage import convolve1d

    well = float(np.max(image, initial=0))
    exposed = _scale("saturation", severity) * np.asarray(image, np.float32)
    reach = np.arange(-4 * int(_BLEEDING), 4 * int(_BLEEDING) + 1)
    trail = np.exp(-np.abs(reach) / _BLEEDING)
    bled = convolve1d(np.maximum(exposed - well, 0), trail / trail.sum(), axis=1, mode="constant")
    return _limited(np.minimum(exposed + bled, well))


def cosmic_rays(image: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Straight tracks, each in one band, as of a band that was exposed once."""
    corrupted = np.array(image, np.float32)
    bands, height, width = corrupted.shape
    count = max(int(severity), round(_scale("cosmic_rays", severity) * height * width / 1e4))
    draws = random.random((count, 6))  # a row for each track: more tracks leave the first as they are
    length = _TRACK[0] + (_TRACK[1] - _TRACK[0]) * draws[:, 2]
    angle = 2 * np.pi * draws[:, 3]
    along = np.arange(0, _TRACK[1], 0.5)
    rows, columns = (
        np.floor(draws[:, place, None] * side + along * turn[:, None]).astype(int)
        for place, side, turn in ((0, height, np.sin(angle)), (1, width, np.cos(angle)))
    )
    band = np.broadcast_to((draws[:, 4, None] * bands).astype(int), rows.shape)
    light = np.broadcast_to(0.5 + 0.5 * draws[:, 5, None], rows.shape).astype(np.float32)
    hit = (along < length[:, None]) & (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    tracks = np.zeros_like(corrupted)
    np.maximum.at(tracks, (band[hit], rows[hit], columns[hit]), light[hit])
    return _limited(corrupted + tracks)


CORRUPTIONS: Mapping[str, Corruption] = {
    "sky_noise": sky_noise,
    "psf_blur": psf_blur,
    "pixel_scale": pixel_scale,
    "missing_band": missing_band,
    "saturation": saturation,
    "cosmic_rays": cosmic_rays,
}
"""By name: of an image `(C, H, W)` with values from 0 to 1, a severity from 1 to 5 and a generator."""

FAMILIES: Mapping[str, str] = {
    "sky_noise": "observation",
    "psf_blur": "observation",
    "pixel_scale": "observation",
    "missing_band": "detector",
    "saturation": "detector",
    "cosmic_rays": "detector",
}
"""Where each comes from: the observation's depth, seeing and sampling, or its detectors."""


def _scale(name: str, severity: int) -> float:
    if severity not in range(1, 6):
        raise InputError(f"severity of {name} is {severity}, expected 1 to 5")
    return SCALES[name][int(severity) - 1]


def _limited(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1).astype(np.float32, copy=False)
