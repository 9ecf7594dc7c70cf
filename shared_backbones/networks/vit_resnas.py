"""ViT-ResNAS: a transformer in three resolutions whose widths a search has found (Liao et al., arXiv 2109.00642)."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels, linear_classifier
from shared_backbones.networks.released import Released, Rule, renamed
from shared_backbones.networks.tokens import drop_path_rates, initialise_linear, to_map, to_tokens

_EPS = 1e-6
_PATCH = 14
_PATCHES, _BLOCK, _HEAD, _REDUCTION, _CONVOLUTIONS, _WIDE_CONVOLUTIONS = range(6)  # kinds of a definition's rows
_MIDDLE = 24  # channels of the first convolutions where a definition does not name them
Row: TypeAlias = "int | Sequence[Row]"
Definition: TypeAlias = Sequence[Row]


class ViTResNAS(Released, Classifier):
    """Vision transformer with residual spatial reduction, as its released code computes it.

    Weights of the released code are under CC BY-NC 4.0: none comes with the suite, and `import` asks
    `--accept-license`. The heads of patches, which train by mixing alone, are left out.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels; the released code has 3.
        network_def: rows of a definition, as the search writes them: `(4, C)` or `(5, C, middle)` begins with
            convolutions and `(0, C)` with plain patches; `(1, (C, heads, head_dim), (C, hidden), exists)` is a block;
            `(3, C, C_out)` halves the resolution; `(2, C, classes)` ends it, and its classes are not read.
        img_size: side of the images in pixels, a multiple of 56.
        distill_token: whether a second token learns from a teacher, with a head of its own.
        average: whether logits of both heads are averaged; the released code gives both.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    weights_license: ClassVar[str] = "CC-BY-NC-4.0"
    released_class = "FlexibleDistillVisionTransformerSR"
    released_nothing = frozenset({"patch_output"})
    classifier = "class_head"

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        network_def: Definition | None = None,
        img_size: int = 224,
        distill_token: bool = False,
        average: bool = True,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        rows = _plain(RESNAS_S if network_def is None else network_def)
        _check(rows)
        reductions = sum(row[0] == _REDUCTION for row in rows)
        multiple = _PATCH * 2**reductions
        if img_size % multiple:
            raise ValueError(f"img_size is {img_size}, expected a multiple of {multiple}")
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "network_def": rows,
            "img_size": img_size,
            "distill_token": distill_token,
            "average": average,
            "drop_path_rate": drop_path_rate,
        }
        self.num_classes, self.in_chans = num_classes, in_chans
        width, side = rows[0][1], img_size // _PATCH
        extra = 2 if distill_token else 1
        self.patches: nn.Module
        if rows[0][0] == _PATCHES:
            self.patches = nn.Conv2d(in_chans, width, _PATCH, _PATCH)
        else:
            self.patches = ConvolutionalPatches(in_chans, rows[0][2] if len(rows[0]) > 2 else _MIDDLE, width)
        self.tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, extra, width), std=0.02))
        self.positions = _positions(extra + side * side, width)
        self.blocks = nn.ModuleList()
        rates = drop_path_rates(drop_path_rate, len(rows) - 2)
        self.feature_info = []
        for row, rate in zip(rows[1:-1], rates, strict=True):
            if row[0] == _REDUCTION:
                self._describe(width, img_size // side)
                side, width = side // 2, row[2]
                self.blocks.append(Reduction(row[1], width, extra, side))
            else:
                (_, heads, head_dim), (_, hidden), exists = row[1], row[2], row[3]
                self.blocks.append(Block(width, heads, head_dim, hidden, rate) if exists else nn.Identity())
        self._describe(width, img_size // side)
        self.feature_indices = tuple(range(len(self.feature_info)))
        self.num_features = self.head_hidden_size = width
        self.norm = nn.LayerNorm(width, _EPS)
        self.class_head = linear_classifier(width, num_classes)
        self.distill_head = linear_classifier(width, num_classes) if distill_token else None
        self.apply(initialise_linear)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; the released code gives the logits of both heads."""
        return {"average": False, **super().released_arguments(variant, arguments)}

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            return f"blocks.{number}.{renamed(rest, _PARTS)}"
        return renamed(name, _OFFICIAL_NAMES)

    def released_unread(self) -> tuple[str, ...]:
        """What trains by mixing alone."""
        return (r"patch_head\.",)

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens of the last resolution `(B, extra + h w, D)`, in raster order behind the class token."""
        return self._levels(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of tokens, of both heads unless averaged; with `pre_logits` the class token `(B, D)`."""
        tokens = self.norm(x[:, : self.tokens.shape[1]])
        if pre_logits:
            return tokens[:, 0]
        logits = self.class_head(tokens[:, 0])
        if self.distill_head is None:
            return logits
        second = self.distill_head(tokens[:, 1])
        return (logits + second) / 2 if self.arguments["average"] else (logits, second)  # type: ignore[return-value]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """Maps of the resolutions `indices`, alone or after the last tokens; `norm` changes nothing.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, len(self.feature_info), output_fmt)
        levels = self._levels(x, max(wanted) + 1 if stop_early or intermediates_only else None)
        maps = []
        for i in wanted:
            side = self.arguments["img_size"] // self.feature_info[i]["reduction"]
            maps.append(to_map(levels[i][:, self.tokens.shape[1] :], (side, side)))
        return maps if intermediates_only else (levels[-1], maps)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network another number of classes, with new weights of both heads.

        Raises:
            ValueError: `num_classes` is negative, or `global_pool` is not one that the network has.
        """
        super().reset_classifier(num_classes, global_pool)
        if self.distill_head is not None:
            self.distill_head = linear_classifier(self.head_hidden_size, num_classes)

    def _levels(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        """Tokens at the end of each of the first `count` resolutions."""
        side = self.arguments["img_size"]
        if tuple(x.shape[1:]) != (self.in_chans, side, side):
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {self.in_chans}, {side}, {side})")
        recompute = self.grad_checkpointing and self.training
        x = recomputed(self.patches, x) if recompute else self.patches(x)
        x = torch.cat([self.tokens.expand(len(x), -1, -1), to_tokens(x)], 1) + self.positions
        levels = []
        for block in self.blocks:
            if isinstance(block, Reduction):
                levels.append(x)
                if count is not None and len(levels) == count:
                    return levels
            x = recomputed(block, x) if recompute else block(x)
        return [*levels, x]

    def _describe(self, width: int, reduction: int) -> None:
        number = len(self.feature_info)
        self.feature_info.append({"num_chs": width, "reduction": reduction, "module": f"levels.{number}"})


class ConvolutionalPatches(nn.Module):
    """Three convolutions at half the size, the last two added to the first, and one of seven pixels a side."""

    def __init__(self, in_chans: int, middle: int, width: int) -> None:
        super().__init__()
        self.first = ConvNormAct(in_chans, middle, stride=2)
        self.more = nn.Sequential(ConvNormAct(middle, middle), ConvNormAct(middle, middle))
        self.last = nn.Conv2d(middle, width, _PATCH // 2, _PATCH // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to `(B, width, H / 14, W / 14)`."""
        x = self.first(x)
        return self.last(x + self.more(x))


class Block(nn.Module):
    """Pre-norm block whose heads are as wide as the search made them, whatever the width of a token."""

    def __init__(self, dim: int, heads: int, head_dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, _EPS), nn.LayerNorm(dim, _EPS)
        self.qkv, self.projection = nn.Linear(dim, 3 * heads * head_dim), nn.Linear(heads * head_dim, dim)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, C)` to the same shape."""
        query, key, value = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.drop_path(self.projection(attended))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Reduction(nn.Module):
    """Half the resolution: a convolution of normed patches and a linear map of class tokens, added to their means."""

    def __init__(self, dim: int, width: int, extra: int, side: int) -> None:
        super().__init__()
        self.extra, self.wider = extra, width - dim
        self.norm = nn.LayerNorm(dim, _EPS)
        self.patch = nn.Conv2d(dim, width, 3, 2, 1)
        self.token = nn.Linear(dim, width)
        self.positions = _positions(side * side, width)
        self.side = 2 * side

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, extra + N, C)` to `(B, extra + N / 4, C_out)`."""
        grid = self.side, self.side
        normed = self.norm(x)
        patches = to_tokens(self.patch(to_map(normed[:, self.extra :], grid))) + self.positions
        mean = to_tokens(F.avg_pool2d(to_map(x[:, self.extra :], grid), 2))
        kept = F.pad(torch.cat([x[:, : self.extra], mean], 1), (0, self.wider))
        return torch.cat([self.token(normed[:, : self.extra]), patches], 1) + kept


def _positions(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, width), std=0.02))


def _plain(rows: Definition) -> list[Any]:
    """A definition in JSON types."""
    return [_plain(row) if isinstance(row, Sequence) else int(row) for row in rows]


def _check(rows: list[Any]) -> None:
    """Raise a ValueError unless a definition's rows fit together."""
    kinds = [row[0] for row in rows]
    if len(rows) < 3 or kinds[0] not in (_PATCHES, _CONVOLUTIONS, _WIDE_CONVOLUTIONS) or kinds[-1] != _HEAD:
        raise ValueError(
            "network_def: expected patches (0, 4 or 5) first, blocks (1) and reductions (3), a head (2) last"
        )
    width = rows[0][1]
    for number, row in enumerate(rows[1:-1], 1):
        before = row[1][0] if row[0] == _BLOCK else row[1]
        if row[0] not in (_BLOCK, _REDUCTION) or before != width:
            raise ValueError(f"network_def row {number} is {row}: expected a block or reduction of {width} channels")
        width = row[2] if row[0] == _REDUCTION else width
        if width < before:
            raise ValueError(f"network_def row {number} is {row}: expected as many channels or more after it")


def _blocks(width: int, head_dim: int, *heads_and_hidden: tuple[int, int]) -> list[Any]:
    return [[_BLOCK, [width, heads, head_dim], [width, hidden], 1] for heads, hidden in heads_and_hidden]


RESNAS_S: Definition = [
    [_CONVOLUTIONS, 220],
    *_blocks(220, 32, (5, 880), (5, 880), (7, 800), (5, 720), (5, 720), (5, 720)),
    [_REDUCTION, 220, 440],
    *_blocks(440, 48, (10, 1760), (10, 1440), (10, 1920), (10, 1600), (12, 1600), (12, 1440)),
    [_REDUCTION, 440, 880],
    *_blocks(880, 64, (16, 3200), (12, 3200), (16, 2880), (12, 2240), (14, 2560)),
    [_HEAD, 880, 1000],
]
"""The network found by search at 2.9 billion multiplications."""
VARIANTS = {"vit_resnas_s": functools.partial(ViTResNAS)}
_OFFICIAL_NAMES: list[Rule] = [
    (r"positions", "pos_embed"),
    (r"patches\.first\.convolution\.", "patch_embed.conv1.conv."),
    (r"patches\.first\.norm\.", "patch_embed.conv1.bn."),
    (r"patches\.more\.(\d)\.convolution\.", lambda match: f"patch_embed.conv{int(match[1]) + 2}.conv."),
    (r"patches\.more\.(\d)\.norm\.", lambda match: f"patch_embed.conv{int(match[1]) + 2}.bn."),
    (r"patches\.last\.", "patch_embed.conv_proj."),
    (r"patches\.", "patch_embed.proj."),
    (r"class_head\.", "cls_head."),
    (r"distill_head\.", "dst_head."),
]
_PARTS: list[Rule] = [
    (r"qkv\.", "attn.qkv."),
    (r"projection\.", "attn.proj."),
    (r"positions", "pos_embed"),
    (r"patch\.", "patch_reduce."),
    (r"token\.", "token_transform."),
]
