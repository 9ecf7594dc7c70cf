"""Separable linear resampling and intensity scaling, shared by training data and inference so that the two agree."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def linear_weights(n_in: int, n_out: int, ratio: float) -> Tensor:
    """Weights `(n_out, n_in)` that resample one axis linearly between two centred grids.

    Args:
        n_in: samples of the input axis.
        n_out: samples of the output axis.
        ratio: output spacing / input spacing; above 1 the triangle widens to `ratio`, so nothing aliases.
    """
    position = (n_in - 1) / 2 + (torch.arange(n_out, dtype=torch.float64) - (n_out - 1) / 2) * ratio
    # positions outside hold the value of the edge
    position = position.clamp(0, n_in - 1)
    distance = (position[:, None] - torch.arange(n_in, dtype=torch.float64)).abs()
    weights = (1 - distance / max(1.0, ratio)).clamp_(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def resize_linear(
    volume: Tensor, spacing: Sequence[float], target: Sequence[float], shape: Sequence[int] | None = None
) -> Tensor:
    """Resample a volume to another spacing about the same centre, with antialiasing.

    Beside the input and the output only the volume with its first two axes resampled is held.

    Args:
        volume: `(X, Y, Z)` float32, any strides.
        spacing: spacing of the three axes in mm.
        target: spacing wanted, in mm.
        shape: output shape; by default the rounded extent.

    Returns:
        `(X', Y', Z')` float32.
    """
    ratios = [t / s for s, t in zip(spacing, target, strict=True)]
    sizes = tuple(shape or (max(1, round(n / r)) for n, r in zip(volume.shape, ratios, strict=True)))
    x, y, z = (linear_weights(n, m, r) for n, m, r in zip(volume.shape, sizes, ratios, strict=True))
    flat = volume.new_empty((volume.shape[2], sizes[0], sizes[1]))
    for slab in _slabs(volume.shape):
        flat[slab] = x @ volume[:, :, slab].permute(2, 0, 1) @ y.T
    return (z @ flat.flatten(1)).view(sizes[2], *sizes[:2]).permute(1, 2, 0).contiguous()


def resize_scores(scores: Tensor, weights: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Resample class scores slab by slab: the whole of them never exists at full resolution.

    Args:
        scores: `(K, x, y, z)`, any number type.
        weights: of the three axes, `(X, x)`, `(Y, y)`, `(Z, z)`.

    Yields:
        where the slab lies on the last axis of the output, and its scores `(K, thickness, X, Y)` float32.
    """
    wx, wy, wz = weights
    for slab in _slabs((len(scores) * wx.shape[0], wy.shape[0], wz.shape[0])):
        rows = wz[slab]
        used = torch.nonzero(rows.any(0))[:, 0]
        near = slice(int(used[0]), int(used[-1]) + 1)
        planes = torch.einsum("tz,kxyz->ktxy", rows[:, near], scores[..., near].float())
        yield slab, wx @ planes @ wy.T


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Cut the last of three axes so that a slab holds about four million numbers."""
    thickness = max(1, 2**22 // (shape[0] * shape[1]))
    for start in range(0, shape[2], thickness):
        yield slice(start, min(start + thickness, shape[2]))


def rescale_intensity(image: Tensor) -> Tensor:
    """Scale an image to [0, 1]: 0 is its 0.5th percentile, 1 the 99.5th of the voxels above the mean.

    The share of empty background changes from scan to scan; voxels above the mean are tissue in all of them.
    """
    low = _percentile(image, 0.5)
    foreground = image[image > image.mean()]
    high = _percentile(foreground, 99.5) if foreground.numel() else low
    return ((image - low) / max(float(high - low), 1e-6)).clamp_(0, 1)


def _percentile(values: Tensor, q: float) -> Tensor:
    flat = values.reshape(-1)
    step = max(1, flat.numel() // 1_000_000)
    flat = flat[::step]
    return flat.kthvalue(max(1, round(q / 100 * flat.numel()))).values
