"""Separable linear resampling, shared by training data and inference so that the two agree."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def linear_weights(
    n_in: int, n_out: int, ratio: float, device: torch.device | None = None, *, start: float | None = None
) -> Tensor:
    """Weights `(n_out, n_in)` that resample one axis linearly between two grids.

    Args:
        n_in: samples of the input axis.
        n_out: samples of the output axis.
        ratio: output spacing / input spacing.
        device: where the weights are computed; by default torch's own choice.
        start: where the output's first sample lies, in samples of the input; the triangle then is one sample wide. By
            default the grids have one centre, and above a ratio of 1 the triangle widens to it, so nothing aliases.
    """
    steps = torch.arange(n_out, dtype=torch.float64, device=device)
    if start is None:
        position, width = (n_in - 1) / 2 + (steps - (n_out - 1) / 2) * ratio, max(1.0, ratio)
    else:
        position, width = start + steps * ratio, 1.0
    # positions outside hold the value of the border
    position = position.clamp(0, n_in - 1)
    distance = (position[:, None] - torch.arange(n_in, dtype=torch.float64, device=device)).abs()
    weights = (1 - distance / width).clamp_(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def resize_linear(
    volume: Tensor | np.ndarray,
    spacing: Sequence[float],
    target: Sequence[float],
    shape: Sequence[int] | None = None,
    *,
    limits: tuple[float, float] | None = None,
    bridged: Sequence[Sequence[int]] = ((), (), ()),
    starts: Sequence[float] | None = None,
) -> Tensor:
    """Resample a volume to another spacing, by default about the same centre and with antialiasing.

    Equal volumes give equal results to the bit, however their axes are stored. Beside the input at most two arrays are
    held: the output, and the volume with its first two axes resampled or, later, a second output.

    Args:
        volume: `(X, Y, Z)` float32, any strides; an array may have negative ones, which torch does not know.
        spacing: spacing of the three axes in mm.
        target: spacing wanted, in mm.
        shape: output shape; by default the rounded extent.
        limits: lowest and highest value; what lies beyond is clipped first. By default nothing is.
        bridged: indices of slices along each axis in whose place their neighbours are interpolated.
        starts: where the first voxel of the output lies, in voxels of the volume; there is no antialiasing then.

    Returns:
        `(X', Y', Z')` float32, on the volume's device.
    """
    ratios = [t / s for s, t in zip(spacing, target, strict=True)]
    sizes = tuple(shape or (max(1, round(n / r)) for n, r in zip(volume.shape, ratios, strict=True)))
    device = volume.device if isinstance(volume, Tensor) else None
    x, y, z = (
        _bridge(linear_weights(n, m, r, device, start=start), slices)
        for n, m, r, start, slices in zip(volume.shape, sizes, ratios, starts or [None] * 3, bridged, strict=True)
    )
    planes = torch.empty((volume.shape[2], sizes[0], sizes[1]), device=device)
    for slab in _slabs(volume.shape):
        piece = _planes(volume, slab)
        planes[slab] = x @ (piece if limits is None else piece.clamp(*limits)) @ y.T
    planes = (z @ planes.flatten(1)).view(sizes[2], *sizes[:2])
    return planes.permute(1, 2, 0).contiguous()


def _bridge(weights: Tensor, slices: Sequence[int]) -> Tensor:
    """Weights `(n_out, n_in)` in which the nearest other samples stand for some of the input's."""
    kept = np.setdiff1d(np.arange(weights.shape[1]), slices)
    weights = weights.clone() if slices else weights
    for index in slices:
        above = int(np.searchsorted(kept, index))
        low, high = int(kept[max(above - 1, 0)]), int(kept[min(above, len(kept) - 1)])
        part = min(max((index - low) / (high - low), 0.0), 1.0) if high > low else 0.0
        own = weights[:, index].clone()
        weights[:, index] = 0
        weights[:, low] += (1 - part) * own
        weights[:, high] += part * own
    return weights


@dataclass(frozen=True)
class Block:
    """A part of a volume that is resampled piece by piece.

    Attributes:
        where: the part, in the output.
        support: what of the input it depends on.
        weights: from `support` to `where` along the three axes.
    """

    where: tuple[slice, slice, slice]
    support: tuple[slice, slice, slice]
    weights: tuple[Tensor, Tensor, Tensor]

    def resize(self, scores: Tensor) -> Tensor:
        """Class scores `(K, X, Y, Z)` float32 of the part, from `(K, x, y, z)` of its support, any number type."""
        x, y, z = self.weights
        return (x @ (y @ (scores.float() @ z.T)).flatten(2)).unflatten(2, (len(y), len(z)))


def blocks(weights: Sequence[Tensor], side: int = 48) -> Iterator[Block]:
    """Cut a volume into blocks, so that no array of all classes exists at full resolution.

    Args:
        weights: weights of the three axes, `(X, x)`, `(Y, y)`, `(Z, z)`.
        side: side of a block in the output, in voxels.
    """
    for (x, near_x, wx), (y, near_y, wy), (z, near_z, wz) in itertools.product(*(_cut(rows, side) for rows in weights)):
        yield Block((x, y, z), (near_x, near_y, near_z), (wx, wy, wz))


def _cut(weights: Tensor, side: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """For every `side` rows: which rows they are, the columns that they use, and the weights between both."""
    for start in range(0, len(weights), side):
        rows = weights[start : start + side]
        used = torch.nonzero(rows.any(0))[:, 0]
        near = slice(int(used[0]), int(used[-1]) + 1)
        yield slice(start, start + len(rows)), near, rows[:, near].contiguous()


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Cut the last of three axes so that a slab holds about four million numbers."""
    thickness = max(1, 2**22 // (shape[0] * shape[1]))
    for start in range(0, shape[2], thickness):
        yield slice(start, min(start + thickness, shape[2]))


def _planes(volume: Tensor | np.ndarray, slab: slice) -> Tensor:
    """Slices `(z, X, Y)` of a volume, always stored in rows: sums then run in one order, and round alike."""
    if isinstance(volume, Tensor):
        return volume[:, :, slab].permute(2, 0, 1).contiguous()
    return torch.from_numpy(np.ascontiguousarray(volume[:, :, slab].transpose(2, 0, 1)))
