"""Class scores of a volume at the network's spacing: their labels and probabilities on the scan's own grid."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medvision.volumes.resampling import blocks, linear_weights

CERTAIN = 255
"""The score of a probability of 1, in one view."""
SMALLEST_SLICE = 0.25
"""Fraction of a structure's largest slice that a slice must hold to count; its tips are always the least certain."""


@dataclass(frozen=True)
class NetworkGrid:
    """The grid that the network works on, and how it lies on the scan's own.

    Attributes:
        box: the head's box on the network's grid; outside it everything is background.
        shape: voxels of the whole scan on the network's grid, axes RAS.
        scan_shape: voxels of the scan on its own grid, axes turned to RAS.
        scan_spacing_mm: spacing of the scan along the RAS axes.
        spacing_mm: spacing of the network along the RAS axes.
        from_ras: turns an array with RAS axes to the axes of the scan.
        starts: where the network's first voxel lies, in voxels of the scan, RAS axes; None where both grids have one
            centre. Scores are interpolated without antialiasing then.
    """

    box: tuple[slice, slice, slice]
    shape: tuple[int, ...]
    scan_shape: tuple[int, ...]
    scan_spacing_mm: tuple[float, float, float]
    spacing_mm: tuple[float, ...]
    from_ras: Callable[[np.ndarray], np.ndarray]
    starts: tuple[float, ...] | None = None


class Scores:
    """Class scores in the head's box at the network's spacing.

    Args:
        values: `(K, x, y, z)` scores summed over the views, `CERTAIN` for each view that is certain.
        views: number of views they are summed over.
        grid: where they lie.
    """

    def __init__(self, values: Tensor, views: int, grid: NetworkGrid) -> None:
        self.values, self.views, self.grid = values, views, grid
        self._weights, self._inside = [], []
        spacings = zip(grid.scan_spacing_mm, grid.spacing_mm, strict=True)
        starts = grid.starts or [None] * 3
        for box, coarse, fine, (scan_mm, network_mm), start in zip(
            grid.box, grid.shape, grid.scan_shape, spacings, starts, strict=True
        ):
            ratio = scan_mm / network_mm
            matrix = linear_weights(coarse, fine, ratio, start=None if start is None else -start * ratio)
            support = matrix[:, box].sum(1)
            # voxels whose support lies mostly in the box; outside it everything is background
            rows = torch.nonzero(support >= min(0.5, float(support.max())))[:, 0]
            inside = slice(int(rows[0]), int(rows[-1]) + 1)
            weights = matrix[inside, box]
            self._weights.append(weights / weights.sum(1, keepdim=True))
            self._inside.append(inside)

    def labels(self) -> tuple[np.ndarray, dict[int, float | None]]:
        """Labels `(X, Y, Z)` uint8 on the scan's grid, and the mean winning score of each class in [0, 1]."""
        classes = len(self.values)
        out = np.zeros(self.grid.scan_shape, np.uint8, order="F")
        counts, sums = torch.zeros(classes, dtype=torch.int64), torch.zeros(classes, dtype=torch.float64)
        target = out[tuple(self._inside)]
        for block in blocks(self._weights):
            scores = self.values[:, *block.support]
            coarse = scores.argmax(0)
            first = int(coarse[0, 0, 0])
            if (coarse == first).all():
                # means of scores of which one class's are the highest everywhere: it stays the highest
                target[block.where] = first
                best = block.resize(scores[first : first + 1])
                counts[first] += best.numel()
                sums[first] += best.sum(dtype=torch.float64)
                continue
            best, winner = block.resize(scores).max(0)
            target[block.where] = winner.to(torch.uint8).numpy()
            flat = winner.flatten()
            counts += torch.bincount(flat, minlength=classes)
            sums += torch.bincount(flat, weights=best.flatten().double(), minlength=classes)
        mean = sums / counts.clamp(min=1) / (CERTAIN * self.views)
        confidence = {k: min(1.0, float(mean[k])) if counts[k] else None for k in range(classes)}
        return np.asfortranarray(self.grid.from_ras(out)), confidence

    def weakest_slices(self) -> dict[int, tuple[int, float]]:
        """`weakest_slices` by axial slices of the scan, counted upwards."""
        grid = self.grid
        step, start = grid.spacing_mm[2] / grid.scan_spacing_mm[2], grid.box[2].start or 0
        last = grid.scan_shape[2] - 1
        weakest = weakest_slices(self.values, CERTAIN * self.views)
        return {k: (min(last, int((start + index + 0.5) * step)), score) for k, (index, score) in weakest.items()}

    def probabilities(self) -> Iterator[np.ndarray]:
        """Probabilities `(X, Y, Z)` uint8 in 1/255 on the scan's grid, class by class."""
        for index in range(len(self.values)):
            # outside the box there is background and nothing else
            out = np.full(self.grid.scan_shape, 255 if index == 0 else 0, np.uint8, order="F")
            target = out[tuple(self._inside)]
            for block in blocks(self._weights):
                scores = block.resize(self.values[index : index + 1, *block.support])
                target[block.where] = (scores[0] / self.views).round_().clamp_(0, 255).to(torch.uint8).numpy()
            yield self.grid.from_ras(out)


