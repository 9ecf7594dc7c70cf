"""Several trained networks of one task as one: the mean of their probabilities."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from shared_backbones import architectures
from shared_backbones.architectures import Arguments
from shared_backbones.json_values import Document

_LEAST = 1e-12  # probability whose logarithm is still told from others


class Ensemble(nn.Module):
    """The mean of several networks' probabilities, as logits that give these probabilities again.

    Members may be classifiers or segmenters; all take the same inputs and have the same classes. What is read off the
    features of a classifier (Grad-CAM, embeddings, scores of outliers) is the first member's.

    Args:
        members: For each member `architecture`, `arguments` and `temperature`, the divisor of its logits (1 where
            there is none).
        multi_label: Whether an image can have several classes, each with a probability of its own.

    Attributes:
        arguments: The constructor's arguments, in JSON types.
        members: The networks.

    Raises:
        ValueError: there are no members, or one of them is none.
    """

    def __init__(self, members: Sequence[Document], multi_label: bool = False) -> None:
        super().__init__()
        if not members or not all(isinstance(member, Mapping) for member in members):
            raise ValueError("members is no list of networks, expected one network or more")
        self.arguments: Arguments = {"members": [dict(member) for member in members], "multi_label": multi_label}
        self.multi_label = multi_label
        self.temperatures = [float(member.get("temperature", 1.0)) for member in members]
        if not all(0 < temperature < float("inf") for temperature in self.temperatures):
            raise ValueError(f"temperatures are {self.temperatures}, expected more than 0")
        self.members = nn.ModuleList(_build(member) for member in members)

    @property
    def feature_info(self) -> list[Document]:
        """Levels of the first member's maps, as timm gives them.

        Raises:
            AttributeError: it has none, as segmenters.
        """
        levels: Sequence[Document] = getattr(self.members[0], "feature_info")  # noqa: B009 - PyTorch's modules have none
        return [{**level, "module": f"members.0.{level['module']}"} for level in levels]

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of the mean probabilities, in the members' shape `(B, K)` or `(B, K, ...)`.

        Where an image can have several classes they are the log-odds of the means.
        """
        return self._mean(member(x) for member in self.members)

    def in_rows(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First row and output of the next rows of volumes, where all members give them so; else all at once."""
        rows = [getattr(member, "in_rows", None) for member in self.members]
        if not all(rows):
            yield 0, self(x)
            return
        for pieces in zip(*(give(x) for give in rows if give is not None), strict=True):
            yield pieces[0][0], self._mean(piece for _, piece in pieces)

    def forward_features(self, x: Tensor) -> Tensor:
        """The first member's last map of features."""
        return getattr(self.members[0], "forward_features")(x)  # noqa: B009

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The first member's logits of features; with `pre_logits` what its classifier sees."""
        return getattr(self.members[0], "forward_head")(x, pre_logits=pre_logits)  # noqa: B009

    def _mean(self, outputs: Iterator[Tensor]) -> Tensor:
        """The mean of the probabilities that logits stand for, one output after another."""
        total: Tensor | None = None
        for output, temperature in zip(outputs, self.temperatures, strict=True):
            logits = output.float() / temperature
            probabilities = logits.sigmoid() if self.multi_label else logits.softmax(1)
            total = probabilities if total is None else total + probabilities
        assert total is not None  # noqa: S101 - there is one member or more
        mean = total / len(self.members)
        return torch.logit(mean, 1e-6) if self.multi_label else mean.clamp(min=_LEAST).log()


def _build(member: Document) -> nn.Module:
    """An untrained member."""
    name, arguments = member.get("architecture"), member.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, Mapping) or name == "ensemble":
        raise ValueError(f"a member has the architecture {name!r}, expected a network's with its arguments")
    return architectures.build(name, arguments, trained=True)
