"""STAC items on this machine: which assets hold which bands, and what their numbers are."""

import json
from pathlib import Path

from geovision.clouds import quality_name
from geovision.files import exists, text_of
from geovision.products import Layer, Product
from geovision.sensors import KELVIN, SENSORS, Sensor, recognise
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Entries

_RASTERS = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")


def find(path: Path) -> Product:
    """The bands of an item's assets that lie beside it or under absolute paths.

    Raises:
        InputError: it is no STAC item, or none of its assets is a band that is there.
    """
    try:
        item = json.loads(text_of(path))
        if item["type"] != "Feature" or "stac_version" not in item:
            raise ValueError
        assets = dict(item["assets"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{printable(path)}: is no STAC item; expected one, or a raster file") from None
    properties = item.get("properties")
    sensor = _sensor(str(item.get("collection", "")), properties if isinstance(properties, dict) else {})
    layers, quality, away = [], [], 0
    for key, asset in assets.items():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str) or not _is_raster(asset):
            continue
        file = _local(asset["href"], path)
        if file is None:
            away += 1
            continue
        kind = quality_name(key) or quality_name(file.stem.rpartition(".")[2]) or quality_name(file.stem)
        if kind:
            quality.append(Layer(file, 1, kind))
            continue
        layers += _layers(file, key, asset, sensor)
    if not layers:
        raise InputError(
            f"{printable(path)}: none of its {len(assets)} assets is a band that lies here ({away} are elsewhere); "
            "fetch them, and give their paths in the item"
        )
    best: dict[str, Layer] = {}
    for layer in layers:
        best.setdefault(layer.band, layer)
    return Product(list(best.values()), sensor or recognise(list(best)), quality)


def _layers(file: Path, key: str, asset: Document, sensor: Sensor | None) -> list[Layer]:
    rasters = _entries(asset.get("raster:bands")) or _entries(asset.get("bands"))
    named = _entries(asset.get("eo:bands")) or _entries(asset.get("bands"))
    layers = []
    for number in range(1, max(1, len(named)) + 1):
        about = named[number - 1] if named else {}
        raster = {**asset, **(rasters[number - 1] if number <= len(rasters) else {})}
        names = [about.get("name"), about.get("common_name"), about.get("eo:common_name"), key]
        texts = [name for name in names if isinstance(name, str)]
        band = next((text for text in texts if sensor is not None and sensor.find(text)), None)
        if sensor is not None and band is None:
            continue
        scale, offset = _number(raster, "scale"), _number(raster, "offset")
        nodata = _number(raster, "nodata")
        stated = scale is not None or offset is not None
        member = sensor.band(band).name if sensor is not None and band is not None else texts[0]
        unit = KELVIN if str(raster.get("raster:unit", raster.get("unit", ""))).lower() == "kelvin" else ""
        layers.append(Layer(file, number, member, scale or 1.0, offset or 0.0, stated, unit, nodata))
    return [] if len(layers) > 1 and key in {"visual", "thumbnail", "preview"} else layers


def _is_raster(asset: Document) -> bool:
    kind, roles = str(asset.get("type", "")), asset.get("roles")
    shown = {"thumbnail", "overview", "visual"} & set(roles if isinstance(roles, list) else ())
    return not shown and (kind.startswith(_RASTERS) or (not kind and asset["href"].lower().endswith((".tif", ".jp2"))))


def _local(href: str, item: Path) -> Path | None:
    href = href.removeprefix("file://")
    if "://" in href or href.startswith("/vsi"):
        return None
    file = item.parent / href
    return file if exists(file) else None


def _sensor(collection: str, properties: Document) -> Sensor | None:
    platform, collection = str(properties.get("platform", "")).lower(), collection.lower()
    if "hlss30" in collection.replace("_", "") or "hlsl30" in collection.replace("_", ""):
        return SENSORS["hls_s30" if "s30" in collection else "hls_l30"]
    if platform.startswith("sentinel-2"):
        level = "l1c" if "l1c" in collection else "l2a"
        return SENSORS[f"sentinel2_{level}"] if "l1c" in collection or "l2a" in collection else None
    return SENSORS.get(platform.replace("landsat-", "landsat"))


def _entries(value: object) -> list[Entries]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _number(about: Document, key: str) -> float | None:
    value = about.get(f"raster:{key}", about.get(key))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
