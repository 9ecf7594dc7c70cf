"""ViT-CoMer: a small convolutional pyramid beside a plain vision transformer (arXiv 2403.07392)."""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.attention import window_partition, window_reverse
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.errors import require
from shared_backbones.networks.comer_adapter import Adapter, Grid
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.tokens import (
    check_images,
    drop_path_rates,
    initialise_linear,
    to_map,
    to_tokens,
)

_EPS = 1e-6
_STRIDE = 32


class ViTCoMer(Released):
    """Plain vision transformer with the adapter of Xia et al., as the released code computes it.

    Args:
        num_classes: classes of a map, by an FPN decoder over the pyramid; 0 gives the pyramid, four maps
            `(B, embed_dim, H / r, W / r)` for r of 4, 8, 16 and 32.
        in_chans: input channels; the released code has 3.
        pretrain_size: side of the images that the table of positions is for; it is resampled to every image.
        embed_dim: channels of a token.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        window_attn: for each block, whether it attends within windows.
        window_size: for each block, side of its windows in tokens.
        layer_scale: whether each branch has a learned factor for each channel.
        interaction_indexes: first and last block of each of the four interactions.
        adapter: arguments of `Adapter`.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "ViTCoMer"
    released_nothing = frozenset({"img_size"})

    role: ClassVar[Role] = "segmenter"
    grad_checkpointing = False

    def __init__(
        self,
        num_classes: int = 0,
        in_chans: int = 3,
        *,
        pretrain_size: int = 224,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        window_attn: Sequence[bool] | None = None,
        window_size: Sequence[int | None] | None = None,
        layer_scale: bool = True,
        interaction_indexes: Sequence[Sequence[int]] = ((0, 2), (3, 5), (6, 8), (9, 11)),
        adapter: Arguments | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        windowed = list(window_attn) if window_attn is not None else [False] * depth
        windows = list(window_size) if window_size is not None else [14] * depth
        if embed_dim % num_heads or len(windowed) != depth or len(windows) != depth:
            raise ValueError(
                f"embed_dim {embed_dim}: expected a multiple of num_heads {num_heads}; window_attn and window_size: "
                f"expected {depth} entries, one for each block"
            )
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "pretrain_size": pretrain_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "window_attn": windowed,
            "window_size": windows,
            "layer_scale": layer_scale,
            "interaction_indexes": [list(span) for span in interaction_indexes],
            "adapter": dict(adapter or {}),
            "drop_path_rate": drop_path_rate,
        }
        side = pretrain_size // 16
        self.patches = nn.Conv2d(in_chans, embed_dim, 16, 16)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, side * side, embed_dim), std=0.02))
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, windows[i] if windowed[i] else None, layer_scale, rate)
            for i, rate in enumerate(drop_path_rates(drop_path_rate, depth))
        )
        self.adapter = Adapter(
            embed_dim, in_chans, depth, spans=interaction_indexes, drop_path=drop_path_rate, **(adapter or {})
        )
        self.blocks.apply(initialise_linear)
        self.decoder = Decoder(embed_dim, num_classes) if num_classes else None

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(name, _OFFICIAL_NAMES)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor, from those of the released code, which has the adapter's among its own."""
        given = super().released_arguments(variant, arguments)
        if given.pop("patch_size", 16) != 16:
            raise ValueError("patch_size: expected 16, as in all released networks")
        adapter = {ours: given.pop(theirs) for theirs, ours in _ADAPTER.items() if theirs in given}
        return {**given, "adapter": {**adapter, **given.get("adapter", {})}}

    def released_conversions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The released table keeps a row for the class token that there is not."""
        return {"positions": lambda table: table[:, 1:]}

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits `(B, num_classes, H, W)` of images `(B, C, H, W)`, or the pyramid."""
        check_images(x, self.arguments["in_chans"], _STRIDE)
        plane = self.patches(x)
        grid = plane.shape[2], plane.shape[3]
        side = math.isqrt(self.positions.shape[1])
        table = F.interpolate(to_map(self.positions, (side, side)), grid, mode="bicubic", align_corners=False)
        recompute = self.grad_checkpointing and self.training
        blocks = [functools.partial(recomputed, block) if recompute else block for block in self.blocks]
        pyramid = self.adapter(x, to_tokens(plane + table), grid, blocks)
        if self.decoder is None:
            return pyramid
        return F.interpolate(self.decoder(pyramid), x.shape[2:], mode="bilinear", align_corners=False)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.grad_checkpointing = enable


