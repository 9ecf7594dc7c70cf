"""ResFormer: a vision transformer that is trained at several resolutions, and used at any (arXiv 2212.00776)."""

import functools
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention_dropout import attend
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.tokens import (
    TokenClassifier,
    check_images,
    drop_path_rates,
    initialise_linear,
    to_map,
    to_tokens,
)

_EPS = 1e-6
_TEMPERATURE = 10000


class ResFormer(Released, TokenClassifier):
    """Vision transformer of Tian et al. with two encodings of positions that follow the image, as released.

    Globally, sines and cosines of the current grid go through a depthwise convolution and are added to the tokens;
    locally, every attention adds a depthwise convolution of its values. The released code takes square images of any
    side; here they may be oblong, and a rest of less than a patch is left out at the right and below.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        patch_size: pixels of a token along each axis.
        embed_dim: channels of a token, a multiple of 4 and of `num_heads`.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        qkv_bias: whether queries, keys and values have a bias.
        dropout: share of values dropped after the positions, the projections and in the feed-forwards.
        attention_dropout: share of attention weights dropped while training.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "ResFormer"
    released_nothing = frozenset({"img_size"})

    renamed_arguments: ClassVar[dict[str, str]] = {"drop_rate": "dropout", "attn_drop_rate": "attention_dropout"}

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if embed_dim % 4 or embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim}: expected a multiple of 4 and of num_heads {num_heads}")
        super().__init__(num_classes, embed_dim, _EPS)
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "drop_path_rate": drop_path_rate,
        }
        self.dropout = dropout
        self.patches = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.positions = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, groups=embed_dim)
        self.blocks.extend(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias, dropout, attention_dropout, rate)
            for rate in drop_path_rates(drop_path_rate, depth)
        )
        self.describe_levels(patch_size)
        self.apply(initialise_linear)
        nn.init.trunc_normal_(self.class_token, std=0.02)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(name, _OFFICIAL_NAMES)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Class token and patches with their positions, and the patches' grid."""
        check_images(x, self.arguments["in_chans"], 1)
        x = self.patches(x)
        grid = x.shape[2], x.shape[3]
        x = x + self.positions(sine_map(grid, x.shape[1], x))
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), to_tokens(x)], 1)
        return F.dropout(tokens, self.dropout, self.training), grid


def sine_map(grid: tuple[int, int], channels: int, like: Tensor) -> Tensor:
    """Sines and cosines of rows, then of columns, in turns; places are 1 to n of n, as angles of a whole turn.

    Args:
        grid: rows and columns.
        channels: number of channels, a multiple of 4.
        like: tensor whose device and number type the map has, float32 at least.

    Returns:
        `(1, channels, rows, columns)`.
    """
    half = channels // 2
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    index = torch.arange(half, dtype=kind, device=like.device)
    periods = _TEMPERATURE ** (2 * (index // 2) / half)
    codes = []
    for count in grid:
        places = torch.arange(1, count + 1, dtype=kind, device=like.device)
        angles = (places / (count + 1e-6) * (2 * math.pi))[:, None] / periods
        codes.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], 2).flatten(1))
    rows = codes[0].T[:, :, None].expand(-1, -1, grid[1])
    columns = codes[1].T[:, None, :].expand(-1, grid[0], -1)
    return torch.cat([rows, columns])[None].to(like.dtype)


class Block(nn.Module):
    """Pre-norm block of a vision transformer whose attention knows where its values lie."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, _EPS)
        self.attention = LocalAttention(dim, num_heads, qkv_bias, attention_dropout, dropout)
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, 1 + h w, C)` to tokens."""
        x = x + self.drop_path(self.attention(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class LocalAttention(nn.Module):
    """Self-attention to whose result a depthwise convolution of the values is added, with one filter for all heads."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.attention_dropout, self.dropout = num_heads, attention_dropout, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.projection = nn.Linear(dim, dim)
        head = dim // num_heads
        self.local = nn.Conv2d(head, head, 3, padding=1, groups=head)
        nn.init.zeros_(self.local.weight)
        assert self.local.bias is not None  # noqa: S101 - it was asked for
        nn.init.zeros_(self.local.bias)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, 1 + h w, C)` to tokens; the class token has no place."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        rate = self.attention_dropout if self.training else 0.0
        attended = attend(query, key, value, rate)
        near = self.local(to_map(value[:, :, 1:].flatten(0, 1), grid))
        near = F.pad(to_tokens(near), (0, 0, 1, 0)).unflatten(0, (-1, self.num_heads))
        x = (attended + near).transpose(1, 2).flatten(2)
        return F.dropout(self.projection(x), self.dropout, self.training)


VARIANTS = {
    f"resformer_{size}_patch16": functools.partial(ResFormer, embed_dim=width, num_heads=heads)
    for size, width, heads in (("tiny", 192, 3), ("small", 384, 6), ("base", 768, 12))
}
_OFFICIAL_NAMES = [
    (r"class_token$", "cls_token"),
    (r"patches\.", "patch_embed.proj."),
    (r"positions\.", "pos_embed.embed_layer."),
    (r"blocks\.(\d+)\.attention\.projection\.", r"blocks.\1.attn.proj."),
    (r"blocks\.(\d+)\.attention\.local\.", r"blocks.\1.attn.get_v."),
    (r"blocks\.(\d+)\.attention\.", r"blocks.\1.attn."),
]
