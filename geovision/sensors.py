"""Sensors and their bands: names, wavelengths, ground sampling distances, units and published statistics."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared_backbones.errors import InputError

REFLECTANCE, RADIANCE, KELVIN, DIGITAL_NUMBER = "reflectance", "radiance", "kelvin", "digital_number"
"""Units: reflectance has none (1 is a white surface), radiance is in W / (m2 sr um), digital numbers are as stored."""
CLASS = "class"
"""Unit of rasters of classes and flags, which are never between two numbers."""
RANGES = {
    REFLECTANCE: (-0.3, 2.5),
    RADIANCE: (-10.0, 1000.0),
    KELVIN: (150.0, 400.0),
    DIGITAL_NUMBER: (0.0, 65535.0),
}
"""Values that a pixel can have, in its unit; specular clouds exceed a reflectance of 1."""


_BESIDE = re.compile(r"AOT|WVP|SCL|TCI[RGB]|QA\d\d|MSK\w+|CLD|SNW")  # what Sentinel-2 exports have beside bands


@dataclass(frozen=True)
class Band:
    """One band of a sensor.

    Attributes:
        name: as the sensor's users write it, without leading zeros: `B2`, `B8A`, `red`.
        color: common name, such as `blue` or `nir`.
        wavelength_nm: centre.
        gsd_m: ground sampling distance; None where it differs from product to product.
        unit: unit of the values, after scale and offset.
        mean: published mean, in the sensor's stored numbers; None where none is known to us.
        std: published standard deviation, likewise.
    """

    name: str
    color: str
    wavelength_nm: float
    gsd_m: float | None
    unit: str = REFLECTANCE
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class Sensor:
    """A sensor or product.

    Attributes:
        name: `sentinel2_l1c`.
        bands: in the order in which its products list them.
        scale: value = stored integer * scale + offset, where files say nothing; None where only the file can say.
        offset: number added after `scale`.
    """

    name: str
    bands: tuple[Band, ...]
    scale: float | None = None
    offset: float = 0.0

    def names(self) -> list[str]:
        """Names of the bands, in order."""
        return [band.name for band in self.bands]

    def find(self, text: str) -> Band | None:
        """The band that a text names: `B02`, `b2`, `Band 2`, `SR_B2` or its colour."""
        wanted = plain_name(text)
        colors = [band for band in self.bands if band.color == text.strip().lower()]
        if len(colors) == 1:
            return colors[0]
        return next((band for band in self.bands if plain_name(band.name) == wanted), None)

    def band(self, text: str) -> Band:
        """The band that a text names.

        Raises:
            InputError: the sensor has no such band.
        """
        known = self.find(text)
        if known is None:
            raise InputError(f"band {text!r}: sensor {self.name} has {', '.join(self.names())}; give some of them")
        return known


def plain_name(text: str) -> str:
    """A band's name without what products add: `SR_B02`, `Band 2` and `B2, central wavelength 490 nm` are `B2`."""
    text = re.sub(r"^HLS\.[SL]30\.(.*\.)?", "", text.strip().upper())
    text = re.sub(r"[^A-Z0-9]+", "", text.partition(",")[0])
    match = re.fullmatch(r"(?:SR|ST|BT|TOA|OLI|TIRS)?(?:BAND|B)0*(\d+[A-Z]?)(VCID\d)?", text)
    return f"B{match[1]}{match[2] or ''}" if match else text


def find_sensor(name: str) -> Sensor:
    """The sensor of a name.

    Raises:
        InputError: none has it.
    """
    if name not in SENSORS:
        raise InputError(f"sensor {name!r} is unknown; expected one of: {', '.join(SENSORS)}")
    return SENSORS[name]


def recognise(names: Sequence[str]) -> Sensor | None:
    """The one sensor that names of bands can only mean; None where there is none, or several with other bands.

    `B2` to `B7` mean one thing to Landsat 7 and another to Sentinel-2: without a name that only one of them has, such
    as `B8A`, nothing is guessed.
    """
    plain = {name for name in map(plain_name, names) if not _BESIDE.fullmatch(name)}
    if "B8A" in plain:
        known = {plain_name(name) for name in SENSORS["sentinel2_l1c"].names()}
        if plain <= known:
            return SENSORS["sentinel2_l1c" if "B10" in plain else "sentinel2_l2a"]
    for sensor in (SENSORS["rgb"], SENSORS["rgbn"], SENSORS["planetscope"]):
        if plain == {plain_name(name) for name in sensor.names()}:
            return sensor
    return None


