"""CvT: stages of a vision transformer with convolutions for tokens and projections (arXiv 2103.15808)."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention_dropout import attend
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath
from shared_backbones.json_values import Document, Json
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels, linear_classifier
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.tokens import (
    check_images,
    drop_path_rates,
    initialise_linear,
    to_map,
    to_tokens,
)

_EPS = 1e-5
_KERNELS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
"""Side, stride and padding of each stage's first convolution; the first one's padding is not half its kernel."""


class CvT(Released, Classifier):
    """Convolutional vision transformer of Wu et al., as its released code computes it.

    Queries, keys and values come from depthwise convolutions, keys and values of half the resolution; scores are scaled
    by the whole width, not by one head's; the activation is `x sigmoid(1.702 x)`. Images may have any size of 16 pixels
    or more, square or not.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        embed_dim: channels of the three stages.
        depth: blocks of the three stages.
        num_heads: heads of the three stages.
        mlp_ratio: hidden channels of each stage's feed-forwards, as a multiple of its own.
        class_token: whether the last stage has a class token; else its tokens are averaged.
        qkv_bias: whether queries, keys and values have a bias.
        dropout: for each stage, share of values dropped before the blocks, after projections and in feed-forwards.
        attention_dropout: for each stage, share of attention weights dropped while training.
        drop_path_rate: for each stage, stochastic depth of its last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "ConvolutionalVisionTransformer"

    feature_indices = (0, 1, 2)

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        embed_dim: Sequence[int] = (64, 192, 384),
        depth: Sequence[int] = (1, 2, 10),
        num_heads: Sequence[int] = (1, 3, 6),
        mlp_ratio: Sequence[float] = (4.0, 4.0, 4.0),
        class_token: bool = True,
        qkv_bias: bool = True,
        dropout: Sequence[float] = (0.0, 0.0, 0.0),
        attention_dropout: Sequence[float] = (0.0, 0.0, 0.0),
        drop_path_rate: Sequence[float] = (0.0, 0.0, 0.1),
    ) -> None:
        super().__init__()
        rows = (embed_dim, depth, num_heads, mlp_ratio, dropout, attention_dropout, drop_path_rate)
        if any(len(row) != 3 for row in rows):
            raise ValueError("embed_dim, depth, num_heads, mlp_ratio and the rates must each name three stages")
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "embed_dim": list(embed_dim),
            "depth": list(depth),
            "num_heads": list(num_heads),
            "mlp_ratio": list(mlp_ratio),
            "class_token": class_token,
            "qkv_bias": qkv_bias,
            "dropout": list(dropout),
            "attention_dropout": list(attention_dropout),
            "drop_path_rate": list(drop_path_rate),
        }
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, embed_dim[-1], embed_dim[-1]
        self.stages = nn.ModuleList()
        before = in_chans
        for i, width in enumerate(embed_dim):
            if width % num_heads[i]:
                raise ValueError(f"embed_dim {width} of stage {i}: expected a multiple of num_heads {num_heads[i]}")
            token = class_token and i == 2
            blocks = [
                Block(width, num_heads[i], mlp_ratio[i], qkv_bias, dropout[i], attention_dropout[i], rate)
                for rate in drop_path_rates(drop_path_rate[i], depth[i])
            ]
            self.stages.append(Stage(before, width, _KERNELS[i], token, dropout[i], blocks))
            before = width
        self.norm = nn.LayerNorm(before, _EPS)
        self.head = linear_classifier(before, num_classes)
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, width in enumerate(embed_dim)
        ]
        self.apply(initialise_linear)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(name, _OFFICIAL_NAMES)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor, from the released code's `spec`, its `MODEL.SPEC`, too."""
        given = super().released_arguments(variant, arguments)
        activation, eps = given.pop("act", "QuickGELU"), given.pop("norm_eps", _EPS)
        if activation != "QuickGELU" or eps != _EPS:
            raise ValueError(f"act {activation!r} and norm_eps {eps}: the released networks have QuickGELU and {_EPS}")
        spec = given.pop("spec", None)
        return {**given, **(_read_spec(spec) if spec else {})}

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens of the last block `(B, 1 + h w, D)`, class token first, or without one `(B, h w, D)`."""
        return self._levels(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of tokens; with `pre_logits` the feature `(B, D)` that the classifier sees."""
        x = self.norm(x[:, 0]) if self.arguments["class_token"] else self.norm(x).mean(1)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """Maps of the stages `indices`, alone or after the last tokens; `norm` changes nothing.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, len(self.stages), output_fmt)
        tokens, levels = self._levels(x, max(wanted) + 1 if stop_early or intermediates_only else None)
        maps = [levels[i] for i in wanted]
        return maps if intermediates_only else (tokens, maps)

    def _levels(self, x: Tensor, count: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """The last tokens, and the maps of the first `count` stages."""
        check_images(x, self.arguments["in_chans"], 1)
        tokens, levels = x, []
        for stage in self.stages[:count]:
            tokens, x = stage(x, self.grad_checkpointing and self.training)
            levels.append(x)
        return tokens, levels


class Stage(nn.Module):
    """A convolution that makes tokens, and blocks over them."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        kernel: tuple[int, int, int],
        class_token: bool,
        dropout: float,
        blocks: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.tokens = nn.Conv2d(in_channels, width, *kernel)
        self.norm = nn.LayerNorm(width, _EPS)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)
        self.blocks = nn.ModuleList(blocks)
        self.dropout = dropout

    def forward(self, x: Tensor, recompute: bool) -> tuple[Tensor, Tensor]:
        """Tokens of the last block, class token first, and their map, from a map `(B, C, H, W)`."""
        x = self.tokens(x)
        grid = x.shape[2], x.shape[3]
        tokens = self.norm(to_tokens(x))
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
        tokens = F.dropout(tokens, self.dropout, self.training)
        for block in self.blocks:
            tokens = recomputed(block, tokens, grid) if recompute else block(tokens, grid)
        return tokens, to_map(tokens[:, tokens.shape[1] - grid[0] * grid[1] :], grid)


