"""What a model for astronomical images expects of its input, as its card says it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared_backbones.classification.contract import ImageContract
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

if TYPE_CHECKING:
    from astrovision.fluxes import FluxScale
    from astrovision.stretches import Stretch


@dataclass(frozen=True, kw_only=True)
class InputContract(ImageContract):
    """Input contract of a model for astronomical images; bands are `red`, `green` and `blue` of colour images.

    Attributes:
        pixel_scale_arcsec: at which cut-outs are taken from mosaics; None where it was not fixed.
        cutout: side in pixels, at that scale, of the cut-outs; None where it was not fixed.
        stretch: from fluxes to values from 0 to 1; None for colour images, which are stretched already. Where it makes
            colours, the model takes both.
        parity: sign of the determinant of the pixel scale matrix of cut-outs, -1 where east is left of north when the
            first row is at the bottom; None where the card, as those of earlier versions, takes them as stored.
        flux_scale: unit and zero points of the fluxes; empty where they are not known.
    """

    pixel_scale_arcsec: float | None
    cutout: int | None
    stretch: "Stretch | None"
    parity: int | None
    flux_scale: "FluxScale"

    @classmethod
    def from_card(cls, card: Document, model: str) -> "InputContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or asks for something unknown.
        """
        try:
            given = card["input"]
            scale, cutout, stretch = (given.get(name) for name in ("pixel_scale_arcsec", "cutout", "stretch"))
            parity = given.get("parity")
            contract = cls(
                **cls.parts(given),
                pixel_scale_arcsec=None if scale is None else float(scale),
                cutout=None if cutout is None else int(cutout),
                stretch=None if stretch is None else _stretch(stretch, model),
                parity=None if parity is None else int(parity),
                flux_scale=_flux_scale(given),
            )
            contract.check()
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no model for astronomical images") from None
        except (AttributeError, InputError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error}); choose another model") from None
        return contract

    @property
    def takes_colours(self) -> bool:
        """Whether the model takes colour images."""
        return self.stretch is None or bool(self.stretch.bands)

    @property
    def flux_bands(self) -> tuple[str, ...]:
        """Names of the bands whose fluxes it takes, in order."""
        return self.bands if self.stretch is None else self.stretch.bands or self.bands

    def check(self) -> None:
        """Find out whether the attributes can be meant."""
        super().check()
        if self.pixel_scale_arcsec is not None and not 0 < self.pixel_scale_arcsec < math.inf:
            raise ValueError(f"pixel_scale_arcsec is {self.pixel_scale_arcsec:g}, expected more than 0")
        if self.cutout is not None and not 1 <= self.cutout <= 8192:
            raise ValueError(f"cutout is {self.cutout}, expected 1 to 8192")
        if self.parity not in (None, -1, 1):
            raise ValueError(f"parity is {self.parity}, expected -1 or 1")
        if len(self.flux_scale.zero_points) not in (0, len(self.bands)):
            raise ValueError(f"{len(self.flux_scale.zero_points)} zero_points for {len(self.bands)} bands")


def _stretch(given: Document, model: str) -> "Stretch":
    from astrovision.stretches import Stretch

    return Stretch.from_card(given, model)


def _flux_scale(given: Document) -> "FluxScale":
    from astrovision.fluxes import FluxScale

    points = given.get("zero_points") or ()
    return FluxScale(str(given.get("unit") or ""), tuple(None if p is None else float(p) for p in points))
