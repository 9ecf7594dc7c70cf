"""Windows of one size, copied or resampled from planes that lie on one grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astrovision.grids import taps, weigh
from astrovision.planes import Plane

PARTIAL, OFF_IMAGE, HAS_INVALID = 1, 2, 4
FLAGS = {PARTIAL: "partial", OFF_IMAGE: "off_image", HAS_INVALID: "has_invalid"}
"""What a cut-out's flags say: part of it lies outside, all of it does, or pixels of it have no value."""
_CHUNK = 2**18  # values that are looked at while they are in the processor's cache


@dataclass(frozen=True)
class Cutouts:
    """Cut-outs of one size.

    Attributes:
        values: `(N, C, size, size)` float32 in the mosaic's unit, 0 where not valid.
        valid: `(N, size, size)` bool: inside the mosaic, and finite in all bands.
        flags: `(N,)` uint8, sums of `PARTIAL`, `OFF_IMAGE` and `HAS_INVALID`.
    """

    values: np.ndarray
    valid: np.ndarray
    flags: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def valid_share(self, crop: float = 1.0) -> np.ndarray:
        """Share of the pixels that are valid, in the middle `crop` of the sides, `(N,)` from 0 to 1."""
        border = math.floor(self.valid.shape[1] * (1 - crop) / 2 + 1e-6)
        middle = slice(border, self.valid.shape[1] - border)
        return np.asarray(self.valid[:, middle, middle].mean((1, 2)))


