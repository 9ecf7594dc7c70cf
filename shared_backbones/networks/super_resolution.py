"""The frame that SwinIR, HAT and DRCT share: features of an image, groups of blocks, and enlargement at the end."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.networks.released import Released, Rule, renamed

_COLOUR_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, for three bands
_SLOPE = 0.01
_WIDTH = 64  # channels of the maps that are enlarged


class SuperResolver(Released):
    """Base of networks that enlarge images, whose groups map `(B, H, W, C)` to the same shape.

    An image whose sides are no multiples of the window is padded by reflection at the bottom and right, and what
    belongs to the padding is cut off again. A subclass appends to `groups`.

    Args:
        arguments: the constructor's arguments, in JSON types.
        in_chans: bands in and out; for three of them, the mean colour of the training set is subtracted.
        embed_dim: channels of a token.
        window: side of the windows.
        upscale: pixels out per pixel in along each axis: 3 or a power of 2.
        img_range: what values are multiplied by inside.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
        scale: `upscale`.
        groups: the groups.

    Raises:
        ValueError: an argument does not suit.
    """

    role: ClassVar[Role] = "restorer"
    grad_checkpointing = False
    group_names: ClassVar[Sequence[Rule]]

    def __init__(
        self, arguments: Arguments, in_chans: int, embed_dim: int, window: int, upscale: int, img_range: float
    ) -> None:
        super().__init__()
        if upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
            raise ValueError(f"upscale is {upscale}, expected 3 or a power of 2")
        self.arguments = arguments
        self.in_chans, self.window, self.scale, self.img_range = in_chans, window, upscale, img_range
        mean = torch.tensor(_COLOUR_MEAN if in_chans == len(_COLOUR_MEAN) else [0.0] * in_chans)
        self.mean: Tensor
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.enter, self.norm = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.groups = nn.ModuleList()
        self.after = nn.Conv2d(embed_dim, embed_dim, 3, 1, 1)
        self.narrow = nn.Conv2d(embed_dim, _WIDTH, 3, 1, 1)
        factors = [3] if upscale == 3 else [2] * int(math.log2(upscale))
        self.enlarge = nn.ModuleList(nn.Conv2d(_WIDTH, _WIDTH * factor**2, 3, 1, 1) for factor in factors)
        self.factors = factors
        self.last = nn.Conv2d(_WIDTH, in_chans, 3, 1, 1)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; of the ways to enlarge and to end a group, one is there."""
        given = super().released_arguments(variant, arguments)
        for name, only in (("upsampler", "pixelshuffle"), ("resi_connection", "1conv")):
            if given.pop(name, only) != only:
                raise ValueError(f"{name}: expected {only!r}, as in all released networks")
        return given

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(renamed(name, _OFFICIAL_NAMES), self.group_names)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to `(B, C, scale H, scale W)`."""
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {self.in_chans}, H, W)")
        height, width = x.shape[2:]
        x = (padded(x, self.window) - self.mean) * self.img_range
        first = self.first(x)
        tokens = self.enter(first.permute(0, 2, 3, 1))
        for group in self.groups:
            tokens = recomputed(group, tokens) if self.grad_checkpointing and self.training else group(tokens)
        x = first + self.after(self.norm(tokens).permute(0, 3, 1, 2))
        x = F.leaky_relu(self.narrow(x), _SLOPE)
        for factor, convolution in zip(self.factors, self.enlarge, strict=True):
            x = F.pixel_shuffle(convolution(x), factor)
        x = self.last(x) / self.img_range + self.mean
        return x[:, :, : self.scale * height, : self.scale * width]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each group instead of keeping them."""
        self.grad_checkpointing = enable


def padded(x: Tensor, multiple: int) -> Tensor:
    """An image `(B, C, H, W)` continued at the bottom and right to multiples, by reflection where it can be."""
    below, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    if not below and not right:
        return x
    mode = "reflect" if below < x.shape[2] and right < x.shape[3] else "replicate"
    return F.pad(x, (0, right, 0, below), mode=mode)


_OFFICIAL_NAMES: list[Rule] = [
    (r"first\.", "conv_first."),
    (r"enter\.", "patch_embed.norm."),
    (r"after\.", "conv_after_body."),
    (r"narrow\.", "conv_before_upsample.0."),
    (r"enlarge\.(\d)\.", lambda match: f"upsample.{2 * int(match[1])}."),
    (r"last\.", "conv_last."),
    (r"groups\.", "layers."),
]
