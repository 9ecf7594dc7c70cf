"""Landsat products as their MTL files describe them: collections 1 and 2, levels 1 and 2, Landsat 4 to 9."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geovision.files import Tree, exists
from geovision.products import Layer, Product
from geovision.sensors import DIGITAL_NUMBER, KELVIN, RADIANCE, REFLECTANCE, SENSORS, Sensor
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document

METADATA = re.compile(r"_MTL\.(?:txt|json|xml)$", re.I)
_SPACECRAFT = {f"LANDSAT_{number}": f"landsat{number}" for number in (4, 5, 7, 8, 9)}
_BAND_KEY = re.compile(r"FILE_NAME_BAND_(?:(ST)_B)?(\d+(?:_VCID_\d)?)")
_QUALITY_KEYS = {
    "FILE_NAME_QUALITY_L1_PIXEL": "QA_PIXEL",
    "FILE_NAME_QUALITY_L2_PIXEL": "QA_PIXEL",
    "FILE_NAME_BAND_QUALITY": "BQA",
}
_ORDERED = re.compile(r"_(sr|toa|bt)_band(\d+)\.tif$", re.I)  # surface reflectance of collection 1, made on demand
# Groups that tell how another product was made, from which this one came.
_FOREIGN = re.compile(r"^LEVEL1_")


@dataclass(frozen=True)
class _Fields:
    """Entries of an MTL file.

    Attributes:
        label: name of the file.
        entries: group, key and value of each.
        surface: whether the product is of level 2.
    """

    label: str
    entries: tuple[tuple[str, str, str], ...]
    surface: bool

    def get(self, key: str) -> str | None:
        """The product's own value: of level 2, those of the level-1 product that it came from count for nothing."""
        own = (value for group, name, value in self.entries if name == key and not self._foreign(group))
        return next(own, None)

    def names(self) -> Iterator[tuple[str, str]]:
        """Keys and values of the product's own groups."""
        return ((name, value) for group, name, value in self.entries if not self._foreign(group))

    def anywhere(self, key: str) -> str | None:
        """A value of any group: what is true of the acquisition itself."""
        return self.get(key) or next((value for _, name, value in self.entries if name == key), None)

    def number(self, key: str) -> float | None:
        """A finite number; None where there is none."""
        try:
            value = float(self.get(key) or "")
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def _foreign(self, group: str) -> bool:
        return self.surface and bool(_FOREIGN.search(group))


def find(tree: Tree, path: Path) -> Product | None:
    """The product of a folder or an archive; None where it has no MTL file.

    Raises:
        InputError: it has several products, or files are missing.
    """
    files = [name for name in tree.names if "/" not in name and METADATA.search(name)]
    if not files:
        return None
    products: dict[str, list[str]] = {}
    for name in files:
        products.setdefault(METADATA.sub("", name), []).append(name)
    if len(products) > 1:
        raise InputError(
            f"{printable(path)}: holds the MTL files of {len(products)} products; expected one: give the file itself, "
            f"such as {printable(sorted(files)[0])}"
        )
    first = min(files, key=lambda name: (".txt", ".json", ".xml").index(PurePosixPath(name).suffix.lower()))
    return of_metadata(tree, first, path)


def of_metadata(tree: Tree, name: str, path: Path) -> Product:
    """The product that an MTL file describes; its files lie beside it.

    Raises:
        InputError: the file describes no product that is read here, or files are missing.
    """
    fields = _fields(tree.text(name), name)
    sensor = _sensor(fields, tree.path(name))
    named = {
        match[0]: (match, _named(tree, value)) for key, value in fields.names() if (match := _BAND_KEY.fullmatch(key))
    }
    layers, warnings = [], []
    for match, file in named.values():
        band = sensor.find(f"B{match[2]}")
        if band is None:
            continue
        if not exists(file):
            ordered = _made_on_demand(tree, sensor)
            if ordered is not None:
                return ordered
            if match[2].startswith("6_VCID"):
                warnings.append(f"{band.name}: named in {printable(name)}, but not there; left out")
                continue
            raise InputError(
                f"{printable(file)}: named in {printable(name)}, but not there; use a complete copy of the product"
            )
        layers.append(_layer(file, band.name, band.unit, match, fields))
    if not layers:
        raise InputError(f"{printable(tree.path(name))}: names no band; use a complete copy of the product")
    return Product(layers, sensor, _quality(tree, fields), warnings)


def _quality(tree: Tree, fields: _Fields) -> list[Layer]:
    known = {_QUALITY_KEYS[key]: _named(tree, value) for key, value in fields.names() if key in _QUALITY_KEYS}
    return [Layer(file, 1, kind) for kind, file in known.items() if exists(file)]


def _named(tree: Tree, name: str) -> Path:
    """Path of a file that the metadata name; copies may have written its ending in small letters."""
    path = tree.path(PurePosixPath(name).name)
    small = path.with_suffix(path.suffix.lower())
    return small if exists(small) and not exists(path) else path


