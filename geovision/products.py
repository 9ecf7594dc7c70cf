"""Which files hold a scene's bands: one file with several, a Landsat or Sentinel-2 product, or one file for each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geovision.rasters import open_raster
from geovision.sensors import DIGITAL_NUMBER, RADIANCE, REFLECTANCE, SENSORS, Sensor, plain_name
from shared_backbones.errors import InputError
from shared_backbones.files import printable

ENDINGS = (".tif", ".tiff", ".jp2")
_BAND_FILE = re.compile(r"(?:^|[_.-])(B(?:AND)?_?\d{1,2}A?)(?:_(\d+)m)?(?:_[A-Za-z]+)?\.(?:tiff?|jp2)$", re.I)
_LARGEST_TEXT = 4 * 2**20  # of a metadata file
_SPACECRAFT = {f"LANDSAT_{number}": f"landsat{number}" for number in (5, 7, 8, 9)}


@dataclass(frozen=True)
class Layer:
    """One band in one file.

    Attributes:
        path: path of the file.
        index: number of the band in the file, from 1.
        band: its name.
        scale: value = stored number * scale + offset.
        offset: number added after `scale`.
        stated: whether file or product state the scale.
        unit: unit of the values; empty where the sensor decides.
        nodata: stored number that the product, not the file, calls invalid.
    """

    path: Path
    index: int
    band: str
    scale: float = 1.0
    offset: float = 0.0
    stated: bool = False
    unit: str = ""
    nodata: float | None = None


@dataclass(frozen=True)
class Product:
    """What was found at a path.

    Attributes:
        layers: the bands.
        sensor: where metadata or file names tell it.
    """

    layers: list[Layer]
    sensor: Sensor | None


def find_layers(path: Path, sensor: Sensor | None, bands: Sequence[str] | None) -> Product:
    """The bands at a path.

    Args:
        path: a file or a folder.
        sensor: that a user named.
        bands: names that a user gave.

    Raises:
        InputError: there is nothing that can be read, or bands have no name.
    """
    if path.is_dir():
        if bands is not None:
            raise InputError(f"{printable(path)}: is a folder, whose files name their bands; leave --bands out")
        return _landsat(path) or _sentinel2(path) or _loose_files(path)
    if not path.is_file():
        raise InputError(f"{printable(path)}: no such file or folder; expected a GeoTIFF, or the folder of a product")
    return Product(_bands_of_file(path, sensor, bands), None)


def is_product(folder: Path) -> bool:
    """Whether a folder is a Landsat or Sentinel-2 product."""
    return any(folder.glob("*_MTL.txt")) or any(folder.glob("MTD_MSIL*.xml"))


def _bands_of_file(path: Path, sensor: Sensor | None, bands: Sequence[str] | None) -> list[Layer]:
    from rasterio.enums import ColorInterp

    with open_raster(path) as source:
        described, colors = source.descriptions, source.colorinterp
        scales, offsets, count = source.scales, source.offsets, source.count
    seen = [
        (number, name or (color.name if color in {ColorInterp.red, ColorInterp.green, ColorInterp.blue} else None))
        for number, (name, color) in enumerate(zip(described, colors, strict=True), 1)
        if color != ColorInterp.alpha
    ]
    if bands is not None:
        if len(bands) != len(seen):
            raise InputError(
                f"{printable(path)}: has {len(seen)} bands, but --bands names {len(bands)}; name each, in the file's "
                "order"
            )
        names = list(bands)
    elif all(name for _, name in seen):
        names = [str(name) for _, name in seen]
    elif sensor is not None and len(sensor.bands) == len(seen):
        names = sensor.names()
    else:
        raise InputError(
            f"{printable(path)}: its {count} bands have no names; give them in the file's order, for example "
            "--bands B2,B3,B4, with --sensor"
        )
    layers = []
    for (number, _), name in zip(seen, names, strict=True):
        scale, offset = float(scales[number - 1]), float(offsets[number - 1])
        layers.append(Layer(path, number, name, scale, offset, (scale, offset) != (1.0, 0.0)))
    return layers


def _landsat(folder: Path) -> Product | None:
    """A Landsat product, as its MTL file describes it: reflectance, and radiance of thermal bands."""
    metadata = sorted(folder.glob("*_MTL.txt"))
    if not metadata:
        return None
    if len(metadata) > 1:
        raise InputError(f"{printable(folder)}: holds {len(metadata)} MTL files; expected one product in a folder")
    fields: dict[str, str] = {}
    for key, value in re.findall(r"^\s*(\w+) = \"?([^\"\n]*)\"?\s*$", _text(metadata[0]), re.M):
        fields.setdefault(key, value)  # of a level-2 product, its own factors come before those of level 1
    sensor = SENSORS.get(_SPACECRAFT.get(fields.get("SPACECRAFT_ID", ""), ""))
    if sensor is None:
        raise InputError(
            f"{printable(metadata[0])}: SPACECRAFT_ID is {fields.get('SPACECRAFT_ID')!r}; expected one of "
            f"{', '.join(_SPACECRAFT)}"
        )
    surface = fields.get("PROCESSING_LEVEL", "").startswith("L2")
    layers = []
    for key, name in fields.items():
        match = re.fullmatch(r"FILE_NAME_BAND_(\d+)", key)
        if not match:
            continue
        path, band = folder / Path(name).name, sensor.find(f"B{match[1]}")
        if band is None:
            continue
        if not path.is_file():
            raise InputError(
                f"{printable(path)}: named in {metadata[0].name}, but not there; use a complete copy of the product"
            )
        layers.append(_landsat_layer(path, band.name, band.unit, match[1], fields, surface))
    return Product(layers, sensor)


def _landsat_layer(path: Path, band: str, unit: str, number: str, fields: dict[str, str], surface: bool) -> Layer:
    import math

    kind = "RADIANCE" if unit == RADIANCE else "REFLECTANCE"
    try:
        scale, offset = float(fields[f"{kind}_MULT_BAND_{number}"]), float(fields[f"{kind}_ADD_BAND_{number}"])
        if kind == "REFLECTANCE" and not surface:  # the product's factors leave the sun's height out
            sun = math.sin(math.radians(float(fields["SUN_ELEVATION"])))
            scale, offset = scale / sun, offset / sun
    except (KeyError, ValueError, ZeroDivisionError):
        return Layer(path, 1, band, unit=DIGITAL_NUMBER, nodata=0)
    return Layer(path, 1, band, scale, offset, True, unit, 0)


def _sentinel2(folder: Path) -> Product | None:
    """A Sentinel-2 product: one JPEG 2000 file a band, each at its own resolution."""
    metadata = sorted([*folder.glob("MTD_MSIL1C.xml"), *folder.glob("MTD_MSIL2A.xml")])
    files = [path for path in sorted(folder.rglob("*.jp2")) if "IMG_DATA" in path.parts]
    if not metadata or not files:
        return None
    level = "l1c" if "L1C" in metadata[0].name else "l2a"
    text = _text(metadata[0])
    quantum = _number(text, r"<(?:BOA_)?QUANTIFICATION_VALUE[^>]*>([\d.]+)<", 10000.0)
    # products since baseline 04.00 have an offset; one for all bands
    shift = _number(text, r"<(?:RADIO|BOA)_ADD_OFFSET[^>]*>(-?[\d.]+)<", 0.0)
    finest: dict[str, tuple[float, Path]] = {}
    for path in files:
        match = _BAND_FILE.search(path.name)
        if match:
            size, name = float(match[2] or 0), plain_name(match[1])
            finest[name] = min(finest.get(name, (size, path)), (size, path))
    sensor = SENSORS[f"sentinel2_{level}"]
    layers = [
        Layer(finest[name][1], 1, name, 1 / quantum, shift / quantum, True, REFLECTANCE, 0)
        for name in sensor.names()
        if name in finest
    ]
    return Product(layers, sensor)


def _loose_files(folder: Path) -> Product:
    """One file for each band, which its name tells: `scene_B02.tif`."""
    layers = []
    for path in sorted(folder.iterdir()):
        match = _BAND_FILE.search(path.name)
        if match and path.suffix.lower() in ENDINGS and path.is_file():
            bands = _bands_of_file(path, None, [match[1]])
            layers.append(bands[0])
    if not layers:
        raise InputError(
            f"{printable(folder)}: no scene in it; expected a Landsat or Sentinel-2 product, or one file for each band "
            "named like scene_B02.tif"
        )
    return Product(layers, None)


def _number(text: str, pattern: str, otherwise: float) -> float:
    match = re.search(pattern, text)
    return float(match[1]) if match else otherwise


def _text(path: Path) -> str:
    """A metadata file, up to 4 MiB of it; searched as text, so that nothing in it is ever expanded."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_TEXT).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot be read ({error.strerror}); use a complete copy of the product"
        ) from None
