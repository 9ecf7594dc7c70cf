"""The verb `map`."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.geovision.reading import AnyResolutionOption, ReadingOptions
from apps.cli.shared.array_command import share_out
from apps.cli.shared.job_options import ArrayOptions
from apps.cli.shared.journal import Journal
from apps.cli.shared.options import JsonOption, NetworkOptions, TrainedModelOption
from apps.cli.shared.outputs import OverwriteOption
from apps.cli.shared.program import COMPLETE
from apps.cli.shared.sharding import ShardOption
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document
from shared_backbones.terminal import say


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What a user asks `map` for."""

    input: Annotated[
        Path, typer.Option("--input", "-i", help="GeoTIFF or JPEG 2000 file, product, or folder of scenes.")
    ]
    output: Annotated[
        Path, typer.Option("--output", "-o", help="GeoTIFF of the classes to write (.tif); for many scenes a folder.")
    ]
    model: TrainedModelOption = "surface-types"
    probabilities: Annotated[Path | None, typer.Option(help="GeoTIFF of the classes' probabilities to write, too.")] = (
        None
    )
    polygons: Annotated[
        Path | None, typer.Option(help="Polygons of the classes to write, too: .gpkg, or .geojson in degrees.")
    ] = None
    min_area: Annotated[float, typer.Option(min=0, help="Smallest polygon in hectares.")] = 0.0
    coco: Annotated[
        Path | None, typer.Option(help="JSON of the objects in COCO's form to write, too, of a model that finds such.")
    ] = None
    overlap: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.9, help="Share of a tile that it has in common with the next; 0.25, for objects the model's."
        ),
    ] = None
    tile: Annotated[
        int | None, typer.Option(min=16, max=8192, help="Side of a tile in pixels; by default the model's.")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Tiles that the network sees at once.")] = 8
    resume: Annotated[
        bool, typer.Option("--resume", help="Of a folder: leave out scenes whose maps are there already.")
    ] = False
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False
    points: Annotated[
        int, typer.Option(min=50, max=200, help="Points of the report at which people say what is there.")
    ] = 100
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of these points.")] = 0
    shard: ShardOption = None
    overwrite: OverwriteOption = False
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    any_resolution: AnyResolutionOption = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    as_json: JsonOption = False
    array: ArrayOptions = field(default_factory=ArrayOptions)


def map_scenes(options: MapOptions) -> int:
    """Map a scene, or a folder of them: a cloud-optimised GeoTIFF of classes, a side-car, a picture and a report."""
    return share_out(options, ("geovision", "map"), _map, check=_check, resumes=True)


def _check(options: MapOptions) -> None:
    from geovision.scenes import find_scenes

    find_scenes(options.input)


def _map(options: MapOptions, journal: Journal) -> int:
    from apps.cli.geovision.object_maps import is_of_objects, map_objects
    from apps.cli.geovision.scene_maps import map_folder, map_scene
    from geovision.scenes import is_product

    if os.path.isdir(options.input) and not is_product(options.input):
        for name in ("probabilities", "polygons", "coco"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name}: means nothing for a folder of scenes; map one scene, or leave it out")
        results, code = map_folder(options, journal)
        if options.as_json:
            print(json.dumps({"results": results}, indent=2))
        return code
    if options.resume or options.shard is not None:
        raise InputError(f"{printable(options.input)}: is one scene; --resume and --shard are for a folder of them")
    content = map_objects(options) if is_of_objects(options.model) else map_scene(options)
    if options.as_json:
        print(json.dumps(content, indent=2))
    else:
        _print_areas(content)
        say(f"map: {options.output}")
    return COMPLETE


def _print_areas(content: Document) -> None:
    """Warnings of a side-car, and how much of the map each class takes."""
    for warning in content["warnings"]:
        say(f"warning: {warning}", file=sys.stderr)
    total = sum(row["pixels"] for row in content["classes"])
    for row in content["classes"]:
        hectares = "" if row["hectares"] is None else f"  {row['hectares']:,.1f} ha"
        size = f"{row['objects']:>6} objects" if "objects" in row else f"{row['pixels'] / max(total, 1):6.1%}"
        say(f"  {row['name']:<24} {size}{hectares}")
