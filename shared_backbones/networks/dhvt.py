"""DHVT: a vision transformer for small data sets, with head tokens and convolutions (arXiv 2210.05958)."""

import functools
import itertools
import re
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention_dropout import attend
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.transformer import DropPath
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
_PATCHES = {2: (1,), 4: (2, 1), 16: (8, 4, 2, 1)}
"""For each patch, what the width is divided by in its convolutions, each of which halves the image."""


class DHVT(Released, TokenClassifier):
    """Dynamic hybrid vision transformer of Lu et al., as its released code computes it.

    There is no table of positions: convolutions make the tokens and work inside each feed-forward, so that images of
    every size are taken, square or not (the released code takes square ones).

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels; the released code has 3.
        patch_size: pixels of a token along each axis: 2, 4 or 16.
        embed_dim: channels of a token, a multiple of `num_heads`.
        depth: blocks.
        num_heads: attention heads, and as many head tokens.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        qkv_bias: whether queries, keys and values have a bias.
        dropout: share of values dropped before the blocks and after each attention.
        attention_dropout: share of attention weights dropped while training.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "VisionTransformer"
    released_nothing = frozenset({"img_size"})

    renamed_arguments: ClassVar[dict[str, str]] = {"drop_rate": "dropout", "attn_drop_rate": "attention_dropout"}

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        patch_size: int = 16,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if patch_size not in _PATCHES:
            raise ValueError(f"patch_size is {patch_size}, expected one of {', '.join(map(str, _PATCHES))}")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim}: expected a multiple of num_heads {num_heads}")
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
        widths = [in_chans, *(embed_dim // part for part in _PATCHES[patch_size])]
        last = len(widths) - 2
        self.patches = nn.Sequential(
            Affine(in_chans),
            *(
                # without an activation after the last, but for the single one of patches of 2 pixels
                ConvNormAct(before, after, stride=2, activation=None if 0 < last == i else F.gelu)
                for i, (before, after) in enumerate(itertools.pairwise(widths))
            ),
            Affine(embed_dim),
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
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
        """Class token and patches, and the patches' grid."""
        check_images(x, self.arguments["in_chans"], 1)
        x = self.patches(x)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), to_tokens(x)], 1)
        return F.dropout(tokens, self.dropout, self.training), (x.shape[2], x.shape[3])


class Affine(nn.Module):
    """A scale and a shift for each channel of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return x * self.scale + self.shift


class Block(nn.Module):
    """Attention with head tokens, then the convolutional feed-forward, each over normed tokens."""

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
        self.attention = HeadTokenAttention(dim, num_heads, qkv_bias, attention_dropout, dropout)
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.feed_forward = FeedForward(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, 1 + h w, C)` to tokens."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.feed_forward(self.norm2(x), grid))


class HeadTokenAttention(nn.Module):
    """Self-attention among the tokens and one token made of each head's channels (HI-MHSA, section 3.3)."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.attention_dropout, self.dropout = num_heads, attention_dropout, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.projection = nn.Linear(dim, dim)
        self.head_projection = nn.Linear(dim // num_heads, dim)
        self.head_norm = nn.LayerNorm(dim // num_heads)
        self.head_positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, num_heads, dim), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, C)` to tokens; what the head tokens give is added to the class token."""
        count, heads = x.shape[1], self.num_heads
        # the mean over all tokens, the class token included
        head = self.head_projection(x.mean(1).unflatten(1, (heads, -1)))
        head = F.gelu(self.head_norm(head.unflatten(2, (heads, -1)))).flatten(2) + self.head_positions
        qkv = self.qkv(torch.cat([x, head], 1)).unflatten(2, (3, heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        rate = self.attention_dropout if self.training else 0.0
        x = attend(query, key, value, rate)
        x = self.projection(x.transpose(1, 2).flatten(2))
        first = x[:, :1] + x[:, count:].mean(1, keepdim=True)
        return F.dropout(torch.cat([first, x[:, 1:count]], 1), self.dropout, self.training)


class FeedForward(nn.Module):
    """Convolutions over the grid of tokens; the class token is multiplied by what they find (DAFF, section 3.2)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = ConvNormAct(dim, hidden, 1, bias=True, activation=F.gelu)
        self.depthwise = ConvNormAct(hidden, hidden, 3, groups=hidden, bias=True, activation=F.gelu)
        self.project = ConvNormAct(hidden, dim, 1, bias=True, activation=None)
        self.compress = nn.Linear(dim, dim // 4)
        self.excite = nn.Linear(dim // 4, dim)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, 1 + h w, C)` to tokens."""
        patches = self.expand(to_map(x[:, 1:], grid))
        patches = self.project(patches + self.depthwise(patches))
        weights = self.excite(F.gelu(self.compress(patches.mean((2, 3)))))
        return torch.cat([x[:, :1] * weights[:, None], to_tokens(patches)], 1)


_HEADS = {"cifar": (4, 8), "domain": (4, 6), "imagenet": (3, 6)}
_RELEASED = {"cifar": (2, 4), "domain": (16,), "imagenet": (16,)}
VARIANTS = {
    f"dhvt_{size}_{data}_patch{patch}": functools.partial(
        DHVT, embed_dim=width, depth=12, num_heads=_HEADS[data][number], patch_size=patch
    )
    for number, (size, width) in enumerate((("tiny", 192), ("small", 384)))
    for data, patches in _RELEASED.items()
    for patch in patches
}


def _patch_entry(match: re.Match[str]) -> str:
    return f"patch_embed.proj.{2 * (int(match[1]) - 1)}.{0 if match[2] == 'convolution' else 1}."


_OFFICIAL_NAMES = [
    (r"class_token$", "cls_token"),
    (r"patches\.0\.scale", "patch_embed.pre_affine.alpha"),
    (r"patches\.0\.shift", "patch_embed.pre_affine.beta"),
    (r"patches\.\d+\.scale", "patch_embed.post_affine.alpha"),
    (r"patches\.\d+\.shift", "patch_embed.post_affine.beta"),
    (r"patches\.(\d+)\.(convolution|norm)\.", _patch_entry),
    (r"blocks\.(\d+)\.attention\.qkv\.", r"blocks.\1.attn.qkv."),
    (r"blocks\.(\d+)\.attention\.projection\.", r"blocks.\1.attn.proj."),
    (r"blocks\.(\d+)\.attention\.head_projection\.", r"blocks.\1.attn.ht_proj."),
    (r"blocks\.(\d+)\.attention\.head_norm\.", r"blocks.\1.attn.ht_norm."),
    (r"blocks\.(\d+)\.attention\.head_positions", r"blocks.\1.attn.pos_embed"),
    (r"blocks\.(\d+)\.feed_forward\.expand\.convolution\.", r"blocks.\1.mlp.conv1."),
    (r"blocks\.(\d+)\.feed_forward\.expand\.norm\.", r"blocks.\1.mlp.bn1."),
    (r"blocks\.(\d+)\.feed_forward\.depthwise\.convolution\.", r"blocks.\1.mlp.conv2."),
    (r"blocks\.(\d+)\.feed_forward\.depthwise\.norm\.", r"blocks.\1.mlp.bn2."),
    (r"blocks\.(\d+)\.feed_forward\.project\.convolution\.", r"blocks.\1.mlp.conv3."),
    (r"blocks\.(\d+)\.feed_forward\.project\.norm\.", r"blocks.\1.mlp.bn3."),
    (r"blocks\.(\d+)\.feed_forward\.compress\.", r"blocks.\1.mlp.compress."),
    (r"blocks\.(\d+)\.feed_forward\.excite\.", r"blocks.\1.mlp.excitation."),
]
