"""What a segmentation model expects of its input, as its card says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared_backbones.errors import InputError

AXIS_OF_VIEW = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Axis of a RAS volume that a view's slices are stacked along."""


@dataclass(frozen=True)
class InputContract:
    """Input contract of a model that segments volumes slice by slice.

    Attributes:
        classes: `id` (their position in the output), `name` and `color` of each.
        spacing_mm: isotropic spacing at which the network works.
        slices: offsets of the neighbouring slices that are its input channels.
        views: planes it runs over by default.
        smallest_slice: side in voxels that slices are padded to at least.
    """

    classes: tuple[Mapping[str, Any], ...]
    spacing_mm: float
    slices: tuple[int, ...]
    views: tuple[str, ...]
    smallest_slice: int

    @classmethod
    def from_card(cls, card: Mapping[str, Any], model: str) -> "InputContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or asks for something unknown.
        """
        try:
            given = card["input"]
            contract = cls(
                classes=tuple(card["classes"]),
                spacing_mm=float(given["spacing_mm"]),
                slices=tuple(int(offset) for offset in given["slices"]),
                views=tuple(given["views"]),
                smallest_slice=int(given.get("smallest_slice", 32)),
            )
            ids = [entry["id"] for entry in contract.classes]
            if ids != list(range(len(ids))) or len(ids) > 256 or not all(entry["name"] for entry in contract.classes):
                raise ValueError("classes must be numbered 0, 1, ... in order, at most 256, each with a name")
            if not 0.1 <= contract.spacing_mm <= 20:
                raise ValueError(f"spacing_mm is {contract.spacing_mm:g}, expected 0.1 to 20")
            if given.get("normalisation") != "rescale_intensity":
                raise ValueError(f"normalisation {given.get('normalisation')!r} is unknown")
            contract.check_views(contract.views)
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no model for segmenting volumes") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error})") from None
        return contract

    def check_views(self, views: Sequence[str]) -> tuple[str, ...]:
        """The views, if each is known and none is named twice.

        Raises:
            InputError: they are not.
        """
        for view in views:
            if view not in AXIS_OF_VIEW:
                raise InputError(f"view {view!r}: expected some of {', '.join(reversed(AXIS_OF_VIEW))}")
        if not views or len(set(views)) < len(views):
            raise InputError(f"views {','.join(views)!r}: expected one to three different ones")
        return tuple(views)

    def label_ids(self, wanted: Sequence[str]) -> list[int]:
        """Ids of classes given by name or number.

        Raises:
            InputError: a class is unknown; the line lists those there are.
        """
        by_name = {entry["name"]: entry["id"] for entry in self.classes if entry["id"]}
        by_name |= {str(number): number for number in by_name.values()}
        unknown = [label for label in wanted if label not in by_name]
        if unknown or not wanted:
            names = ", ".join(f"{entry['id']} {entry['name']}" for entry in self.classes if entry["id"])
            raise InputError(f"label {', '.join(map(repr, unknown)) or 'list is empty'}: expected some of {names}")
        return sorted({by_name[label] for label in wanted})
