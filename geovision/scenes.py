"""Scenes: found, and opened with their bands known by name and their values by unit."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

from geovision.contract import InputContract
from geovision.files import archive_of, is_archive, located, tree_of
from geovision.products import ENDINGS, Layer, Product, find_layers, is_product
from geovision.rasters import open_raster
from geovision.scene import Placing, Scene
from geovision.sensors import CLASS, DIGITAL_NUMBER, Sensor, find_sensor, recognise
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable


class Opening(TypedDict, total=False):
    """Options of `open_scene` that a user may give for a model's scene, too."""

    bands: Sequence[str] | None
    scale: float | None
    offset: float | None
    crs: str | None
    georeference: str | None
    reproject: bool
    nearest: bool
    finer: int
    mask_clouds: bool


def open_scene(
    path: str | Path, *, sensor: str | None = None, wanted: Sequence[str] | None = None, **options: Unpack[Opening]
) -> Scene:
    """Open a scene.

    Args:
        path: a GeoTIFF (COG), JPEG 2000 or VRT file; the folder, zip or tar archive of a Landsat product (with its MTL
            file) or a Sentinel-2 product, or a part of one; one file for each band; a STAC item; or a file in an
            archive by GDAL's name, such as `/vsizip/a.zip/b.tif`.
        sensor: its name; needed where the names of the bands leave several.
        wanted: names of the bands to read, in order; by default all that have a name.
        options: any of:
            bands: names of the file's bands, in order, where the file does not say them; or an order that has a name,
                such as `order:eurosat`.
            scale: value = stored number * scale + offset, for all bands; by default what the file, the product's
                metadata or the sensor says, in this order.
            offset: number added after `scale`.
            crs: coordinate reference system for a file that has none, such as `EPSG:32633`.
            georeference: `gcps` or `rpcs`, to lay the scene by its ground control points or rational polynomials.
            reproject: lay files that are in another CRS on the finest one's grid, in place of refusing them.
            nearest: repeat the values of coarser files, in place of interpolating between them.
            finer: pixels along each axis that a pixel is divided into, on a grid so much finer; 1 by default.
            mask_clouds: make clouds and their shadows invalid, where the product says where they are.

    Raises:
        InputError: the file cannot be read, bands have no or the same name, or a wanted one is not there.
    """
    path = Path(path)
    label = printable(path)
    require("rasterio", "geo")
    known = find_sensor(sensor) if sensor else None
    product = find_layers(path, known, options.get("bands"))
    names = [layer.band for layer in product.layers]
    known = known or product.sensor or recognise(names)
    if known is None:
        raise InputError(
            f"{label}: bands {', '.join(map(printable, names))} could be of several sensors; give --sensor"
        )
    scale, offset = options.get("scale"), options.get("offset")
    if wanted is None and options.get("bands") is None:
        product = _without_foreign(product, known)
    layers = _chosen(label, known, product, wanted, scale)
    factors = [_scaled(layer, known, scale, offset) for layer in layers]
    georeference = options.get("georeference")
    if georeference not in (None, "gcps", "rpcs"):
        raise InputError(f"--georeference {printable(georeference)}: is unknown; expected gcps or rpcs")
    how = Placing(
        crs=options.get("crs"),
        georeference=georeference,
        reproject=options.get("reproject", False),
        nearest=options.get("nearest", False),
        finer=options.get("finer", 1),
    )
    clouds = None
    if options.get("mask_clouds", False):
        if not product.quality:
            raise InputError(
                f"{label}: has no band that tells clouds (SCL, QA_PIXEL, Fmask); give the whole product, or leave out "
                "--mask-clouds"
            )
        clouds = product.quality[0]
    warnings = [warning for warning in product.warnings if offset is None or "--offset" not in warning]
    return Scene(label, known, factors, how, clouds, warnings)


def _without_foreign(product: Product, known: Sensor) -> Product:
    """A product without the bands that its files name and the sensor lacks, such as AOT; all of them where it has none.

    A warning says which were left out.
    """
    own = [layer for layer in product.layers if known.find(layer.band)]
    foreign = [printable(layer.band) for layer in product.layers if not known.find(layer.band)]
    if not own or not foreign:
        return product
    said = f"{', '.join(foreign)}: no band of {known.name}; left out"
    return replace(product, layers=own, warnings=[*product.warnings, said])


