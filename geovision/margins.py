"""How far a tile's rim reaches into it: measured from the network itself."""

from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
_ALLOWED = 0.004  # mean change of a probability that counts as none
_FLOOR = 1.25  # of networks that look everywhere: how much more than the least change is allowed
_STEP = 4  # pixels between distances that are tried


def measure_margin(predict: Predict, bands: int, tile: int, *, any_size: bool, step: int) -> int:
    """Pixels along a tile's rim whose answer depends on what lies outside of the tile.

    Of a network that takes any size, the middle of a tile is seen once with what lies around it and once alone. Of one
    that takes its own size alone, two tiles that share three quarters are compared.

    Args:
        predict: from images `(B, C, H, W)` as the network takes them to probabilities `(B, K, H, W)`.
        bands: number of channels.
        tile: side of the tiles in pixels.
        any_size: whether the network takes other sizes.
        step: tiles start at multiples of it.

    Returns:
        The smallest distance from the rim, up to a quarter of the tile, beyond which probabilities change by 0.004 on
        average at most, or by not much more than where they change least.
    """
    most = tile // 4
    shift = max(step, most // step * step)
    changes = torch.zeros(most // _STEP + 1)
    for number, image in enumerate(_images(bands, tile + shift)):
        if any_size:
            inner = tile // 2 // step * step
            first = (tile - inner) // 2 // step * step
            whole = predict(image[..., :tile, :tile])[..., first : first + inner, first : first + inner]
            alone = predict(image[..., first : first + inner, first : first + inner])
        else:
            whole = predict(image[..., :tile, :tile])[..., shift:, shift:]
            alone = predict(image[..., shift : shift + tile, shift : shift + tile])[..., : tile - shift, : tile - shift]
        change = (whole - alone).abs().amax((0, 1)).cpu()
        rim = _distance(*change.shape)
        for place in range(len(changes)):
            beyond = change[rim >= place * _STEP]
            changes[place] += beyond.mean() if beyond.numel() else 0.0
        count = number + 1
    changes /= count
    known = changes[: max(1, (min(whole.shape[-2:]) // 2) // _STEP)]
    allowed = max(_ALLOWED, _FLOOR * float(known.min()))
    return int((known <= allowed).nonzero()[0]) * _STEP


def _images(bands: int, side: int) -> list[Tensor]:
    """Normalised images without and with structure, the same for every network."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, bands, max(2, side // 16), max(2, side // 16), generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    noisy = smooth + 0.3 * torch.randn(2, bands, side, side, generator=draw)
    flat = torch.tensor([-1.0, -0.3, 0.3, 1.0])[:, None, None, None].expand(-1, bands, side, side)
    return [noisy, flat.contiguous()]


def _distance(height: int, width: int) -> Tensor:
    """Distance of each pixel from the rim, `(height, width)`."""
    down, across = (torch.minimum(torch.arange(n), n - 1 - torch.arange(n)) for n in (height, width))
    return torch.minimum(down[:, None], across[None])
