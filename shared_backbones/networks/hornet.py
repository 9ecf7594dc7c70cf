"""HorNet: stages of recursive gated convolutions (arXiv 2207.14284)."""

import functools
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.spectral import filter_spectrum
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.classifier import linear_classifier
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.stages import MapNorm, Stage, StageClassifier
from shared_backbones.networks.tokens import drop_path_rates

_EPS = 1e-6
_LAYER_SCALE = 1e-6
_THIRD = 1 / 3


class HorNet(Released, StageClassifier):
    """Network of Rao et al., as its released code computes it: a ConvNeXt with gated convolutions of rising order.

    Images may have any size of 32 pixels or more; what is left of a side that 32 does not divide is cut off.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        base_dim: channels of the first stage; they double from stage to stage. A multiple of 2^(order - 1).
        depths: blocks of the four stages.
        order: order of each stage's gated convolutions.
        gf: for each stage, rows and columns of the table of its global filter, or None for a 7x7 convolution. A table
            that does not fit a map is resampled.
        scale: what gates are multiplied by.
        layer_scale: initial factor of each residual branch.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "HorNet"

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        base_dim: int = 64,
        depths: Sequence[int] = (2, 3, 18, 2),
        order: Sequence[int] = (2, 3, 4, 5),
        gf: Sequence[Sequence[int] | None] = (None, None, None, None),
        scale: float = _THIRD,
        layer_scale: float = _LAYER_SCALE,
        drop_path_rate: float = 0.0,
    ) -> None:
        if not len(depths) == len(order) == len(gf) == 4:
            raise ValueError("depths, order and gf must each name four stages")
        widths = [base_dim * 2**i for i in range(4)]
        for width, n in zip(widths, order, strict=True):
            if width % 2 ** (n - 1):
                raise ValueError(f"a stage of {width} channels: expected a multiple of {2 ** (n - 1)} at order {n}")
        super().__init__(num_classes, in_chans, widths, (4, 8, 16, 32))
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "base_dim": base_dim,
            "depths": list(depths),
            "order": list(order),
            "gf": [table and list(table) for table in gf],
            "scale": scale,
            "layer_scale": layer_scale,
            "drop_path_rate": drop_path_rate,
        }
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        before = in_chans
        for i, width in enumerate(widths):
            enter = [MapNorm(before, _EPS), nn.Conv2d(before, width, 2, 2)]
            if i == 0:
                enter = [nn.Conv2d(before, width, 4, 4), MapNorm(width, _EPS)]
            blocks = [Block(width, order[i], gf[i], scale, layer_scale, next(rates)) for _ in range(depths[i])]
            self.stages.append(Stage(*enter, *blocks))
            before = width
        self.norm = nn.LayerNorm(widths[-1], _EPS)
        self.head = linear_classifier(widths[-1], num_classes)
        self.apply(_initialise)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(name, _OFFICIAL_NAMES)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` what the classifier sees."""
        x = self.norm(x.mean((2, 3)))
        return x if pre_logits else self.head(x)


