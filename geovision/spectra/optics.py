"""Reflectances of water, snow and clouds, and what air does to them: published optics.

All spectra are on `GRID`, all lengths in metres where nothing else is said.
"""

import numpy as np

from geovision.spectra.responses import GRID

# Absorption of pure water in 1/m: Pope & Fry (1997) to 720 nm, Kou et al. (1993) beyond; rounded, log-linear between.
_WATER = {
    400: 0.0066, 420: 0.0045, 440: 0.0064, 460: 0.0098, 480: 0.0127, 500: 0.0204, 520: 0.0409, 540: 0.0474,
    560: 0.0619, 580: 0.0896, 600: 0.2224, 620: 0.2755, 640: 0.3108, 660: 0.410, 680: 0.465, 700: 0.624, 720: 1.23,
    740: 2.5, 760: 2.6, 800: 2.1, 820: 2.5, 840: 3.7, 860: 4.6, 880: 5.6, 900: 6.8, 920: 12.0, 940: 28.0, 970: 45.0,
    1000: 38.0, 1070: 16.0, 1130: 60.0, 1160: 105.0, 1200: 104.0, 1260: 95.0, 1300: 130.0, 1360: 400.0, 1400: 1300.0,
    1440: 2900.0, 1500: 1900.0, 1560: 930.0, 1620: 640.0, 1690: 560.0, 1750: 760.0, 1800: 820.0, 1870: 2500.0,
    1940: 12000.0, 2000: 6800.0, 2080: 3000.0, 2150: 2000.0, 2210: 1700.0, 2280: 2100.0, 2350: 3200.0, 2450: 7000.0,
}  # fmt: skip
# Imaginary part of the refractive index of ice: Warren & Brandt (2008); rounded, log-linear between.
_ICE = {
    400: 2.4e-11, 450: 9.2e-11, 500: 5.9e-10, 550: 2.3e-9, 600: 5.7e-9, 650: 1.2e-8, 700: 2.5e-8, 750: 5.7e-8,
    800: 1.3e-7, 850: 2.2e-7, 900: 4.2e-7, 950: 6.0e-7, 1000: 1.6e-6, 1030: 2.3e-6, 1100: 1.7e-6, 1150: 2.7e-6,
    1200: 8.1e-6, 1250: 1.1e-5, 1300: 1.3e-5, 1350: 1.5e-5, 1400: 2.0e-5, 1450: 1.4e-4, 1500: 5.6e-4, 1550: 4.1e-4,
    1600: 2.8e-4, 1650: 2.2e-4, 1700: 1.7e-4, 1750: 1.3e-4, 1800: 1.1e-4, 1850: 1.0e-4, 1900: 3.5e-4, 1950: 1.1e-3,
    2000: 1.6e-3, 2050: 1.2e-3, 2100: 7.5e-4, 2150: 4.9e-4, 2200: 3.2e-4, 2250: 2.3e-4, 2300: 2.8e-4, 2350: 4.0e-4,
    2450: 7.0e-4,
}  # fmt: skip
_OZONE = 0.04 * np.exp(-(((GRID - 602) / 55) ** 2))  # optical depth of 300 Dobson units: the Chappuis band


def _table(known: dict[int, float]) -> np.ndarray:
    return np.exp(np.interp(GRID, list(known), np.log(list(known.values()))))


WATER = _table(_WATER)
"""Absorption of pure water in 1/m."""
ICE = 4 * np.pi * _table(_ICE) / (GRID * 1e-9)
"""Absorption of ice in 1/m."""