class Block(nn.Module):
    """Pre-norm attention, then a pre-norm feed-forward."""

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
        self.attention = Attention(dim, num_heads, qkv_bias, attention_dropout, dropout)
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.expand = nn.Linear(dim, int(dim * mlp_ratio))
        self.contract = nn.Linear(int(dim * mlp_ratio), dim)
        self.dropout = dropout
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, extra + h w, C)` to tokens."""
        x = x + self.drop_path(self.attention(self.norm1(x), grid))
        hidden = self.expand(self.norm2(x))
        hidden = F.dropout(hidden * torch.sigmoid(1.702 * hidden), self.dropout, self.training)
        return x + self.drop_path(F.dropout(self.contract(hidden), self.dropout, self.training))


class Attention(nn.Module):
    """Self-attention whose projections begin with depthwise convolutions, which the class token skips."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.attention_dropout, self.dropout = num_heads, attention_dropout, dropout
        self.scale = dim**-0.5  # of the whole width
        self.convolutions = nn.ModuleDict(
            {part: ConvNormAct(dim, dim, 3, stride=stride, groups=dim, activation=None) for part, stride in _STRIDES}
        )
        self.linears = nn.ModuleDict({part: nn.Linear(dim, dim, bias=qkv_bias) for part, _ in _STRIDES})
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, extra + h w, C)` to tokens."""
        extra = x.shape[1] - grid[0] * grid[1]
        plane = to_map(x[:, extra:], grid)
        heads = []
        for part, _ in _STRIDES:
            tokens = to_tokens(self.convolutions[part](plane))
            tokens = self.linears[part](torch.cat([x[:, :extra], tokens], 1) if extra else tokens)
            heads.append(tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2))
        rate = self.attention_dropout if self.training else 0.0
        query, key, value = heads
        x = attend(query, key, value, rate, self.scale)
        return F.dropout(self.project(x.transpose(1, 2).flatten(2)), self.dropout, self.training)


_STRIDES = (("query", 1), ("key", 2), ("value", 2))
VARIANTS = {
    "cvt_13": functools.partial(CvT),
    "cvt_21": functools.partial(CvT, depth=(1, 4, 16)),
    "cvt_w24": functools.partial(CvT, embed_dim=(192, 768, 1024), num_heads=(3, 12, 16), depth=(2, 2, 20)),
}
_FIXED: dict[str, Sequence[Json]] = {
    "PATCH_SIZE": [7, 3, 3],
    "PATCH_STRIDE": [4, 2, 2],
    "PATCH_PADDING": [2, 1, 1],
    "POS_EMBED": [False] * 3,
    "QKV_PROJ_METHOD": ["dw_bn"] * 3,
    "KERNEL_QKV": [3] * 3,
    "PADDING_KV": [1] * 3,
    "STRIDE_KV": [2] * 3,
    "PADDING_Q": [1] * 3,
    "STRIDE_Q": [1] * 3,
}
_SPEC = {
    "DIM_EMBED": "embed_dim",
    "DEPTH": "depth",
    "NUM_HEADS": "num_heads",
    "MLP_RATIO": "mlp_ratio",
    "DROP_RATE": "dropout",
    "ATTN_DROP_RATE": "attention_dropout",
    "DROP_PATH_RATE": "drop_path_rate",
}


def _read_spec(spec: Document) -> Arguments:
    """Arguments of a released specification; what no released network varies has to be as they have it."""
    for key, value in _FIXED.items():
        if list(spec.get(key, value)) != list(value):
            raise ValueError(f"{key} is {spec[key]}, expected {list(value)} as in all released networks")
    tokens, biases = list(spec.get("CLS_TOKEN", [False, False, True])), set(spec.get("QKV_BIAS", [True]))
    if any(tokens[:-1]) or len(biases) > 1:
        raise ValueError(f"CLS_TOKEN {tokens} and QKV_BIAS: expected a token in the last stage at most, and one bias")
    arguments: Arguments = {name: list(spec[key]) for key, name in _SPEC.items() if key in spec}
    return {**arguments, "class_token": tokens[-1], "qkv_bias": biases.pop()}


_ATTENTION = r"stages\.(\d+)\.(blocks.*)\.attention\."
_OFFICIAL_NAMES = [
    (r"stages\.(\d+)\.tokens\.", r"stage\1.patch_embed.proj."),
    (r"stages\.(\d+)\.norm\.", r"stage\1.patch_embed.norm."),
    (r"stages\.(\d+)\.class_token", r"stage\1.cls_token"),
    (rf"{_ATTENTION}convolutions\.(.)\w+\.convolution\.", r"stage\1.\2.attn.conv_proj_\3.conv."),
    (rf"{_ATTENTION}convolutions\.(.)\w+\.norm\.", r"stage\1.\2.attn.conv_proj_\3.bn."),
    (rf"{_ATTENTION}linears\.(.)\w+\.", r"stage\1.\2.attn.proj_\3."),
    (rf"{_ATTENTION}project\.", r"stage\1.\2.attn.proj."),
    (r"stages\.(\d+)\.(blocks.*)\.expand\.", r"stage\1.\2.mlp.fc1."),
    (r"stages\.(\d+)\.(blocks.*)\.contract\.", r"stage\1.\2.mlp.fc2."),
    (r"stages\.(\d+)\.", r"stage\1."),
]
