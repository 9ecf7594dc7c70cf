"""Reconstruction at two, four, ... times the resolution, the part that SatMAE++ adds to a masked autoencoder."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6


class MultiScaleHead(nn.Module):
    """Images at growing resolution from a reconstructed one (SatMAE++, arXiv 2403.05419).

    Args:
        bands: channels of the images.
        ratio: hidden channels, as a multiple of the bands.
        scales: how many times the resolution doubles.
    """

    def __init__(self, bands: int, ratio: int = 4, scales: int = 1) -> None:
        super().__init__()
        self.projection = nn.Conv2d(bands, ratio * bands, 1)
        self.norm = ChannelNorm(ratio * bands)
        self.blocks: Any = nn.ModuleList(UpsampleBlock(ratio * bands, bands) for _ in range(scales))

    def forward(self, x: Tensor, scales: int) -> list[Tensor]:
        """The first `scales` enlargements `(B, C, 2 H, 2 W)`, `(B, C, 4 H, 4 W)`, ... of `(B, C, H, W)`."""
        images = []
        if scales:
            x = self.norm(F.gelu(self.projection(x)))
        for block in list(self.blocks)[:scales]:
            x = block(x)
            images.append(block.output(x))
        return images


class UpsampleBlock(nn.Module):
    """Double the resolution of a map, and read an image from it."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.up_norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = ChannelNorm(channels)
        self.output = nn.Conv2d(channels, bands, 3, padding=1)
        for convolution in (self.conv1, self.conv2, self.output):
            nn.init.xavier_uniform_(convolution.weight)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, M, H, W)` to `(B, M, 2 H, 2 W)`, what the next block takes and `output` reads."""
        x = F.leaky_relu(self.up_norm(self.up(x)), 0.01)
        return self.norm(x + 0.5 * self.conv2(F.relu(self.conv1(x))))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every pixel of `(B, C, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, _EPS)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; the result is channels_last, so that nothing is copied back."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
