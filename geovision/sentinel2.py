"""Sentinel-2 products and parts of them: bands, and the offsets that numbers have since processing baseline 04.00."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from geovision.files import Tree, archive_of, text_of
from geovision.products import BAND_FILE, QUALITY_FILE, Layer, Product
from geovision.sensors import REFLECTANCE, SENSORS, plain_name
from shared_backbones.errors import InputError
from shared_backbones.files import printable

METADATA = re.compile(r"^(?:MTD_MSI|S2[A-D]_\w+_MTD_SAF)(L1C|L2A)\w*\.xml$", re.I)
_LEVEL = re.compile(r"MSI(L1C|L2A)|(?:^|[/_])(L1C|L2A)_T", re.I)
_BASELINE = re.compile(r"_N(\d{2})(\d{2})(?:[_.]|$)")
_ABOVE = 6  # folders above a part in which its product's metadata may lie
# Bands in the order of the metadata's `band_id`.
_IDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")


@dataclass(frozen=True)
class _Radiometry:
    """How a product's numbers become reflectance: (number + offset) / quantum.

    Attributes:
        level: `l1c` or `l2a`.
        quantum: what the product divides by.
        offsets: added before, by band.
    """

    level: str
    quantum: float
    offsets: dict[str, float]

    def of(self, layer: Layer) -> Layer:
        """A layer with these numbers."""
        offset = self.offsets.get(plain_name(layer.band), 0.0) / self.quantum
        return replace(layer, scale=1 / self.quantum, offset=offset, stated=True, unit=REFLECTANCE, nodata=0)


def find(tree: Tree, path: Path) -> Product | None:
    """A whole product: one JPEG 2000 file a band, each at its own resolution; None where there is none.

    Raises:
        InputError: the product holds several granules.
    """
    metadata = [name for name in tree.names if "/" not in name and METADATA.search(name)]
    images = [name for name in tree.names if name.lower().endswith(".jp2") and "/IMG_DATA/" in f"/{name}"]
    if not metadata or not images:
        return None
    granules = {name.partition("/IMG_DATA/")[0] for name in images}
    if len(granules) > 1:
        raise InputError(
            f"{printable(path)}: holds {len(granules)} granules; expected one: give the IMG_DATA folder of one of them"
        )
    radiometry = _radiometry(metadata[0], tree.text(metadata[0]))
    sensor = SENSORS[f"sentinel2_{radiometry.level}"]
    finest, quality = _finest(tree, images)
    layers = [radiometry.of(Layer(finest[name], 1, name)) for name in sensor.names() if name in finest]
    return Product(layers, sensor, quality)


def as_part(path: Path, product: Product) -> Product:
    """A file or folder that may be a part of a product: with what the metadata above it says of its numbers.

    Where there is none, but the path names a processing baseline from 04.00 on, a warning says that an offset may be
    missing.
    """
    if archive_of(path) is not None or (product.sensor and not product.sensor.name.startswith("sentinel2")):
        return product
    where = path.absolute()
    metadata = _above(where)
    if metadata is not None:
        radiometry = _radiometry(metadata.name, text_of(metadata))
        sensor = SENSORS[f"sentinel2_{radiometry.level}"]
        layers = [
            layer if layer.stated or sensor.find(layer.band) is None else radiometry.of(layer)
            for layer in product.layers
        ]
        return replace(product, layers=layers, sensor=product.sensor or sensor)
    baseline = next(iter(_BASELINE.findall(where.as_posix())[-1:]), None)
    level = _LEVEL.search(where.as_posix())
    if baseline is None or not (level or "S2" in where.as_posix()):
        return product
    sensor = SENSORS[f"sentinel2_{(level[1] or level[2]).lower()}"] if level else None
    members = sensor or SENSORS["sentinel2_l1c"]
    layers = [
        replace(layer, nodata=0) if members.find(layer.band) and not layer.stated else layer for layer in product.layers
    ]
    warnings = list(product.warnings)
    if int(baseline[0]) >= 4 and any(not layer.stated for layer in product.layers):
        warnings.append(
            f"processing baseline {'.'.join(baseline)} stores reflectance with an offset of -0.1, and no metadata "
            "above says whether these numbers still have it: none was applied; give --offset -0.1 if they do, "
            "--offset 0 if not"
        )
    named = all(sensor is not None and sensor.find(layer.band) for layer in product.layers)
    return replace(product, layers=layers, sensor=product.sensor or (sensor if named else None), warnings=warnings)


def _finest(tree: Tree, images: list[str]) -> tuple[dict[str, Path], list[Layer]]:
    """The finest file of each band, and of the scene classification."""
    finest: dict[str, tuple[float, Path]] = {}
    for name in images:
        match = BAND_FILE.search(name) or QUALITY_FILE.search(name)
        if match:
            size, band = float(match[2] or 0), plain_name(match[1])
            finest[band] = min(finest.get(band, (size, tree.path(name))), (size, tree.path(name)))
    paths = {band: path for band, (_, path) in finest.items()}
    return paths, [Layer(paths["SCL"], 1, "SCL")] if "SCL" in paths else []


def _above(path: Path) -> Path | None:
    """The metadata of the product that a path lies in."""
    for folder in [path, *path.parents][: _ABOVE + 1]:
        if folder.is_dir():
            for name in ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml"):
                if (folder / name).is_file():
                    return folder / name
            metadata = next(
                (entry for entry in sorted(folder.glob("S2*_MTD_SAF*.xml")) if METADATA.search(entry.name)), None
            )
            if metadata is not None:
                return metadata
    return None


def _radiometry(name: str, text: str) -> _Radiometry:
    match = METADATA.search(name)
    level = match[1].lower() if match else "l1c"
    quantum = re.search(r"<(?:BOA_)?QUANTIFICATION_VALUE[^>]*>\s*([\d.]+)\s*<", text)
    offsets: dict[str, float] = {}
    for attributes, value in re.findall(r"<(?:RADIO|BOA)_ADD_OFFSET([^>]*)>\s*(-?[\d.]+)\s*<", text):
        number = re.search(r"band_id\s*=\s*[\"'](\d+)[\"']", attributes)
        for band in [_IDS[int(number[1])]] if number and int(number[1]) < len(_IDS) else _IDS:
            offsets[band] = float(value)
    if len(set(offsets.values())) == 1:  # one for all, though some bands are not listed
        offsets = dict.fromkeys(_IDS, next(iter(offsets.values())))
    return _Radiometry(level, float(quantum[1]) if quantum else 10000.0, offsets)