class Decoder(nn.Module):
    """smp's FPN decoder over four maps, and a classifier of its pixels at a quarter of the resolution."""

    def __init__(self, channels: int, num_classes: int, width: int = 128) -> None:
        super().__init__()
        decoders = require("segmentation_models_pytorch.decoders.fpn.decoder", "train")
        self.fpn: nn.Module = decoders.FPNDecoder(
            encoder_channels=[channels] * 4, encoder_depth=4, pyramid_channels=width, segmentation_channels=width // 2
        )
        self.head = nn.Conv2d(width // 2, num_classes, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Logits `(B, num_classes, H / 4, W / 4)` of the maps at 4, 8, 16 and 32."""
        return self.head(self.fpn(list(pyramid)))


class Block(nn.Module):
    """Pre-norm block of a vision transformer, over all tokens or within windows, with a factor for each branch."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, window: int | None, layer_scale: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.norm1 = nn.LayerNorm(dim, _EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.scale1 = nn.Parameter(torch.ones(dim)) if layer_scale else None
        self.scale2 = nn.Parameter(torch.ones(dim)) if layer_scale else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Map tokens `(B, h w, C)` to tokens."""
        branch = self._attend(self.qkv(self.norm1(x)), grid)
        x = x + self.drop_path(branch if self.scale1 is None else self.scale1 * branch)
        branch = self.mlp(self.norm2(x))
        return x + self.drop_path(branch if self.scale2 is None else self.scale2 * branch)

    def fold_(self) -> None:
        """Multiply the factors of the branches into their last layers."""
        if self.scale1 is None or self.scale2 is None:
            return
        for layer, scale in ((self.projection, self.scale1), (self.mlp.fc2, self.scale2)):
            layer.weight = nn.Parameter(layer.weight * scale[:, None], requires_grad=False)
            layer.bias = nn.Parameter(layer.bias * scale, requires_grad=False)
        self.scale1 = self.scale2 = None

    def _attend(self, qkv: Tensor, grid: Grid) -> Tensor:
        """Attention of `(B, h w, 3C)`; windows beyond the map are full of zeros, which take part."""
        if self.window is None:
            return self.projection(self._attention(qkv))
        side = self.window
        plane = qkv.unflatten(1, grid)
        plane = F.pad(plane, (0, 0, 0, -grid[1] % side, 0, -grid[0] % side))
        padded = plane.shape[1], plane.shape[2]
        attended = window_reverse(self._attention(window_partition(plane, (side, side))), (side, side), padded)
        return self.projection(attended[:, : grid[0], : grid[1]].flatten(1, 2))

    def _attention(self, qkv: Tensor) -> Tensor:
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).transpose(-2, -4).unbind(-3)
        return F.scaled_dot_product_attention(query, key, value).transpose(-2, -3).flatten(-2)


VARIANTS = {
    f"vit_comer_{size}": functools.partial(ViTCoMer, embed_dim=width, num_heads=heads)
    for size, width, heads in (("tiny", 192, 3), ("small", 384, 6), ("base", 768, 12))
}
_ADAPTER = {
    "conv_inplane": "inplanes",
    "deform_num_heads": "heads",
    "n_points": "points",
    "cffn_ratio": "hidden_ratio",
    "deform_ratio": "value_ratio",
    "dim_ratio": "fusion_ratio",
    "init_values": "init_values",
}
_PARTS = [
    (r"attention\.offsets\.", "attn.sampling_offsets."),
    (r"attention\.weights\.", "attn.attention_weights."),
    (r"attention\.value\.", "attn.value_proj."),
    (r"attention\.projection\.", "attn.output_proj."),
    (r"(feed_forward|before)\.expand\.", "ffn.fc1."),
    (r"(feed_forward|before)\.depthwise\.", "ffn.dwconv.dwconv."),
    (r"(feed_forward|before)\.contract\.", "ffn.fc2."),
    (r"(before_)?norm\.", "ffn_norm."),
    (r"(inner_)?query_norm\.", "query_norm."),
    (r"(inner_)?value_norm\.", "feat_norm."),
    (r"scale$", "gamma"),
]


def _fusion(match: re.Match[str]) -> str:
    kind, level = match[2], int(match[3])
    layer = f"bn{level + 1}" if kind == "norms" else f"dwconv{2 * level + (1 if kind == 'small' else 2)}"
    return f"interactions.{match[1]}.mrfp.dwconv.{layer}."


def _injection(match: re.Match[str]) -> str:
    return f"interactions.{match[1]}.cti_tov.{renamed(match[2], _PARTS)}"


def _extraction(match: re.Match[str]) -> str:
    """An entry of what brings tokens into the pyramid: the norms outside have the names of those inside."""
    number, rest = int(match[1]), match[2]
    place = f"interactions.{number}.cti_toc" if number < 4 else f"interactions.3.extra_CTIs.{number - 4}"
    inside = "" if rest.startswith(("query_norm.", "value_norm.", "before.", "before_norm.")) else "cfinter."
    return f"{place}.{inside}{renamed(rest, _PARTS)}"


_OFFICIAL_NAMES = [
    (r"positions$", "pos_embed"),
    (r"patches\.", "patch_embed.proj."),
    (r"blocks\.(\d+)\.qkv\.", r"blocks.\1.attn.qkv."),
    (r"blocks\.(\d+)\.projection\.", r"blocks.\1.attn.proj."),
    (r"blocks\.(\d+)\.scale", r"blocks.\1.gamma"),
    (r"adapter\.level_codes", "level_embed"),
    (r"adapter\.pyramid\.stem\.(\d+)\.convolution\.", lambda match: f"spm.stem.{3 * int(match[1])}."),
    (r"adapter\.pyramid\.stem\.(\d+)\.norm\.", lambda match: f"spm.stem.{3 * int(match[1]) + 1}."),
    (r"adapter\.pyramid\.halve\.(\d+)\.convolution\.", lambda match: f"spm.conv{int(match[1]) + 2}.0."),
    (r"adapter\.pyramid\.halve\.(\d+)\.norm\.", lambda match: f"spm.conv{int(match[1]) + 2}.1."),
    (r"adapter\.pyramid\.project\.(\d+)\.", lambda match: f"spm.fc{int(match[1]) + 1}."),
    (r"adapter\.fusions\.(\d+)\.expand\.", r"interactions.\1.mrfp.fc1."),
    (r"adapter\.fusions\.(\d+)\.contract\.", r"interactions.\1.mrfp.fc2."),
    (r"adapter\.fusions\.(\d+)\.(\w+)\.(\d+)\.", _fusion),
    (
        r"adapter\.injections\.(\d+)\.(.*)$",
        lambda match: f"interactions.{match[1]}.cti_tov.{renamed(match[2], _PARTS)}",
    ),
    (r"adapter\.extractions\.(\d+)\.(.*)$", _extraction),
    (r"adapter\.enlarge\.", "up."),
    (r"adapter\.norms\.(\d+)\.", lambda match: f"norm{int(match[1]) + 1}."),
]
