"""Classifiers in stages, each of which halves the map: their levels are a pyramid."""

import math
from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels
from shared_backbones.networks.tokens import initialise_linear


class StageClassifier(Classifier):
    """Base of classifiers whose stages each map `(B, C, H, W)` to the next level of a pyramid.

    A subclass appends to `stages` and defines `forward_head`, which takes the last level.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: channels of the images.
        widths: channels of each level.
        reductions: image pixels per pixel of each level, along one axis.

    Attributes:
        stages: a module for each level.
    """

    feature_indices = (0, 1, 2, 3)

    def __init__(self, num_classes: int, in_chans: int, widths: Sequence[int], reductions: Iterable[int]) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = widths[-1]
        self.stages = nn.ModuleList()
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": f"stages.{i}"}
            for i, (width, reduction) in enumerate(zip(widths, reductions, strict=True))
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """The last level `(B, C, h, w)`."""
        return self._levels(x)[-1]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """Maps of the levels `indices`, alone or after the last one; `norm` changes nothing.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, len(self.stages), output_fmt)
        levels = self._levels(x, max(wanted) + 1 if stop_early or intermediates_only else None)
        maps = [levels[i] for i in wanted]
        return maps if intermediates_only else (levels[-1], maps)

    def _levels(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        """The first `count` levels."""
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {self.in_chans}, H, W)")
        reduction = self.feature_info[-1]["reduction"]
        if min(x.shape[2:]) < reduction:
            raise ValueError(f"image of {x.shape[2]} x {x.shape[3]}: expected sides of {reduction} or more")
        levels = []
        for stage in self.stages[:count]:
            x = stage(x, self.grad_checkpointing and self.training)
            levels.append(x)
        return levels


class Stage(nn.Sequential):
    """What makes a level of the one before: modules one after another."""

    def forward(self, input: Tensor, recompute: bool = False) -> Tensor:
        """Map `(B, C, H, W)` to the next level; with `recompute`, no activations of single parts are kept."""
        for part in self:
            input = recomputed(part, input) if recompute else part(input)
        return input


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of a map `(B, C, H, W)`, which leaves it channels last in memory."""

    def forward(self, input: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = input.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def with_axes(tensor: Tensor, ndim: int) -> Tensor:
    """A tensor with axes of one added at its end: of a linear layer, the one of a 1x1 convolution."""
    return tensor[(..., *[None] * (ndim - tensor.ndim))]


def initialise_maps(module: nn.Module) -> None:
    """Weights of layers over tokens, here 1x1 convolutions, and of convolutions, as released: for `apply`."""
    if not isinstance(module, nn.Conv2d):
        initialise_linear(module)
        return
    if module.kernel_size == (1, 1) and module.groups == 1:
        nn.init.trunc_normal_(module.weight, std=0.02)
    else:
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if module.bias is not None:
        nn.init.zeros_(module.bias)
