"""Which wavelengths the bands of Sentinel-2 and Landsat see."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from scipy.special import expit

from shared_backbones.errors import InputError

GRID = np.arange(400.0, 2451.0, 10.0, dtype=np.float32)
"""Wavelengths of all spectra in nm."""
_EDGE_NM = 4.0  # how soft the edges of a band are
_Limits: TypeAlias = dict[str, tuple[float, float]]
_TM: _Limits = {
    "B1": (450, 520),
    "B2": (520, 600),
    "B3": (630, 690),
    "B4": (760, 900),
    "B5": (1550, 1750),
    "B7": (2080, 2350),
}
_ETM: _Limits = {
    "B1": (450, 515),
    "B2": (525, 605),
    "B3": (630, 690),
    "B4": (775, 900),
    "B5": (1550, 1750),
    "B7": (2090, 2350),
}
_OLI: _Limits = {
    "B1": (435, 451), "B2": (452, 512), "B3": (533, 590), "B4": (636, 673), "B5": (851, 879), "B6": (1567, 1651),
    "B7": (2107, 2294),
}  # fmt: skip
# centre and width at half of the maximum
_MSI_WIDTHS = {
    "B1": (442.7, 20), "B2": (492.7, 65), "B3": (559.8, 35), "B4": (664.6, 30), "B5": (704.1, 14), "B6": (740.5, 14),
    "B7": (782.8, 19), "B8": (832.8, 105), "B8A": (864.7, 21), "B11": (1613.7, 90), "B12": (2202.4, 174),
}  # fmt: skip
_MSI: _Limits = {name: (centre - width / 2, centre + width / 2) for name, (centre, width) in _MSI_WIDTHS.items()}
HALF_POWER: dict[str, _Limits] = {
    "sentinel2_l1c": _MSI,
    "sentinel2_l2a": _MSI,
    "landsat4": _TM,
    "landsat5": _TM,
    "landsat7": _ETM,
    "landsat8": _OLI,
    "landsat9": _OLI,
}
"""Wavelengths in nm between which a band sees at least half of its best, by sensor.

Bands for water vapour and cirrus, of panchromatic and of thermal light are left out. Sources: ESA, Sentinel-2 MSI
spectral responses (2A); USGS, band designations of the Landsat satellites."""


def band_responses(sensor: str, bands: Sequence[str]) -> np.ndarray:
    """What the bands of a sensor see of each wavelength.

    The shape between the half-power points is flat, with edges of a few nm: measured responses differ from that by less
    than the 10 nm of the grid resolve.

    Args:
        sensor: Name of the sensor.
        bands: Names of its bands.

    Returns:
        `(C, len(GRID))` float32; each row adds up to 1.

    Raises:
        InputError: the sensor or band has no response here.
    """
    known = HALF_POWER.get(sensor, {})
    lacking = [band for band in bands if band not in known]
    if lacking:
        raise InputError(
            f"sensor {sensor}: {', '.join(lacking)}: no response is known; expected {', '.join(known) or 'none of it'}"
        )
    limits = np.array([known[band] for band in bands], np.float32)
    weights = expit((GRID - limits[:, :1]) / _EDGE_NM) * expit((limits[:, 1:] - GRID) / _EDGE_NM)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
