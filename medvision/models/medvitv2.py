"""MedViTV2: neighbourhood attention, pooled attention and Kolmogorov-Arnold feed-forwards (arXiv 2502.13693)."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvision.models.medvitv2_names import official_name
from shared_backbones import official
from shared_backbones.blocks.convolution import ConvNormAct, SqueezeExcitation
from shared_backbones.blocks.kan import Kan
from shared_backbones.blocks.neighborhood_attention import NeighborhoodAttention
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath
from shared_backbones.inference import batch_norm_affine
from shared_backbones.networks.classifier import Classifier, chosen_levels, linear_classifier

HEAD_DIM = 32
TOKENS = ("reinterpreted", "spatial")
PAPER_DILATIONS = (8, 4, 2, 1)
"""Dilation of every second neighbourhood block of a stage: what the maps of an image of 224 pixels have room for."""


class MedViTV2(Classifier):
    """Image classifier of Nejati Manzari et al., *MedViTV2* (2025), as its released code computes it.

    The released code differs from what the paper describes in two ways, and released weights need both:

    - It re-reads the memory of a `(B, C, H, W)` map as `(B, H, W, C)`, before neighbourhood attention and before the
      KAN, so that a token is a run of C values of (mostly) one channel (`tokens="reinterpreted"`). With
      `tokens="spatial"` a token is a pixel, and images of any size are accepted, 28 pixels included.
    - Every neighbourhood has dilation 1. `dilations=PAPER_DILATIONS` dilates every second neighbourhood block of a
      stage, as in DiNAT; where a map has no room for a dilation, the largest that fits is taken.

    The released global blocks also hold a convolutional feed-forward that is never called; it is not built here.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        stem_chs: channels of the stem's convolutions: first, second, and third and fourth.
        depths: blocks of the four stages; a multiple of 3 in the third.
        dims: channels of the four stages, multiples of 32.
        path_dropout: stochastic depth of the last block; it rises linearly from 0.
        mix_block_ratio: share of a global block's channels that come from attention.
        sr_ratios: square root, for each stage, of the number of consecutive tokens that are averaged to one key.
        kernel_size: side of the neighbourhoods, odd.
        tokens: `reinterpreted` as released, or `spatial`.
        dilations: dilation of every second neighbourhood block, for each stage.

    Attributes:
        arguments: the constructor's arguments, in JSON types: `MedViTV2(**arguments)` builds an equal network.

    Raises:
        ValueError: an argument does not suit.
    """

    feature_indices = (0, 1, 2, 3)

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem_chs: Sequence[int] = (64, 32, 64),
        depths: Sequence[int] = (2, 2, 6, 1),
        dims: Sequence[int] = (64, 128, 192, 384),
        path_dropout: float = 0.1,
        mix_block_ratio: float = 0.75,
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        *,
        kernel_size: int = 7,
        tokens: str = "reinterpreted",
        dilations: Sequence[int] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        if not len(depths) == len(dims) == len(sr_ratios) == len(dilations) == 4 or len(stem_chs) != 3:
            raise ValueError("depths, dims, sr_ratios and dilations must each name four stages, stem_chs three widths")
        if depths[2] % 3 or min(depths) < 1:
            raise ValueError(f"depths {list(depths)}: expected 1 or more, and a multiple of 3 in the third stage")
        if any(dim % HEAD_DIM for dim in dims):
            raise ValueError(f"dims {list(dims)}: expected multiples of {HEAD_DIM}, the width of an attention head")
        if tokens not in TOKENS:
            raise ValueError(f"tokens {tokens!r} is unknown; expected one of {', '.join(TOKENS)}")
        self.arguments: dict[str, Any] = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "stem_chs": list(stem_chs),
            "depths": list(depths),
            "dims": list(dims),
            "path_dropout": path_dropout,
            "mix_block_ratio": mix_block_ratio,
            "sr_ratios": list(sr_ratios),
            "kernel_size": kernel_size,
            "tokens": tokens,
            "dilations": list(dilations),
        }
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, dims[-1], dims[-1]
        self.grad_checkpointing = False

        widths = [in_chans, stem_chs[0], stem_chs[1], stem_chs[2], stem_chs[2]]
        self.stem = nn.Sequential(
            *(ConvNormAct(widths[i], widths[i + 1], stride=2 if i in {0, 3} else 1) for i in range(4))
        )
        patterns = ["L" * depths[0], "L" * (depths[1] - 1) + "G", "LLG" * (depths[2] // 3), "G" * depths[3]]
        rates = iter(torch.linspace(0, path_dropout, sum(map(len, patterns)), device="cpu").tolist())
        channels = stem_chs[2]
        self.stages: Any = nn.ModuleList()
        for stage, (pattern, dim, ratio, dilation) in enumerate(zip(patterns, dims, sr_ratios, dilations, strict=True)):
            blocks: list[nn.Module] = []
            for index, kind in enumerate(pattern):
                stride = 2 if stage and not index else 1
                if kind == "L":
                    dilated = dilation if pattern[:index].count("L") % 2 else 1
                    block: nn.Module = LocalBlock(
                        channels,
                        dim,
                        stride,
                        7 if stage == 0 else 3,
                        kernel_size,
                        dilated,
                        tokens,
                        next(rates),
                    )
                else:
                    block = GlobalBlock(channels, dim, stride, ratio, mix_block_ratio, tokens, next(rates))
                blocks.append(block)
                channels = dim
            self.stages.append(nn.Sequential(*blocks))
        self.norm = nn.BatchNorm2d(channels)
        self.head = linear_classifier(channels, num_classes)
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(dims)
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def from_official(
        cls, path_or_state_dict: str | Path | Mapping[str, Any], *, variant: str | None = None, **arguments: Any
    ) -> "MedViTV2":
        """Build a MedViTV2 with weights of the released code (Omid-Nejati/MedViTV2).

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
            variant: `MedViT_tiny`, `MedViT_small`, `MedViT_base` or `MedViT_large`.
            arguments: arguments of `MedViTV2`, named as in the released code.

        Raises:
            ValueError: the variant is unknown, or an argument does not suit.
            InputError: the entries are not those of the released code, or do not fit.
        """
        variants = {name.replace("medvitv2", "MedViT"): sizes for name, sizes in _FAMILY.items()}
        if variant is not None and variant not in variants:
            raise ValueError(f"variant {variant!r} is unknown; known: {', '.join(variants)}")
        model = cls(**{**(variants[variant] if variant else {}), **arguments})
        blocks = [(f"stages.{i}.{j}", block) for i, stage in enumerate(model.stages) for j, block in enumerate(stage)]
        homes = {name: (number, isinstance(block, GlobalBlock)) for number, (name, block) in enumerate(blocks)}
        names = {name: official_name(name, homes) for name in model.state_dict()}
        unused = [rf"features\.{number}\.conv\.conv\." for number, is_global in homes.values() if is_global]
        official.load_foreign(model, path_or_state_dict, names, unused, optional=[r".*\.rbf\.grid$"])
        return model.eval()

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, normed, `(B, C, ceil(H / 32), ceil(W / 32))`."""
        return self.norm(self._levels(x, 4)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` its mean over pixels."""
        x = x.mean((2, 3))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Maps after the stages `indices`, alone or after the last map, which is normed unless `stop_early` saved it.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, 4, output_fmt)
        levels = self._levels(x, max(wanted) + 1 if stop_early or intermediates_only else 4)
        maps = [self.norm(levels[i]) if norm and i == 3 else levels[i] for i in wanted]
        if intermediates_only:
            return maps
        return self.norm(levels[-1]) if len(levels) == 4 else levels[-1], maps

    def _levels(self, x: Tensor, count: int) -> list[Tensor]:
        self._check(x)
        x = self.stem(x)
        levels = []
        for stage in list(self.stages)[:count]:
            for block in stage:
                recompute = self.grad_checkpointing and self.training
                x = recomputed(block, x) if recompute else block(x)
            levels.append(x)
        return levels

    def _check(self, x: Tensor) -> None:
        arguments = self.arguments
        if x.ndim != 4 or x.shape[1] != arguments["in_chans"]:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {arguments['in_chans']}, H, W)")
        if arguments["tokens"] == "reinterpreted":
            smallest = 16 * (arguments["kernel_size"] - 1) + 1  # the third stage has maps of the kernel's size
            if min(x.shape[2:]) < smallest:
                raise ValueError(
                    f"image of {x.shape[2]} x {x.shape[3]}: the released token order needs {smallest} pixels or more a "
                    'side; enlarge the image, or build with tokens="spatial"'
                )


class PatchEmbedding(nn.Module):
    """Halve a map by 2x2 means (of what there is, at odd borders) where asked, and change its channels."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        same = stride == 1 and in_channels == channels
        self.project = nn.Identity() if same else ConvNormAct(in_channels, channels, 1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, ceil(H / stride), ceil(W / stride))`."""
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return self.project(x)


class LocalBlock(nn.Module):
    """Neighbourhood attention, then a convolutional feed-forward (the paper's LFP).

    As released, the feed-forward's normed input is added in addition to the block's residual.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        convolution_size: int,
        kernel_size: int,
        dilation: int,
        tokens: str,
        drop_path: float,
    ) -> None:
        super().__init__()
        hidden = 3 * channels
        self.reinterpreted = tokens == "reinterpreted"
        self.patch_embedding = PatchEmbedding(in_channels, channels, stride)
        self.norm1: nn.Module = nn.BatchNorm2d(channels)
        self.attention = NeighborhoodAttention(channels, channels // HEAD_DIM, kernel_size, dilation)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.BatchNorm2d(channels)
        self.expand = ConvNormAct(channels, hidden, 1, activation=F.hardswish)
        self.depthwise = ConvNormAct(hidden, hidden, convolution_size, groups=hidden, activation=F.hardswish)
        self.se = SqueezeExcitation(hidden, hidden // channels, gate=F.hardsigmoid)
        self.project = ConvNormAct(hidden, channels, 1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H / stride, W / stride)`."""
        x = self.patch_embedding(x)
        attended = _from_tokens(self.attention(_to_tokens(self.norm1(x), self.reinterpreted)), self.reinterpreted)
        x = x + self.drop_path(attended)
        normed = self.norm2(x)
        return x + normed + self.project(self.se(self.depthwise(self.expand(normed))))

    def fold_(self) -> None:
        """Fold the first norm into the attention's input where tokens are pixels, whose channels it scales."""
        if isinstance(self.norm1, nn.BatchNorm2d) and not self.reinterpreted:
            _fold_into(self.attention.qkv, *batch_norm_affine(self.norm1))
            self.norm1 = nn.Identity()


class GlobalBlock(nn.Module):
    """Attention to pooled tokens beside a grouped convolution, then a KAN over all channels (the paper's GFP)."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, ratio: int, mix: float, tokens: str, drop_path: float
    ) -> None:
        super().__init__()
        attended = _make_divisible(int(mix * channels))
        convolved = channels - attended
        if convolved < HEAD_DIM:
            raise ValueError(
                f"dims {channels} with mix_block_ratio {mix:g} leaves {convolved} channels to the convolution, "
                f"expected {HEAD_DIM} or more; take wider dims or a smaller mix_block_ratio"
            )
        self.reinterpreted = tokens == "reinterpreted"
        self.patch_embedding = PatchEmbedding(in_channels, attended, stride)
        self.norm1: nn.Module = nn.BatchNorm2d(attended)
        self.attention = PooledAttention(attended, ratio)
        self.reduce = ConvNormAct(attended, convolved, 1, activation=None) if attended != convolved else nn.Identity()
        self.grouped = nn.Sequential(
            ConvNormAct(convolved, convolved, groups=convolved // HEAD_DIM),
            nn.Conv2d(convolved, convolved, 1, bias=False),
        )
        self.norm2 = nn.BatchNorm2d(channels)
        self.kan = Kan([channels, 2 * channels, channels])
        self.drop_path1, self.drop_path2 = DropPath(drop_path * mix), DropPath(drop_path * (1 - mix))
        self.drop_path3 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H / stride, W / stride)`."""
        x = self.patch_embedding(x)
        tokens = self.norm1(x).permute(0, 2, 3, 1)
        attended = self.attention(tokens.flatten(1, 2)).unflatten(1, tokens.shape[1:3]).permute(0, 3, 1, 2)
        x = x + self.drop_path1(attended)
        y = self.reduce(x)
        x = torch.cat([x, y + self.drop_path2(self.grouped(y))], 1)
        mixed = self.kan(_to_tokens(self.norm2(x), self.reinterpreted))
        return x + self.drop_path3(_from_tokens(mixed, self.reinterpreted))

    def fold_(self) -> None:
        """Fold the first norm into the attention's linear maps."""
        if isinstance(self.norm1, nn.BatchNorm2d):
            scale, shift = batch_norm_affine(self.norm1)
            for linear in (self.attention.query, self.attention.key, self.attention.value):
                _fold_into(linear, scale, shift)
            self.norm1 = nn.Identity()


class PooledAttention(nn.Module):
    """Multi-head attention whose keys and values are means of runs of `ratio ** 2` tokens, in raster order.

    As released, what is left over at the end of the tokens has no key. Where there are fewer tokens than one run takes,
    one run takes them all.
    """

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.run = ratio**2
        self.num_heads = dim // HEAD_DIM
        self.query, self.key, self.value, self.projection = (nn.Linear(dim, dim) for _ in range(4))
        self.norm: nn.Module = nn.BatchNorm1d(dim) if self.run > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Attend: `(B, N, C)` to `(B, N, C)`."""
        pooled = x
        if self.run > 1:
            run = min(self.run, x.shape[1])
            count = x.shape[1] // run
            pooled = x[:, : count * run].unflatten(1, (count, run)).mean(2)
            if isinstance(self.norm, nn.BatchNorm1d):
                pooled = self.norm(pooled.transpose(1, 2)).transpose(1, 2)
        query, key, value = (
            linear(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for linear, tokens in ((self.query, x), (self.key, pooled), (self.value, pooled))
        )
        return self.projection(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def fold_(self) -> None:
        """Fold the norm of the pooled tokens into keys and values."""
        if isinstance(self.norm, nn.BatchNorm1d):
            scale, shift = batch_norm_affine(self.norm)
            for linear in (self.key, self.value):
                _fold_into(linear, scale, shift)
            self.norm = nn.Identity()


def _to_tokens(x: Tensor, reinterpreted: bool) -> Tensor:
    """A map `(B, C, H, W)` as `(B, H, W, C)`: its memory re-read, or its axes permuted."""
    if not reinterpreted:
        return x.permute(0, 2, 3, 1)
    batch, channels, height, width = x.shape
    return x.reshape(batch, height, width, channels)


def _from_tokens(x: Tensor, reinterpreted: bool) -> Tensor:
    """The way back from `_to_tokens`."""
    if not reinterpreted:
        return x.permute(0, 3, 1, 2)
    batch, height, width, channels = x.shape
    return x.reshape(batch, channels, height, width)


def _fold_into(linear: nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """Change `linear(x)` into `linear(x * scale + shift)`."""
    linear.bias = nn.Parameter(linear.bias + linear.weight @ shift, requires_grad=False)
    linear.weight = nn.Parameter(linear.weight * scale, requires_grad=False)


def _make_divisible(value: int, divisor: int = HEAD_DIM) -> int:
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


_FAMILY: dict[str, dict[str, Any]] = {
    "medvitv2_tiny": {"depths": (2, 2, 6, 1), "dims": (64, 128, 192, 384), "path_dropout": 0.1},
    "medvitv2_small": {"depths": (2, 2, 6, 2), "dims": (64, 128, 256, 512), "path_dropout": 0.1},
    "medvitv2_base": {"depths": (2, 2, 6, 2), "dims": (96, 192, 384, 768), "path_dropout": 0.2},
    "medvitv2_large": {"depths": (2, 2, 6, 2), "dims": (96, 256, 512, 1024), "path_dropout": 0.2},
}
VARIANTS = {name: functools.partial(MedViTV2, **sizes) for name, sizes in _FAMILY.items()}
TIMM_CONFIGS: dict[str, dict[str, Any]] = {
    name: {"input_size": (3, 224, 224), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 1.0}
    for name in VARIANTS
}
