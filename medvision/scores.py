"""Class scores of a volume at the network's spacing: their labels and probabilities on the scan's own grid."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medvision.channels import Channel
from medvision.volumes.resampling import blocks, linear_weights
from shared_backbones.winners import winners

CERTAIN = 255
"""The score of a probability of 1, in one view."""
Weakest: TypeAlias = dict[int, tuple[tuple[int, float], ...]]
"""For each class, along each RAS axis, the index of a slice and the mean of its winning scores there."""
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

    def cuts(self, mask: Tensor) -> bool:
        """Whether a mask of the box reaches a border of the scan."""
        reached = False
        for axis, (side, size) in enumerate(zip(self.box, self.shape, strict=True)):
            low, high, _ = side.indices(size)
            reached |= low == 0 and bool(mask.select(axis, 0).any())
            reached |= high == size and bool(mask.select(axis, -1).any())
        return reached


@dataclass(frozen=True)
class Certainty:
    """How high the winning scores are, at the network's spacing.

    Attributes:
        values: `(x, y, z)` uint8 in the head's box, 255 where the network is certain.
        grid: where they lie.
    """

    values: np.ndarray
    grid: NetworkGrid

    @classmethod
    def of(cls, scores: Tensor, views: int, grid: NetworkGrid) -> "Certainty":
        """That of class scores `(K, x, y, z)` summed over views."""
        highest = scores.amax(0).float().div_(views).round_().clamp_(0, CERTAIN)
        return cls(highest.to(torch.uint8).cpu().numpy(), grid)

    def on_scan(self) -> np.ndarray:
        """`(X, Y, Z)` uint8 on the scan's grid, of each voxel the nearest value; outside the box all is certain."""
        grid, places = self.grid, []
        for axis in range(3):
            ratio = grid.scan_spacing_mm[axis] / grid.spacing_mm[axis]
            voxels = np.arange(grid.scan_shape[axis])
            if grid.starts is None:
                place = (voxels + 0.5 - grid.scan_shape[axis] / 2) * ratio + grid.shape[axis] / 2 - 0.5
            else:
                place = (voxels - grid.starts[axis]) * ratio
            inside = np.rint(place).astype(np.intp) - (grid.box[axis].start or 0)
            places.append(np.clip(inside + 1, 0, self.values.shape[axis] + 1))  # in the box with a border around it
        framed = np.pad(self.values, 1, constant_values=CERTAIN)
        return grid.from_ras(framed[np.ix_(*places)])


@dataclass
class Labelled:
    """Labels of a scan, and what was counted while they were found.

    Attributes:
        labels: `(X, Y, Z)` uint8 on the scan's grid.
        confidence: mean winning score of each label in [0, 1]; None where no voxel has it.
        sides: voxels on the left and on the right of each label that lies on both sides.
    """

    labels: np.ndarray
    confidence: dict[int, float | None]
    sides: dict[int, tuple[int, int]] = field(default_factory=dict)


