"""From fluxes to values from 0 to 1: the stretches that a model's card names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

KINDS = {"linear": ("low", "high"), "asinh": ("low", "high", "softening"), "lupton": ("low", "stretch", "q")}
"""Parameters of each kind."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of images `(..., C, H, W)`.

    - `linear`: (x - low) / (high - low), clipped to 0 and 1.
    - `asinh`: asinh((x - low) / softening) / asinh((high - low) / softening), clipped likewise.
    - `lupton`: Lupton et al. 2004 (PASP 116, 133), equation 2, of three bands: with I their mean less `low`, all are
      multiplied by asinh(q I / stretch) / (q I), normalised as astropy's `make_lupton_rgb` does; colours keep their
      hue, and a pixel with a band above 1 is divided by its highest.

    Attributes:
        kind: `linear`, `asinh` or `lupton`.
        parameters: parameters of the kind, which `KINDS` lists.

    Raises:
        InputError: the kind is unknown, or a parameter is missing or senseless.
    """

    kind: str
    parameters: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"stretch {self.kind!r} is unknown; expected one of {', '.join(KINDS)}")
        if set(self.parameters) != set(KINDS[self.kind]):
            raise InputError(
                f"stretch {self.kind}: has {', '.join(sorted(self.parameters)) or 'no parameters'}, expected "
                f"{', '.join(KINDS[self.kind])}"
            )
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in self.parameters.values()):
            raise InputError(f"stretch {self.kind}: {dict(self.parameters)}; expected finite numbers")
        given = self.parameters
        if "high" in given and given["high"] <= given["low"]:
            raise InputError(
                f"stretch {self.kind}: high is {given['high']:g}, expected more than low, {given['low']:g}"
            )
        for name in ("softening", "stretch", "q"):
            if given.get(name, 1) <= 0:
                raise InputError(f"stretch {self.kind}: {name} is {given[name]:g}, expected more than 0")

    @classmethod
    def from_card(cls, given: Document, model: str) -> "Stretch":
        """Read what `card` gives.

        Raises:
            InputError: it is no stretch.
        """
        try:
            return cls(str(given["kind"]), {str(name): value for name, value in given["parameters"].items()})
        except (AttributeError, KeyError, TypeError):
            raise InputError(f"model {model}: its stretch is {given!r}, expected kind and parameters") from None

    def card(self) -> dict[str, str | dict[str, float]]:
        """What a model's card says of it."""
        return {"kind": self.kind, "parameters": dict(self.parameters)}

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Stretched values from 0 to 1, float32, of fluxes `(..., C, H, W)`; what is not finite counts as `low`.

        Raises:
            ValueError: `lupton` of another number of bands than three.
        """
        given = self.parameters
        fluxes = np.where(np.isfinite(values), values, given["low"]).astype(np.float32) - np.float32(given["low"])
        if self.kind == "linear":
            return np.clip(fluxes / np.float32(given["high"] - given["low"]), 0, 1)
        if self.kind == "asinh":
            highest = math.asinh((given["high"] - given["low"]) / given["softening"])
            return np.clip(np.arcsinh(fluxes / np.float32(given["softening"])) / np.float32(highest), 0, 1)
        if fluxes.shape[-3] != 3:
            raise ValueError(f"lupton stretch of {fluxes.shape[-3]} bands, expected three")
        q, width = given["q"], given["stretch"]
        intensity = fluxes.mean(-3, keepdims=True)
        slope = 0.1 / math.asinh(0.1 * q)
        factor = np.where(
            intensity > 0, np.arcsinh(np.maximum(intensity, 0) * (q / width)) * slope / np.maximum(intensity, 1e-30), 0
        )
        colors = np.maximum(fluxes * factor, 0)
        return (colors / np.maximum(colors.max(-3, keepdims=True), 1)).astype(np.float32)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Fluxes of stretched values; those that were clipped come back as `low` or `high`.

        Raises:
            ValueError: the stretch is `lupton`, which mixes bands and cannot be undone where they were clipped.
        """
        given = self.parameters
        if self.kind == "lupton":
            raise ValueError("a lupton stretch has no inverse")
        if self.kind == "linear":
            return values * np.float32(given["high"] - given["low"]) + np.float32(given["low"])
        highest = math.asinh((given["high"] - given["low"]) / given["softening"])
        return np.sinh(values * np.float32(highest)) * np.float32(given["softening"]) + np.float32(given["low"])
