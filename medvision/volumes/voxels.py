"""Voxels as numbers: stored values scaled, checked and counted block by block."""

import math
from collections.abc import Iterator

import numpy as np

from medvision.volumes.headers import Layout, Stream, take
from shared_backbones.errors import InputError

BLOCK = 1 << 22  # bytes read at a time
_AT_ONCE = 1 << 17  # voxels that are computed with at a time; in float64, what is beside them is a few MB
LARGEST_VALUE = 1e30
"""Largest value that a header's slope and intercept may give: float32 holds it, and sums of it."""
_LARGEST_LABEL = np.iinfo(np.int32).max
# A label may miss its integer by what a slope of 1 loses in float32, but not by a hundredth.
_LABEL_ERROR, _LARGEST_LABEL_ERROR = 4 * float(np.finfo(np.float32).eps), 0.01


def read_intensities(stream: Stream, layout: Layout, allow_nonfinite: bool, name: str) -> np.ndarray:
    """Values (X, Y, Z) float32 of one volume, after slope and intercept.

    NaN and what is infinite downwards become the lowest finite value where `allow_nonfinite`, what is infinite upwards
    the highest.

    Raises:
        InputError: not finite, beyond what can be computed with, or all equal.
    """
    data = np.empty(layout.voxels, np.float32)
    low, high, nan, infinite = np.inf, -np.inf, 0, 0
    with np.errstate(all="ignore"):
        for where, stored in _blocks(stream, layout, name):
            block = data[where]
            block[:] = _scale(stored, layout, name)
            finite = np.isfinite(block)
            if finite.all():
                low, high = min(low, block.min()), max(high, block.max())
                continue
            low = min(low, block.min(where=finite, initial=np.inf))
            high = max(high, block.max(where=finite, initial=-np.inf))
            nan_here = int(np.count_nonzero(np.isnan(block)))
            nan, infinite = nan + nan_here, infinite + int(np.count_nonzero(~finite)) - nan_here
    if nan + infinite:
        _check_nonfinite(nan, infinite, layout, allow_nonfinite, name, "the lowest finite value")
        for start in range(0, data.size, _AT_ONCE):
            np.nan_to_num(data[start : start + _AT_ONCE], copy=False, nan=low, posinf=high, neginf=low)
    if not low < high:
        problem = f"every voxel is {low:g}" if math.isfinite(low) else "no voxel is finite"
        raise InputError(f"{name}: {problem}; expected an image; check how the scan was exported")
    return data.reshape(layout.grid.shape, order="F")


def read_label_map(stream: Stream, layout: Layout, allow_nonfinite: bool, name: str) -> np.ndarray:
    """Labels (X, Y, Z) of one volume, in the file's integer type, or int32 where it is none.

    Raises:
        InputError: a value is no integer, too large, or not finite.
    """
    data = np.empty(layout.voxels, layout.label_type)
    integers = layout.dtype.kind in "iu" and not layout.scaled
    nan = infinite = 0
    with np.errstate(all="ignore"):
        for where, stored in _blocks(stream, layout, name):
            values = stored
            if not integers:
                values = np.array(_scale(stored, layout, name), np.float64)
                finite = np.isfinite(values)
                nan_here = int(np.count_nonzero(np.isnan(values)))
                nan, infinite = nan + nan_here, infinite + int(np.count_nonzero(~finite)) - nan_here
                values = _integers(np.where(finite, values, 0), name)
            data[where] = values
    if nan + infinite:
        _check_nonfinite(nan, infinite, layout, allow_nonfinite, name, "0")
    return data.reshape(layout.grid.shape, order="F")


def _integers(values: np.ndarray, name: str) -> np.ndarray:
    """The integers that values stand for."""
    nearest = np.rint(values)
    size = np.abs(values)
    odd = (np.abs(values - nearest) > np.minimum(_LABEL_ERROR * size, _LARGEST_LABEL_ERROR)) | (size > _LARGEST_LABEL)
    if odd.any():
        raise InputError(
            f"{name}: holds the value {values[odd][0]:.9g}; expected integer labels up to {_LARGEST_LABEL}; "
            "give a label map, not an image or probabilities"
        )
    return nearest


def _blocks(stream: Stream, layout: Layout, name: str) -> Iterator[tuple[slice, np.ndarray]]:
    """The stored numbers of one volume, block by block, and where each block belongs in the flat volume."""
    for start in range(0, layout.voxels, _AT_ONCE):
        stop = min(start + _AT_ONCE, layout.voxels)
        yield (
            slice(start, stop),
            np.frombuffer(take(stream, (stop - start) * layout.dtype.itemsize, name), layout.dtype),
        )


def _scale(stored: np.ndarray, layout: Layout, name: str) -> np.ndarray:
    """Values of stored numbers, in float64 for the length of a block, as nibabel computes them."""
    if not layout.scaled:
        return stored
    values = stored * np.float64(layout.slope) + np.float64(layout.inter)
    if (np.isfinite(stored) & ~(np.abs(values) <= LARGEST_VALUE)).any():
        raise InputError(
            f"{name}: its header scales voxels by slope {layout.slope:g} and intercept {layout.inter:g}, to values "
            f"beyond {LARGEST_VALUE:g}; expected smaller ones; convert the scan again"
        )
    return values


def _check_nonfinite(nan: int, infinite: int, layout: Layout, allowed: bool, name: str, instead: str) -> None:
    counted = f"{nan} NaN and {infinite} infinite voxels of {layout.voxels}"
    if not allowed:
        raise InputError(
            f"{name}: holds {counted}; expected finite ones; fix it, or use --allow-nonfinite to read them as {instead}"
        )
    layout.warnings.append(f"{counted} were read as {instead}")