def known_orders(count: int) -> list[str]:
    """Orders with so many bands, as `--bands` takes them."""
    return [f"order:{name}" for name, bands in ORDERS.items() if len(bands) == count]


def in_order(names: Sequence[str]) -> list[str]:
    """Names of bands as a user gives them, with an order that has a name in place of its bands.

    Raises:
        InputError: no order has that name.
    """
    if len(names) != 1 or not names[0].startswith("order:"):
        return list(names)
    order = ORDERS.get(names[0].removeprefix("order:"))
    if order is None:
        raise InputError(f"--bands {names[0]}: is unknown; expected one of: order:{', order:'.join(ORDERS)}")
    return list(order)


# Means and deviations of fMoW-Sentinel's training images (SatMAE, SatMAE++), in stored numbers: reflectance x 10000.
_SENTINEL2 = (
    Band("B1", "coastal", 442.7, 60, REFLECTANCE, 1370.19151926, 633.15169573),
    Band("B2", "blue", 492.4, 10, REFLECTANCE, 1184.3824625, 650.2842772),
    Band("B3", "green", 559.8, 10, REFLECTANCE, 1120.77120066, 712.12507725),
    Band("B4", "red", 664.6, 10, REFLECTANCE, 1136.26026392, 965.23119807),
    Band("B5", "rededge1", 704.1, 20, REFLECTANCE, 1263.73947144, 948.9819932),
    Band("B6", "rededge2", 740.5, 20, REFLECTANCE, 1645.40315151, 1108.06650639),
    Band("B7", "rededge3", 782.8, 20, REFLECTANCE, 1846.87040806, 1258.36394548),
    Band("B8", "nir", 832.8, 10, REFLECTANCE, 1762.59530783, 1233.1492281),
    Band("B8A", "nir08", 864.7, 20, REFLECTANCE, 1972.62420416, 1364.38688993),
    Band("B9", "nir09", 945.1, 60, REFLECTANCE, 582.72633433, 472.37967789),
    Band("B10", "cirrus", 1373.5, 60, REFLECTANCE, 14.77112979, 14.3114637),
    Band("B11", "swir16", 1613.7, 20, REFLECTANCE, 1732.16362238, 1310.36996126),
    Band("B12", "swir22", 2202.4, 20, REFLECTANCE, 1247.91870117, 1087.6020813),
)
_TM = (
    Band("B1", "blue", 485, 30),
    Band("B2", "green", 560, 30),
    Band("B3", "red", 660, 30),
    Band("B4", "nir", 830, 30),
    Band("B5", "swir16", 1650, 30),
)
_OLI = (
    Band("B1", "coastal", 443, 30),
    Band("B2", "blue", 482, 30),
    Band("B3", "green", 561, 30),
    Band("B4", "red", 655, 30),
    Band("B5", "nir08", 865, 30),
    Band("B6", "swir16", 1609, 30),
    Band("B7", "swir22", 2201, 30),
)
_THERMAL = (Band("B10", "lwir11", 10895, 100, RADIANCE), Band("B11", "lwir12", 12005, 100, RADIANCE))
_OLI_TIRS = (*_OLI, Band("B8", "pan", 590, 15), Band("B9", "cirrus", 1373, 30), *_THERMAL)
_COMMON = tuple(
    Band(color, color, wavelength, None)
    for color, wavelength in {
        "coastal": 443, "blue": 485, "green": 560, "red": 660, "rededge1": 704, "rededge2": 740, "rededge3": 783,
        "nir": 840, "nir08": 865, "swir16": 1610, "swir22": 2200,
    }.items()
)  # fmt: skip
_RGB = (
    # fMoW-RGB's statistics (SatMAE++), of numbers from 0 to 255
    Band("red", "red", 650, None, DIGITAL_NUMBER, 0.4182007 * 255, 0.2877428 * 255),
    Band("green", "green", 550, None, DIGITAL_NUMBER, 0.4214799 * 255, 0.2754177 * 255),
    Band("blue", "blue", 475, None, DIGITAL_NUMBER, 0.3991276 * 255, 0.2764018 * 255),
)

SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor("sentinel2_l1c", _SENTINEL2, 1e-4),
        # surface reflectance has other statistics than what arrives at the sensor
        Sensor(
            "sentinel2_l2a",
            tuple(Band(b.name, b.color, b.wavelength_nm, b.gsd_m) for b in _SENTINEL2 if b.name != "B10"),
            1e-4,
        ),
        Sensor("landsat4", (*_TM, Band("B6", "lwir", 11450, 120, RADIANCE), Band("B7", "swir22", 2215, 30))),
        Sensor("landsat5", (*_TM, Band("B6", "lwir", 11450, 120, RADIANCE), Band("B7", "swir22", 2215, 30))),
        Sensor(
            "landsat7",
            (
                *_TM,
                Band("B6", "lwir", 11450, 60, RADIANCE),
                Band("B6_VCID_1", "lwir_low_gain", 11450, 60, RADIANCE),
                Band("B6_VCID_2", "lwir_high_gain", 11450, 60, RADIANCE),
                Band("B7", "swir22", 2205, 30),
                Band("B8", "pan", 710, 15),
            ),
        ),
        Sensor("landsat8", _OLI_TIRS),
        Sensor("landsat9", _OLI_TIRS),
        Sensor(
            "hls_l30",
            (
                *_OLI,
                Band("B9", "cirrus", 1373, 30),
                *(Band(b.name, b.color, b.wavelength_nm, 30, KELVIN) for b in _THERMAL),
            ),
            1e-4,
        ),
        Sensor("hls_s30", tuple(Band(b.name, b.color, b.wavelength_nm, 30) for b in _SENTINEL2), 1e-4),
        # of whatever satellite, once its numbers are reflectances: bands by their common names
        Sensor("reflectance", _COMMON),
        Sensor("rgb", _RGB, 1.0),
        Sensor(
            "rgbn",
            (
                *(Band(b.name, b.color, b.wavelength_nm, None, DIGITAL_NUMBER) for b in _RGB),
                Band("nir", "nir", 840, None, DIGITAL_NUMBER),
            ),
            1.0,
        ),
        # orthoscenes of eight bands; of four, they are `rgbn`
        Sensor(
            "planetscope",
            (
                Band("coastal_blue", "coastal", 443, 3),
                Band("blue", "blue", 490, 3),
                Band("green_i", "green05", 531, 3),
                Band("green", "green", 565, 3),
                Band("yellow", "yellow", 610, 3),
                Band("red", "red", 665, 3),
                Band("rededge", "rededge1", 705, 3),
                Band("nir", "nir", 865, 3),
            ),
        ),
    )
}
_S2 = [band.name for band in _SENTINEL2]
ORDERS: dict[str, tuple[str, ...]] = {
    "sentinel2_l1c": tuple(_S2),
    "sentinel2_l2a": tuple(name for name in _S2 if name != "B10"),
    "eurosat": (*(name for name in _S2 if name != "B8A"), "B8A"),
    "fmow_sentinel": tuple(_S2),
    "ssl4eo": tuple(_S2),
    "bigearthnet": tuple(name for name in _S2 if name != "B10"),
    "sentinel2_10m": ("B2", "B3", "B4", "B8"),
    "landsat5": tuple(SENSORS["landsat5"].names()),
    "landsat7": ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8"),
    "landsat8": tuple(SENSORS["landsat8"].names()),
    "landsat_tm_reflective": ("B1", "B2", "B3", "B4", "B5", "B7"),
    "landsat_oli_reflective": tuple(band.name for band in _OLI),
    "hls_l30_prithvi": ("B2", "B3", "B4", "B5", "B6", "B7"),
    "hls_s30_prithvi": ("B2", "B3", "B4", "B8A", "B11", "B12"),
    "rgb": ("red", "green", "blue"),
    "bgr": ("blue", "green", "red"),
    "rgbn": ("red", "green", "blue", "nir"),
    "bgrn": ("blue", "green", "red", "nir"),
    "planetscope": tuple(SENSORS["planetscope"].names()),
}
"""Orders in which known data sets and products lay bands that their files do not name, by name."""
