"""Scales of fluxes: from the unit and zero points of a mosaic to those that a model was trained on."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astrovision.astropy_types import Unit
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

_SPELT = {  # by words in small letters; of MJY and the like the letters decide, so they are not here
    "jy": "Jy", "njy": "nJy", "ujy": "uJy", "kjy": "kJy", "count": "count", "counts": "count", "cts": "count",
    "ct": "count", "adu": "adu", "electron": "electron", "electrons": "electron", "photons": "photon", "beam": "beam",
    "nmgy": "nmgy", "nanomaggy": "nmgy", "nanomaggies": "nmgy", "maggies": "mgy", "sr": "sr", "s": "s", "sec": "s",
    "second": "s", "erg": "erg", "ergs": "erg", "cm": "cm", "hz": "Hz", "arcsec": "arcsec", "pix": "pix",
    "pixel": "pix", "pixels": "pix",
}  # fmt: skip


@dataclass(frozen=True)
class FluxScale:
    """What fluxes mean.

    Attributes:
        unit: as BUNIT has it; "" where it is not known.
        zero_points: magnitude of a flux of one (MAGZERO, ZP) in each band; None where one is not known.
    """

    unit: str = ""
    zero_points: tuple[float | None, ...] = ()

    def factors(self, wanted: "FluxScale", label: str) -> tuple[np.ndarray, list[str]]:
        """What fluxes of this scale, band by band, are multiplied by to be those of another; and what is uncertain.

        Units are converted by astropy. Zero points count where both scales have them and the unit is no flux density,
        whose zero point follows from it.

        Args:
            wanted: the other scale, with as many bands.
            label: name of the input, for messages.

        Raises:
            InputError: one unit cannot be converted into the other.
        """
        bands, notices = len(self.zero_points), []
        factors = np.ones(bands)
        if not wanted.unit and all(point is None for point in wanted.zero_points):
            return factors, []
        if wanted.unit and not self.unit:
            notices.append(f"the input does not say its unit (BUNIT); it was taken to be the model's, {wanted.unit}")
        ours, theirs = _parsed(self.unit), _parsed(wanted.unit)
        if self.unit and wanted.unit and self.unit != wanted.unit:
            factors *= _conversion(self.unit, wanted.unit, label)
        if _is_density(theirs) or _is_density(ours):
            return factors, notices
        pairs = list(zip(self.zero_points, wanted.zero_points, strict=True)) if wanted.zero_points else []
        if any(given is None and other is not None for given, other in pairs):
            notices.append("the input does not say its zero points (MAGZERO); they were taken to be those of the model")
        for number, (given, other) in enumerate(pairs):
            if given is not None and other is not None:
                factors[number] *= 10 ** (0.4 * (other - given))
        return factors, notices


def apply(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Fluxes `(N, C, H, W)` times a factor for each band, float32."""
    if (factors == 1).all():
        return values
    return (values * factors.astype(np.float32)[:, None, None]).astype(np.float32)


def scale_of(unit: str, zero_points: Sequence[float | None], bands: Sequence[int]) -> FluxScale:
    """The scale of a mosaic's bands, by their numbers in its order."""
    return FluxScale(unit, tuple(zero_points[band] for band in bands))


def known_unit(text: str) -> str:
    """A unit as it is written, or "" for a text that is none: what else a header says stays out of what is written."""
    return text if text and _is_known(_parsed(text)) else ""


def same_unit(first: str, second: str) -> bool:
    """Whether two texts mean one unit."""
    return first == second or bool(_parsed(first) == _parsed(second))


def _conversion(given: str, wanted: str, label: str) -> float:
    """What fluxes of one unit are multiplied by to be those of another; units in no standard have to be the same.

    Maggies are those of AB magnitudes, of 3631 Jy.
    """
    units, ab = (_parsed(given), _parsed(wanted)), require("astropy.units", "astro")
    try:
        return float(units[0].to(units[1], equivalencies=ab.zero_point_flux(3631 * ab.Jy)))
    except Exception:  # of a unit in no standard, or of another kind
        if not any(_is_known(unit) for unit in units) and given.lower() == wanted.lower():
            return 1.0
        raise InputError(
            f"{label}: has BUNIT {printable(given)}, the model takes {printable(wanted)}, into which it cannot be "
            "converted; expected fluxes of that kind: convert the images, or choose another model"
        ) from None


def _parsed(text: str) -> Unit:
    """A unit as astropy knows it, also where letters or a plural differ from the standard, as in `COUNTS/S`."""
    units, photometric = require("astropy.units", "astro"), require("astropy.units.photometric", "astro")
    with units.add_enabled_units(photometric), warnings.catch_warnings():  # with nanomaggies
        warnings.simplefilter("ignore")  # of more than one slash
        unit = units.Unit(text, parse_strict="silent")
        if not _is_known(unit):
            spelt = re.sub(r"[A-Za-z]+", lambda match: _SPELT.get(match[0].lower(), match[0]), text)
            unit = units.Unit(spelt, parse_strict="silent")
        return unit


def _is_known(unit: Unit) -> bool:
    return not isinstance(unit, require("astropy.units", "astro").UnrecognizedUnit)


def _is_density(unit: Unit) -> bool:
    """Whether a unit is one of flux densities, also of an area of the sky, such as nJy or MJy/sr."""
    units = require("astropy.units", "astro")
    try:
        return any(unit.is_equivalent(kind) for kind in (units.Jy, units.Jy / units.sr))
    except (AttributeError, TypeError):
        return False
