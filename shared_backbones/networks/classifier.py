"""What timm and its users expect of a classifier: a head that can be changed, and the maps of chosen levels."""

from collections.abc import Sequence
from typing import ClassVar, TypeAlias

from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role

Intermediates: TypeAlias = list[Tensor] | tuple[Tensor, list[Tensor]]
"""What `forward_intermediates` returns: maps of the chosen levels, alone or after the last features."""


class Classifier(nn.Module):
    """Base of our classifiers.

    A subclass defines `forward_features` (images to features), `forward_head` (features to logits) and
    `forward_intermediates`, and sets the attributes below.

    Attributes:
        num_classes: logits; 0 gives features.
        num_features: channels of the last map.
        head_hidden_size: channels that the classifier sees.
        arguments: the constructor's arguments, in JSON types.
        poolings: values that `reset_classifier` takes as `global_pool`.
        feature_indices: levels of a pyramid that timm makes of the network.
        classifier: dotted name of the last linear layer.
        grad_checkpointing: whether activations are recomputed while training.
    """

    role: ClassVar[Role] = "classifier"
    feature_indices: tuple[int, ...] = ()
    num_classes: int
    num_features: int
    head_hidden_size: int
    arguments: Arguments
    poolings: tuple[str, ...] = ("avg",)
    classifier = "head"
    grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of images `(B, in_chans, H, W)`."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Features of images."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of features; with `pre_logits` what the classifier sees."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.get_submodule(self.classifier)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network another number of classes, with new weights.

        Raises:
            ValueError: `num_classes` is negative, or `global_pool` is not one that the network has.
        """
        if global_pool not in {None, *self.poolings}:
            raise ValueError(f"global_pool {global_pool!r}: expected {' or '.join(map(repr, self.poolings)) or 'none'}")
        self.set_submodule(self.classifier, linear_classifier(self.head_hidden_size, num_classes))
        self.num_classes = self.arguments["num_classes"] = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.grad_checkpointing = enable


def linear_classifier(width: int, num_classes: int) -> nn.Module:
    """The last layer of a classifier, or nothing where the features themselves are wanted.

    Raises:
        ValueError: `num_classes` is negative.
    """
    if num_classes < 0:
        raise ValueError(f"num_classes is {num_classes}, expected 1 or more, or 0 for features")
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


def chosen_levels(indices: int | Sequence[int] | None, count: int, output_fmt: str = "NCHW") -> list[int]:
    """The levels that `forward_intermediates` is asked for, counted from the first.

    Args:
        indices: levels, negative ones from the last; or how many of the last; None is all.
        count: levels that there are.
        output_fmt: order of the maps' axes, of which we have one.

    Raises:
        ValueError: there is no such level, or `output_fmt` is not `NCHW`.
    """
    if output_fmt != "NCHW":
        raise ValueError(f"output_fmt {output_fmt!r}: expected 'NCHW'")
    if indices is None:
        wanted: Sequence[int] = range(count)
    elif isinstance(indices, int):
        wanted = range(count - indices, count) if 1 <= indices <= count else ()
    else:
        wanted = indices
    if not wanted or not all(-count <= index < count for index in wanted):
        raise ValueError(f"indices {indices}: expected levels 0 to {count - 1}, or how many of the last, 1 to {count}")
    return [index % count for index in wanted]
