"""What the channels of a segmentation network's output mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medvision.contract import InputContract
from medvision.parts import Detail, Part
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError


@dataclass(frozen=True)
class Channel:
    """A class of scores, and the labels that its voxels get.

    Attributes:
        left: label on the left, or on both sides.
        right: label on the right.
        sided: whether the class lies on both sides of the body, and the side of its voxels is known.
    """

    left: int
    right: int
    sided: bool = False


class Channels:
    """What the channels of a network's output mean, and how they become scores and labels.

    Args:
        classes: classes of the card.
        parts: parts that the network knows; empty where its outputs are the classes.
        detail: what label maps show.

    Attributes:
        classes: classes of the label maps, by rising id.
        scored: one for each class of scores; the background is the first.
        outputs: number of the network's output channels.
    """

    def __init__(
        self, classes: Sequence[ClassEntry], parts: Sequence[Part] = (), detail: Detail = Detail.structures
    ) -> None:
        self.classes, self.parts, self.detail = list(classes), tuple(parts), detail
        self.outputs = len(parts) + 2 if parts else len(classes)
        self.scored = [Channel(entry["id"], entry["id"]) for entry in classes]
        self._group: Tensor | None = None
        if not parts:
            return
        if detail is Detail.full:
            entries = [entry for part in parts for entry in part.entries]
            self.classes = [self.classes[0], *sorted(entries, key=lambda entry: entry["id"])]
            sides = [Channel(part.id, part.right or part.id, part.right is not None) for part in parts]
            self.scored = [Channel(0, 0), *sides]
            return
        midline = {part.structure for part in parts if part.right is None}
        self.scored = [Channel(c.left, c.right, c.left > 0 and c.left not in midline) for c in self.scored]
        self._group = torch.tensor([0, *(part.structure for part in parts)])

    @classmethod
    def of(cls, contract: InputContract, detail: str, model: str) -> "Channels":
        """The channels of a model at some detail.

        Raises:
            InputError: there is no such detail, or the model tells no parts apart.
        """
        if detail not in list(Detail):
            raise InputError(f"detail {detail!r}: expected {' or '.join(Detail)}")
        if detail == Detail.full and not contract.parts:
            count = len(contract.classes) - 1
            raise InputError(
                f"model {model}: tells no parts apart, its {count} structures are all; leave the detail out"
            )
        return cls(contract.classes, contract.parts, Detail(detail))

    @property
    def knows_sides(self) -> bool:
        """Whether the last of the scores says how surely a voxel lies on the right."""
        return bool(self.parts)

    def probabilities(self, logits: Tensor, axis: int = 0) -> Tensor:
        """Probabilities of the channels along an axis of the logits, and last the right side's, if it is known."""
        if not self.knows_sides:
            return logits.float().softmax(axis)
        count, last = logits.shape[axis] - 1, logits.ndim - 1
        shape = [*logits.shape]
        shape[axis] = len(self.scored) + 1
        out = torch.zeros(shape, device=logits.device)
        # few numbers at once: logits are the largest tensors of all
        step = max(1, 2**22 // math.prod(logits.shape[:-1]))
        for part, whole in zip(logits.split(step, last), out.split(step, last), strict=True):
            known = part.narrow(axis, 0, count).float().softmax(axis)
            if self._group is None:
                whole.narrow(axis, 0, count).copy_(known)
            else:
                whole.index_add_(axis, self._group.to(known.device), known)
            whole.narrow(axis, shape[axis] - 1, 1).copy_(part.narrow(axis, count, 1).float().sigmoid())
        return out

    def of_structures(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Labels of the classes that belong to some structures of the card."""
        if self._group is not None or not self.parts:
            return tuple(ids)
        chosen = [part for part in self.parts if part.structure in ids]
        return tuple(number for part in chosen for number in (part.id, part.right) if number is not None)

    def label_ids(self, labels: Sequence[str]) -> list[int]:
        """Ids of classes given by name or number.

        Raises:
            InputError: a class is unknown; the line lists those there are.
        """
        by_name = {entry["name"]: entry["id"] for entry in self.classes if entry["id"]}
        by_name |= {str(number): number for number in by_name.values()}
        unknown = [label for label in labels if label not in by_name]
        if unknown or not labels:
            names = ", ".join(f"{entry['id']} {entry['name']}" for entry in self.classes if entry["id"])
            raise InputError(f"label {', '.join(map(repr, unknown)) or 'list is empty'}: expected some of {names}")
        return sorted({by_name[label] for label in labels})
