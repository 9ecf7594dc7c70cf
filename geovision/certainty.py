"""How certain a map is, measured while it is made: in cells that fit into a picture, and by class."""

import math
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter


class Place(NamedTuple):
    """The middle of a part of a map, in pixels, and the mean probability there of the class that was taken."""

    row: int
    column: int
    confidence: float


class Certainty:
    """Mean probability of the class that was taken, gathered part by part in memory that the scene does not change.

    Args:
        shape: Height and width of the map in pixels.
        classes: Number of classes.
        longest: Cells of the longer side, at most.

    Attributes:
        cell: Side of a cell in pixels; those at the right and the lower rim may be smaller.
    """

    def __init__(self, shape: tuple[int, int], classes: int, longest: int = 1024) -> None:
        self.shape = shape
        self.cell = math.ceil(max(shape) / longest)
        cells = (math.ceil(shape[0] / self.cell), math.ceil(shape[1] / self.cell))
        self._sums, self._pixels = np.zeros(cells), np.zeros(cells)
        self._by_class = np.zeros((2, classes + 1))  # sums, and pixels; the last are invalid

    def add(self, row: int, column: int, classes: np.ndarray, confidence: np.ndarray, valid: np.ndarray) -> None:
        """Add a part of the map: its first row and column, and `(h, w)` classes, probabilities and validity."""
        count = self._by_class.shape[1]
        rows, columns = (
            (np.arange(start, start + length) // self.cell).astype(np.int32)
            for start, length in zip((row, column), valid.shape, strict=True)
        )
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
        bins = (rows - top)[:, None] * (width * count) + (columns - left) * count + np.where(valid, classes, count - 1)
        size = height * width * count
        sums = np.bincount(bins.ravel(), confidence.ravel(), size).reshape(height, width, count)
        pixels = np.bincount(bins.ravel(), minlength=size).reshape(height, width, count)
        part = slice(top, top + height), slice(left, left + width)
        self._sums[part] += sums[..., :-1].sum(-1)
        self._pixels[part] += pixels[..., :-1].sum(-1)
        self._by_class += sums.sum((0, 1)), pixels.sum((0, 1))

    @property
    def cells(self) -> np.ndarray:
        """Mean probability of each cell, NaN where no pixel is valid."""
        return _ratio(self._sums, self._pixels)

    @property
    def mean(self) -> float | None:
        """Mean probability of all valid pixels; None where there is none."""
        pixels = self._pixels.sum()
        return float(self._sums.sum() / pixels) if pixels else None

    def of_class(self, number: int) -> float | None:
        """Mean probability of the pixels of a class; None where there is none."""
        total, pixels = self._by_class[:, number]
        return float(total / pixels) if pixels else None

    def doubtful(self, side: int, count: int) -> list[Place]:
        """The parts of the map with the lowest mean probability, the worst first, which do not overlap.

        Args:
            side: Side of a part in pixels.
            count: Number of parts, at most.
        """
        size = max(1, round(side / self.cell))
        sums, pixels = (uniform_filter(part, size, mode="constant") for part in (self._sums, self._pixels))
        half_full = pixels >= 0.5 * pixels.max()
        means = np.where(half_full & (self._pixels > 0), _ratio(sums, pixels), np.inf)
        places = []
        while len(places) < count:
            row, column = np.unravel_index(np.argmin(means), means.shape)
            worst = float(means[row, column])
            if not math.isfinite(worst):
                break
            middle = [
                min(int(part) * self.cell + self.cell // 2, length - 1)
                for part, length in zip((row, column), self.shape, strict=True)
            ]
            places.append(Place(middle[0], middle[1], worst))
            means[max(0, row - size + 1) : row + size, max(0, column - size + 1) : column + size] = np.inf
        return places


def _ratio(total: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return np.divide(total, pixels, out=np.full(total.shape, np.nan), where=pixels > 0)
