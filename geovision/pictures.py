"""Pictures of satellite images, for those who look at them."""

from collections.abc import Sequence

import numpy as np

_COLORS = (("B4", "B3", "B2"), ("red", "green", "blue"), ("B3", "B2", "B1"))


def shown_bands(bands: Sequence[str]) -> list[str]:
    """Three bands that make a picture: the true colours where they are there."""
    for wanted in _COLORS:
        if all(name in bands for name in wanted):
            return list(wanted)
    return [bands[0]] * 3


def stretched(bands: np.ndarray) -> np.ndarray:
    """Three bands `(3, H, W)` as a picture `(H, W, 3)` uint8, from their 2nd to their 98th percentile.

    Where a band is not finite, such as NaN where there are no data, it is drawn in black.
    """
    known = np.isfinite(bands).all(0)
    if not known.any():
        return np.zeros((*bands.shape[1:], 3), np.uint8)
    low, high = (part[:, None, None] for part in np.percentile(bands[:, known], [2, 98], axis=1))
    scaled = np.clip((bands - low) / np.maximum(high - low, 1e-12), 0, 1)
    return (np.where(known, scaled, 0).transpose(1, 2, 0) * 255).round().astype(np.uint8)


def picture(image: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """An image `(C, H, W)` with such bands as a picture `(H, W, 3)` uint8."""
    return stretched(image[[bands.index(band) for band in shown_bands(bands)]].astype(np.float32))
