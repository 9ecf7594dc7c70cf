"""The verb `info`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.cli.geovision.reading import ReadingOptions
from apps.cli.shared.options import JsonOption
from shared_backbones.json_values import Entries

if TYPE_CHECKING:
    from geovision.scenes import Scene


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """What a user asks `info` for."""

    scene: Annotated[Path, typer.Argument(help="GeoTIFF or JPEG 2000 file, or the folder of a product.")]
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    as_json: JsonOption = False


def info(options: InfoOptions) -> None:
    """Say what a scene holds: sensor, bands, units, grid and range of values."""
    from geovision.scenes import open_scene

    with open_scene(options.scene, **asdict(options.reading)) as scene:
        description = _describe(scene)
    if options.as_json:
        print(json.dumps(description, indent=2))
    else:
        _print_description(description)


def _describe(scene: "Scene") -> Entries:
    """What is known of a scene, in JSON types."""
    values, valid = scene.sample()
    crs, grid = scene.grid.crs, scene.grid
    code = crs.to_epsg() if crs else None
    return {
        "case": f"case-{scene.sha256()[:8]}",
        "sensor": scene.sensor.name,
        "height": grid.height,
        "width": grid.width,
        "crs": None if crs is None else f"EPSG:{code}" if code else crs.to_wkt(),
        "transform": list(grid.transform)[:6],
        "gsd_m": grid.gsd_m,
        "valid_share": float(valid.mean()),
        "bands": [
            {
                "name": layer.band,
                "wavelength_nm": scene.sensor.band(layer.band).wavelength_nm,
                "gsd_m": scene.sensor.band(layer.band).gsd_m,
                "unit": layer.unit,
                "scale": layer.scale,
                "offset": layer.offset,
                "min": float(plane[valid].min()) if valid.any() else None,
                "mean": float(plane[valid].mean()) if valid.any() else None,
                "max": float(plane[valid].max()) if valid.any() else None,
            }
            for layer, plane in zip(scene.layers, values, strict=True)
        ],
    }


def _print_description(description: Mapping[str, Any]) -> None:
    metres = "no metres" if description["gsd_m"] is None else f"{description['gsd_m']:.4g} m"
    print(
        f"{description['case']}  {description['sensor']}  {description['height']} x {description['width']} pixels  "
        f"{metres}  {description['crs'] or 'no CRS'}  {description['valid_share']:.1%} valid"
    )
    for band in description["bands"]:
        figures = "no valid pixel"
        if band["mean"] is not None:
            figures = f"{band['min']:.4g} .. {band['mean']:.4g} .. {band['max']:.4g}"
        print(f"  {band['name']:<6} {band['wavelength_nm']:>8.1f} nm  {band['unit']:<14} {figures}")
