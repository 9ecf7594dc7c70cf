"""STDC: a light encoder whose blocks keep the outputs of all their convolutions (arXiv 2104.13188)."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared_backbones.blocks.convolution import ConvNormAct


class STDC(nn.Module):
    """Short-term dense concatenate network (arXiv 2104.13188): maps at 1/4, 1/8, 1/16 and 1/32.

    Attributes:
        channels: those of the four maps.
    """

    def __init__(self, in_chans: int, base: int, layers: Sequence[int], convolutions: int) -> None:
        super().__init__()
        if len(layers) != 3 or min(layers) < 1:
            raise ValueError(f"layers {list(layers)}: expected blocks of three stages, 1 or more each")
        if base % (2 ** (convolutions - 2)) or convolutions < 2:
            raise ValueError(f"base {base} with block_num {convolutions}: expected a multiple of 2^(block_num - 2)")
        self.channels = (base, 4 * base, 8 * base, 16 * base)
        self.stem = nn.Sequential(ConvNormAct(in_chans, base // 2, stride=2), ConvNormAct(base // 2, base, stride=2))
        self.stages = nn.ModuleList()
        for before, width, count in zip(self.channels[:-1], self.channels[1:], layers, strict=True):
            blocks = [STDCBlock(before if i == 0 else width, width, convolutions, i == 0) for i in range(count)]
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of images `(B, C, H, W)`, the finest first."""
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class STDCBlock(nn.Module):
    """Convolutions one after another, of half as many channels each, all of whose outputs are kept."""

    def __init__(self, in_channels: int, channels: int, convolutions: int, halve: bool) -> None:
        super().__init__()
        widths = [channels // 2 ** min(i + 1, convolutions - 1) for i in range(convolutions)]
        self.enter = ConvNormAct(in_channels, widths[0], 1)
        self.halve = (
            ConvNormAct(widths[0], widths[0], stride=2, groups=widths[0], activation=None) if halve else nn.Identity()
        )
        self.skip = nn.AvgPool2d(3, 2, 1) if halve else nn.Identity()
        self.convolutions = nn.ModuleList(ConvNormAct(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, channels, H, W)`, or half the size."""
        x = self.enter(x)
        parts, x = [self.skip(x)], self.halve(x)
        for convolution in self.convolutions:
            x = convolution(x)
            parts.append(x)
        return torch.cat(parts, 1)
