"""DRCT: super-resolution by windows of attention whose results are kept side by side (arXiv 2404.00722)."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import WindowAttention
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.released import Rule
from shared_backbones.networks.super_resolution import SuperResolver
from shared_backbones.networks.tokens import drop_path_rates, initialise_linear

_BLOCKS = 5
_SLOPE = 0.2
_GROUP_SCALE = 0.2


class DRCT(SuperResolver):
    """Dense residual connected transformer of Hsu et al., as its released code computes it.

    The k-th block of a group is `embed_dim + k gc` channels wide, and has `h - (width mod h)` heads, as released.

    Args:
        in_chans: bands in and out; for three of them, the mean colour of the training set is subtracted.
        img_size: side of the images that it was made for; where it is no larger than the window, none is shifted.
        window_size: side of the windows.
        embed_dim: channels of a token.
        depths: one entry for each group; its value steps the stochastic depth alone.
        num_heads: h of each group.
        mlp_ratio: hidden channels of the first three feed-forwards of a group, as a multiple of the tokens'.
        gc: channels that each block adds.
        upscale: pixels out per pixel in along each axis: 3 or a power of 2.
        img_range: what values are multiplied by inside.
        drop_path_rate: stochastic depth; it rises from group to group.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
        scale: `upscale`.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "DRCT"
    released_nothing = frozenset({"patch_size", "compress_ratio", "squeeze_factor", "conv_scale", "overlap_ratio"})

    def __init__(
        self,
        in_chans: int = 3,
        *,
        img_size: int = 64,
        window_size: int = 16,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 6,
        num_heads: Sequence[int] = (6,) * 6,
        mlp_ratio: float = 2.0,
        gc: int = 32,
        upscale: int = 4,
        img_range: float = 1.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if len(depths) != len(num_heads) or img_size < window_size:
            raise ValueError(f"depths and num_heads must name the same groups, and img_size be {window_size} or more")
        arguments: Arguments = {
            "in_chans": in_chans,
            "img_size": img_size,
            "window_size": window_size,
            "embed_dim": embed_dim,
            "depths": list(depths),
            "num_heads": list(num_heads),
            "mlp_ratio": mlp_ratio,
            "gc": gc,
            "upscale": upscale,
            "img_range": img_range,
            "drop_path_rate": drop_path_rate,
        }
        super().__init__(arguments, in_chans, embed_dim, window_size, upscale, img_range)
        rates = drop_path_rates(drop_path_rate, sum(depths))
        for i, heads in enumerate(num_heads):
            rate = rates[sum(depths[:i])]  # one for all blocks of a group
            blocks = []
            for k in range(_BLOCKS):
                width = embed_dim + k * gc
                own = heads - width % heads
                if width % own:
                    raise ValueError(
                        f"block {k + 1} is {width} wide: expected a multiple of its {own} heads; change gc"
                    )
                attention = WindowAttention(
                    width,
                    own,
                    (window_size, window_size),
                    shifted=bool(k % 2) and img_size > window_size,
                    shrinks=False,
                )
                blocks.append(WindowBlock(width, attention, mlp_ratio if k < 3 else 1.0, rate))
            self.groups.append(DenseGroup(embed_dim, gc, blocks))
        self.apply(initialise_linear)

    group_names: Sequence[Rule] = [
        (r"layers\.(\d+)\.blocks\.(\d)\.(.*)$", lambda match: _block(match[1], int(match[2]), match[3])),
        (r"layers\.(\d+)\.adjust\.(\d)\.", lambda match: f"layers.{match[1]}.adjust{int(match[2]) + 1}."),
    ]

    def released_unread(self) -> tuple[str, ...]:
        """What the arguments determine."""
        return (r".*\.relative_position_index$", r".*\.attn_mask$")


class DenseGroup(nn.Module):
    """Blocks that each see the input and what all before them gave; a fifth of the last one's is added to the input."""

    def __init__(self, dim: int, growth: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        last = len(blocks) - 1
        self.adjust = nn.ModuleList(
            nn.Conv2d(dim + k * growth, dim if k == last else growth, 1) for k in range(len(blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, C)` to the same shape."""
        seen = [x]
        for block, adjust in zip(self.blocks, self.adjust, strict=True):
            tokens = block(torch.cat(seen, 3)).permute(0, 3, 1, 2)
            seen.append(adjust(tokens).permute(0, 2, 3, 1))
            if len(seen) <= len(self.blocks):
                seen[-1] = F.leaky_relu(seen[-1], _SLOPE)
        return x + _GROUP_SCALE * seen[-1]


class WindowBlock(nn.Module):
    """Pre-norm block with attention within windows."""

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.mlp = attention, Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, C)` to the same shape."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def _block(group: str, number: int, rest: str) -> str:
    """The released name of an entry of a block."""
    rest = rest.replace("attention.bias_table", "attn.relative_position_bias_table")
    rest = rest.replace("attention.projection.", "attn.proj.").replace("attention.", "attn.")
    return f"layers.{group}.swin{number + 1}.{rest}"


VARIANTS = {
    "drct": functools.partial(DRCT),
    "drct_l": functools.partial(DRCT, depths=(6,) * 12, num_heads=(6,) * 12),
}
