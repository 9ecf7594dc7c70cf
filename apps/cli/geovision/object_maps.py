"""The work of `geovision map` with a model of single objects: their raster, polygons, COCO's form, and a side-car."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from apps.cli.geovision.map import MapOptions
from apps.cli.geovision.scene_maps import model_files
from apps.cli.geovision.side_cars import describe_run, software
from apps.cli.shared.outputs import SIDECAR, Outputs
from apps.cli.shared.program import find_model
from geovision.coco import coco
from geovision.instances import InstanceMapper, Objects, finds_objects
from geovision.pictures import shown_bands
from geovision.polygons import check_polygons, write_objects
from geovision.scene import Scene
from geovision.scenes import files_of, open_for_model
from pipelines.report.scenes import object_panel
from pipelines.runtime.progress import Meter
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries


def is_of_objects(model: str) -> bool:
    """Whether a model finds single objects, as its card says."""
    return finds_objects(read_card(find_model(model, "geovision"))) is not None


def map_objects(options: MapOptions) -> Entries:
    """Find the objects of a scene and write the side-car beside their raster; returns its content.

    Raises:
        InputError: scene, model, output and options do not go together, or the files cannot be written.
    """
    _check(options)
    names = {"map": options.output, "quicklook": options.output.with_suffix(".png"), SIDECAR: _side_car(options)}
    further = {"polygons": options.polygons, "coco": options.coco}
    outputs = Outputs(names | {kind: path for kind, path in further.items() if path is not None}, options.overwrite)
    outputs.check([*files_of(options.input), *model_files(options.model)])
    mapper = InstanceMapper(
        find_model(options.model, "geovision"), overlap=options.overlap, **options.network.keywords()
    )
    with open_for_model(options.input, mapper.contract, **asdict(options.reading)) as scene:
        if options.polygons is not None:
            check_polygons(options.polygons, scene.grid)
        scene.check(mapper.contract, any_resolution=options.any_resolution)
        return _write(mapper, scene, outputs, options)


def _check(options: MapOptions) -> None:
    """Refuse options that have no meaning for objects, and names of files that cannot be."""
    for name in ("probabilities", "tile"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name}: means nothing for a model that finds single objects; leave it out")
    for path, ending in ((options.output, ".tif"), (options.coco, ".json")):
        if path is not None and path.suffix.lower() != ending:
            raise InputError(f"{printable(path)}: ends in {path.suffix or 'nothing'}, expected {ending}")
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{printable(path.parent)}: no such folder; make it, or choose another output")
    if options.coco is not None and options.coco == _side_car(options):
        raise InputError(f"{printable(options.coco)}: is the name of the side-car; give --coco another one")
    if options.polygons is not None:
        check_polygons(options.polygons)


def _side_car(options: MapOptions) -> Path:
    return options.output.with_suffix(".json")


def _write(mapper: InstanceMapper, scene: Scene, outputs: Outputs, options: MapOptions) -> Entries:
    sha256 = scene.sha256()
    tags = {"input_sha256": sha256, "software": software()}
    with contextlib.closing(Meter("map", lines=not options.as_json)) as meter, outputs.placing() as staged:
        outlines = "polygons" in staged or "coco" in staged
        objects, seconds = mapper.map(scene, staged["map"], outlines=outlines, tags=tags, on_progress=meter)
        object_panel(staged["quicklook"], scene, staged["map"], shown_bands(scene.bands))
        content = {
            **describe_run(mapper, scene, sha256),
            "settings": {
                "overlap": mapper.overlap,
                "threshold": mapper.threshold,
                **asdict(options.reading),
                "any_resolution": options.any_resolution,
            },
            "tile": {"size": mapper.tile},
            "classes": _rows(mapper, objects),
            "timings_s": {name: round(value, 3) for name, value in seconds.items()},
        }
        if "polygons" in staged:
            content["polygons"] = write_objects(staged["polygons"], staged["map"], objects, mapper.classes)
        if "coco" in staged:
            text = json.dumps(coco(staged["map"], objects, mapper.classes, content["case"]))
            staged["coco"].write_text(text + "\n", encoding="utf-8")
        return outputs.finish(staged, content)


def _rows(mapper: InstanceMapper, objects: Objects) -> list[Entries]:
    """Objects of each class, their pixels and their area."""
    rows: list[Entries] = []
    for number, entry in enumerate(mapper.classes):
        own = objects.classes == number
        area = None if objects.areas_m2 is None else float(np.sum(objects.areas_m2[own])) / 1e4
        pixels = int(objects.pixels[own].sum())
        rows.append(
            {"id": number, "name": entry["name"], "objects": int(own.sum()), "pixels": pixels, "hectares": area}
        )
    return rows
