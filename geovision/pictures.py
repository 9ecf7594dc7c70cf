"""Pictures of satellite images, for those who look at them."""

import math
from collections.abc import Sequence

import numpy as np

from geovision.grids import Grid

_COLORS = (("B4", "B3", "B2"), ("red", "green", "blue"), ("B3", "B2", "B1"))
_BAR = 0.3  # of the width that a scale bar takes at most


def shown_bands(bands: Sequence[str]) -> list[str]:
    """Three bands that make a picture: the true colours where they are there."""
    for wanted in _COLORS:
        if all(name in bands for name in wanted):
            return list(wanted)
    return [bands[0]] * 3


def limits(bands: np.ndarray) -> np.ndarray:
    """The 2nd and the 98th percentile of bands `(C, H, W)` where all are finite: `(2, C)`, 0 where none is."""
    known = np.isfinite(bands).all(0)
    return np.percentile(bands[:, known], [2, 98], axis=1) if known.any() else np.zeros((2, len(bands)))


def stretched(bands: np.ndarray, between: np.ndarray | None = None) -> np.ndarray:
    """Three bands `(3, H, W)` as a picture `(H, W, 3)` uint8, from black to full colour.

    Where a band is not finite, such as NaN where there are no data, it is drawn in black.

    Args:
        bands: The bands.
        between: Values that are black, and those that are full, `(2, 3)`; by default `limits` of the bands.
    """
    known = np.isfinite(bands).all(0)
    low, high = (part[:, None, None] for part in (limits(bands) if between is None else between))
    scaled = np.clip((bands - low) / np.maximum(high - low, 1e-12), 0, 1)
    return (np.where(known, scaled, 0).transpose(1, 2, 0) * 255).round().astype(np.uint8)


def picture(image: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """An image `(C, H, W)` with such bands as a picture `(H, W, 3)` uint8."""
    return stretched(image[[bands.index(band) for band in shown_bands(bands)]].astype(np.float32))


def drawn_size(grid: Grid, side: float) -> tuple[float, float]:
    """Width and height of a picture of a map whose longer side is `side`, with pixels of their shape on the ground."""
    height = grid.height * grid.aspect
    factor = max(grid.width, height) / side
    return grid.width / factor, height / factor


def scale_bar(grid: Grid, width: float) -> tuple[float, str]:
    """Length of a scale bar in pixels of a picture, and what it stands for; nothing where the map has no scale.

    Args:
        grid: Grid of the map.
        width: Width of the picture in its pixels.
    """
    sides = grid.gsd_sides_m
    if sides is None:
        return 0.0, ""
    per_pixel = sides[0] * grid.width / width
    longest = per_pixel * width * _BAR
    power = 10.0 ** math.floor(math.log10(longest))
    metres = next(step * power for step in (5, 2, 1) if step * power <= longest)
    return metres / per_pixel, f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


def instance_colours(count: int) -> np.ndarray:
    """Colours of objects that differ from those of their neighbours in number, `(1 + count, 3)` uint8; 0 is black."""
    places = np.arange(count)
    hue, value = (places * 0.618034) % 1, 0.7 + 0.3 * (places % 2)
    offsets = np.array([0.0, 1 / 3, 2 / 3])
    wheel = np.clip(np.abs(((hue[:, None] + offsets) % 1) * 6 - 3) - 1, 0, 1)
    return np.concatenate([np.zeros((1, 3)), (0.25 + 0.75 * wheel) * value[:, None] * 255]).astype(np.uint8)