def water(chlorophyll: float, dissolved: float, sediment: float, glint: float) -> np.ndarray:
    """Reflectance of deep water.

    Gordon et al. (1988): what comes back below the surface is `0.0949 u + 0.0794 u^2` of `u = b / (a + b)`, with
    absorption `a` and backscattering `b` of water and its constituents; Lee et al. (2002) for the way through the
    surface. Phytoplankton absorbs as in Bricaud et al. (1995), here two peaks at 440 and 675 nm.

    Args:
        chlorophyll: mg/m3, 0.03 (ocean) to 100 (bloom).
        dissolved: Absorption of dissolved organic matter at 440 nm in 1/m, 0.01 to 5.
        sediment: g/m3, 0 to 200.
        glint: Sky and sun reflected by the surface, 0 to 0.05.

    Returns:
        `(len(GRID),)`.
    """
    peak = 0.0403 * chlorophyll**0.668
    algae = peak * (np.exp(-(((GRID - 440) / 55) ** 2)) + 0.45 * np.exp(-(((GRID - 675) / 14) ** 2)))
    matter = dissolved * np.exp(-0.015 * (GRID - 440)) + 0.03 * sediment * np.exp(-0.011 * (GRID - 440))
    absorbed = WATER + algae + matter
    scattered = (
        0.00111 * (GRID / 500) ** -4.32
        + 0.0064 * chlorophyll**0.62 * 550 / GRID
        + 0.015 * sediment * (550 / GRID) ** 0.6
    )
    u = scattered / (absorbed + scattered)
    below = 0.0949 * u + 0.0794 * u**2
    return np.pi * 0.52 * below / (1 - 1.7 * below) + glint


def snow(grain: float, dirt: float) -> np.ndarray:
    """Reflectance of deep snow.

    Kokhanovsky et al. (2018): `exp(-sqrt(16 d a))` with the diameter `d` of the grains and the absorption `a` of ice;
    dirt adds absorption that falls with the wavelength.

    Args:
        grain: Diameter in m, 5e-5 (fresh) to 2e-3 (melting).
        dirt: Absorption of dirt at 550 nm in 1/m, 0 to 20.

    Returns:
        `(len(GRID),)`.
    """
    return np.exp(-np.sqrt(16 * grain * (ICE + dirt * 550 / GRID)))


def cloud(depth: float, particle: float, *, ice: bool) -> np.ndarray:
    """Reflectance of a cloud.

    Two-stream, conservative scattering (asymmetry 0.85): `0.15 t / (2 + 0.15 t)` of the optical depth `t`; absorption
    by the particles as in `snow`, as far as the light that comes back has seen the cloud.

    Args:
        depth: Optical depth, 0 to 100.
        particle: Diameter of droplets (1e-5 to 3e-5) or of crystals (3e-5 to 1e-4) in m.
        ice: Whether they are of ice.

    Returns:
        `(len(GRID),)`.
    """
    whole = 0.15 * depth / (2 + 0.15 * depth)
    absorption = np.exp(-np.sqrt(16 * particle * (ICE if ice else WATER)) * np.sqrt(whole))
    return whole * absorption


def sky(haze: float) -> np.ndarray:
    """Part of the sunlight that reaches a shadow: the blue sky's, and hazier skies' whiter one.

    Args:
        haze: Optical depth of aerosol at 550 nm, 0.02 to 1.

    Returns:
        `(len(GRID),)`.
    """
    scattered = 0.5 * rayleigh() + 0.35 * haze * (550 / GRID) ** 1.2
    return 1 - np.exp(-scattered)


def rayleigh() -> np.ndarray:
    """Optical depth of clear air (Hansen & Travis, 1974), `(len(GRID),)`."""
    um = GRID / 1000
    return 0.008569 * um**-4 * (1 + 0.0113 * um**-2 + 0.00013 * um**-4)


def air(haze: float, angstrom: float, path: float) -> tuple[np.ndarray, np.ndarray]:
    """What air adds to a reflectance at the sensor, and what it lets through.

    Single scattering of clear air and haze, gaseous absorption by ozone: Vermote et al. (1997), in its simplest form,
    `added + passed * surface`.

    Args:
        haze: Optical depth of aerosol at 550 nm, 0.02 to 1.
        angstrom: Its fall with the wavelength, 0.5 to 2.
        path: How much longer the way through the air is than straight down and up again, 1 to 3.

    Returns:
        Added and passed, `(len(GRID),)` each.
    """
    molecules, aerosol = rayleigh(), haze * (GRID / 550) ** -angstrom
    added = path * (0.27 * molecules + 0.06 * aerosol)
    passed = np.exp(-path * (0.5 * molecules + 0.12 * aerosol + _OZONE))
    return added * np.exp(-path * _OZONE), passed
