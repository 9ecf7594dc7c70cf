"""A 3-D network run over windows of a volume, plane by plane, so that memory does not grow with the volume's depth.

Logits are those of MONAI's `SlidingWindowInferer` with `padding_mode="constant"`, to rounding (compared with MONAI
1.6.1).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 0.125
"""Standard deviation of a window's weights, as a fraction of its side."""
_LOWEST_WEIGHT = 1e-3


def window_starts(size: int, side: int, overlap: float) -> list[int]:
    """Where windows of `side` voxels begin along an axis of `size` voxels; the last ends where the axis ends."""
    if size <= side:
        return [0]
    step = max(1, int(side * (1 - overlap)))
    return [min(start, size - side) for start in range(0, size - side + step, step)]


def window_count(shape: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """Number of windows that cover a volume."""
    return math.prod(len(window_starts(n, side, overlap)) for n, side in zip(shape, window, strict=True))


def window_weights(window: Sequence[int], how: str = "gaussian") -> Tensor:
    """Weights `(*window)` of a window's logits: a Gaussian about its centre, or 1 where `how` is `constant`."""
    if how == "constant":
        return torch.ones(*window)
    weights = torch.ones(())
    for side in window:
        offset = torch.arange(side) - (side - 1) / 2
        weights = weights[..., None] * torch.exp(-(offset**2) / (2 * (SIGMA * side) ** 2))
    return weights.clamp_(min=max(float(weights.min()), _LOWEST_WEIGHT))


def slide(
    volume: Tensor,
    predict: Callable[[Tensor], Tensor],
    window: Sequence[int],
    overlap: float,
    *,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    weighting: str = "gaussian",
) -> Iterator[tuple[int, Tensor]]:
    """Logits of a volume, as weighted means over the windows that cover a voxel.

    Args:
        volume: `(C, X, Y, Z)` float32.
        predict: Maps windows `(B, C, *window)` to logits `(B, K, *window)`.
        window: Voxels of a window along the three axes; a smaller volume is padded with 0 on both sides.
        overlap: Fraction of a window's side that the next one covers again, in [0, 1).
        batch_size: Windows that are predicted together.
        mirror_axes: Axes along which windows are mirrored; logits are means over all combinations of them.
        weighting: `gaussian` or `constant`, the weights of windows that overlap.

    Yields:
        First plane and logits `(K, n, Y, Z)` float32 of the next `n` planes along the first axis.
    """
    shape = volume.shape[1:]
    padding = [(max(side - n, 0) // 2, max(side - n, 0)) for n, side in zip(shape, window, strict=True)]
    if any(total for _, total in padding):
        volume = F.pad(volume, [part for low, total in reversed(padding) for part in (low, total - low)])
    inner = [slice(low, low + n) for (low, _), n in zip(padding, shape, strict=True)]
    predict, weights = _mirrored(predict, mirror_axes), window_weights(window, weighting)
    depths, *starts = (window_starts(n, side, overlap) for n, side in zip(volume.shape[1:], window, strict=True))
    corners = list(itertools.product(*starts))
    total, count = None, torch.zeros(window[0], *volume.shape[2:])
    done = 0  # planes of the padded volume that are complete
    for start in depths:
        if total is not None and start > done:
            ready = start - done
            yield from _planes(done, total[:, :ready] / count[:ready], inner)
            total, count, done = _moved(total, ready), _moved(count, ready), start
        layer = volume[:, start : start + window[0]]
        for first in range(0, len(corners), batch_size):
            places = [
                (slice(y, y + window[1]), slice(z, z + window[2])) for y, z in corners[first : first + batch_size]
            ]
            windows = predict(torch.stack([layer[:, :, rows, columns] for rows, columns in places])).float().cpu()
            if total is None:
                total = torch.zeros(windows.shape[1], *count.shape)
            for (rows, columns), logits in zip(places, windows, strict=True):
                total[:, :, rows, columns].addcmul_(logits, weights)
                count[:, rows, columns] += weights
            del windows, logits  # or they would stay until the next ones are there
    if total is not None:
        yield from _planes(done, total / count, inner)


def _moved(planes: Tensor, step: int) -> Tensor:
    """Planes `(..., d, Y, Z)` moved up by `step`; 0 follows."""
    kept = planes.narrow(-3, step, planes.shape[-3] - step)
    return torch.cat([kept, torch.zeros_like(planes.narrow(-3, 0, step))], -3)


def _planes(start: int, logits: Tensor, inner: Sequence[slice]) -> Iterator[tuple[int, Tensor]]:
    """Planes without the padding."""
    first, last = max(start, inner[0].start), min(start + logits.shape[1], inner[0].stop)
    if last > first:
        yield first - inner[0].start, logits[:, first - start : last - start, inner[1], inner[2]]


def _mirrored(predict: Callable[[Tensor], Tensor], axes: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Means over all combinations of mirrored axes."""
    if not axes:
        return predict
    ways = [[axis + 2 for axis in chosen] for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]

    def mean(windows: Tensor) -> Tensor:
        total = predict(windows)
        for flipped in ways[1:]:
            total = total + predict(windows.flip(flipped)).flip(flipped)
        return total / len(ways)

    return mean
