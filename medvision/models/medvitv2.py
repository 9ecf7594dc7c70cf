"""MedViTV2: neighbourhood attention, pooled attention and Kolmogorov-Arnold feed-forwards (arXiv 2502.13693)."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medvision.models.medvitv2_blocks import HEAD_DIM, GlobalBlock, LocalBlock
from medvision.models.medvitv2_names import official_name
from shared_backbones import official
from shared_backbones.architectures import Arguments
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels, linear_classifier
from shared_backbones.networks.timm_registration import Settings

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
        _check_sizes(depths, dims, stem_chs, sr_ratios, dilations)
        if tokens not in TOKENS:
            raise ValueError(f"tokens {tokens!r} is unknown; expected one of {', '.join(TOKENS)}")
        self.arguments = {
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
        widths = [in_chans, stem_chs[0], stem_chs[1], stem_chs[2], stem_chs[2]]
        self.stem = nn.Sequential(
            *(ConvNormAct(widths[i], widths[i + 1], stride=2 if i in {0, 3} else 1) for i in range(4))
        )
        self.stages = nn.ModuleList(self._make_stages())
        self.norm = nn.BatchNorm2d(dims[-1])
        self.head = linear_classifier(dims[-1], num_classes)
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(dims)
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _make_stages(self) -> Iterator[nn.Sequential]:
        """The four stages: local blocks, and a global one where the paper has it."""
        given = self.arguments
        depths, dims, tokens, kernel_size = (given[name] for name in ("depths", "dims", "tokens", "kernel_size"))
        patterns = ["L" * depths[0], "L" * (depths[1] - 1) + "G", "LLG" * (depths[2] // 3), "G" * depths[3]]
        rates = iter(torch.linspace(0, given["path_dropout"], sum(map(len, patterns)), device="cpu").tolist())
        channels = given["stem_chs"][2]
        for stage, (pattern, dim) in enumerate(zip(patterns, dims, strict=True)):
            blocks: list[nn.Module] = []
            for index, kind in enumerate(pattern):
                stride = 2 if stage and not index else 1
                if kind == "L":
                    dilation = given["dilations"][stage] if pattern[:index].count("L") % 2 else 1
                    side = 7 if stage == 0 else 3
                    block = LocalBlock(channels, dim, stride, side, kernel_size, dilation, tokens, next(rates))
                else:
                    ratio, mix = given["sr_ratios"][stage], given["mix_block_ratio"]
                    block = GlobalBlock(channels, dim, stride, ratio, mix, tokens, next(rates))
                blocks.append(block)
                channels = dim
            yield nn.Sequential(*blocks)

    @classmethod
    def from_official(
        cls, path_or_state_dict: official.Source, *, variant: str | None = None, **arguments: Any
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
        blocks = [
            (f"stages.{i}.{j}", block)
            for i, stage in enumerate(model.stages)
            for j, block in enumerate(stage.children())
        ]
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
    ) -> Intermediates:
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
            for block in stage.children():
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


def _check_sizes(
    depths: Sequence[int],
    dims: Sequence[int],
    stem_chs: Sequence[int],
    sr_ratios: Sequence[int],
    dilations: Sequence[int],
) -> None:
    """Find out whether sizes of the stages suit one another.

    Raises:
        ValueError: they do not.
    """
    if not len(depths) == len(dims) == len(sr_ratios) == len(dilations) == 4 or len(stem_chs) != 3:
        raise ValueError("depths, dims, sr_ratios and dilations must each name four stages, stem_chs three widths")
    if depths[2] % 3 or min(depths) < 1:
        raise ValueError(f"depths {list(depths)}: expected 1 or more, and a multiple of 3 in the third stage")
    if any(dim % HEAD_DIM for dim in dims):
        raise ValueError(f"dims {list(dims)}: expected multiples of {HEAD_DIM}, the width of an attention head")


_FAMILY: dict[str, Arguments] = {
    "medvitv2_tiny": {"depths": (2, 2, 6, 1), "dims": (64, 128, 192, 384), "path_dropout": 0.1},
    "medvitv2_small": {"depths": (2, 2, 6, 2), "dims": (64, 128, 256, 512), "path_dropout": 0.1},
    "medvitv2_base": {"depths": (2, 2, 6, 2), "dims": (96, 192, 384, 768), "path_dropout": 0.2},
    "medvitv2_large": {"depths": (2, 2, 6, 2), "dims": (96, 256, 512, 1024), "path_dropout": 0.2},
}
VARIANTS = {name: functools.partial(MedViTV2, **sizes) for name, sizes in _FAMILY.items()}
TIMM_CONFIGS: dict[str, Settings] = {
    name: {"input_size": (3, 224, 224), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 1.0}
    for name in VARIANTS
}
