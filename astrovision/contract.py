"""What a model for astronomical images expects of its input, as its card says it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared_backbones.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from astrovision.stretches import Stretch


@dataclass(frozen=True)
class InputContract:
    """Input contract of a model for astronomical images.

    Attributes:
        bands: names, in the order of the network's channels; `red`, `green`, `blue` of colour images.
        size: side in pixels of the images that the network takes.
        crop: share of a cut-out's side that the network sees, around its centre; the rest is cut off.
        pixel_scale_arcsec: at which cut-outs are taken from mosaics; None where it was not fixed.
        cutout: side in pixels, at that scale, of the cut-outs; None where it was not fixed.
        stretch: from fluxes to values from 0 to 1; None for colour images, which are stretched already.
        mean: of each band, in values from 0 to 1.
        std: likewise.
    """

    bands: tuple[str, ...]
    size: int
    crop: float
    pixel_scale_arcsec: float | None
    cutout: int | None
    stretch: "Stretch | None"
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_card(cls, card: Mapping[str, Any], model: str) -> "InputContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or asks for something unknown.
        """
        try:
            given = card["input"]
            scale, cutout, stretch = (given.get(name) for name in ("pixel_scale_arcsec", "cutout", "stretch"))
            contract = cls(
                bands=tuple(str(name) for name in given["bands"]),
                size=int(given["size"]),
                crop=float(given["crop"]),
                pixel_scale_arcsec=None if scale is None else float(scale),
                cutout=None if cutout is None else int(cutout),
                stretch=None if stretch is None else _stretch(stretch, model),
                mean=tuple(float(value) for value in given["mean"]),
                std=tuple(float(value) for value in given["std"]),
            )
            contract._check()
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no model for astronomical images") from None
        except (AttributeError, InputError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error}); choose another model") from None
        return contract

    def _check(self) -> None:
        if not self.bands or len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands are {list(self.bands)}, expected one or more different ones")
        if not 1 <= self.size <= 8192:
            raise ValueError(f"size is {self.size}, expected 1 to 8192")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop:g}, expected more than 0 and at most 1")
        if self.pixel_scale_arcsec is not None and not 0 < self.pixel_scale_arcsec < math.inf:
            raise ValueError(f"pixel_scale_arcsec is {self.pixel_scale_arcsec:g}, expected more than 0")
        if self.cutout is not None and not 1 <= self.cutout <= 8192:
            raise ValueError(f"cutout is {self.cutout}, expected 1 to 8192")
        if not len(self.mean) == len(self.std) == len(self.bands):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations for {len(self.bands)} bands")
        if not all(map(math.isfinite, self.mean)) or not all(0 < std < math.inf for std in self.std):
            raise ValueError("means must be finite and deviations more than 0")

    def normalise(self, images: "Tensor") -> "Tensor":
        """The network's input, of `(..., C, H, W)`: floating-point values from 0 to 1, or uint8."""
        if not images.is_floating_point():
            images = images.float() / 255
        mean, std = (images.new_tensor(part)[:, None, None] for part in (self.mean, self.std))
        return (images - mean) / std


def _stretch(given: Mapping[str, Any], model: str) -> "Stretch":
    from astrovision.stretches import Stretch

    return Stretch.from_card(given, model)