def _chosen(
    label: str, known: Sensor, product: Product, wanted: Sequence[str] | None, scale: float | None
) -> list[Layer]:
    """The bands that are read, by the sensor's names for them."""
    layers = []
    for layer in product.layers:
        member = known.find(layer.band)
        if member is not None:
            layers.append(replace(layer, band=member.name, unit=layer.unit or _unit(known, layer, member.unit, scale)))
        elif wanted is None:
            raise InputError(
                f"{label}: band {printable(layer.band)} is none of sensor {known.name}, which has "
                f"{', '.join(known.names())}; give --sensor or --bands"
            )
    repeated = [name for name, count in Counter(layer.band for layer in layers).items() if count > 1]
    if repeated:
        raise InputError(f"{label}: has band {repeated[0]} more than once; expected each once: remove one of them")
    if wanted is None:
        return layers
    by_name = {layer.band: layer for layer in layers}
    names = ", ".join(by_name) or "none"
    by_name |= {layer.band: replace(layer, unit=CLASS) for layer in product.quality}
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise InputError(
            f"{label}: lacks {', '.join(missing)} of {known.name}; found {names}; give a scene that has them, or "
            "--bands if they are there under other names"
        )
    return [by_name[name] for name in wanted]


def open_for_model(
    path: str | Path, contract: InputContract, *, sensor: str | None = None, **options: Unpack[Opening]
) -> Scene:
    """Open a scene with a model's bands, in the model's order; or with all that the model takes by their wavelengths.

    Args:
        path: a file or product, as for `open_scene`.
        contract: input contract of the model.
        sensor: name of the scene's sensor; a model of another one is refused.
        options: Options of `open_scene`.

    Raises:
        InputError: as `open_scene`; or the scene is of another sensor than the model's.
    """
    scene = open_scene(path, sensor=sensor, wanted=None, **options) if sensor is None else None
    known = scene.sensor if scene is not None else find_sensor(str(sensor))
    if scene is not None:
        scene.close()
    if contract.needed:
        with scene or open_scene(path, sensor=known.name, **options) as opened:
            try:
                wanted = contract.chosen(known, opened.bands)
            except InputError as error:
                raise InputError(f"{printable(path)}: {error}") from None
        return open_scene(path, sensor=known.name, wanted=wanted, **options)
    if known.name != contract.sensor.name:
        raise InputError(
            f"{printable(path)}: is of sensor {known.name}, the model of {contract.sensor.name}; use a model of that "
            f"sensor, or pass --sensor {contract.sensor.name} if the scene really is of it"
        )
    return open_scene(path, sensor=known.name, wanted=contract.bands, **options)


def find_scenes(path: Path) -> list[Path]:
    """Scenes at a path: itself, the product that a folder is, or the raster files and products in it, by name.

    Maps that `geovision map` wrote are no scenes.

    Raises:
        InputError: there is none.
    """
    if not os.path.isdir(path) or is_product(path):
        return [path]
    scenes = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".") and _is_scene(entry)]
    if not scenes:
        raise InputError(
            f"{printable(path)}: contains no scene; expected products, or files ending in {', '.join(ENDINGS)}"
        )
    return scenes


def files_of(path: Path) -> list[Path]:
    """The files that a scene is made of, as far as they can be told without its bands' names: what no output may be."""
    if os.path.isdir(path):
        tree = tree_of(path)
        return [tree.path(name) for name in tree.names]
    try:
        path = located(path)
        archive = archive_of(path)
        if archive is not None:
            return [archive]
        if path.suffix.lower() in {".json", ".txt", ".xml"}:
            product = find_layers(path, None, None)
            return [path, *dict.fromkeys(layer.path for layer in [*product.layers, *product.quality])]
        with open_raster(path) as source:
            return [path, *(Path(name) for name in source.files)]
    except InputError:
        return [path]


def _is_scene(entry: Path) -> bool:
    if entry.is_dir() or is_archive(entry):
        return is_product(entry)
    return entry.suffix.lower() in ENDINGS and not is_map(entry)


def is_map(path: Path) -> bool:
    """Whether a file is a map, or probabilities, that `geovision map` wrote."""
    try:
        with open_raster(path) as source:
            return "model_sha256" in source.tags()
    except InputError:
        return False


def _scaled(layer: Layer, sensor: Sensor, scale: float | None, offset: float | None) -> Layer:
    """A layer with the scale and the offset that hold: the user's, the file's, the product's, or the sensor's."""
    if layer.unit == CLASS:
        return layer
    if not (layer.stated or sensor.scale is None or layer.unit == DIGITAL_NUMBER):
        layer = replace(layer, scale=sensor.scale, offset=sensor.offset)
    if scale is not None:
        return replace(layer, scale=scale, offset=offset or 0.0)
    return layer if offset is None else replace(layer, offset=offset)


def _unit(sensor: Sensor, layer: Layer, unit: str, scale: float | None) -> str:
    """A band's unit; numbers of which nobody says how they become values are digital numbers."""
    return unit if scale is not None or layer.stated or sensor.scale is not None else DIGITAL_NUMBER
