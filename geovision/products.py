"""Which files hold a scene's bands: one file with several, a product, or one file for each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from geovision.clouds import quality_name
from geovision.files import Tree, exists, files_in, is_archive, is_folder, located, tree_of
from geovision.rasters import check_real, open_raster
from geovision.sensors import KELVIN, SENSORS, Sensor, in_order, known_orders, plain_name
from shared_backbones.errors import InputError
from shared_backbones.files import printable

ENDINGS = (".tif", ".tiff", ".jp2", ".vrt")
BAND_FILE = re.compile(
    r"(?:^|[_.-])(?:SR_|ST_)?(B(?:AND)?_?\d{1,2}A?(?:_VCID_\d)?)(?:_(\d+)m)?(?:_[A-Za-z]+)?\.(?:tiff?|jp2)$", re.I
)
QUALITY_FILE = re.compile(r"(?:^|[_.-])(SCL|Fmask|QA_PIXEL|BQA|PIXEL_QA)(?:_(\d+)m)?\.(?:tiff?|jp2)$", re.I)
_HLS = re.compile(r"HLS\.([SL]30)\.", re.I)


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
        quality: rasters of classes and flags that tell clouds.
        warnings: what a user should know of it.
    """

    layers: list[Layer]
    sensor: Sensor | None
    quality: list[Layer] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_layers(path: Path, sensor: Sensor | None, bands: Sequence[str] | None) -> Product:
    """The bands at a path.

    Args:
        path: a file, a folder, an archive, or a file in an archive by GDAL's name of it.
        sensor: that a user named.
        bands: names that a user gave.

    Raises:
        InputError: there is nothing that can be read, or bands have no name.
    """
    from geovision import landsat, sentinel2, stac

    path = located(path)
    if is_folder(path) or is_archive(path):
        if bands is not None:
            raise InputError(f"{printable(path)}: is a folder, whose files name their bands; leave --bands out")
        tree = tree_of(path)
        return landsat.find(tree, path) or sentinel2.find(tree, path) or _loose_files(tree, path)
    if not exists(path):
        raise InputError(f"{printable(path)}: no such file or folder; expected a GeoTIFF, or the folder of a product")
    if landsat.METADATA.search(path.name):
        return landsat.of_metadata(Tree(path.parent, ()), path.name, path)
    if sentinel2.METADATA.search(path.name):
        return sentinel2.of_metadata(path)
    if path.suffix.lower() == ".json":
        return stac.find(path)
    return sentinel2.as_part(path, of_file(path, sensor, bands))


def is_product(path: Path) -> bool:
    """Whether a folder or archive is a Landsat or Sentinel-2 product, or holds one scene's bands, a file each."""
    from geovision import landsat, sentinel2

    path = located(path)
    if not (is_archive(path) or is_folder(path)):
        return False
    tops = files_in(path) if is_folder(path) else [name for name in tree_of(path).names if "/" not in name]
    if any(landsat.METADATA.search(name) or sentinel2.METADATA.search(name) for name in tops):
        return True
    rasters = [name for name in tops if name.lower().endswith(ENDINGS) and not name.startswith(".")]
    return _is_one_scene(rasters) or sentinel2.is_part(path)


def _is_one_scene(rasters: Sequence[str]) -> bool:
    """Whether rasters are of one scene: bands whose names differ in the band alone, and what else it has, like TCI."""
    named = [name for name in rasters if BAND_FILE.search(name) or QUALITY_FILE.search(name)]
    stems = {QUALITY_FILE.sub("", BAND_FILE.sub("", name)) for name in named}
    if len(named) < 2 or len(stems) > 1:
        return False
    start = stems.pop()
    others = [PurePath(name).stem for name in rasters if name not in named]
    return all(name.startswith((f"{start}_", f"{start}.")) for name in others)


