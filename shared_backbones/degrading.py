"""Images as a coarser sensor, or a thicker slice, would show them; and results that agree with what was measured."""

import math
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

RMS, WORST = 0.005, 0.02
"""How far a degraded result may be from what was measured, as shares of the mean: root mean square, and at the worst
pixel."""
Ratio: TypeAlias = int | tuple[int, int]
"""Fine pixels per coarse one: along both axes, or along rows and columns."""
_STEPS = 30


def point_spread(ratio: int, mtf: float) -> list[float]:
    """Weights of fine pixels in a coarse one along an axis, around its centre: a Gaussian with the MTF at Nyquist.

    The list has an even length where the ratio is even, as a coarse centre then lies between two fine ones.
    """
    sigma = ratio * math.sqrt(-2 * math.log(mtf)) / math.pi
    reach = math.ceil(3 * sigma)
    places = [i + (0.5 if ratio % 2 == 0 else 0.0) for i in range(-reach, reach + (ratio % 2))]
    weights = [math.exp(-((place / sigma) ** 2) / 2) for place in places]
    return [weight / sum(weights) for weight in weights]


def degrade(images: Tensor, ratio: Ratio, mtf: float) -> Tensor:
    """Images `(B, C, H, W)` as a coarser sensor sees them; beyond the border, their pixels go on.

    Args:
        images: the images, whose sides are multiples of the ratio.
        ratio: fine pixels per coarse one.
        mtf: what the coarser sensor leaves of a wave of two of its pixels' length, in (0, 1).
    """
    channels = images.shape[1]
    for axis, factor in enumerate(_both(ratio)):
        if factor == 1:
            continue
        weights = torch.tensor(point_spread(factor, mtf), dtype=images.dtype, device=images.device)
        before = (len(weights) - factor) // 2
        after = len(weights) - factor - before
        padding = (0, 0, before, after) if axis == 0 else (before, after, 0, 0)
        kernel = weights.view((1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1)).expand(channels, 1, -1, -1)
        stride = (factor, 1) if axis == 0 else (1, factor)
        images = F.conv2d(F.pad(images, padding, mode="replicate"), kernel, stride=stride, groups=channels)
    return images


def enlarge(images: Tensor, ratio: Ratio) -> Tensor:
    """Images `(B, C, h, w)` enlarged bicubically, `(B, C, ratio h, ratio w)`."""
    return F.interpolate(images, scale_factor=_both(ratio), mode="bicubic", align_corners=False)


def consistent(images: Tensor, native: Tensor, ratio: Ratio, mtf: float) -> Tensor:
    """Images changed so that the sensor would see in them what it saw.

    What is missing in the degraded images is enlarged and added, until `RMS` and `WORST` hold with room to spare.

    Args:
        images: coarse bands at the fine resolution, `(B, K, H, W)`.
        native: the same at their own, `(B, K, H / ratio, W / ratio)`.
        ratio: fine pixels per coarse one.
        mtf: as for `degrade`.
    """
    scale = native.abs().mean((2, 3), keepdim=True).clamp(min=1e-12)
    for _ in range(_STEPS):
        missing = native - degrade(images, ratio, mtf)
        fraction = (missing / scale).abs()
        if fraction.square().mean((2, 3)).sqrt().max() < RMS / 10 and fraction.max() < WORST / 10:
            break
        images = images + enlarge(missing, ratio)
    return images


def _both(ratio: Ratio) -> tuple[int, int]:
    return (ratio, ratio) if isinstance(ratio, int) else ratio