@dataclass(frozen=True)
class Orientation:
    """How a grid is read.

    Attributes:
        backwards: axis (0 for x, 1 for y) along which the result is mirrored; None for none.
        from_end: for x and y, whether the pixels of a window are counted from its end: of a place in the middle of two
            windows the one is taken that the grid would give if it were stored in the other order.
    """

    backwards: int | None = None
    from_end: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Sampling:
    """How windows are taken from a grid.

    Attributes:
        size: side in pixels of the result.
        ratios: pixels of the grid along x and y to one of the result; None where pixels are copied.
        orientation: how it is read.
        shape: height and width of the grid.
        period: columns after which the grid begins again; None where it does not.
    """

    size: int
    ratios: tuple[float, float] | None
    orientation: Orientation
    shape: tuple[int, int]
    period: int | None

    @property
    def extent(self) -> np.ndarray:
        """Width and height of a window in pixels of the grid."""
        return self.size * np.array(self.ratios or (1.0, 1.0))

    def touches(self, positions: np.ndarray) -> np.ndarray:
        """Whether any of the windows around places `(N, 2)` lies on the grid, `(N,)` bool."""
        start = (
            _starts(positions, self.size, self.orientation)
            if self.ratios is None
            else positions - self.extent / 2 + 0.5
        )
        with np.errstate(invalid="ignore"):
            overlap = np.isfinite(positions) & (start + self.extent > 0) & (start < self.shape[::-1])
        return np.asarray(overlap.all(1))

    def take(self, planes: Sequence[Plane], positions: np.ndarray) -> Cutouts:
        """Windows around places `(N, 2)`, NaN where unknown."""
        cutouts = self._copied(planes, positions) if self.ratios is None else self._resampled(planes, positions)
        if self.orientation.backwards is None:
            return cutouts
        axis = -1 - self.orientation.backwards
        return Cutouts(
            np.ascontiguousarray(np.flip(cutouts.values, axis)), np.ascontiguousarray(np.flip(cutouts.valid, axis)),
            cutouts.flags,
        )  # fmt: skip

    def reach(self) -> int:
        """Side in pixels of what is read for a window."""
        if self.ratios is None:
            return self.size
        return max(math.ceil((self.size - 1) * ratio + 2 * max(ratio, 1.0)) + 1 for ratio in self.ratios)

    def _wraps(self, positions: np.ndarray) -> np.ndarray:
        """Whether columns beyond a border are those of the other one: around places on a map of the whole sky."""
        if self.period is None:
            return np.zeros(len(positions), bool)
        with np.errstate(invalid="ignore"):
            return np.asarray((positions[:, 0] >= -0.5) & (positions[:, 0] < self.shape[1] - 0.5))

    def _copied(self, planes: Sequence[Plane], positions: np.ndarray) -> Cutouts:
        size, count = self.size, len(planes)
        known = np.asarray(np.isfinite(positions).all(1))
        # beyond the bounds all is off the image, and float64 has no place for it among the integers
        centres = np.clip(np.where(known[:, None], positions, -1e9), -1e9, 1e9)
        start = _starts(centres, size, self.orientation).astype(np.int64)
        wraps = self._wraps(positions)
        low, high = np.maximum(start, 0), np.minimum(start + size, self.shape[::-1])
        low[wraps, 0], high[wraps, 0] = start[wraps, 0], start[wraps, 0] + size
        extent = np.maximum(high - low, 0)
        area = extent.prod(1)
        flags = np.where(area == 0, OFF_IMAGE, np.where(area < size * size, PARTIAL, 0)).astype(np.uint8)
        values = np.empty((len(positions), count, size, size), np.float32)
        valid = np.empty((len(positions), size, size), bool)
        windows = np.concatenate([low, high, start], 1).tolist()
        step = max(1, _CHUNK // (count * size * size))
        whole = flags == 0
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(positions), step):
                part = slice(first, first + step)
                for number, (left, top, right, bottom, x, y) in enumerate(windows[part], first):
                    target = values[number]
                    if not whole[number]:
                        target.fill(np.nan)
                        if not area[number]:
                            continue
                        target = target[:, top - y : bottom - y, left - x : right - x]
                    for columns, place in self._runs(left, right):
                        for plane, out in zip(planes, target[..., place], strict=True):
                            plane.read(slice(top, bottom), columns, out)
                finite = np.isfinite(values[part, 0])
                for channel in range(1, count):
                    finite &= np.isfinite(values[part, channel])
                valid[part] = finite
                if not finite.all():
                    np.copyto(values[part], 0, where=~finite[:, None])
                    flags[part][finite.sum((1, 2)) < area[part]] |= HAS_INVALID
        return Cutouts(values, valid, flags)

    def _runs(self, left: int, right: int) -> list[tuple[slice, slice]]:
        """Columns of the grid that columns from `left` to `right` are, and where in the window they go."""
        if left >= 0 and right <= self.shape[1]:
            return [(slice(left, right), slice(None))]
        assert self.period is not None  # noqa: S101 - else nothing beyond the borders is asked for
        runs, column = [], left
        while column < right:
            source = column % self.period
            length = min(self.period - source, right - column)
            runs.append((slice(source, source + length), slice(column - left, column - left + length)))
            column += length
        return runs

    def _resampled(self, planes: Sequence[Plane], positions: np.ndarray) -> Cutouts:
        assert self.ratios is not None  # noqa: S101 - else pixels are copied
        size, side, count = self.size, self.reach(), len(planes)
        plain = Sampling(side, None, Orientation(), self.shape, self.period)
        values = np.empty((len(positions), count, size, size), np.float32)
        valid = np.empty((len(positions), size, size), bool)
        invalid = np.empty(len(positions), bool)
        ratios = np.array(self.ratios)
        steps = (np.arange(size) - (size - 1) / 2) * ratios[:, None]
        step = max(1, 8 * _CHUNK // (count * side * side))
        for first in range(0, len(positions), step):
            part = slice(first, first + step)
            native = plain.take(planes, positions[part])
            centres = np.where(np.isfinite(positions[part]), positions[part], 0)
            centres = centres - np.ceil(centres - side / 2)
            across, down = (
                np.stack(taps(centres[:, axis, None] + steps[axis], max(ratios[axis], 1.0), side)) for axis in (0, 1)
            )
            for number, patch in enumerate(native.values, first):
                seen, whole = native.valid[number - first], native.valid[number - first].all()
                layers = patch if whole else np.concatenate([patch, seen[None].astype(np.float32)])
                layers = weigh(weigh(layers, *down[:, number - first]), *across[:, number - first])
                if whole:
                    values[number], valid[number] = layers, True
                else:
                    valid[number] = covered = layers[-1] >= 0.5
                    values[number] = np.where(covered, layers[:-1] / np.maximum(layers[-1], 0.5), 0)
            invalid[part] = native.flags & HAS_INVALID > 0
        half, limits = self.extent / 2, np.array(self.shape[::-1]) - 0.5
        with np.errstate(invalid="ignore"):
            inside = (positions - half > -0.5 - 1e-6) & (positions + half < limits + 1e-6)
        inside[:, 0] |= self._wraps(positions)
        touches = self.touches(positions)
        flags = np.where(touches, np.where(inside.all(1), 0, PARTIAL) | (HAS_INVALID * invalid), OFF_IMAGE)
        values[~touches], valid[~touches] = 0, False
        return Cutouts(values, valid, flags.astype(np.uint8))


def _starts(positions: np.ndarray, size: int, orientation: Orientation) -> np.ndarray:
    """First pixels of windows."""
    start = np.ceil(positions - size / 2)
    for axis in (0, 1):
        if orientation.from_end[axis]:
            start[:, axis] = np.floor(positions[:, axis] - size / 2) + 1
    return start
