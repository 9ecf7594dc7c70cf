"""Compact transformers: CCT, CVT and ViT-Lite (arXiv 2104.05704), for small images learned from scratch."""

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import SelfAttention
from shared_backbones.blocks.embeddings import check_table, resample_positions
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.tokens import TokenClassifier, drop_path_rates, initialise_linear, to_tokens

Positions = Literal["learnable", "sine", "none"]
_EPS = 1e-5
_HIDDEN = 64  # channels between the convolutions of a tokenizer


class CCT(Released, TokenClassifier):
    """Compact convolutional transformer of Hassani et al., as its released code computes it.

    Overlapping convolutions make the tokens; a learned weighting of the tokens (sequence pooling) takes the class
    token's place. In each block the second norm changes the sum itself, not its branch. The released names that end in
    `_sine` build a learned table, and so do they here; `positions="sine"` gives the sine table of the paper.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        img_size: height and width in pixels, which the table of positions is made for.
        embed_dim: channels of a token, a multiple of `num_heads`.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        conv_layers: convolutions of the tokenizer.
        kernel_size: their side.
        stride: their stride.
        padding: their padding.
        max_pool: whether each is followed by ReLU and max-pooling of 3 pixels to half the resolution; else it has a
            bias, and patches are as in CVT and ViT-Lite.
        class_token: a class token in place of sequence pooling, as in ViT-Lite.
        positions: table of positions: learned, of sines and cosines, or none.
        dropout: share of values dropped after the positions, the projections and in the feed-forwards.
        attention_dropout: share of attention weights dropped while training.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "CCT"

    renamed_arguments: ClassVar[dict[str, str]] = {
        "embedding_dim": "embed_dim",
        "n_input_channels": "in_chans",
        "n_conv_layers": "conv_layers",
        "num_layers": "depth",
        "positional_embedding": "positions",
        "stochastic_depth": "drop_path_rate",
    }

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] = 224,
        *,
        embed_dim: int = 768,
        depth: int = 14,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        conv_layers: int = 1,
        kernel_size: int = 7,
        stride: int = 2,
        padding: int = 3,
        max_pool: bool = True,
        class_token: bool = False,
        positions: Positions = "learnable",
        dropout: float = 0.0,
        attention_dropout: float = 0.1,
        drop_path_rate: float = 0.1,
    ) -> None:
        if positions not in get_args(Positions):
            raise ValueError(f"positions {positions!r} is unknown; expected one of {', '.join(get_args(Positions))}")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim}: expected a multiple of num_heads {num_heads}")
        if min(conv_layers, depth, stride) < 1:
            raise ValueError("conv_layers, depth and stride: expected 1 or more")
        super().__init__(num_classes, embed_dim, _EPS)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "img_size": [height, width],
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "conv_layers": conv_layers,
            "kernel_size": kernel_size,
            "stride": stride,
            "padding": padding,
            "max_pool": max_pool,
            "class_token": class_token,
            "positions": positions,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "drop_path_rate": drop_path_rate,
        }
        self.dropout, self.extra = dropout, int(class_token)
        widths = [in_chans, *[_HIDDEN] * (conv_layers - 1), embed_dim]
        self.tokenizer = nn.Sequential()
        self.grid = height, width
        for before, after in itertools.pairwise(widths):
            self.tokenizer.append(nn.Conv2d(before, after, kernel_size, stride, padding, bias=not max_pool))
            self.grid = _sides(self.grid, kernel_size, stride, padding)
            if max_pool:
                self.tokenizer.extend([nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)])
                self.grid = _sides(self.grid, 3, 2, 1)
        if min(self.grid) < 1:
            raise ValueError(f"img_size {height} x {width} is too small for {conv_layers} convolutions")
        count = self.grid[0] * self.grid[1] + class_token
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.attention_pool = None if class_token else nn.Linear(embed_dim, 1)
        self.positions: Tensor | None
        if positions == "learnable":
            self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, embed_dim), std=0.2))
        else:
            self.register_buffer("positions", _sine_table(count, embed_dim) if positions == "sine" else None)
        self.blocks.extend(
            Block(embed_dim, num_heads, mlp_ratio, dropout, attention_dropout, rate)
            for rate in drop_path_rates(drop_path_rate, depth)
        )
        self.describe_levels(height // self.grid[0])
        self.apply(_initialise)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(name, _OFFICIAL_NAMES)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor, from a released class (`CCT`, `CVT`, `ViTLite`) or size."""
        return {**_sizes_of(variant, arguments), **arguments}

    def released_constants(self) -> tuple[str, ...]:
        """A table of sines."""
        return ("classifier.positional_emb",) if self.arguments["positions"] == "sine" else ()

    def released_conversions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """A table of positions that was made for another square image is resampled."""

        def fit(table: Tensor) -> Tensor:
            side = math.isqrt(table.shape[1] - self.extra)
            square = side * side == table.shape[1] - self.extra
            return resample_positions(table.float(), (side, side), self.grid) if square else table

        return {"positions": fit}

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens with their positions, and their grid."""
        expected = (self.arguments["in_chans"], *self.arguments["img_size"])
        if tuple(x.shape[1:]) != expected:
            raise ValueError(f"images of {tuple(x.shape[1:])}, expected {expected}; build with that img_size")
        tokens = to_tokens(self.tokenizer(x))
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
        if self.positions is not None:
            tokens = tokens + self.positions
        return F.dropout(tokens, self.dropout, self.training), self.grid

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of tokens; with `pre_logits` the feature `(B, D)` that the classifier sees."""
        pooled = x if self.attention_pool is None else self.attention_pool(x).softmax(1).transpose(1, 2) @ x
        x = pooled[:, 0]
        return x if pre_logits else self.head(x)


