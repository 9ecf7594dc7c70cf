"""MSRNet: one class of low contrast, seen at three sizes and refined level by level (Alghamdi et al., 2025)."""

import functools
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.inference import fold_batch_norm
from shared_backbones.networks.pyramids import REDUCTIONS, TimmPyramid
from shared_backbones.networks.released import Released, renamed

_STRIDE = 64  # so that one and a half times an image is a multiple of 32, too
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BRANCHES = 3  # the three sizes of the image


class MSRNet(Released):
    """Multi-scale recursive network for what hardly differs from its surroundings, such as polyps.

    One encoder sees the image as it is, one and a half times and twice as large. At each level the three are weighed
    against each other, and all coarser levels' results are added. The released code lacks a module that its parent has;
    for single images that one changes nothing, and its weights are left out. Released are encoders of the families
    PVTv2 and ResNet; those of EfficientNet are another library's and are not offered. An image whose sides are no
    multiples of 64 is padded by repeating its border.

    Args:
        num_classes: output channels; the released code has 1.
        in_chans: input channels; the released code has 3.
        encoder: timm's name of a backbone with maps at 1/4 to 1/32, such as `pvt_v2_b2`, or also at 1/2, such as
            `resnet50`.
        width: channels of each level, a multiple of `branch_groups`.
        branch_groups: groups of channels in which the three sizes are weighed.
        fusion_groups: groups of channels that each level's unit goes through one after another.
        input_norm: whether images from 0 to 1 are normalised by ImageNet's mean and deviation inside the network.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    role: ClassVar[Role] = "segmenter"
    grad_checkpointing = False
    released_class = "PvtV2B2_MSRNet"
    released_nothing = frozenset({"pretrained", "num_frames", "use_checkpoint"})
    renamed_arguments: ClassVar[dict[str, str]] = {
        "mid_dim": "width",
        "siu_groups": "branch_groups",
        "hmu_groups": "fusion_groups",
    }

    def __init__(
        self,
        num_classes: int = 1,
        in_chans: int = 3,
        *,
        encoder: str = "pvt_v2_b2",
        width: int = 64,
        branch_groups: int = 4,
        fusion_groups: int = 6,
        input_norm: bool = False,
    ) -> None:
        super().__init__()
        if input_norm and in_chans != len(_MEAN):
            raise ValueError(f"input_norm: is for 3 channels, found in_chans {in_chans}; leave it out")
        if width % branch_groups or fusion_groups < 2:
            raise ValueError(f"width {width}: expected a multiple of branch_groups, and two fusion_groups or more")
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "encoder": encoder,
            "width": width,
            "branch_groups": branch_groups,
            "fusion_groups": fusion_groups,
            "input_norm": input_norm,
        }
        try:
            self.encoder = TimmPyramid(encoder, in_chans, reductions=(2, *REDUCTIONS))
        except ValueError:
            self.encoder = TimmPyramid(encoder, in_chans)
        deepest, *rest = reversed(self.encoder.channels)
        self.translate = nn.ModuleList([Context(deepest, width), *(ConvNormAct(channels, width) for channels in rest)])
        levels = range(len(self.encoder.channels))
        self.weigh = nn.ModuleList(ScaleAttention(width, branch_groups) for _ in levels)
        self.fuse = nn.ModuleList(Fusion(width, fusion_groups) for _ in levels)
        # where the encoder has no map at 1/2
        self.enlarge = None if len(levels) > len(REDUCTIONS) else ConvNormAct(width, width)
        self.predict = nn.Sequential(ConvNormAct(width, width // 2), nn.Conv2d(width // 2, num_classes, 1))
        self.mean: Tensor | None
        self.std: Tensor | None
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) if input_norm else None, persistent=False)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; the released code normalises its images unless it is told not to."""
        return {"input_norm": True, **super().released_arguments(variant, arguments)}

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(name, _OFFICIAL_NAMES)

    def released_unread(self) -> tuple[str, ...]:
        """What single images do not use, and what is fixed."""
        return (r"hmu_\d\.fuse\.0\.", r"normalizer\.")

    def forward(self, x: Tensor, middle: Tensor | None = None, large: Tensor | None = None) -> Tensor:
        """Logits `(B, num_classes, H, W)` of images `(B, C, H, W)`.

        Args:
            x: the images.
            middle: the same, one and a half times as large; by default enlarged bilinearly.
            large: the same, twice as large; by default enlarged bilinearly.
        """
        if x.ndim != 4 or x.shape[1] != self.arguments["in_chans"]:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {self.arguments['in_chans']}, H, W)")
        height, width = x.shape[2:]
        below, right = -height % _STRIDE, -width % _STRIDE
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        size = x.shape[2:]
        middle = _resized(x, [3 * side // 2 for side in size]) if middle is None else middle
        large = _resized(x, [2 * side for side in size]) if large is None else large
        seen = [self._encode(image) for image in (large, x, middle)]
        results: list[Tensor] = []
        for i, (translate, weigh, fuse) in enumerate(zip(self.translate, self.weigh, self.fuse, strict=True)):
            level = weigh(*(translate(maps[-1 - i]) for maps in seen))
            level = level + sum(_resized(deeper, level.shape[2:]) for deeper in results)
            results.append(recomputed(fuse, level) if self._recomputes else fuse(level))
        plane = results[-1]
        if self.enlarge is not None:
            plane = self.enlarge(_doubled(plane))
        return self.predict(_doubled(plane))[:, :, :height, :width]

    @property
    def backbone(self) -> nn.Module:
        """The encoder, which may start from published weights."""
        return self.encoder

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Maps of the encoder, the finest first."""
        x = x if self.mean is None or self.std is None else (x - self.mean) / self.std
        maps: Any = recomputed(self.encoder, x) if self._recomputes else self.encoder(x)
        return list(maps)

    @property
    def _recomputes(self) -> bool:
        return self.grad_checkpointing and self.training

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of the encoder and of each level's unit."""
        self.grad_checkpointing = enable


class Context(nn.Module):
    """The deepest map: three dilated convolutions one after another, all kept, beside the mean of the map."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.enter = ConvNormAct(in_channels, 2 * channels, 1)
        self.dilated = nn.ModuleList(DilatedConvolution(channels, 3) for _ in range(3))
        self.mean = ConvNormAct(channels, channels, 1)
        self.fuse = nn.Sequential(ConvNormAct(5 * channels, channels, 1), ConvNormAct(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, channels, H, W)`."""
        x, rest = self.enter(x).chunk(2, 1)
        parts = [self.mean(rest.mean((2, 3), keepdim=True)).expand_as(x), x]
        for convolution in self.dilated:
            parts.append(convolution(parts[-1]))
        return self.fuse(torch.cat(parts, 1))


class DilatedConvolution(nn.Module):
    """A dilated 3x3 convolution that keeps the size, batch norm and ReLU."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return F.relu(self.norm(self.convolution(x)))

    def fold_(self) -> None:
        """Fold the batch norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution, self.norm = fold_batch_norm(self.convolution, self.norm), nn.Identity()


class ScaleAttention(nn.Module):
    """Three maps of one level brought to the middle one's size, and their sum with weights of each pixel (ABSIU)."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        part = dim // groups
        self.groups = groups
        self.before = nn.ModuleDict({name: ConvNormAct(dim, dim) for name in ("large", "small")})
        self.after = nn.ModuleDict({name: ConvNormAct(dim, dim) for name in ("large", "same", "small")})
        self.look = ConvNormAct(_BRANCHES * dim, _BRANCHES * dim, 1)
        self.merge = ConvNormAct(_BRANCHES * dim, _BRANCHES * dim, 1)
        self.score = nn.Sequential(
            ConvNormAct(_BRANCHES * part, part, 1), ConvNormAct(part, part), nn.Conv2d(part, _BRANCHES, 1)
        )

    def forward(self, large: Tensor, same: Tensor, small: Tensor) -> Tensor:
        """Map three maps `(B, C, ...)` to one of the second's size."""
        size = (same.shape[2], same.shape[3])
        large = self.after["large"](_pooled(self.before["large"](large), size))
        small = self.after["small"](_pooled(self.before["small"](small), size))
        all_three = torch.cat([large, self.after["same"](same), small], 1)
        look = self.look(all_three).unflatten(1, (_BRANCHES, self.groups, -1)).transpose(1, 2)
        weights = self.score(look.flatten(2, 3).flatten(0, 1)).softmax(1).unflatten(0, (-1, self.groups))
        maps = self.merge(all_three).unflatten(1, (_BRANCHES, self.groups, -1)).transpose(1, 2)
        return (weights[:, :, :, None] * maps).sum(2).flatten(1, 2)


class Fusion(nn.Module):
    """Groups of channels one after another, each told of the one before, with gates over all of them (MGFU)."""

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        hidden = dim // 2
        self.groups = groups
        self.expand = ConvNormAct(dim, hidden * groups, 1)
        parts = [3] * (groups - 1) + [2]
        self.steps = nn.ModuleList(
            ConvNormAct(hidden if i == 0 else 2 * hidden, count * hidden) for i, count in enumerate(parts)
        )
        self.squeeze = nn.Conv2d(groups * hidden, hidden, 1)
        self.excite = nn.Conv2d(hidden, groups * hidden, 1)
        self.contract = ConvNormAct(groups * hidden, dim, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        outs, gates, fork = [], [], None
        for group, step in zip(self.expand(x).chunk(self.groups, 1), self.steps, strict=True):
            parts = step(group if fork is None else torch.cat([group, fork], 1))
            if len(outs) < self.groups - 1:
                out, fork, gate = parts.chunk(3, 1)
            else:
                out, gate = parts.chunk(2, 1)
            outs.append(out)
            gates.append(gate)
        mean = torch.cat(gates, 1).mean((2, 3), keepdim=True)
        gate = self.excite(F.relu(self.squeeze(mean))).softmax(1)
        return F.relu(self.contract(torch.cat(outs, 1) * gate) + x)


def _pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Largest plus mean value of the pixels that fall into each of a smaller map."""
    if all(2 * side == 3 * target for side, target in zip(x.shape[2:], size, strict=True)):
        # three pixels become two of two each; the same as below, in operations that exports have
        largest, mean = x, x
        for axis in (2, 3):
            largest = torch.maximum(*_pairs(largest, axis))
            first, second = _pairs(mean, axis)
            mean = (first + second) / 2
        return largest + mean
    return F.adaptive_max_pool2d(x, size) + F.adaptive_avg_pool2d(x, size)


def _pairs(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """First and second pixels of each pair, where threes become two pairs that share the middle."""
    threes = x.unflatten(axis, (-1, 3))
    first, second = threes.narrow(axis + 1, 0, 2), threes.narrow(axis + 1, 1, 2)
    return first.flatten(axis, axis + 1), second.flatten(axis, axis + 1)


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, list(size), mode="bilinear", align_corners=False)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


VARIANTS = {f"PvtV2B{i}_MSRNet": functools.partial(MSRNet, encoder=f"pvt_v2_b{i}") for i in range(2, 6)}
VARIANTS["RN50_MSRNet"] = functools.partial(MSRNet, encoder="resnet50")
_PARTS = {
    "translate": [
        (r"enter\.", "conv1x1_1."),
        (r"mean\.", "conv1x1_2."),
        (r"dilated\.(\d)\.", lambda match: f"conv3x3_{int(match[1]) + 1}."),
    ],
    "weigh": [
        (r"before\.(\w)\w+\.", r"conv_\1_pre."),
        (r"after\.same\.", "conv_m."),
        (r"after\.(\w)\w+\.", r"conv_\1."),
        (r"look\.", "conv_lms."),
        (r"merge\.", "initial_merge."),
        (r"score\.", "trans."),
    ],
    "fuse": [
        (r"expand\.", "expand_conv."),
        (r"steps\.", "interact."),
        (r"squeeze\.", "gate_genator.1."),
        (r"excite\.", "gate_genator.3."),
        (r"contract\.", "fuse.1."),
    ],
}
_NAMES = {"translate": "tra", "weigh": "siu", "fuse": "hmu"}


def _unit(name: str) -> str:
    """The released name of a convolution or its norm."""
    return re.sub(r"(^|\.)convolution\.", r"\1conv.", re.sub(r"(^|\.)norm\.", r"\1bn.", name))


def _level(match: re.Match[str]) -> str:
    """An entry of a level; the deepest is the fifth."""
    kind, number, rest = match[1], 5 - int(match[2]), match[3]
    return f"{_NAMES[kind]}_{number}.{_unit(renamed(rest, _PARTS[kind]))}"


def _predictor(match: re.Match[str]) -> str:
    return f"predictor.{int(match[1]) + 1}.{_unit(match[2])}"


_OFFICIAL_NAMES = [
    (r"encoder\.network\.patch_embed\.", "encoder.patch_embed1."),
    (r"encoder\.network\.stages_(\d)\.downsample\.", lambda match: f"encoder.patch_embed{int(match[1]) + 1}."),
    (
        r"encoder\.network\.stages_(\d)\.blocks\.(\d+)\.mlp\.dwconv\.",
        lambda match: f"encoder.block{int(match[1]) + 1}.{match[2]}.mlp.dwconv.dwconv.",
    ),
    (
        r"encoder\.network\.stages_(\d)\.blocks\.(\d+)\.",
        lambda match: f"encoder.block{int(match[1]) + 1}.{match[2]}.",
    ),
    (r"encoder\.network\.stages_(\d)\.norm\.", lambda match: f"encoder.norm{int(match[1]) + 1}."),
    (r"encoder\.network\.", "encoder."),
    (r"(translate|weigh|fuse)\.(\d)\.(.*)$", _level),
    (r"enlarge\.(.*)$", lambda match: f"tra_1.1.{_unit(match[1])}"),
    (r"predict\.(\d)\.(.*)$", _predictor),
]
