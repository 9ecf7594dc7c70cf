"""Bands of the sky: their order in wavelength, and the three that a picture has."""

import re
from collections.abc import Sequence

import numpy as np

_NANOMETRES = {
    "fuv": 153, "nuv": 227, "u": 355, "b": 440, "blue": 450, "g": 480, "v": 550, "green": 550, "r": 620, "rc": 640,
    "red": 650, "i": 760, "ic": 790, "z": 900, "y": 1000, "j": 1250, "h": 1650, "k": 2190, "ks": 2150, "w1": 3400,
    "w2": 4600, "w3": 12000, "w4": 22000, "irac1": 3600, "irac2": 4500, "irac3": 5800, "irac4": 8000, "vis": 700,
}  # fmt: skip
_TENS = {  # numbers of filters of JWST and of Hubble's infrared camera, in tens of nanometres; others are in nanometres
    70, 90, 98, 105, 110, 115, 125, 139, 140, 150, 153, 160, 162, 164, 182, 187, 200, 210, 212, 250, 277, 300, 322, 323,
    335, 356, 360, 405, 410, 430, 444, 460, 466, 470, 480, 560, 770, 1000, 1130, 1280, 1500, 1800, 2100, 2550,
}  # fmt: skip


def wavelength(band: str) -> float | None:
    """Wavelength in nanometres of a band such as `g`, `sdss_r`, `Ks` or `F606W`; None where the name says none."""
    match = re.fullmatch(r"f(\d{3,4})(w|m|n|w2|lp|x)", band.lower())
    if match:
        return float(match[1]) * (10 if int(match[1]) in _TENS else 1)
    for word in (band.lower(), *re.split(r"[^a-z0-9]+", band.lower())[::-1]):
        if word.rstrip("'") in _NANOMETRES:
            return float(_NANOMETRES[word.rstrip("'")])
    return None


def colours(bands: Sequence[str]) -> tuple[int, int, int]:
    """Numbers of the bands that are shown as red, green and blue: the longest, a middle and the shortest one.

    Bands are taken to be in the order of wavelength where one is not known.
    """
    known = [wavelength(band) for band in bands]
    order = range(len(bands)) if None in known else np.argsort(np.array(known, float), kind="stable").tolist()
    return order[-1], order[len(order) // 2], order[0]


def as_rgb(image: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """A picture `(3, H, W)` of an image `(C, H, W)`, the longest wavelength red; grey where there is one band.

    Of two bands green is their mean.
    """
    red, green, blue = colours(bands)
    middle = image[[red, blue]].mean(0).astype(image.dtype) if len(bands) == 2 else image[green]
    return np.stack([image[red], middle, image[blue]])
