"""Sentinel-2 products and parts of them: bands, and the offsets that numbers have since processing baseline 04.00."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from geovision.files import Tree, files_in, is_archive, is_folder, text_of, tree_of
from geovision.products import BAND_FILE, QUALITY_FILE, Layer, Product
from geovision.rasters import open_raster
from geovision.sensors import REFLECTANCE, SENSORS, plain_name
from geovision.side_files import vrt_sources
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
        """A layer with these numbers, where its file does not state others; 0 is no data in either."""
        if layer.stated:
            return replace(layer, nodata=0)
        offset = self.offsets.get(plain_name(layer.band), 0.0) / self.quantum
        return replace(layer, scale=1 / self.quantum, offset=offset, stated=True, unit=REFLECTANCE, nodata=0)


def find(tree: Tree, path: Path) -> Product | None:
    """A product, or a folder in one: a JPEG 2000 file a band, each at its own resolution; None where there is none.

    Raises:
        InputError: it holds several granules.
    """
    metadata = _above(tree.root)
    images = {name: tree.path(name).absolute().as_posix() for name in tree.names if name.lower().endswith(".jp2")}
    images = {name: file for name, file in images.items() if "/IMG_DATA/" in file}
    if metadata is None or not images:
        return None
    granules = {file.partition("/IMG_DATA/")[0] for file in images.values()}
    if len(granules) > 1:
        raise InputError(
            f"{printable(path)}: holds {len(granules)} granules; expected one: give the IMG_DATA folder of one of them"
        )
    radiometry = _radiometry(metadata)
    sensor = SENSORS[f"sentinel2_{radiometry.level}"]
    finest, quality = _finest(tree, list(images))
    layers = [radiometry.of(Layer(finest[name], 1, name)) for name in sensor.names() if name in finest]
    return Product(layers, sensor, quality)


def of_metadata(path: Path) -> Product:
    """The product whose metadata a file holds.

    Raises:
        InputError: its images are not there, or are of several granules.
    """
    product = find(tree_of(path.parent), path.parent)
    if product is None:
        raise InputError(f"{printable(path)}: no images in folders beside it; use a complete copy of the product")
    return product


def is_part(folder: Path) -> bool:
    """Whether a folder holds images of a product whose metadata lies above it."""
    return _above(folder) is not None and find(tree_of(folder), folder) is not None


def as_part(path: Path, product: Product) -> Product:
    """A file or folder that may be a part of a product: with what the metadata above it says of its numbers.

    The parts of a VRT count where nothing lies above the VRT itself. Where there is no metadata, but path or tags name
    a processing baseline from 04.00 on, a warning says that an offset may be missing.

    Raises:
        InputError: parts of a VRT have different offsets.
    """
    if product.sensor and not product.sensor.name.startswith("sentinel2"):
        return product
    radiometry = _radiometry_of(path)
    if radiometry is not None:
        sensor = SENSORS[f"sentinel2_{radiometry.level}"]
        layers = [radiometry.of(layer) if sensor.find(layer.band) else layer for layer in product.layers]
        return replace(product, layers=layers, sensor=product.sensor or sensor)
    where = _said(path)
    baseline = next(iter(_BASELINE.findall(where)[-1:]), None)
    level = _LEVEL.search(where)
    if baseline is None or not (level or "S2" in where):
        return product
    sensor = SENSORS[f"sentinel2_{(level[1] or level[2]).lower()}"] if level else None
    members = sensor or SENSORS["sentinel2_l1c"]
    layers = [replace(layer, nodata=0) if members.find(layer.band) else layer for layer in product.layers]
    warnings = list(product.warnings)
    if int(baseline[0]) >= 4 and any(not layer.stated for layer in product.layers):
        warnings.append(
            f"processing baseline {'.'.join(baseline)} stores reflectance with an offset of -0.1, and no metadata "
            "above says whether these numbers still have it: none was applied; give --offset -0.1 if they do, "
            "--offset 0 if not"
        )
    named = all(sensor is not None and sensor.find(layer.band) for layer in product.layers)
    return replace(product, layers=layers, sensor=product.sensor or (sensor if named else None), warnings=warnings)


def _radiometry_of(path: Path) -> _Radiometry | None:
    """What the metadata above a path says, or above the files that a VRT is made of."""
    metadata = _above(path)
    if metadata is not None or path.suffix.lower() != ".vrt":
        return _radiometry(metadata) if metadata else None
    above = {source.parent: _above(source) for source in vrt_sources(path)}
    known = [_radiometry(metadata) for metadata in set(above.values()) - {None} if metadata]
    if known and (None in above.values() or any(other != known[0] for other in known)):
        raise InputError(
            f"{printable(path)}: its parts are of Sentinel-2 products with different offsets, or of unknown ones; "
            "expected one: build a VRT of those alone that have one"
        )
    return known[0] if known else None


def _said(path: Path) -> str:
    """Where a file lies and what it was made of, as GDAL notes it in tags, in the form of names of products."""
    tags: dict[str, str] = {}
    if not (is_folder(path) or is_archive(path)):
        with open_raster(path) as source:
            tags = source.tags()
    level = re.sub(r"\W", "", tags.get("PROCESSING_LEVEL", "")).upper().replace("LEVEL", "MSIL")
    baseline = tags.get("PROCESSING_BASELINE", "").replace(".", "")
    return f"{path.absolute().as_posix()}/{tags.get('PRODUCT_URI', '')}/{level}_N{baseline}"


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
    path = path.absolute()
    for folder in [path, *path.parents][: _ABOVE + 1]:
        metadata = next((name for name in files_in(folder) if METADATA.search(name)), None)
        if metadata is not None:
            return folder / metadata
    return None


def _radiometry(metadata: Path) -> _Radiometry:
    match, text = METADATA.search(metadata.name), text_of(metadata)
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
