"""What a classifier expects of its input, and which classes mirror images have, as its card says it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, TypeVar

from torch import Tensor

from shared_backbones.errors import InputError


class Contract(Protocol):
    """What every classifier's contract says of its input, whatever the images are."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names, in the order of the network's channels."""
        ...

    @property
    def size(self) -> int:
        """Side in pixels of what the network sees."""
        ...

    def normalise(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """The network's input `(..., C, H, W)`; where `valid` `(..., H, W)` is False, pixels count as bands' means."""
        ...


ContractT = TypeVar("ContractT", bound=Contract)


class ContractParts(TypedDict):
    """Attributes that every `ImageContract` has."""

    bands: tuple[str, ...]
    size: int
    crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    detail: int | None


@dataclass(frozen=True, kw_only=True)
class ImageContract:
    """What a classifier expects of its input, as its card says it; each domain adds what else its images have.

    Attributes:
        bands: names, in the order of the network's channels.
        size: side in pixels of what the network sees.
        crop: fraction of an image's shorter side that the network sees, around its centre; the rest is cut off.
        mean: mean of each band, for values from 0 to 1.
        std: standard deviation of each band, same unit.
        detail: side in pixels to which a larger middle is reduced first, as the training's images were no finer.
    """

    bands: tuple[str, ...]
    size: int
    crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    detail: int | None = None

    @staticmethod
    def parts(given: Mapping[str, Any]) -> ContractParts:
        """These attributes of a card's `input`."""
        return {
            "bands": tuple(str(name) for name in given["bands"]),
            "size": int(given["size"]),
            "crop": float(given["crop"]),
            "mean": tuple(float(value) for value in given["mean"]),
            "std": tuple(float(value) for value in given["std"]),
            "detail": None if given.get("detail") is None else int(given["detail"]),
        }

    def check(self) -> None:
        """Find out whether the attributes can be meant.

        Raises:
            ValueError: one cannot.
        """
        if not self.bands or len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands are {list(self.bands)}, expected one or more different ones")
        if not 1 <= self.size <= 8192:
            raise ValueError(f"size is {self.size}, expected 1 to 8192")
        if self.detail is not None and not 1 <= self.detail <= 8192:
            raise ValueError(f"detail is {self.detail}, expected 1 to 8192")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop:g}, expected more than 0 and at most 1")
        if not len(self.mean) == len(self.std) == len(self.bands):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations for {len(self.bands)} bands")
        if not all(map(math.isfinite, self.mean)) or not all(0 < std < math.inf for std in self.std):
            raise ValueError("means must be finite and deviations more than 0")

    def normalise(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """The network's input, of `(..., C, H, W)`: floating-point values from 0 to 1, or uint8.

        Args:
            images: images as stored.
            valid: `(..., H, W)`; pixels that are False count as the bands' means.
        """
        if not images.is_floating_point():
            images = images.float() / 255
        mean, std = (images.new_tensor(part)[:, None, None] for part in (self.mean, self.std))
        scaled = (images - mean) / std
        return scaled if valid is None else scaled.masked_fill(~valid.unsqueeze(-3), 0.0)


def mirror_of(card: Mapping[str, Any]) -> list[int]:
    """For each class the one that its mirror image has: itself, or what the card's `mirror` of the class names.

    Raises:
        InputError: a class's mirror image is none of the classes, or is not mirrored back.
    """
    names = [str(entry["name"]) for entry in card["classes"]]
    mirrors = []
    for entry in card["classes"]:
        other = str(entry.get("mirror", entry["name"]))
        if other not in names:
            raise InputError(f"class {entry['name']}: its mirror {other!r} is none of the classes {', '.join(names)}")
        mirrors.append(names.index(other))
    for number, other in enumerate(mirrors):
        if mirrors[other] != number:
            raise InputError(f"class {names[number]}: its mirror {names[other]} must have it as mirror, too")
    return mirrors
