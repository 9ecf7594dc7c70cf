"""Filters of a map's spectrum."""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor


def filter_spectrum(x: Tensor, table: Tensor) -> Tensor:
    """Multiply the spectrum of a map by a table (arXiv 2107.00645, section 3.2).

    The spectrum is computed in float32 at least. A table that does not fit the map is resampled bilinearly.

    Args:
        x: map `(B, C, H, W)`.
        table: real and imaginary parts `(2, C, h, w)`, for maps of `h` rows and `2 (w - 1)` columns.

    Returns:
        `(B, C, H, W)` in the number type of `x`.
    """
    kind = x.dtype
    x = x if kind == torch.float64 else x.float()
    # networks are tried without memory on a device that autocast does not know
    exact = contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
    with exact:
        spectrum = torch.fft.rfft2(x, norm="ortho")
        table = table.to(x.dtype)
        if table.shape[2:] != spectrum.shape[2:]:
            table = F.interpolate(table, spectrum.shape[2:], mode="bilinear", align_corners=True)
        return torch.fft.irfft2(spectrum * torch.complex(table[0], table[1]), s=x.shape[2:], norm="ortho").to(kind)