class Scores:
    """Class scores in the head's box at the network's spacing.

    Args:
        values: `(K, x, y, z)` scores summed over the views, `CERTAIN` for each view that is certain.
        views: number of views they are summed over.
        grid: where they lie.
        channels: what the classes of scores mean; by default, classes are labels.
        right: `(x, y, z)`, `CERTAIN` where a voxel surely lies on the right; None where that is not known.
    """

    def __init__(
        self,
        values: Tensor,
        views: int,
        grid: NetworkGrid,
        channels: Sequence[Channel] = (),
        right: Tensor | None = None,
    ) -> None:
        self.values, self.views, self.grid, self.right = values, views, grid, right
        self.channels = channels or [Channel(k, k) for k in range(len(values))]
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

    def labels(self) -> Labelled:
        """Labels on the scan's grid, each voxel's that of the highest score."""
        classes = len(self.values)
        out = np.zeros(self.grid.scan_shape, np.uint8, order="F")
        # by class and side
        counts, sums = torch.zeros(2, classes, dtype=torch.int64), torch.zeros(2, classes, dtype=torch.float64)
        target = out[tuple(self._inside)]
        table = torch.tensor([[c.left for c in self.channels], [c.right for c in self.channels]], dtype=torch.uint8)
        sided = torch.tensor([channel.sided for channel in self.channels])
        for block in blocks(self._weights):
            scores = self.values[:, *block.support]
            _, coarse = winners(scores)
            first = int(coarse[0, 0, 0])
            if not sided[first] and (coarse == first).all():
                # means of scores of which one class's are the highest everywhere: it stays the highest
                target[block.where] = self.channels[first].left
                best = block.resize(scores[first : first + 1])
                counts[0, first] += best.numel()
                sums[0, first] += best.sum(dtype=torch.float64)
                continue
            best, winner = winners(block.resize(scores))
            winner = winner.long()
            key = winner
            if self.right is not None:
                is_right = block.resize(self.right[None, *block.support])[0] > CERTAIN / 2
                key = winner + classes * (is_right & sided[winner])
            target[block.where] = table.flatten()[key].numpy()
            flat = key.flatten()
            counts += torch.bincount(flat, minlength=2 * classes).view(2, classes)
            sums += torch.bincount(flat, weights=best.flatten().double(), minlength=2 * classes).view(2, classes)
        return self._labelled(np.asfortranarray(self.grid.from_ras(out)), counts, sums)

    def _labelled(self, labels: np.ndarray, counts: Tensor, sums: Tensor) -> Labelled:
        """Labels with their counts and mean scores, from those by class and side `(2, K)`."""
        labelled = Labelled(labels, {})
        for k, channel in enumerate(self.channels):
            left, right = counts[:, k].tolist()
            if channel.left == channel.right:
                figures = [(channel.left, left + right, float(sums[:, k].sum()))]
                if channel.sided:
                    labelled.sides[channel.left] = (left, right)
            else:
                figures = [(channel.left, left, float(sums[0, k])), (channel.right, right, float(sums[1, k]))]
            for number, count, total in figures:
                labelled.confidence[number] = min(1.0, total / count / (CERTAIN * self.views)) if count else None
        return labelled

    def weakest_slices(self) -> Weakest:
        """`weakest_slices` by slices of the scan along each RAS axis, counted upwards."""
        grid = self.grid
        steps = [mm / scan_mm for mm, scan_mm in zip(grid.spacing_mm, grid.scan_spacing_mm, strict=True)]

        def in_scan(axis: int, index: int) -> int:
            place = ((grid.box[axis].start or 0) + index + 0.5) * steps[axis]
            return min(grid.scan_shape[axis] - 1, int(place))

        weakest = weakest_slices(self.values, CERTAIN * self.views)
        return {
            number: tuple((in_scan(axis, index), score) for axis, (index, score) in enumerate(slices))
            for k, slices in weakest.items()
            for number in (self.channels[k].left, self.channels[k].right)
        }

    def probabilities(self) -> Iterator[np.ndarray]:
        """Probabilities `(X, Y, Z)` uint8 in 1/255 on the scan's grid, label by rising label."""
        labels = {c.left: (k, None if c.left == c.right else False) for k, c in enumerate(self.channels)}
        labels |= {c.right: (k, True) for k, c in enumerate(self.channels) if c.left != c.right}
        for number in sorted(labels):
            index, side = labels[number]
            # outside the box there is background and nothing else
            out = np.full(self.grid.scan_shape, 255 if index == 0 else 0, np.uint8, order="F")
            target = out[tuple(self._inside)]
            for block in blocks(self._weights):
                scores = block.resize(self.values[index : index + 1, *block.support])[0] / self.views
                if side is not None and self.right is not None:
                    right = block.resize(self.right[None, *block.support])[0] / CERTAIN
                    scores *= right if side else 1 - right
                target[block.where] = scores.round_().clamp_(0, 255).to(torch.uint8).numpy()
            yield self.grid.from_ras(out)


