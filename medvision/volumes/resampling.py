"""Separable linear resampling and intensity scaling, shared by training data and inference so that the two agree."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medvision.contract import Normalisation


def linear_weights(n_in: int, n_out: int, ratio: float, device: torch.device | None = None) -> Tensor:
    """Weights `(n_out, n_in)` that resample one axis linearly between two centred grids.

    Args:
        n_in: samples of the input axis.
        n_out: samples of the output axis.
        ratio: output spacing / input spacing; above 1 the triangle widens to `ratio`, so nothing aliases.
        device: where the weights are computed; by default torch's own choice.
    """
    steps = torch.arange(n_out, dtype=torch.float64, device=device) - (n_out - 1) / 2
    position = (n_in - 1) / 2 + steps * ratio
    # positions outside hold the value of the border
    position = position.clamp(0, n_in - 1)
    distance = (position[:, None] - torch.arange(n_in, dtype=torch.float64, device=device)).abs()
    weights = (1 - distance / max(1.0, ratio)).clamp_(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def resize_linear(
    volume: Tensor | np.ndarray, spacing: Sequence[float], target: Sequence[float], shape: Sequence[int] | None = None
) -> Tensor:
    """Resample a volume to another spacing about the same centre, with antialiasing.

    Equal volumes give equal results to the bit, however their axes are stored. Beside the input at most two arrays are
    held: the output, and the volume with its first two axes resampled or, later, a second output.

    Args:
        volume: `(X, Y, Z)` float32, any strides; an array may have negative ones, which torch does not know.
        spacing: spacing of the three axes in mm.
        target: spacing wanted, in mm.
        shape: output shape; by default the rounded extent.

    Returns:
        `(X', Y', Z')` float32, on the volume's device.
    """
    ratios = [t / s for s, t in zip(spacing, target, strict=True)]
    sizes = tuple(shape or (max(1, round(n / r)) for n, r in zip(volume.shape, ratios, strict=True)))
    device = volume.device if isinstance(volume, Tensor) else None
    x, y, z = (linear_weights(n, m, r, device) for n, m, r in zip(volume.shape, sizes, ratios, strict=True))
    planes = torch.empty((volume.shape[2], sizes[0], sizes[1]), device=device)
    for slab in _slabs(volume.shape):
        planes[slab] = x @ _planes(volume, slab) @ y.T
    planes = (z @ planes.flatten(1)).view(sizes[2], *sizes[:2])
    return planes.permute(1, 2, 0).contiguous()


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


def normalise(image: Tensor, how: Normalisation) -> Tensor:
    """Scale an image as a model's card says.

    Args:
        image: any shape, float32; `(X, Y, Z)` for `rescale_intensity` of version 2.
        how: `rescale_intensity`, or `{"name": "rescale_intensity", "version": 2}`, which outliers do not move;
            `zscore`: mean 0 and deviation 1; `none`; or `{"name": "window", "low": -125, "high": 275}`: that range to
            [0, 1], and clipped.

    Raises:
        ValueError: the name or version is unknown, or the window has no width.
    """
    name, settings = (how, {}) if isinstance(how, str) else (str(how.get("name")), how)
    if name == "rescale_intensity":
        version = settings.get("version", 1)
        if version not in _RESCALINGS:
            raise ValueError(f"rescale_intensity has no version {version!r}, expected 1 or 2")
        return _RESCALINGS[version](image)
    if name == "none":
        return image
    if name == "zscore":
        return (image - image.mean()) / image.std().clamp(min=1e-6)
    if name != "window":
        raise ValueError(f"normalisation is {name!r}, expected rescale_intensity, zscore, window or none")
    low, high = float(settings["low"]), float(settings["high"])
    if not low < high:
        raise ValueError(f"window from {low:g} to {high:g}: expected low < high")
    return ((image - low) / (high - low)).clamp(0, 1)


def rescale_intensity(image: Tensor) -> Tensor:
    """Scale an image to [0, 1]: 0 is its 0.5th percentile, 1 the 99.5th of the voxels above the mean.

    The share of empty background changes from scan to scan; voxels above the mean are tissue in all of them.
    Percentiles are those of evenly spread voxels, two to four million where there are more.
    """
    values = image.reshape(-1)
    values = values[:: max(1, values.numel() // 2_000_000)]
    low = _percentile(values, 0.5)
    foreground = values[values > values.mean()]
    high = _percentile(foreground, 99.5) if foreground.numel() else low
    return (image - low).div_(max(float(high - low), 1e-6)).clamp_(0, 1)


def _percentile(values: Tensor, q: float) -> Tensor:
    return values.kthvalue(max(1, round(q / 100 * values.numel()))).values


def rescale_robustly(volume: Tensor) -> Tensor:
    """Scale a volume to [0, 1] by the quantiles of `rescale_intensity`, whatever a few outliers hold.

    Version 2 of `rescale_intensity`. Neither single voxels (up to 0.1 % of all) nor slices along any axis (up to one in
    fifty) move the range, at any scale of the intensities. No step waits for the volume's device.

    Args:
        volume: `(X, Y, Z)` float32.
    """
    low, high = robust_range(volume)
    return volume.sub(low).div_(torch.where(high > low, high - low, torch.ones_like(high))).clamp_(0, 1)


def robust_range(volume: Tensor) -> tuple[Tensor, Tensor]:
    """The intensities that become 0 and 1: scalars on the volume's device.

    They are the 0.5th percentile of all voxels and the 99.5th of those above the mean, among evenly spread voxels, a
    million at most, less the slices that stand out from their neighbours.

    Args:
        volume: `(X, Y, Z)` float32.
    """
    step = max(1, math.ceil((volume.numel() / _SAMPLE) ** (1 / 3)))
    values = volume[::step, ::step, ::step]
    values = values.clamp(_percentile(values.reshape(-1), 0.1), _percentile(values.reshape(-1), 99.9))
    flat = values.reshape(-1)
    # 97: a bright slice in fifty holds the highest 2 %
    limit = _OUTLYING * (_percentile(flat, 97) - _percentile(flat, 0.5))
    kept = torch.ones_like(values, dtype=torch.bool)
    for axis in range(3):
        outlying = _stands_out(values.mean([other for other in range(3) if other != axis]), limit)
        kept &= ~outlying.view([-1 if other == axis else 1 for other in range(3)])
    count = kept.sum()
    mean = (values * kept).sum() / count
    foreground = (kept & (values > mean)).sum()
    ranked = torch.where(kept, values, torch.inf).reshape(-1).sort().values
    places = torch.stack([(0.005 * count).round() - 1, count - foreground + (0.995 * foreground).round() - 1])
    low, high = ranked[places.long().clamp(min=0)].unbind()
    return low, high


def _stands_out(means: Tensor, limit: Tensor) -> Tensor:
    """Which slices differ in their mean `(N,)` by more than `limit` from the median of their neighbourhood."""
    width = min(2 * math.ceil(_SLICES * len(means)) + 3, len(means))
    place = torch.arange(len(means), device=means.device)
    starts = (place - width // 2).clamp(0, len(means) - width)
    neighbourhoods = means.unfold(0, width, 1)[starts]
    # the first and the last slices have neighbours on one side only, where a head may rise steeply
    distance = (place - starts - width // 2).abs()
    return (means - neighbourhoods.median(-1).values).abs() > limit * (1 + distance)


_SAMPLE = 2**20
_SLICES = 0.02  # how many side by side may stand out
_OUTLYING = 0.04  # of the range of intensities
_RESCALINGS: dict[str | float, Callable[[Tensor], Tensor]] = {1: rescale_intensity, 2: rescale_robustly}
