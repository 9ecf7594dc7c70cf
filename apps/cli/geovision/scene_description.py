"""The work of `geovision info`: what a raster holds, what a model would lack, and which models would take it."""

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.cli.geovision.info import InfoOptions
from apps.cli.shared.program import find_model
from geovision.contract import InputContract
from geovision.files import located
from geovision.footprints import bounds, footprint
from geovision.grids import Grid, crs_text, georeferences, grid_of
from geovision.products import find_layers
from geovision.rasters import open_raster, read_values, reading
from geovision.scene import Scene
from geovision.scenes import open_for_model, open_scene
from geovision.sensors import CLASS
from shared_backbones import weights
from shared_backbones.catalogue import Catalogue
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_SAMPLE = 512  # side in pixels of what is looked at


def describe(options: InfoOptions) -> Entries:
    """What is known of a raster or product, in JSON types.

    Returns:
        `scene`: as models would see it, or None, and then `lacks` says why; `rasters`: as they are, of a file;
        `models`: those at hand and those that were given, each with what it `lacks`; and `warnings`.

    Raises:
        InputError: there is nothing that can be read.
    """
    path, reading_options = options.scene, asdict(options.reading)
    scene, lacks, warnings = None, "", []
    try:
        with open_scene(path, **reading_options) as opened:
            scene = _scene(opened, path, options)
            warnings = list(opened.warnings)
            try:
                opened.check_range()
            except InputError as error:
                lacks = _plain(error, path)
    except InputError as error:
        lacks = _plain(error, path)
    rasters = [] if os.path.isdir(path) else _rasters(path, keep=scene is not None)
    if scene is None and not rasters:
        raise InputError(f"{printable(path)}: {lacks}")
    names = [*Catalogue("geovision").bundled_models(), *(options.model or ())]
    models = [_tried(name, path, reading_options) for name in names]
    return {
        **(scene or rasters[0]),
        "scene": scene,
        "rasters": rasters,
        "lacks": lacks,
        "warnings": warnings,
        "models": models,
    }


def _scene(scene: Scene, path: Path, options: InfoOptions) -> Entries:
    values, valid = scene.sample()
    return {
        "case": f"case-{scene.sha256()[:8]}",
        "sensor": scene.sensor.name,
        **_place(scene.grid),
        "valid_share": float(valid.mean()),
        "clouds": "not masked" if scene.clouds is None else f"masked by {scene.clouds}",
        "cloud_band": scene.clouds or _cloud_band(path, options),
        "bands": [
            {
                "name": layer.band,
                "wavelength_nm": None if layer.unit == CLASS else scene.sensor.band(layer.band).wavelength_nm,
                "gsd_m": None if layer.unit == CLASS else scene.sensor.band(layer.band).gsd_m,
                "unit": layer.unit,
                "scale": layer.scale,
                "offset": layer.offset,
                **_range(plane, valid),
            }
            for layer, plane in zip(scene.layers, values, strict=True)
        ],
    }


def _cloud_band(path: Path, options: InfoOptions) -> str | None:
    quality = find_layers(path, None, options.reading.bands).quality
    return quality[0].band if quality else None


def _rasters(path: Path, *, keep: bool) -> list[Entries]:
    """A file as GDAL reads it; nothing where it is no raster, but a product that was read."""
    try:
        with open_raster(located(path), any_format=True) as source:
            return [_raster(source, path)]
    except InputError:
        if keep or not path.is_file():
            return []
        raise


def _raster(source: "DatasetReader", path: Path) -> Entries:
    count = source.count
    shape = tuple(max(1, round(side / max(1.0, max(source.shape) / _SAMPLE))) for side in source.shape)
    planes = []
    with reading(path):
        for number in range(1, count + 1):
            values, valid = read_values(source, [number], [None], None, shape)
            planes.append((values[0], valid[0]))
    fraction = float(np.mean([valid.mean() for _, valid in planes])) if planes else 0.0
    return {
        "format": source.driver,
        **_place(grid_of(source)),
        "valid_share": fraction,
        "georeferences": list(georeferences(source).values()),
        "tags": {printable(key): printable(str(value)[:200]) for key, value in sorted(source.tags().items())},
        "subdatasets": [printable(str(name).replace(str(path), path.name)) for name in source.subdatasets],
        "bands": [
            {
                "number": number,
                "name": printable(source.descriptions[number - 1] or ""),
                "color": source.colorinterp[number - 1].name,
                "dtype": source.dtypes[number - 1],
                "nodata": _number(source.nodatavals[number - 1]),
                "scale": _number(source.scales[number - 1]),
                "offset": _number(source.offsets[number - 1]),
                "tags": {printable(key): printable(str(v)[:200]) for key, v in sorted(source.tags(number).items())},
                **_range(plane, valid),
            }
            for number, (plane, valid) in enumerate(planes, 1)
        ],
    }


def _place(grid: Grid) -> Entries:
    outline = None
    if grid.on_earth:
        try:
            outline = bounds([footprint(grid, 0, 0, grid.height, grid.width, "")])
        except InputError:  # off the earth
            outline = None
    return {
        "height": grid.height,
        "width": grid.width,
        "crs": crs_text(grid.crs),
        "transform": list(grid.transform)[:6],
        "gsd_m": grid.gsd_m,
        "gsd_sides_m": None if grid.gsd_sides_m is None else list(grid.gsd_sides_m),
        "bbox": outline,
    }


def _range(plane: np.ndarray, valid: np.ndarray) -> Entries:
    if not valid.any() or plane.dtype.kind == "c":
        return dict.fromkeys(("min", "mean", "max"))
    measured = plane[valid].astype(np.float64)
    return {"min": float(measured.min()), "mean": float(measured.mean()), "max": float(measured.max())}


def _number(value: float | None) -> float | str | None:
    """A number for JSON, which has no NaN."""
    return value if value is None or math.isfinite(value) else str(value)


def _tried(name: str, path: Path, reading_options: Entries) -> Entries:
    """Whether a model would take a scene: what it `lacks`, empty where nothing."""
    folder = find_model(name, "geovision")
    try:
        contract = InputContract.from_card(weights.read_card(folder), name)
        with open_for_model(path, contract, **reading_options) as scene:
            scene.check(contract)
    except InputError as error:
        return {"model": printable(name), "lacks": _plain(error, path)}
    return {"model": printable(name), "lacks": ""}


def _plain(error: InputError, path: Path) -> str:
    """What an error says of a file, without the file's name."""
    return str(error).removeprefix(f"{printable(path)}: ")
