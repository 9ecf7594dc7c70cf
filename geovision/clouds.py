"""Where products say that clouds and their shadows are."""

import re

import numpy as np

_CODES = {"SCL": (3, 8, 9, 10)}  # shadow, cloud of medium and high probability, thin cirrus
_BITS = {
    "QA_PIXEL": (1, 2, 3, 4),  # Landsat, collection 2: dilated cloud, cirrus, cloud, shadow
    "BQA": (4,),  # Landsat, collection 1: cloud
    "PIXEL_QA": (3, 5),  # its surface reflectance: shadow, cloud
    "FMASK": (1, 2, 3),  # HLS: cloud, next to cloud or shadow, shadow
}
_CONFIDENT = {"BQA": (7, 11), "PIXEL_QA": (8,)}  # first of two bits, both set: shadow and cirrus with high confidence


def quality_name(text: str) -> str | None:
    """The raster of clouds that a band's name means: `SCL`, `QA_PIXEL`, `BQA`, `PIXEL_QA` or `FMASK`."""
    words = re.sub(r"[^A-Z]+", "_", text.partition(",")[0].strip().upper()).strip("_")
    return words if words in _CODES or words in _BITS else None


def cloudy(name: str, numbers: np.ndarray) -> np.ndarray:
    """Where clouds, what is next to them, and their shadows are.

    Args:
        name: name of the raster, as `quality_name` gives it.
        numbers: its classes or flags.
    """
    if name in _CODES:
        return np.isin(numbers, _CODES[name])
    flags = numbers.astype(np.int64)
    clouds = np.zeros(flags.shape, bool)
    for bit in _BITS[name]:
        clouds |= (flags >> bit) & 1 == 1
    for bit in _CONFIDENT.get(name, ()):
        clouds |= (flags >> bit) & 3 == 3
    return clouds
