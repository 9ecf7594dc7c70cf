"""What a segmentation model expects of its input, as its card says it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

from medvision.parts import Part, check_parts
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

_MODALITIES = {"CT": r"\bCT\b", "MR": r"\bMRI?\b", "PT": r"\bPET\b"}

Choice = TypeVar("Choice", str, bool)

NORMALISATIONS = ("rescale_intensity", "zscore", "none", "window", "minmax")
RESAMPLINGS = ("antialiased", "monai")
MONAI_TOLERANCE_MM = 1e-3
"""Spacings that differ by no more than this are one to MONAI's `Spacingd`."""
WINDOW_WEIGHTS = ("gaussian", "constant")

AXIS_OF_VIEW = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Axis of a RAS volume that a view's slices are stacked along."""


Normalisation = str | Mapping[str, str | float]
"""How intensities are scaled, as `medvision.volumes.intensities.normalise` takes it."""


Setting = str | float | None | Sequence[str] | Sequence[float | None]
"""A value of the settings that decide a result, as JSON has it."""


class DiceCurves(TypedDict, total=False):
    """What overlap a confidence stands for; `medvision.findings.expected_dice` says how it is read.

    Attributes:
        cases: number of cases that the curves rest on.
        of: what the cases were.
        knots: confidences, rising, and the Dice there, by name of structure.
    """

    cases: int
    of: str
    knots: Mapping[str, Sequence[Sequence[float]]]


class Expectations(TypedDict, total=False):
    """What a card's `input` says of scans and structures, which quality flags compare with.

    Attributes:
        modality: words for the scans that the model is made for, such as `T1-weighted MRI`.
        views: planes that the model runs over by default.
        volume_range_ml: lowest and highest volume in the training data, by name of structure.
        attached: ids of structures that lie in pieces by nature, such as fluid between the folds; neither pieces nor
            confidence count against them.
        brightest_first: names of structures in falling order of mean intensity.
        positions: name of a structure, letter of a direction, and name of the structure that it lies there of.
        min_confidence: mean confidence that a structure should have, by name.
        expected_dice: curves of Dice over confidence.
    """

    modality: str
    views: Sequence[str]
    volume_range_ml: Mapping[str, Sequence[float]]
    attached: Sequence[int]
    brightest_first: Sequence[str]
    positions: Sequence[Sequence[str]]
    min_confidence: Mapping[str, float]
    expected_dice: DiceCurves


