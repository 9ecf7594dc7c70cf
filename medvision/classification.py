"""From medical images to calibrated class probabilities, prediction sets and a score of outliers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from shared_backbones.errors import InputError
from shared_backbones.image_classifier import ImageClassifier

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class ImageContract:
    """Input contract of a model that classifies medical images.

    Attributes:
        bands: of the network's channels: one, such as `grey`, or `red`, `green` and `blue`.
        size: side in pixels of the images that the network takes.
        crop: share of an image's shorter side that the network sees, around its centre; the rest is cut off.
        mean: of each band, in values from 0 to 1.
        std: likewise.
    """

    bands: tuple[str, ...]
    size: int
    crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_card(cls, card: Mapping[str, Any], model: str) -> "ImageContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or asks for something unknown.
        """
        try:
            given = card["input"]
            contract = cls(
                bands=tuple(str(name) for name in given["bands"]),
                size=int(given["size"]),
                crop=float(given.get("crop", 1)),
                mean=tuple(float(value) for value in given["mean"]),
                std=tuple(float(value) for value in given["std"]),
            )
            contract._check()
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no classifier of medical images") from None
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error}); choose another model") from None
        return contract

    def _check(self) -> None:
        if len(self.bands) != 1 and self.bands != COLOURS:
            raise ValueError(f"bands are {list(self.bands)}, expected one, or {', '.join(COLOURS)}")
        if not 1 <= self.size <= 8192:
            raise ValueError(f"size is {self.size}, expected 1 to 8192")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop:g}, expected more than 0 and at most 1")
        if not len(self.mean) == len(self.std) == len(self.bands):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations for {len(self.bands)} bands")
        if not all(map(math.isfinite, self.mean)) or not all(0 < std < math.inf for std in self.std):
            raise ValueError("means must be finite and deviations more than 0")

    def normalise(self, images: Tensor) -> Tensor:
        """The network's input, of `(..., C, H, W)`: floating-point values from 0 to 1, or uint8."""
        if not images.is_floating_point():
            images = images.float() / 255
        mean, std = (images.new_tensor(part)[:, None, None] for part in (self.mean, self.std))
        return (images - mean) / std


class MedicalClassifier(ImageClassifier):
    """A trained classifier of medical images, each seen once as it is unless the model was calibrated otherwise."""

    contract: ImageContract

    def read_contract(self, card: Mapping[str, Any], label: str) -> ImageContract:
        """The contract for medical images."""
        return ImageContract.from_card(card, label)

    def prepare(self, images: Tensor) -> Tensor:
        """The part that the network sees, at its size; see `ImageClassifier.prepare`.

        Grey images are repeated for a network of colours, as MedMNIST's protocol has it; images of three equal bands
        are grey to a network of one.

        Args:
            images: `(N, 1, H, W)` or `(N, 3, H, W)` uint8, or floating point from 0 to 1.

        Raises:
            InputError: colours for a network of one band, or another number of bands.
        """
        found, wanted = (images.shape[1] if images.ndim == 4 else 0), len(self.contract.bands)
        if (found, wanted) == (1, 3):
            images = images.expand(-1, 3, -1, -1)
        elif (found, wanted) == (3, 1):
            if not bool((images == images[:, :1]).all()):
                raise InputError(f"images are in colour, the model takes {self.contract.bands[0]} ones; convert them")
            images = images[:, :1]
        return super().prepare(images)
