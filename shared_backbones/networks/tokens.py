"""Classifiers that are plain transformers: tokens of one resolution, block after block."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels, linear_classifier


class TokenClassifier(Classifier):
    """Base of classifiers whose blocks map tokens `(B, extra + h w, D)` and their grid `(h, w)` to tokens.

    A subclass defines `embed` (images to tokens and grid), appends to `blocks`, and sets `extra`.

    Args:
        num_classes: logits; 0 gives features.
        width: channels D of a token.
        eps: constant added to the variance in the last norm.

    Attributes:
        extra: class tokens in front of the grid's.
        blocks: the transformer's blocks.
    """

    feature_indices = (-1,)
    extra = 1

    def __init__(self, num_classes: int, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, width, width
        self.blocks = nn.ModuleList()
        self.norm = nn.LayerNorm(width, eps)
        self.head = linear_classifier(width, num_classes)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens `(B, extra + h w, D)` of images `(B, C, H, W)`, and their grid."""
        raise NotImplementedError

    def describe_levels(self, reduction: int) -> None:
        """Tell timm of the blocks' maps, which have one pixel for `reduction` of the image along each axis."""
        self.feature_info = [
            {"num_chs": self.num_features, "reduction": reduction, "module": f"blocks.{i}"}
            for i in range(len(self.blocks))
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """Normed tokens of the last block `(B, extra + h w, D)`, in raster order behind the class token."""
        return self.norm(self._levels(x)[0][-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of tokens; with `pre_logits` the class token `(B, D)` that the classifier sees."""
        return x[:, 0] if pre_logits else self.head(x[:, 0])

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """Maps `(B, D, h, w)` after the blocks `indices`, alone or after the last tokens.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, len(self.blocks), output_fmt)
        levels, grid = self._levels(x, max(wanted) + 1 if stop_early or intermediates_only else None)
        chosen = [(self.norm(levels[i]) if norm else levels[i])[:, self.extra :] for i in wanted]
        maps = [tokens.transpose(1, 2).unflatten(2, grid) for tokens in chosen]
        return maps if intermediates_only else (self.norm(levels[-1]), maps)

    def _levels(self, x: Tensor, count: int | None = None) -> tuple[list[Tensor], tuple[int, int]]:
        """Tokens after each of the first `count` blocks, and their grid."""
        tokens, grid = self.embed(x)
        levels = []
        for block in self.blocks[:count]:
            recompute = self.grad_checkpointing and self.training
            tokens = recomputed(block, tokens, grid) if recompute else block(tokens, grid)
            levels.append(tokens)
        return levels, grid


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth of each block, rising linearly from 0."""
    return torch.linspace(0, last, depth, device="cpu").tolist()


def check_images(x: Tensor, in_chans: int, multiple: int) -> None:
    """Raise a ValueError unless images have `in_chans` channels and sides that are multiples of `multiple`."""
    if x.ndim != 4 or x.shape[1] != in_chans:
        raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {in_chans}, H, W)")
    if x.shape[2] % multiple or x.shape[3] % multiple:
        raise ValueError(f"image of {x.shape[2]} x {x.shape[3]}: both must be multiples of {multiple}")


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens `(B, h w, C)` as a map `(B, C, h, w)`."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def to_tokens(x: Tensor) -> Tensor:
    """A map `(B, C, h, w)` as tokens `(B, h w, C)`."""
    return x.flatten(2).transpose(1, 2)


def initialise_linear(module: nn.Module) -> None:
    """Truncated normal weights of linear layers, no bias: for `apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