@dataclass(frozen=True)
class InputContract:
    """Input contract of a model that segments volumes, slice by slice or in 3-D patches.

    Attributes:
        classes: the classes, in the order of the output.
        channels: names of the image's channels, in the order of the input, such as FLAIR and T1w; empty where it has
            one. A network of slices takes one, with its neighbours.
        spacing_mm: spacing along the three RAS axes at which the network works; None keeps the scan's own. A card has
            three, or one for all.
        slices: offsets of the neighbouring slices that are its input channels; empty for a 3-D network.
        views: planes it runs over by default; empty for a 3-D network.
        patch: voxels along the RAS axes of what a 3-D network sees at once; None for a network of slices.
        any_size: whether a volume that is smaller than the patch is seen as it is, in one piece.
        overlap: fraction of a patch's side that the next one covers again.
        window_weights: weights of the logits of patches that overlap: `gaussian`, or `constant`.
        mirror_axes: axes along which a 3-D network's patches are mirrored too; its logits are means over all of them.
        smallest_slice: side in voxels that slices are padded to at least.
        normalisations: how intensities are scaled, for each channel. A card has a list of them, or one for all.
        resampling: `antialiased`, about the volume's centre; or `monai`, as MONAI's `Spacingd` and its inverse.
        crop: whether the network sees the box of the volume's content alone.
        parts: parts of the classes that the network tells apart; empty where its outputs are the classes.
        intracranial: whether the classes together fill the skull's inside, so that labels which do not hang together
            with most of them are wrong, and their volume is the intracranial one.
        attached: classes, such as fluid, that are kept only in the gaps of the pieces that the others form.
        attached_mm: half the width of the widest such gap.
        smallest_piece: pieces smaller than this fraction of the largest are strays and become background; 0 keeps all.
        bfloat16_agreement: fraction of voxels measured to keep their label in bfloat16; 0 where it was not measured.
    """

    classes: tuple[ClassEntry, ...]
    channels: tuple[str, ...]
    spacing_mm: tuple[float | None, ...]
    slices: tuple[int, ...]
    views: tuple[str, ...]
    patch: tuple[int, int, int] | None
    any_size: bool
    overlap: float
    window_weights: str
    mirror_axes: tuple[int, ...]
    smallest_slice: int
    normalisations: tuple[Normalisation, ...]
    resampling: str
    crop: bool
    parts: tuple[Part, ...]
    intracranial: bool
    attached: tuple[int, ...]
    attached_mm: float
    smallest_piece: float
    bfloat16_agreement: float

    @classmethod
    def from_card(cls, card: Document, model: str) -> "InputContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or asks for something unknown.
        """
        try:
            given = card["input"]
            channels = _channels(given.get("channels", ()))
            contract = cls(
                classes=tuple(card["classes"]),
                channels=channels,
                spacing_mm=_spacing(given["spacing_mm"]),
                slices=tuple(int(offset) for offset in given["slices"]) if "patch" not in given else (),
                views=tuple(given["views"]) if "patch" not in given else (),
                patch=_patch(given["patch"]) if "patch" in given else None,
                any_size=_one_of((False, True), "any_size", given),
                overlap=float(given.get("overlap", 0.5)),
                window_weights=_one_of(WINDOW_WEIGHTS, "window_weights", given),
                mirror_axes=tuple(int(axis) for axis in given.get("mirror_axes", ())),
                smallest_slice=int(given.get("smallest_slice", 32)),
                normalisations=_normalisations(given.get("normalisation"), len(channels)),
                resampling=_one_of(RESAMPLINGS, "resampling", given),
                crop=_one_of((True, False), "crop", given),
                parts=tuple(Part.from_entry(entry) for entry in card.get("parts", ())),
                intracranial=_one_of((False, True), "intracranial", given),
                attached=tuple(int(number) for number in given.get("attached", ())),
                attached_mm=float(given.get("attached_mm", 0)),
                smallest_piece=float(given.get("smallest_piece", 0.1)),
                bfloat16_agreement=float(card.get("bfloat16_agreement", 0)),
            )
            if contract.channels and contract.patch is None:
                raise ValueError("a network of slices takes one channel, but several are named")
            contract._check_classes()
            contract._check_numbers()
            for how in contract.normalisations:
                _check_normalisation(how)
            _check_expectations(given, {entry["name"] for entry in contract.classes})
            if contract.patch is None:
                contract.check_views(contract.views)
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no model for segmenting volumes") from None
        except (AttributeError, InputError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error}); choose another model") from None
        return contract

    def _check_classes(self) -> None:
        ids, names = zip(*((entry["id"], entry["name"]) for entry in self.classes), strict=True)
        if ids != tuple(range(len(ids))) or not 2 <= len(ids) <= 256:
            raise ValueError("classes must be numbered 0, 1, ... in order, from 2 to 256 of them")
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError("every class must have a name of its own")
        for entry in self.classes:
            _check_class(entry)
        if self.parts:
            check_parts(self.parts, self.classes)

    def _check_numbers(self) -> None:
        for step in self.spacing_mm:
            if step is not None and not 0.1 <= step <= 20:
                raise ValueError(f"spacing_mm is {step:g}, expected 0.1 to 20")
        if not self.slices and self.patch is None:
            raise ValueError("slices is empty, expected the offsets of the input channels")
        if self.parts and self.patch is None:
            raise ValueError("a network of slices has no parts, expected a patch")
        if self.parts and 0 in self.mirror_axes:
            raise ValueError("mirror_axes has 0, which exchanges left and right, and the parts have sides")
        if not set(self.mirror_axes) <= {0, 1, 2} or len(set(self.mirror_axes)) < len(self.mirror_axes):
            raise ValueError(f"mirror_axes is {list(self.mirror_axes)}, expected some of 0, 1, 2")
        structures = set(range(1, len(self.classes)))
        if not set(self.attached) < structures:
            raise ValueError(f"attached is {list(self.attached)}, expected ids of some classes but not of all")
        for name, value, low, high in (
            ("overlap", self.overlap, 0, 0.9),
            ("attached_mm", self.attached_mm, 0, 50),
            ("smallest_piece", self.smallest_piece, 0, 1),
            ("smallest_slice", self.smallest_slice, 1, 4096),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value:.7g}, expected {low} to {high}")

    @property
    def crops(self) -> bool:
        """Whether the volume is cut to its content, which needs a scaling under which 0 is the background."""
        names = [how.get("name") if isinstance(how, Mapping) else how for how in self.normalisations]
        return self.crop and not {"zscore", "none"} & set(names)

    @property
    def channel_count(self) -> int:
        """Channels of the image."""
        return len(self.channels) or 1

    def spacing_for(self, spacing_mm: Sequence[float]) -> tuple[float, ...]:
        """Spacing at which the network works on a scan of that spacing, along RAS axes."""
        near = MONAI_TOLERANCE_MM if self.resampling == "monai" else 0.0
        return tuple(
            own if step is None or abs(own - step) <= near else step
            for own, step in zip(spacing_mm, self.spacing_mm, strict=True)
        )

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


def _one_of(known: tuple[Choice, ...], name: str, given: Document) -> Choice:
    """The choice that a card names; the first where it names none."""
    value = given.get(name, known[0])
    if value not in known or type(value) is not type(known[0]):
        raise ValueError(f"{name} is {value!r}, expected {' or '.join(map(str, known))}")
    return value


def _check_class(entry: ClassEntry) -> None:
    """Raise a ValueError unless a class's code, pieces and colour can be meant."""
    if "color" not in entry:
        raise KeyError("color")
    name, color, code, pieces = entry["name"], entry["color"], entry.get("code"), entry.get("pieces", 2)
    if code is not None and not (
        len(code) == 3
        and all(isinstance(part, str) and part.isprintable() for part in code)
        and all(0 < len(part) <= most for part, most in zip(code, (16, 16, 64), strict=True))
    ):
        raise ValueError(f"code of {name} is {code!r}, expected scheme, value and meaning")
    if not isinstance(pieces, int) or not 1 <= pieces <= 1000:
        raise ValueError(f"pieces of {name} is {pieces!r}, expected a number from 1 to 1000")
    if len(color) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in color):
        raise ValueError(f"color of {name} is {color}, expected three numbers from 0 to 255")