def weakest_slices(scores: Tensor, certain: float) -> dict[int, tuple[int, float]]:
    """The axial slice of each class in which its winning scores are lowest on average.

    Args:
        scores: class scores `(K, X, Y, Z)`, axes RAS.
        certain: the score of certainty.

    Returns:
        Index along Z and the mean winning score there, in [0, 1], of each class that wins somewhere. Slices with less
        than `SMALLEST_SLICE` of the voxels of the class's largest one do not count.
    """
    classes, depth = scores.shape[0], scores.shape[3]
    counts, sums = torch.zeros(depth, classes), torch.zeros(depth, classes, dtype=torch.float64)
    for index in range(depth):
        best, winner = scores[..., index].flatten(1).max(0)
        counts[index] = torch.bincount(winner, minlength=classes)
        sums[index] = torch.bincount(winner, weights=best.double(), minlength=classes)
    means = sums / counts.clamp(min=1) / certain
    means[counts < (SMALLEST_SLICE * counts.max(0).values).clamp(min=1)] = torch.inf
    lowest, indices = means.min(0)
    return {k: (int(indices[k]), float(lowest[k])) for k in range(classes) if torch.isfinite(lowest[k])}


def drop_stray_pieces(
    scores: Tensor, certain: int, attached: Sequence[int], gap_radius: float, smallest: float = 0.1
) -> None:
    """Make background, in place, of labelled pieces much smaller than the largest, and of what lies around the others.

    Args:
        scores: `(K, x, y, z)`.
        certain: the score of certainty.
        attached: classes that do not join pieces, and are kept only in the gaps of the pieces that the others form.
        gap_radius: half the width of the widest gap, in voxels.
        smallest: fraction of the largest piece's voxels; smaller pieces are strays, larger ones may be a hemisphere.
    """
    firm = _largest_of(scores, [k for k in range(1, len(scores)) if k not in attached])
    loose = _largest_of(scores, [0, *attached])
    solid = (firm > loose).numpy()
    pieces = np.empty(solid.shape, np.int32)
    ndimage.label(solid, output=pieces)
    sizes = np.bincount(pieces[solid], minlength=1)
    small = sizes < smallest * sizes.max()
    small[0] = True
    kept = ~small[pieces]
    stray = solid & ~kept
    if attached:
        stray |= (loose > scores[0]).numpy() & ~solid & ~closed(kept, gap_radius)
    where = torch.from_numpy(stray)
    scores.masked_fill_(where, 0)
    scores[0].masked_fill_(where, certain)


def closed(mask: np.ndarray, radius: float, thickness: int = 32) -> np.ndarray:
    """Morphological closing by a ball, `thickness` planes at a time: distances take seventy bytes a voxel.

    Args:
        mask: `(X, Y, Z)` bool.
        radius: radius of the ball, in voxels.
        thickness: planes that are closed at once.
    """
    out = np.zeros_like(mask)
    rim = math.ceil(radius) + 1
    padded = np.pad(mask, 2 * rim)
    # a closing does not leave the box of its mask
    for rows, columns, planes in ndimage.find_objects(mask.view(np.uint8)):
        for start in range(rows.start, rows.stop, thickness):
            stop = min(start + thickness, rows.stop)
            part = padded[start : stop + 4 * rim, columns.start + rim :, planes.start + rim :]
            part = part[:, : columns.stop - columns.start + 2 * rim, : planes.stop - planes.start + 2 * rim]
            if part.any():
                grown = np.asarray(ndimage.distance_transform_edt(~part)) <= radius
                kept = np.asarray(ndimage.distance_transform_edt(grown)) > radius
                out[start:stop, columns, planes] = kept[2 * rim : -2 * rim, rim:-rim, rim:-rim]
    return out


def _largest_of(scores: Tensor, classes: Sequence[int]) -> Tensor:
    """Highest score among some classes, `(x, y, z)`, without a copy of them all."""
    largest = scores[classes[0]].clone()
    for index in classes[1:]:
        torch.maximum(largest, scores[index], out=largest)
    return largest
