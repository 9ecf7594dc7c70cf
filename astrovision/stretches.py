"""From fluxes to values from 0 to 1: the stretches that a model's card names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

KINDS = {
    "linear": ("low", "high"),
    "asinh": ("low", "high", "softening"),
    "lupton": ("low", "stretch", "q"),
    "sdss": (),
}
"""Parameters of each kind."""

SDSS_BANDS = ("i", "r", "g")
"""Of which fluxes the stretch `sdss` makes red, green and blue."""
SDSS_UNIT = "nmgy"
"""What the stretch `sdss` takes fluxes in: nanomaggies."""
_SDSS_WEIGHTS, _SDSS_SKY, _SDSS_Q = (1.0, 1.5, 2.5), 0.02, 20.0


@dataclass(frozen=True)
class Stretch:
    """A stretch of images `(..., C, H, W)`.

    - `linear`: (x - low) / (high - low), clipped to 0 and 1.
    - `asinh`: asinh((x - low) / softening) / asinh((high - low) / softening), clipped likewise.
    - `lupton`: Lupton et al. 2004 (PASP 116, 133), equation 2, of three bands: with I their mean less `low`, all are
      multiplied by asinh(q I / stretch) / (q I), normalised as astropy's `make_lupton_rgb` does; colours keep their
      hue, and a pixel with a band above 1 is divided by its highest.
    - `sdss`: the colours of SDSS's pictures, of i, r and g in nanomaggies: Lupton's of 1, 1.5 and 2.5 times the
      fluxes plus a sky of 0.02, multiplied by asinh(20 I) / (sqrt(20) I). The weights are those with which the viewer
      of the Legacy Surveys shows SDSS; SkyServer's own pictures come close to them.

    Attributes:
        kind: `linear`, `asinh`, `lupton` or `sdss`.
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

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands whose fluxes it makes red, green and blue, in that order; none where the bands are the model's own."""
        return SDSS_BANDS if self.kind == "sdss" else ()

    def card(self) -> dict[str, str | dict[str, float]]:
        """What a model's card says of it."""
        return {"kind": self.kind, "parameters": dict(self.parameters)}

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Stretched values from 0 to 1, float32, of fluxes `(..., C, H, W)`; what is not finite counts as `low`.

        Raises:
            ValueError: `lupton` or `sdss` of another number of bands than three.
        """
        given = self.parameters
        low = given.get("low", 0.0)
        fluxes = np.where(np.isfinite(values), values, low).astype(np.float32) - np.float32(low)
        if self.kind == "linear":
            return np.clip(fluxes / np.float32(given["high"] - given["low"]), 0, 1)
        if self.kind == "asinh":
            highest = math.asinh((given["high"] - given["low"]) / given["softening"])
            return np.clip(np.arcsinh(fluxes / np.float32(given["softening"])) / np.float32(highest), 0, 1)
        if fluxes.shape[-3] != 3:
            raise ValueError(f"{self.kind} stretch of {fluxes.shape[-3]} bands, expected three")
        if self.kind == "sdss":
            fluxes = fluxes * np.array(_SDSS_WEIGHTS, np.float32)[:, None, None] + np.float32(_SDSS_SKY)
            return _colours(fluxes, _SDSS_Q, 1 / math.sqrt(_SDSS_Q))
        q = given["q"]
        return _colours(fluxes, q / given["stretch"], 0.1 / math.asinh(0.1 * q))

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Fluxes of stretched values; those that were clipped come back as `low` or `high`.

        Of `sdss`, fluxes that have these colours: where a band was above 1, others have them, too.

        Raises:
            ValueError: the stretch is `lupton`, which mixes bands and cannot be undone where they were clipped.
        """
        given = self.parameters
        if self.kind == "sdss":
            mean = values.mean(-3, keepdims=True)
            intensity = np.sinh(mean * math.sqrt(_SDSS_Q)) / _SDSS_Q
            weighted = values * (intensity / np.maximum(mean, 1e-30)) - np.float32(_SDSS_SKY)
            return (weighted / np.array(_SDSS_WEIGHTS, np.float32)[:, None, None]).astype(np.float32)
        if self.kind == "lupton":
            raise ValueError("a lupton stretch has no inverse")
        if self.kind == "linear":
            return values * np.float32(given["high"] - given["low"]) + np.float32(given["low"])
        highest = math.asinh((given["high"] - given["low"]) / given["softening"])
        return np.sinh(values * np.float32(highest)) * np.float32(given["softening"]) + np.float32(given["low"])


def _colours(fluxes: np.ndarray, gain: float, slope: float) -> np.ndarray:
    """Three bands times asinh(gain I) slope / I, where I is their mean; a pixel above 1 is divided by its highest."""
    intensity = fluxes.mean(-3, keepdims=True)
    factor = np.arcsinh(np.maximum(intensity, 0) * gain) * slope / np.maximum(intensity, 1e-30)
    colours = np.maximum(fluxes * factor, 0)
    return (colours / np.maximum(colours.max(-3, keepdims=True), 1)).astype(np.float32)