class Block(nn.Module):
    """Gated convolution, then a feed-forward at each pixel; each branch is normed first and scaled last."""

    def __init__(
        self, dim: int, order: int, table: Sequence[int] | None, scale: float, layer_scale: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = MapNorm(dim, _EPS)
        self.convolution = GatedConvolution(dim, order, table, scale)
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.mlp = Mlp(dim, 4 * dim)
        self.scale1: nn.Parameter | None = nn.Parameter(torch.full((dim,), layer_scale))
        self.scale2: nn.Parameter | None = nn.Parameter(torch.full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        branch = self.convolution(self.norm1(x))
        x = x + self.drop_path(branch if self.scale1 is None else branch * self.scale1[:, None, None])
        branch = self.mlp(self.norm2(x.permute(0, 2, 3, 1)))
        branch = branch if self.scale2 is None else branch * self.scale2
        return x + self.drop_path(branch.permute(0, 3, 1, 2))

    def fold_(self) -> None:
        """Multiply the scales of the branches into their last layers."""
        if self.scale1 is None or self.scale2 is None:
            return
        for layer, scale in ((self.convolution.project, self.scale1), (self.mlp.fc2, self.scale2)):
            weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
            layer.weight = nn.Parameter(weight, requires_grad=False)
            assert layer.bias is not None  # noqa: S101 - both have one
            layer.bias = nn.Parameter(layer.bias * scale, requires_grad=False)
        self.scale1 = self.scale2 = None


class GatedConvolution(nn.Module):
    """Recursive gated convolution (section 3.1): each step multiplies by more channels of one filtered map."""

    def __init__(self, dim: int, order: int, table: Sequence[int] | None, scale: float) -> None:
        super().__init__()
        self.widths = [dim // 2**i for i in reversed(range(order))]
        total = sum(self.widths)
        self.expand = nn.Conv2d(dim, 2 * dim, 1)
        self.filter = nn.Conv2d(total, total, 7, padding=3, groups=total) if table is None else Filter(total, table)
        self.steps = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.project = nn.Conv2d(dim, dim, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x, gates = self.expand(x).split([self.widths[0], sum(self.widths)], 1)
        gates = self.filter(gates)
        first, *rest = (gates if self.scale == 1 else gates * self.scale).split(self.widths, 1)
        x = x * first
        for step, gate in zip(self.steps, rest, strict=True):
            x = step(x) * gate
        return self.project(x)

    def fold_(self) -> None:
        """Multiply the scale into the filter's last layer."""
        last = self.filter if isinstance(self.filter, nn.Conv2d) else self.filter.norm2
        assert last.bias is not None  # noqa: S101 - both have one
        last.weight = nn.Parameter(last.weight * self.scale, requires_grad=False)
        last.bias = nn.Parameter(last.bias * self.scale, requires_grad=False)
        self.scale = 1.0


class Filter(nn.Module):
    """Half of the channels through a depthwise 3x3 convolution, half through a learned filter of their spectrum.

    The two halves take turns in the result.

    Args:
        channels: channels of the map, an even number.
        table: rows and columns of the learned spectrum.
    """

    def __init__(self, channels: int, table: Sequence[int]) -> None:
        super().__init__()
        half = channels // 2
        self.norm1 = MapNorm(channels, _EPS)
        self.near = nn.Conv2d(half, half, 3, padding=1, bias=False, groups=half)
        self.spectrum = nn.Parameter(nn.init.trunc_normal_(torch.empty(half, *table, 2), std=0.02))
        self.norm2 = MapNorm(channels, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        near, far = self.norm1(x).chunk(2, 1)
        far = filter_spectrum(far, self.spectrum.permute(3, 0, 1, 2))
        return self.norm2(torch.stack([self.near(near), far], 2).flatten(1, 2))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_TABLES = {"7x7": (None,) * 4, "gf": (None, None, (14, 8), (7, 4)), "gf_img384": (None, None, (24, 13), (12, 7))}
VARIANTS = {
    f"hornet_{size}_{kind}": functools.partial(HorNet, base_dim=width, gf=table)
    for size, width in (("tiny", 64), ("small", 96), ("base", 128), ("large", 192))
    for kind, table in _TABLES.items()
    if kind != "gf_img384" or size in {"base", "large"}
}
_BLOCK = r"stages\.(\d+)\.(\d+)\."


def _block(match: re.Match[str]) -> str:
    return f"stages.{match[1]}.{int(match[2]) - 2}."


def _entry(match: re.Match[str]) -> str:
    """What stands before the blocks of a stage."""
    return f"downsample_layers.{match[1]}.{match[2]}."


_OFFICIAL_NAMES = [
    (r"stages\.(\d+)\.([01])\.", _entry),
    (rf"{_BLOCK}scale([12])", lambda match: f"{_block(match)}gamma{match[3]}"),
    (rf"{_BLOCK}convolution\.expand\.", lambda match: f"{_block(match)}gnconv.proj_in."),
    (rf"{_BLOCK}convolution\.project\.", lambda match: f"{_block(match)}gnconv.proj_out."),
    (rf"{_BLOCK}convolution\.steps\.", lambda match: f"{_block(match)}gnconv.pws."),
    (rf"{_BLOCK}convolution\.filter\.near\.", lambda match: f"{_block(match)}gnconv.dwconv.dw."),
    (rf"{_BLOCK}convolution\.filter\.spectrum", lambda match: f"{_block(match)}gnconv.dwconv.complex_weight"),
    (rf"{_BLOCK}convolution\.filter\.norm1\.", lambda match: f"{_block(match)}gnconv.dwconv.pre_norm."),
    (rf"{_BLOCK}convolution\.filter\.norm2\.", lambda match: f"{_block(match)}gnconv.dwconv.post_norm."),
    (rf"{_BLOCK}convolution\.filter\.", lambda match: f"{_block(match)}gnconv.dwconv."),
    (rf"{_BLOCK}mlp\.fc([12])\.", lambda match: f"{_block(match)}pwconv{match[3]}."),
    (_BLOCK, _block),
]
