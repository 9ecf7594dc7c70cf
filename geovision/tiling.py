"""Tiles that cover an axis, and the weights by which overlapping ones are blended."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of a scene.

    Attributes:
        length: length of the axis in pixels.
        size: length of a tile, at most `length`.
        starts: first pixel of each tile; the last tile ends with the axis.
        weights: `(tiles, size)` float32; over all tiles, those of a pixel add up to 1.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    weights: np.ndarray

    @classmethod
    def cover(cls, length: int, size: int, overlap: int, margin: int = 0) -> "Axis":
        """Cover an axis with tiles that share `overlap` pixels with the next, the last one perhaps more.

        Args:
            length: length of the axis.
            size: length of a tile.
            overlap: pixels that two tiles share; beyond both margins they are blended there.
            margin: pixels at either end of a tile that count for nothing, but for those at the ends of the axis.
        """
        size = min(size, length)
        starts = [*range(0, length - size, max(1, size - overlap)), length - size]
        ramp = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size))
        first, last = np.arange(size), np.arange(size)[::-1]
        total = np.zeros(length)
        rises = []
        for start in starts:
            distance = np.full(size, np.inf)
            if start > 0:
                distance = np.minimum(distance, first + 0.5 - margin)
            if start + size < length:
                distance = np.minimum(distance, last + 0.5 - margin)
            distance = np.minimum(distance, ramp) if margin == 0 else distance
            rise = np.clip(distance / max(overlap - 2 * margin, 1), 0.0, 1.0)
            rises.append(rise)
            total[start : start + size] += rise
        weights = np.stack([rise / total[start : start + size] for start, rise in zip(starts, rises, strict=True)])
        return cls(length, size, tuple(starts), weights.astype(np.float32))

    def finished(self, tile: int) -> int:
        """The pixel before which everything is done once this tile is: where the next tile starts."""
        return self.starts[tile + 1] if tile + 1 < len(self.starts) else self.length

    def runs(self, most: int) -> list[Sequence[int]]:
        """Numbers of consecutive tiles, at most so many at once."""
        count = len(self.starts)
        return [range(first, min(first + most, count)) for first in range(0, count, most)]