def weakest_slices(scores: Tensor, certain: float) -> Weakest:
    """The slices of each class, one along each axis, in which its winning scores are lowest on average.

    Args:
        scores: class scores `(K, X, Y, Z)`, axes RAS.
        certain: the score of certainty.

    Returns:
        Index along X, Y and Z and the mean winning score there, in [0, 1], of each class that wins somewhere. Slices
        with less than `SMALLEST_SLICE` of the voxels of the class's largest one do not count.
    """
    classes, *shape = scores.shape
    counts = [torch.zeros(classes, size, dtype=torch.float64) for size in shape]
    sums = [torch.zeros(classes, size, dtype=torch.float64) for size in shape]
    across = [torch.arange(size).view(-1, 1) if axis == 0 else torch.arange(size) for axis, size in enumerate(shape)]
    for index in range(shape[2]):
        best, winner = winners(scores[..., index])
        winner, weights = winner.long(), best.flatten().double()
        for axis in (0, 1):
            key = (winner * shape[axis] + across[axis]).flatten()
            bins = classes * shape[axis]
            counts[axis] += torch.bincount(key, minlength=bins).view(classes, -1)
            sums[axis] += torch.bincount(key, weights, minlength=bins).view(classes, -1)
        counts[2][:, index] = torch.bincount(winner.flatten(), minlength=classes)
        sums[2][:, index] = torch.bincount(winner.flatten(), weights, minlength=classes)
    by_axis = [_weakest(*figures, certain) for figures in zip(counts, sums, strict=True)]
    return {k: tuple(slices[k] for slices in by_axis) for k in sorted(by_axis[0])}


def _weakest(counts: Tensor, sums: Tensor, certain: float) -> dict[int, tuple[int, float]]:
    """Index and mean of the slice with the lowest mean of each class that wins, from counts and sums `(K, N)`."""
    means = sums / counts.clamp(min=1) / certain
    means[counts < (SMALLEST_SLICE * counts.amax(1, keepdim=True)).clamp(min=1)] = torch.inf
    lowest, indices = means.min(1)
    return {k: (int(indices[k]), float(lowest[k])) for k in range(len(counts)) if torch.isfinite(lowest[k])}


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


def keep_main_body(scores: Tensor, certain: int, radius: float, smallest: float = 0.1) -> float:
    """Make background, in place, of all labels that hang on the largest labelled piece by a bridge or not at all.

    Args:
        scores: `(K, x, y, z)`; all classes but the first together are the body.
        certain: the score of certainty.
        radius: half the width of the widest bridge, in voxels.
        smallest: fraction of the largest piece's voxels; larger pieces are kept, too: one may be a hemisphere.

    Returns:
        Share of the labelled voxels that became background.
    """
    labelled = (winners(scores)[1] > 0).numpy()
    steps = max(1, round(radius))
    # a border is no gap: a body that the scan cuts through is as thick there as inside
    core = np.zeros_like(labelled)
    ndimage.binary_erosion(labelled, iterations=steps, border_value=1, output=core)
    pieces = np.empty(core.shape, np.int32)
    ndimage.label(core, output=pieces)
    sizes = np.bincount(pieces[core], minlength=1)
    if len(sizes) < 2:
        return 0.0
    large = sizes >= smallest * sizes.max()
    large[0] = False
    # tips and sheets that are as thin as a bridge belong to the body, as far as they are near
    body = np.zeros_like(labelled)
    ndimage.binary_dilation(large[pieces], iterations=3 * steps, mask=labelled, output=body)
    where = torch.from_numpy(labelled & ~body)
    scores.masked_fill_(where, 0)
    scores[0].masked_fill_(where, certain)
    return float(where.sum() / labelled.sum())


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
