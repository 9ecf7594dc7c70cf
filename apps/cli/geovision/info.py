"""The verb `info`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.geovision.reading import ReadingOptions
from apps.cli.shared.options import BudgetOption, JsonOption
from shared_backbones.json_values import Document, Entries
from shared_backbones.terminal import say


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """What a user asks `info` for."""

    scene: Annotated[
        Path, typer.Argument(help="Raster of any format that GDAL reads, product (folder or archive), or STAC item.")
    ]
    model: Annotated[
        list[str] | None, typer.Option(help="Model to try on the scene, beside those at hand; may be given again.")
    ] = None
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    max_gigabytes: BudgetOption = None
    as_json: JsonOption = False


def info(options: InfoOptions) -> None:
    """Say what a raster or product holds: grid, bands, units, ranges, and what models would lack."""
    from apps.cli.geovision.scene_description import describe

    description = describe(options)
    if options.as_json:
        print(json.dumps(description, indent=2, allow_nan=False))
    else:
        _print_description(description)


def _print_description(description: Document) -> None:
    scene = description["scene"]
    if scene is not None:
        _print_scene(scene)
    for raster in description["rasters"] if scene is None else ():
        _print_raster(raster)
    if description["lacks"]:
        say(f"a model would lack: {description['lacks']}")
    for warning in description["warnings"]:
        say(f"warning: {warning}")
    for model in description["models"]:
        say(f"model {model['model']}: {model['lacks'] or 'takes it'}")


def _print_scene(scene: Entries) -> None:
    say(
        f"{scene['case']}  {scene['sensor']}  {scene['height']} x {scene['width']} pixels  "
        f"{_size(scene)}  {scene['crs'] or 'no CRS'}  {scene['valid_share']:.1%} valid"
    )
    for band in scene["bands"]:
        wavelength = "" if band["wavelength_nm"] is None else f"{band['wavelength_nm']:.1f} nm"
        say(f"  {band['name']:<6} {wavelength:>11}  {band['unit']:<14} {_figures(band)}")
    if scene["cloud_band"]:
        say(f"  clouds: {scene['cloud_band']} ({scene['clouds']})")


def _print_raster(raster: Entries) -> None:
    say(
        f"{raster['format']}  {raster['height']} x {raster['width']} pixels  {_size(raster)}  "
        f"{raster['crs'] or 'no CRS'}  {raster['valid_share']:.1%} valid"
    )
    for what in raster["georeferences"]:
        say(f"  has {what}")
    for key, value in raster["tags"].items():
        say(f"  {key} = {value}")
    for band in raster["bands"]:
        nodata = "" if band["nodata"] is None else f"nodata {band['nodata']}  "
        name = band["name"] or "no name"
        say(f"  {band['number']}  {name:<12} {band['color']:<10} {band['dtype']:<8} {nodata}{_figures(band)}")
    for name in raster["subdatasets"]:
        say(f"  holds {name}")


def _size(about: Entries) -> str:
    sides = about["gsd_sides_m"]
    if sides is None:
        return "no metres"
    across, down = sides
    return f"{across:.4g} m" if abs(across / down - 1) < 0.01 else f"{across:.4g} x {down:.4g} m"


def _figures(band: Entries) -> str:
    if band["mean"] is None:
        return "no valid pixel"
    return f"{band['min']:.4g} .. {band['mean']:.4g} .. {band['max']:.4g}"
