"""HAT: super-resolution by attention within windows, of channels, and across windows' borders (arXiv 2309.05239)."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import WindowAttention, kept_table, window_partition, window_reverse
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.released import Rule
from shared_backbones.networks.super_resolution import SuperResolver
from shared_backbones.networks.tokens import drop_path_rates, initialise_linear


class HAT(SuperResolver):
    """Hybrid attention transformer of Chen et al., as its released code computes it.

    Args:
        in_chans: bands in and out; for three of them, the mean colour of the training set is subtracted.
        img_size: side of the images that it was made for; where it is no larger than the window, none is shifted.
        window_size: side of the windows.
        embed_dim: channels of a token.
        depths: blocks of each group.
        num_heads: heads of each group.
        compress_ratio: channels over those between the convolutions beside the attention.
        squeeze_factor: channels over those that gate them.
        conv_scale: factor of what the convolutions give.
        overlap_ratio: how much further the last attention of a group looks, as a share of the window.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        upscale: pixels out per pixel in along each axis: 3 or a power of 2.
        img_range: what values are multiplied by inside.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
        scale: `upscale`.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "HAT"
    released_nothing = frozenset({"patch_size"})

    def __init__(
        self,
        in_chans: int = 3,
        *,
        img_size: int = 64,
        window_size: int = 16,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 6,
        num_heads: Sequence[int] = (6,) * 6,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        conv_scale: float = 0.01,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 2.0,
        upscale: int = 4,
        img_range: float = 1.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if len(depths) != len(num_heads) or any(embed_dim % heads for heads in num_heads):
            raise ValueError(f"depths and num_heads must name the same groups, and heads divide embed_dim {embed_dim}")
        if embed_dim // compress_ratio < 1 or embed_dim // squeeze_factor < 1:
            raise ValueError(f"embed_dim {embed_dim}: expected at least compress_ratio and squeeze_factor")
        if img_size < window_size or (int(overlap_ratio * window_size) % 2):
            raise ValueError(f"img_size {img_size}: expected window_size {window_size} or more, of an even overlap")
        arguments: Arguments = {
            "in_chans": in_chans,
            "img_size": img_size,
            "window_size": window_size,
            "embed_dim": embed_dim,
            "depths": list(depths),
            "num_heads": list(num_heads),
            "compress_ratio": compress_ratio,
            "squeeze_factor": squeeze_factor,
            "conv_scale": conv_scale,
            "overlap_ratio": overlap_ratio,
            "mlp_ratio": mlp_ratio,
            "upscale": upscale,
            "img_range": img_range,
            "drop_path_rate": drop_path_rate,
        }
        super().__init__(arguments, in_chans, embed_dim, window_size, upscale, img_range)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        overlap = int(overlap_ratio * window_size)
        for depth, heads in zip(depths, num_heads, strict=True):
            blocks = [
                HybridBlock(
                    embed_dim,
                    WindowAttention(
                        embed_dim,
                        heads,
                        (window_size, window_size),
                        shifted=bool(i % 2) and img_size > window_size,
                        shrinks=False,
                    ),
                    ChannelConvolutions(embed_dim, compress_ratio, squeeze_factor),
                    conv_scale,
                    mlp_ratio,
                    next(rates),
                )
                for i in range(depth)
            ]
            self.groups.append(
                Group(embed_dim, blocks, OverlappingBlock(embed_dim, heads, window_size, overlap, mlp_ratio))
            )
        self.apply(initialise_linear)

    group_names: Sequence[Rule] = [
        (r"layers\.(\d+)\.blocks\.(\d+)\.(.*)$", lambda match: _block(match[1], match[2], match[3])),
        (r"layers\.(\d+)\.overlap\.bias_table", r"layers.\1.residual_group.overlap_attn.relative_position_bias_table"),
        (r"layers\.(\d+)\.overlap\.projection\.", r"layers.\1.residual_group.overlap_attn.proj."),
        (r"layers\.(\d+)\.overlap\.", r"layers.\1.residual_group.overlap_attn."),
        (r"layers\.(\d+)\.convolution\.", r"layers.\1.conv."),
    ]

    def released_unread(self) -> tuple[str, ...]:
        """What the arguments determine."""
        return (r"relative_position_index_(SA|OCA)$", r".*\.attn_mask$")


class Group(nn.Module):
    """Blocks, attention across the windows' borders and a convolution, around which the input goes."""

    def __init__(self, dim: int, blocks: Sequence[nn.Module], overlap: nn.Module) -> None:
        super().__init__()
        self.blocks, self.overlap = nn.ModuleList(blocks), overlap
        self.convolution = nn.Conv2d(dim, dim, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, C)` to the same shape."""
        kept = x
        for block in self.blocks:
            x = block(x)
        x = self.overlap(x)
        return kept + self.convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class HybridBlock(nn.Module):
    """Attention within windows and, beside it, convolutions with a gate for each channel; then a feed-forward (HAB)."""

    def __init__(
        self,
        dim: int,
        attention: nn.Module,
        convolutions: nn.Module,
        conv_scale: float,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.convolutions, self.conv_scale = attention, convolutions, conv_scale
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, C)` to the same shape."""
        normed = self.norm1(x)
        beside = self.convolutions(normed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attention(normed)) + self.conv_scale * beside
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ChannelConvolutions(nn.Module):
    """Two convolutions and a gate for each channel (CAB)."""

    def __init__(self, dim: int, compress: int, squeeze: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, dim // compress, 3, 1, 1)
        self.second = nn.Conv2d(dim // compress, dim, 3, 1, 1)
        self.gate_in, self.gate_out = nn.Conv2d(dim, dim // squeeze, 1), nn.Conv2d(dim // squeeze, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = self.second(F.gelu(self.first(x)))
        return x * self.gate_out(F.relu(self.gate_in(x.mean((2, 3), keepdim=True)))).sigmoid()


class OverlappingBlock(nn.Module):
    """Windows attend to larger ones around them, beyond whose image zeros take part; then a feed-forward (OCAB).

    Args:
        dim: channels C.
        heads: attention heads.
        window: side of the windows of queries.
        overlap: how much larger those of keys are.
        mlp_ratio: hidden channels of the feed-forward, as a multiple of C.
    """

    def __init__(self, dim: int, heads: int, window: int, overlap: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads, self.window, self.overlap = heads, window, overlap
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.projection = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        side = 2 * window + overlap - 1
        self.bias_table = nn.Parameter(nn.init.trunc_normal_(torch.empty(side * side, heads), std=0.02))
        self.bias: Tensor | None  # gathered from the table, in the inference form
        self.register_buffer("bias", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, C)` to the same shape; the window must tile it."""
        batch, height, width, dim = x.shape
        window, large = self.window, self.window + self.overlap
        query, both = self.qkv(self.norm1(x)).split((dim, 2 * dim), 3)
        query = window_partition(query, (window, window)).flatten(0, 1)
        columns = F.unfold(both.permute(0, 3, 1, 2), large, padding=self.overlap // 2, stride=window)
        key, value = columns.unflatten(1, (2 * dim, -1)).permute(0, 3, 2, 1).flatten(0, 1).chunk(2, 2)
        heads = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        bias = (self._gather() if self.bias is None else self.bias).to(query.dtype)
        attended = F.scaled_dot_product_attention(*heads, attn_mask=bias).transpose(1, 2).flatten(2)
        attended = self.projection(attended).unflatten(0, (batch, -1))
        x = x + window_reverse(attended, (window, window), (height, width))
        return x + self.mlp(self.norm2(x))

    def fold_(self) -> None:
        """Gather the bias once and for all."""
        self.bias = self._gather()

    def _gather(self) -> Tensor:
        """Additive scores `(1, heads, w w, w' w')`."""
        index = overlapping_index(self.window, self.overlap, self.bias_table.device)
        large = self.window + self.overlap
        return self.bias_table[index].view(self.window**2, large**2, -1).permute(2, 0, 1)[None]


@kept_table
def overlapping_index(window: int, overlap: int, device: torch.device) -> Tensor:
    """Row of the bias table for every pair of a query and a key of the larger window, `(w w w' w',)` int64.

    The released code begins at a negative offset, and so counts from the table's end: indices are taken modulo its
    length.
    """
    large = window + overlap
    side = window + large - 1
    apart = torch.arange(large, device=device) - torch.arange(window, device=device)[:, None] + window - large + 1
    index = apart[:, None, :, None] * side + apart[None, :, None, :]
    return index.flatten() % side**2


def _block(group: str, block: str, rest: str) -> str:
    """The released name of an entry of a block."""
    for ours, theirs in (
        ("attention.bias_table", "attn.relative_position_bias_table"),
        ("attention.projection.", "attn.proj."),
        ("attention.", "attn."),
        ("convolutions.first.", "conv_block.cab.0."),
        ("convolutions.second.", "conv_block.cab.2."),
        ("convolutions.gate_in.", "conv_block.cab.3.attention.1."),
        ("convolutions.gate_out.", "conv_block.cab.3.attention.3."),
    ):
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
            break
    return f"layers.{group}.residual_group.blocks.{block}.{rest}"


VARIANTS = {
    "hat": functools.partial(HAT),
    "hat_s": functools.partial(HAT, embed_dim=144, compress_ratio=24, squeeze_factor=24),
    "hat_l": functools.partial(HAT, depths=(6,) * 12, num_heads=(6,) * 12),
}