def expectations(card_input: Document) -> Expectations:
    """What a card's `input` says of scans and structures."""
    return Expectations(**{key: value for key, value in card_input.items() if key in Expectations.__annotations__})


def modality_conflict(expected: str | None, modality: str | None) -> str | None:
    """One clause where a scan is of another modality than a model expects, else None.

    Args:
        expected: what the model's card says, in words such as "T1-weighted MRI".
        modality: what the scan's header says, such as "CT"; None where it says nothing.
    """
    known = [name for name, pattern in _MODALITIES.items() if re.search(pattern, expected or "")]
    if modality is None or not known or modality in known:
        return None
    return f"the scan's header says {modality}, the model expects {expected}"


def _spacing(given: float | Sequence[float | None]) -> tuple[float | None, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return (float(given),) * 3
    if len(given) != 3:
        raise ValueError(f"spacing_mm has {len(given)} values, expected one or three")
    return tuple(None if step is None else float(step) for step in given)


def _patch(given: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = (int(side) for side in given)
    if not all(8 <= side <= 512 for side in (first, second, third)):
        raise ValueError(f"patch is {list(given)}, expected three sides from 8 to 512")
    return first, second, third


def _channels(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(name, str) and name.isprintable() and name for name in given):
        raise ValueError(f"channels is {given!r}, expected a list of names")
    if len(set(given)) < len(given):
        raise ValueError(f"channels is {list(given)}, expected different names")
    return tuple(given)


def _normalisations(given: Normalisation | Sequence[Normalisation], channels: int) -> tuple[Normalisation, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        return (given,) * (channels or 1)
    if len(given) != (channels or 1):
        raise ValueError(
            f"normalisation has {len(given)} entries, expected one, or one for each of {channels} channels"
        )
    return tuple(given)


def _check_normalisation(how: Normalisation) -> None:
    """Raise a ValueError unless `medvision.volumes.intensities.normalise` knows it; without importing torch."""
    name = how.get("name") if isinstance(how, Mapping) else how
    if name not in NORMALISATIONS:
        raise ValueError(f"normalisation is {how!r}, expected one of {', '.join(NORMALISATIONS)}")
    if name == "rescale_intensity" and isinstance(how, Mapping) and how.get("version", 1) not in (1, 2):
        raise ValueError(f"rescale_intensity has no version {how['version']!r}, expected 1 or 2")
    if name == "window" and not (isinstance(how, Mapping) and float(how["low"]) < float(how["high"])):
        raise ValueError("normalisation by a window needs low < high")
    if isinstance(how, Mapping):
        low, high = float(how.get("out_low", 0)), float(how.get("out_high", 1))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"out_low and out_high are {low} and {high}, expected finite numbers")


def _check_expectations(given: Expectations, names: set[str]) -> None:
    """Raise a ValueError unless `medvision.findings.flags` can compare with what the card expects of structures."""
    for name, (low, high) in (given.get("volume_range_ml") or {}).items():
        if name not in names or not 0 <= float(low) <= float(high):
            raise ValueError(f"volume_range_ml of {name} is {low} to {high}, expected a class and rising volumes")
    for name, limit in (given.get("min_confidence") or {}).items():
        if name not in names or not 0 <= float(limit) <= 1:
            raise ValueError(f"min_confidence of {name} is {limit}, expected a class and 0 to 1")
    for name, (places, dice) in ((given.get("expected_dice") or {}).get("knots") or {}).items():
        rising = [float(place) for place in places] == sorted(map(float, places)) and len(places) == len(dice) > 0
        if name not in names or not rising or not all(0 <= float(value) <= 1 for value in [*places, *dice]):
            raise ValueError(f"expected_dice of {name} is no curve of confidences, rising, and Dice from 0 to 1")
    order = given.get("brightest_first") or []
    if isinstance(order, str) or not set(order) <= names:
        raise ValueError(f"brightest_first is {order}, expected names of classes")
    for name, letter, other in given.get("positions") or ():
        if not {name, other} <= names or letter not in tuple("RLAPSI"):
            raise ValueError(f"positions has {[name, letter, other]}, expected a class, a letter of RLAPSI and a class")
