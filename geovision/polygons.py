"""Maps of classes and of objects as polygons: GeoPackage or GeoJSON."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geovision.footprints import within_degrees
from geovision.grids import Grid, crs_text, grid_of
from geovision.rasters import open_raster
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError, require
from shared_backbones.files import brief, printable

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from shapely.geometry.base import BaseGeometry

    from geovision.instances import Objects

FORMATS = {".gpkg": "GPKG", ".geojson": "GeoJSON"}


def check_polygons(path: Path, grid: Grid | None = None) -> None:
    """Raise an InputError unless polygons, of a map on a grid where that is known, can be written under this name."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{printable(path)}: ends in {path.suffix or 'nothing'}, expected .gpkg or .geojson")
    if path.suffix.lower() == ".geojson" and grid is not None and not grid.on_earth:
        raise InputError("--polygons: GeoJSON needs a place on the earth, and the scene has none; give .gpkg")


def write_polygons(
    path: Path, classes_map: Path, confidence: Path, classes: Sequence[ClassEntry], *, smallest_m2: float
) -> int:
    """Write the areas of a map as polygons in its own coordinates; GeoJSON in longitude and latitude.

    Pixels that touch along a side and have one class are a polygon. It has `class_id`, `class`, `area_m2` (on the
    ground; empty where the map has no place), `pixels` and `confidence`, the mean probability of the class.

    Args:
        path: file to write, ending in `.gpkg` or `.geojson`.
        classes_map: GeoTIFF of classes.
        confidence: GeoTIFF of the same grid with the probability of the class.
        classes: classes of the map.
        smallest_m2: polygons with a smaller area are left out; a map without a place has none, and keeps all.

    Returns:
        The number of polygons.

    Raises:
        InputError: the file cannot be written.
    """
    names = {int(entry["id"]): str(entry["name"]) for entry in classes}
    with open_raster(classes_map) as labels, open_raster(confidence) as certainty:
        grid = grid_of(labels)
        check_polygons(path, grid)
        regions = [row for row in _regions(labels, certainty, grid) if row[2] is None or row[2] >= smallest_m2]
    shapes, numbers, areas, pixels, means = zip(*regions, strict=True) if regions else ((), (), (), (), ())
    columns: dict[str, np.ndarray] = {
        "class_id": np.array(numbers, np.int32),
        "class": np.array([names[number] for number in numbers], object),
        "area_m2": np.array([np.nan if area is None else area for area in areas], float),
        "pixels": np.array(pixels, np.int64),
        "confidence": np.array(means, np.float64),
    }
    _write(path, grid, shapes, columns, "Polygon", "classes")
    return len(regions)


def write_objects(path: Path, numbers: Path, objects: "Objects", classes: Sequence[ClassEntry]) -> int:
    """Write the objects of a raster of their numbers as polygons in its own coordinates; GeoJSON in degrees.

    Each is a (multi)polygon with `object` (its number), `class_id`, `class`, `score`, `area_m2` (on the ground; empty
    where the map has no place) and `pixels`.

    Args:
        path: file to write, ending in `.gpkg` or `.geojson`.
        numbers: GeoTIFF of the objects' numbers, 0 for none.
        objects: what each is.
        classes: classes of the objects.

    Returns:
        The number of objects.

    Raises:
        InputError: the file cannot be written.
    """
    from rasterio.features import shapes
    from shapely.geometry import MultiPolygon, Polygon

    with open_raster(numbers) as source:
        grid, values = grid_of(source), source.read(1)
    check_polygons(path, grid)
    parts: dict[int, list[Polygon]] = {}
    for outline, value in shapes(values.astype(np.int32), values > 0, 4, grid.transform):
        parts.setdefault(int(value), []).append(Polygon(outline["coordinates"][0], outline["coordinates"][1:]))
    order = sorted(parts)
    places = np.array(order, np.int64) - 1
    kinds = objects.classes[places]
    areas = np.full(len(order), np.nan) if objects.areas_m2 is None else objects.areas_m2[places]
    columns: dict[str, np.ndarray] = {
        "object": np.array(order, np.int64),
        "class_id": kinds.astype(np.int32),
        "class": np.array([str(classes[kind]["name"]) for kind in kinds], object),
        "score": objects.scores[places],
        "area_m2": areas,
        "pixels": objects.pixels[places],
    }
    _write(path, grid, [MultiPolygon(parts[number]) for number in order], columns, "MultiPolygon", "objects")
    return len(order)


def _write(
    path: Path,
    grid: Grid,
    shapes: "Sequence[BaseGeometry]",
    columns: "Mapping[str, np.ndarray]",
    geometry: str,
    layer: str,
) -> None:
    """Write shapes in a grid's coordinates, or in degrees, with their columns.

    Raises:
        InputError: the file cannot be written.
    """
    pyogrio, shapely = require("pyogrio.raw", "geo"), require("shapely", "geo")
    crs = crs_text(grid.crs)
    if path.suffix.lower() == ".geojson":
        shapes, crs = _to_degrees(shapes, grid), "EPSG:4326"
    try:
        with warnings.catch_warnings():  # that there is no CRS is known
            warnings.simplefilter("ignore", UserWarning)
            pyogrio.write(
                path,
                np.array([shapely.to_wkb(shape) for shape in shapes], object),
                list(columns.values()),
                list(columns),
                geometry_type=geometry if crs != "EPSG:4326" else "Unknown",
                crs=crs,
                driver=FORMATS[path.suffix.lower()],
                layer=layer,
            )
    except Exception as error:  # GDAL's errors have no class in common
        reason = brief(error)
        raise InputError(
            f"{printable(path)}: polygons cannot be written ({reason}); choose another --polygons"
        ) from None


def _regions(
    labels: "DatasetReader", certainty: "DatasetReader", grid: Grid
) -> "Iterator[tuple[BaseGeometry, int, float | None, int, float]]":
    """Outline, class, area on the ground, pixels and mean confidence of each connected area."""
    from rasterio.features import rasterize, shapes
    from shapely.geometry import shape

    classes, nodata = labels.read(1), labels.nodata
    valid = classes != nodata
    outlines = [(shape(outline), int(value)) for outline, value in shapes(classes, valid, 4, grid.transform)]
    if not outlines:
        return
    numbered = [(outline, place) for place, (outline, _) in enumerate(outlines, 1)]
    home = np.asarray(rasterize(numbered, classes.shape, fill=0, transform=grid.transform, dtype="int32")).ravel()
    count = len(outlines) + 1
    pixels = np.bincount(home, minlength=count)
    confidence = np.bincount(home, np.nan_to_num(certainty.read(1)).ravel(), count)
    ground = grid.areas_m2(0, 0, grid.height, grid.width)
    areas = None if ground is None else np.bincount(home, ground.ravel(), count)
    for place, (outline, value) in enumerate(outlines, 1):
        area = None if areas is None else float(areas[place])
        yield outline, value, area, int(pixels[place]), float(confidence[place] / max(1, pixels[place]))


def _to_degrees(shapes: Sequence["BaseGeometry"], grid: Grid) -> "list[BaseGeometry]":
    """Shapes in longitude and latitude, cut at the antimeridian, as GeoJSON wants them."""
    from rasterio.warp import transform_geom
    from shapely.geometry import mapping, shape

    moved = transform_geom(
        crs_text(grid.crs), "EPSG:4326", [mapping(part) for part in shapes], antimeridian_cutting=True
    )
    return [within_degrees(shape(part)) for part in moved]