def _layer(path: Path, band: str, unit: str, match: re.Match[str], fields: _Fields) -> Layer:
    number = match[2]
    if match[1]:  # surface temperature
        kind, unit, tail = "TEMPERATURE", KELVIN, f"ST_B{number}"
    else:
        kind, tail = ("RADIANCE" if unit == RADIANCE else "REFLECTANCE"), number
        unit = RADIANCE if kind == "RADIANCE" else REFLECTANCE
    scale, offset = (fields.number(f"{kind}_{part}_BAND_{tail}") for part in ("MULT", "ADD"))
    if scale is None or offset is None:
        return Layer(path, 1, band, unit=DIGITAL_NUMBER, nodata=0)
    if kind == "REFLECTANCE" and not fields.surface:  # the product's factors leave the sun's height out
        elevation = fields.number("SUN_ELEVATION")
        sun = math.sin(math.radians(elevation)) if elevation is not None else 0.0
        if sun <= 0:
            return Layer(path, 1, band, unit=DIGITAL_NUMBER, nodata=0)
        scale, offset = scale / sun, offset / sun
    return Layer(path, 1, band, scale, offset, True, unit, 0)


def _made_on_demand(tree: Tree, sensor: Sensor) -> Product | None:
    """Collection 1 at level 2, whose bands the level-1 MTL file beside them does not name."""
    folder = tree if tree.names else Tree(tree.root, tuple(entry.name for entry in sorted(tree.root.iterdir())))
    layers = []
    for name in folder.names:
        match = _ORDERED.search(name)
        band = sensor.find(f"B{match[2]}") if match else None
        if match and band and match[1].lower() != "toa":
            kelvin = match[1].lower() == "bt"
            scale, unit = (0.1, KELVIN) if kelvin else (1e-4, REFLECTANCE)
            layers.append(Layer(folder.path(name), 1, band.name, scale, 0.0, True, unit, -9999))
    quality = [
        Layer(folder.path(name), 1, "PIXEL_QA") for name in folder.names if name.lower().endswith("_pixel_qa.tif")
    ]
    return Product(layers, sensor, quality) if layers else None


def _sensor(fields: _Fields, path: Path) -> Sensor:
    craft, instrument = (fields.anywhere(key) or "" for key in ("SPACECRAFT_ID", "SENSOR_ID"))
    name = _SPACECRAFT.get(craft.upper().replace("LANDSAT", "LANDSAT_").replace("__", "_"))
    if name is None:
        raise InputError(
            f"{printable(path)}: SPACECRAFT_ID is {printable(craft)!r}; expected one of {', '.join(_SPACECRAFT)}"
        )
    if "MSS" in instrument.upper():
        raise InputError(f"{printable(path)}: SENSOR_ID is 'MSS'; expected TM, ETM, OLI or TIRS: give such a product")
    return SENSORS[name]


def _fields(text: str, name: str) -> _Fields:
    """Entries of an MTL file in any of its three forms.

    Raises:
        InputError: it is none.
    """
    ending = PurePosixPath(name).suffix.lower()
    try:
        entries_of_form = {".json": _of_json, ".xml": _of_xml}.get(ending, _of_text)(text)
        entries = tuple(entries_of_form)
    except (ValueError, RecursionError):
        entries = ()
    if not entries:
        raise InputError(f"{printable(name)}: is no MTL file; use a complete copy of the product")
    level = next(
        (value for group, key, value in entries if key == "PROCESSING_LEVEL" and not _FOREIGN.search(group)), ""
    )
    return _Fields(name, entries, level.upper().startswith("L2"))


def _of_text(text: str) -> Iterator[tuple[str, str, str]]:
    groups: list[str] = []
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            continue
        if key == "GROUP":
            groups.append(value)
        elif key == "END_GROUP":
            groups = groups[:-1]
        else:
            yield groups[-1] if groups else "", key, value.strip('"')


def _of_json(text: str) -> Iterator[tuple[str, str, str]]:
    def walk(group: str, node: Document) -> Iterator[tuple[str, str, str]]:
        for key, value in node.items():
            if isinstance(value, dict):
                yield from walk(key, value)
            else:
                yield group, key, str(value)

    content = json.loads(text)
    return walk("", content if isinstance(content, dict) else {})


def _of_xml(text: str) -> Iterator[tuple[str, str, str]]:
    """Elements by their names; read as text, so that nothing in it is ever expanded."""
    groups: list[str] = []
    for closing, name, value in re.findall(r"<(/?)([A-Za-z]\w*)[^>]*(?<!/)>([^<]*)", text):
        if closing:
            groups = groups[:-1]
        else:
            if value.strip():
                yield groups[-1] if groups else "", name, value.strip()
            groups.append(name)
