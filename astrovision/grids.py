"""Grids of mosaics: whether two are the same, their pixel scale, and resampling of windows to another one."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astrovision.planes import Plane, reading

if TYPE_CHECKING:
    from astropy.wcs import WCS

_SAME_PLACE = 0.01  # pixels


def same_grid(first: Plane, other: Plane) -> bool:
    """Whether pixels coincide, within a hundredth of one."""
    if first.shape != other.shape or (first.wcs is None) != (other.wcs is None):
        return False
    if first.wcs is other.wcs:
        return True
    from astropy.wcs.utils import pixel_to_pixel

    height, width = first.shape
    x, y = np.array([0, width - 1, 0, width - 1, width / 2]), np.array([0, 0, height - 1, height - 1, height / 2])
    with reading(Path(other.label)):
        moved = np.abs(np.subtract(pixel_to_pixel(first.wcs, other.wcs, x, y), (x, y)))
    on_sky = np.isfinite(moved)  # the corners of a map of the whole sky are nowhere
    return bool(on_sky.any() and moved[on_sky].max() < _SAME_PLACE)


def described(plane: Plane) -> str:
    """A plane's grid in words: size, pixel scale and centre."""
    height, width = plane.shape
    if plane.wcs is None:
        return f"{height} x {width} pixels, no WCS"
    with reading(Path(plane.label)):
        centre = plane.wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs
    return (
        f"{height} x {width} pixels of {pixel_scale(plane.wcs):.4g} arcsec around {centre.ra.deg:.5f}, "
        f"{centre.dec.deg:.5f}"
    )


def pixel_scale(wcs: "WCS | None") -> float | None:
    """Mean pixel scale in arcseconds, or None without a WCS."""
    if wcs is None:
        return None
    from astropy.wcs.utils import proj_plane_pixel_scales

    return math.sqrt(float(np.prod(proj_plane_pixel_scales(wcs)))) * 3600


def taps(places: np.ndarray, reach: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a line of `side`, and their weights, under triangles of half a width `reach`: `(..., taps)` each."""
    numbers = np.floor(places - reach)[..., None] + np.arange(1, math.ceil(2 * reach) + 1)
    weights = np.maximum(1 - np.abs(numbers - places[..., None]) / reach, 0)
    return numbers.clip(0, side - 1), weights / weights.sum(-1, keepdims=True)


def weigh(layers: np.ndarray, numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of rows of `(C, h, w)` under `(size, taps)`, turned: `(C, w, size)`, so that columns are next."""
    rows, factors = numbers.astype(np.intp), weights.astype(np.float32)[..., None]
    total = layers.take(rows[:, 0], axis=1) * factors[:, 0]
    for tap in range(1, rows.shape[1]):
        total += layers.take(rows[:, tap], axis=1) * factors[:, tap]
    return np.ascontiguousarray(total.swapaxes(1, 2))