class Block(nn.Module):
    """Attention over normed tokens, a norm of the sum, and a feed-forward of what came out."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, dropout: float, attention_dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(
            dim, num_heads, qkv_bias=False, attention_dropout=attention_dropout, dropout=dropout
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, N, C)` to `(B, N, C)`; their grid says nothing here."""
        x = self.norm2(x + self.drop_path(self.attention(self.norm1(x))))
        return x + self.drop_path(self.mlp(x))


_DEPTHS = {2: (2, 1, 128), 4: (2, 1, 128), 6: (4, 2, 256), 7: (4, 2, 256), 8: (4, 2, 256), 14: (6, 3, 384)}
"""Heads, ratio and channels of the released sizes, by their number of blocks."""
_PATCHES: Arguments = {"conv_layers": 1, "padding": 0, "max_pool": False}
_CLASSES: dict[str, Arguments] = {"CCT": {}, "CVT": _PATCHES, "ViTLite": {**_PATCHES, "class_token": True}}
_KINDS: dict[str, Arguments] = {"cct": {}, "cvt": _PATCHES, "vit": _CLASSES["ViTLite"]}


def _named(kind: str, depth: int, kernel_size: int, conv_layers: int, side: int, classes: int) -> Arguments:
    heads, ratio, width = _DEPTHS[depth]
    convolutions = {"stride": max(1, kernel_size // 2 - 1), "padding": kernel_size // 2, "conv_layers": conv_layers}
    return {
        "num_classes": classes,
        "img_size": side,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": ratio,
        "kernel_size": kernel_size,
        **(convolutions if kind == "cct" else {"stride": kernel_size, **_KINDS[kind]}),
    }


_SIZES: dict[str, Arguments] = {
    **{
        f"cct_{depth}_{kernel}x{layers}_{side}": _named("cct", depth, kernel, layers, side, classes)
        for depth, kernel, layers, side, classes in [
            (2, 3, 2, 32, 10), (4, 3, 2, 32, 10), (6, 3, 1, 32, 10), (6, 3, 2, 32, 10), (7, 3, 1, 32, 10),
            (7, 3, 2, 32, 10), (7, 7, 2, 224, 102), (14, 7, 2, 224, 1000), (14, 7, 2, 384, 1000),
        ]
    },
    **{
        f"{kind}_{depth}_4_32": _named(kind, depth, 4, 1, 32, 10)
        for kind, depths in (("cvt", (2, 4, 6, 7, 8)), ("vit", (2, 4, 6, 7)))
        for depth in depths
    },
}  # fmt: skip
VARIANTS = {name: functools.partial(CCT, **sizes) for name, sizes in _SIZES.items()}
_SUFFIX = re.compile(r"(_sine)?(_c100|_fl)?$")
_SUFFIX_CLASSES = {"_c100": 100, "_fl": 102}


def _sizes_of(variant: str | None, arguments: Arguments) -> Arguments:
    """Arguments of a released class or size; what its name says of a data set gives the number of classes."""
    if variant is None:
        return {}
    if variant in _CLASSES:
        sizes = dict(_CLASSES[variant])
        if variant != "CCT":
            sizes["kernel_size"] = sizes["stride"] = arguments.get("kernel_size", 16)
        return sizes
    suffix = _SUFFIX.search(variant)
    base = variant[: suffix.start()] if suffix else variant
    if base not in _SIZES:
        raise ValueError(f"variant {variant!r} is unknown; known: {', '.join([*_CLASSES, *_SIZES])}")
    classes = _SUFFIX_CLASSES.get(suffix[2] or "") if suffix else None
    return {**_SIZES[base], **({"num_classes": classes} if classes else {})}


_OFFICIAL_NAMES = [
    (r"tokenizer\.(\d+)\.", lambda match: f"tokenizer.conv_layers.{int(match[1]) // 3}.0."),
    (r"positions$", "classifier.positional_emb"),
    (r"class_token$", "classifier.class_emb"),
    (r"(attention_pool|norm)\.", r"classifier.\1."),
    (r"head\.", "classifier.fc."),
    (r"blocks\.(\d+)\.norm1\.", r"classifier.blocks.\1.pre_norm."),
    (r"blocks\.(\d+)\.norm2\.", r"classifier.blocks.\1.norm1."),
    (r"blocks\.(\d+)\.attention\.qkv\.", r"classifier.blocks.\1.self_attn.qkv."),
    (r"blocks\.(\d+)\.attention\.projection\.", r"classifier.blocks.\1.self_attn.proj."),
    (r"blocks\.(\d+)\.mlp\.fc(\d)\.", r"classifier.blocks.\1.linear\2."),
]


def _sides(grid: tuple[int, int], kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Sides of a map behind a convolution or a pooling."""
    height, width = ((n + 2 * padding - kernel) // stride + 1 for n in grid)
    return height, width


def _sine_table(count: int, width: int) -> Tensor:
    """Sines in even columns and cosines in odd ones, of places in raster order: `(1, count, width)` float32."""
    check_table(count, width)
    columns = torch.arange(width)
    periods = 10000 ** (2 * (columns // 2).double() / width)
    angles = (torch.arange(count, dtype=torch.float64)[:, None] / periods).float()
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos())[None]


def _initialise(module: nn.Module) -> None:
    """As released."""
    initialise_linear(module)
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