def of_file(path: Path, sensor: Sensor | None, bands: Sequence[str] | None) -> Product:
    """The bands of one file: named by the user, by the file itself, or, of a file with one band, by its own name."""
    from rasterio.enums import ColorInterp

    with open_raster(path) as source:
        described, colors = source.descriptions, source.colorinterp
        tags = [source.tags(number) for number in source.indexes]
        scales, offsets, count = source.scales, source.offsets, source.count
        check_real(source, path)
    shades = {ColorInterp.red, ColorInterp.green, ColorInterp.blue}
    seen = [
        (number, name or tag.get("BANDNAME") or (color.name if color in shades else None))
        for number, (name, tag, color) in enumerate(zip(described, tags, colors, strict=True), 1)
        if color != ColorInterp.alpha
    ]
    by_name = BAND_FILE.search(path.name)
    if bands is not None:
        bands = in_order(bands)
        if len(bands) != len(seen):
            raise InputError(
                f"{printable(path)}: has {len(seen)} bands, but --bands names {len(bands)}; name each, in the file's "
                "order"
            )
        names = list(bands)
    elif by_name and len(seen) == 1 and (not seen[0][1] or plain_name(str(seen[0][1])) != plain_name(by_name[1])):
        names = [by_name[1]]
    elif all(name for _, name in seen):
        names = [str(name) for _, name in seen]
    else:
        orders = ", ".join(known_orders(len(seen)))
        raise InputError(
            f"{printable(path)}: its {count} bands have no names; give them in the file's order, for example "
            f"--bands B2,B3,B4, with --sensor{f' (known orders: --bands {orders})' if orders else ''}"
        )
    layers, quality = [], []
    for (number, _), name in zip(seen, names, strict=True):
        scale, offset = float(scales[number - 1]), float(offsets[number - 1])
        kind = quality_name(name)
        if kind:
            quality.append(Layer(path, number, kind))
        else:
            layers.append(Layer(path, number, name, scale, offset, (scale, offset) != (1.0, 0.0)))
    return _of_known_name(path, Product(layers, None, quality))


def _of_known_name(path: Path, product: Product) -> Product:
    """What the names of HLS and Planet tell of a file: the sensor, and what its numbers are."""
    hls = _HLS.search(path.name) or next(filter(None, (_HLS.search(layer.band) for layer in product.layers)), None)
    if hls:
        celsius = {"B10", "B11"} if hls[1].upper() == "L30" else set()
        layers = [
            replace(layer, scale=0.01, offset=273.15, stated=True, unit=KELVIN)
            if plain_name(layer.band) in celsius  # stored as degrees Celsius x 100
            else replace(layer, nodata=-9999)
            for layer in product.layers
        ]
        return replace(product, layers=layers, sensor=SENSORS[f"hls_{hls[1].lower()}"])
    if re.search(r"_AnalyticMS_SR(?:_|\.)", path.name, re.I):  # surface reflectance of Planet
        words = {layer.band.lower() for layer in product.layers}
        sensor = SENSORS["planetscope"] if words <= set(SENSORS["planetscope"].names()) else None
        layers = [
            layer if layer.stated else replace(layer, scale=1e-4, stated=True, nodata=0) for layer in product.layers
        ]
        return replace(product, layers=layers, sensor=sensor)
    return product


def _loose_files(tree: Tree, path: Path) -> Product:
    """One file for each band, which its name tells: `scene_B02.tif`."""
    from geovision import sentinel2

    parts, quality = [], []
    for name in tree.names:
        if "/" in name:
            continue
        match, flags = BAND_FILE.search(name), QUALITY_FILE.search(name)
        if match:
            parts.append(of_file(tree.path(name), None, [match[1]]))
        elif flags:
            quality.append(Layer(tree.path(name), 1, str(quality_name(flags[1]))))
    sensors = {part.sensor.name for part in parts if part.sensor}
    if len(sensors) > 1:
        raise InputError(f"{printable(path)}: holds bands of {' and '.join(sorted(sensors))}; expected one scene's")
    if not parts:
        raise InputError(
            f"{printable(path)}: no scene in it; expected a Landsat or Sentinel-2 product, or one file for each band "
            "named like scene_B02.tif"
        )
    sensor = SENSORS[sensors.pop()] if sensors else None
    return sentinel2.as_part(path, Product([layer for part in parts for layer in part.layers], sensor, quality))
