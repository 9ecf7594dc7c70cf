"""Parts of structures, left and right apart: what a network may learn beyond the structures of its card.

The sides of a part are one class of such a network, and one further logit says which side a voxel lies on. So both
sides share what is learnt of a part, and its confidence does not fall where they meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared_backbones.card import ClassEntry
from shared_backbones.json_values import Document


class Detail(StrEnum):
    """What label maps show of a model that knows parts: the structures of its card, or every part with its side."""

    structures = "structures"
    full = "full"


@dataclass(frozen=True)
class Part:
    """A part of a structure, as an entry of `parts` in a card.

    Attributes:
        id: label of the part, or of its left side.
        right: label of its right side; None where the part is one, at the midline.
        name: name without a side.
        structure: id of the structure that it belongs to.
        color: red, green and blue, from 0 to 255.
        pieces: pieces that one side has by nature.
    """

    id: int
    right: int | None
    name: str
    structure: int
    color: tuple[int, int, int]
    pieces: int

    @classmethod
    def from_entry(cls, entry: Document) -> "Part":
        """Read an entry of a card.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        right = entry.get("right")
        red, green, blue = (int(value) for value in entry["color"])
        part = cls(
            id=int(entry["id"]),
            right=None if right is None else int(right),
            name=entry["name"],
            structure=int(entry["structure"]),
            color=(red, green, blue),
            pieces=int(entry.get("pieces", 1)),
        )
        if not isinstance(part.name, str) or not part.name or not all(0 <= value <= 255 for value in part.color):
            raise ValueError(f"part {part.id} needs a name and a colour of three numbers from 0 to 255")
        if not 1 <= part.pieces <= 1000:
            raise ValueError(f"pieces of {part.name} is {part.pieces}, expected a number from 1 to 1000")
        return part

    @property
    def entries(self) -> list[ClassEntry]:
        """A class for each side."""
        sides = [("", self.id)] if self.right is None else [("left_", self.id), ("right_", self.right)]
        return [
            {"id": number, "name": side + self.name, "color": self.color, "pieces": self.pieces}
            for side, number in sides
        ]


def check_parts(parts: Sequence[Part], classes: Sequence[ClassEntry]) -> None:
    """Raise a ValueError unless labels differ and every structure has a part."""
    ids = [number for part in parts for number in (part.id, part.right) if number is not None]
    if len(set(ids)) < len(ids) or not all(1 <= number <= 255 for number in ids):
        raise ValueError("ids of parts must differ and lie between 1 and 255")
    if len({part.name for part in parts}) < len(parts):
        raise ValueError("names of parts must differ")
    if {part.structure for part in parts} != {entry["id"] for entry in classes if entry["id"]}:
        raise ValueError("parts must belong to the structures among the classes, and every structure needs one")
