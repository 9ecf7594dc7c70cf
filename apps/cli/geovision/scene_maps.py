"""The work of `geovision map`: a scene, or a folder of them, in; maps of classes and side-cars out."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from apps.cli.geovision.map import MapOptions
from apps.cli.geovision.map_index import MappedScene, index_files, write_index
from apps.cli.geovision.map_report import report_files, write_report
from apps.cli.geovision.quicklook import write_quicklook
from apps.cli.geovision.side_cars import describe_run, software
from apps.cli.shared.journal import Journal
from apps.cli.shared.outputs import SIDECAR, IsSame, Outputs, State, check_outputs
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, find_model
from apps.cli.shared.sharding import part_of
from geovision.certainty import Certainty
from geovision.instances import finds_objects
from geovision.mapping import UNKNOWN, Mapper
from geovision.polygons import check_polygons, write_polygons
from geovision.scene import Scene
from geovision.scenes import files_of, find_scenes, open_for_model
from pipelines.runtime.progress import Meter
from shared_backbones.card import CARD, read_card
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Entries
from shared_backbones.terminal import say
from shared_backbones.weights import WEIGHTS

_OVERLAP = 0.25  # of a tile, where nothing else is asked for
_MANY_UNKNOWN = 0.2  # part of the pixels


def map_scene(options: MapOptions) -> Entries:
    """Map a scene and write the side-car beside the map; returns its content.

    Raises:
        InputError: scene, model and output do not go together, or the map cannot be written.
    """
    for target in (options.output, options.probabilities):
        if target is not None and target.suffix.lower() not in {".tif", ".tiff"}:
            raise InputError(f"{printable(target)}: ends in {target.suffix or 'nothing'}, expected .tif")
        if target is not None and not target.parent.is_dir():
            raise InputError(f"{printable(target.parent)}: no such folder; make it, or choose another output")
    if options.probabilities == options.output:
        raise InputError(f"{printable(options.output)}: is named for classes and for probabilities; give two names")
    if options.coco is not None:
        raise InputError("--coco: is of models that find single objects, and this one maps classes; leave it out")
    if options.polygons is not None:
        check_polygons(options.polygons)
    outputs = _outputs(options.output, options)
    outputs.check([*files_of(options.input), *model_files(options.model)])
    mapper = _load(options)
    with _open(mapper, options.input, options) as scene:
        return _write_map(mapper, scene, scene.sha256(), outputs, options)


def map_folder(options: MapOptions, journal: Journal) -> tuple[list[Entries], int]:
    """Map the scenes of a folder into another one, which is made where it is absent, with the model loaded once.

    Each gets `<scene>_map.tif` and its side-car. One that cannot be used fails alone. An index of all is written, but
    where only a shard of them is mapped.

    Returns:
        For each scene its `input` and `status` (`done`, `skipped` with the files that were `changed` since, or `failed`
        with the `error`), and the exit code.

    Raises:
        InputError: nothing could be started.
    """
    if finds_objects(read_card(find_model(options.model, "geovision"))) is not None:
        raise InputError(f"model {printable(options.model)}: finds objects: map one scene after the other")
    scenes = find_scenes(options.input)
    stems = [scene.name if scene.is_dir() else scene.stem for scene in scenes]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError(f"{printable(options.input)}: holds several scenes named {printable(twice)}; rename them")
    part = part_of(list(zip(scenes, stems, strict=True)), options.shard)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot be made ({error.strerror})"
        raise InputError(f"{printable(options.output)}: {reason}; choose another folder") from None
    chosen = [(path, _outputs(options.output / f"{stem}_map.tif", options)) for path, stem in part]
    # of those that were changed it is not known before the scene is opened whether they are to be resumed
    firm = [out for _, out in chosen if not options.resume or State.foreign in out.states().values()]
    inputs = [file for scene in scenes for file in files_of(scene)]
    if options.shard is None:
        firm.append(index_files(options.output, options.overwrite))
    check_outputs(firm, [*inputs, *model_files(options.model)])
    mapper, lines = _load(options), sys.stderr if options.as_json else sys.stdout
    results = []
    for number, (path, outputs) in enumerate(chosen, 1):
        result: Entries = {"input": printable(path)}
        try:
            with journal.working_on(path):
                result |= _map_one_of_many(mapper, path, outputs, options)
        except InputError as error:
            result |= {"status": "failed", "error": str(error)}
        results.append(result)
        since = [f"{path} was changed since and is kept" for path in result.get("changed", ())]
        said = "; ".join([result.get("error", result["status"]), *since])
        say(f"[{number}/{len(chosen)}] {result['input']}: {said}", flush=True, file=lines)
    if options.shard is None:  # jobs side by side would write over one another's
        mapped = [MappedScene(*of, _of_array(result, options)) for of, result in zip(chosen, results, strict=True)]
        write_index(options.output, mapped, mapper.provenance(), overwrite=options.overwrite)
    failed = any(result["status"] == "failed" for result in results)
    return results, PARTLY_FAILED if failed else COMPLETE


def _of_array(result: Entries, options: MapOptions) -> Entries:
    """A result; what the shards of an array have just done is done."""
    just_done = options.array.journal is not None and result["status"] == "skipped" and not result.get("changed")
    return {**result, "status": "done"} if just_done else result


def _load(options: MapOptions) -> Mapper:
    return Mapper(
        find_model(options.model, "geovision"),
        overlap=_overlap(options),
        tile=options.tile,
        batch_size=options.batch_size,
        **options.network.keywords(),
    )


def _overlap(options: MapOptions) -> float:
    return _OVERLAP if options.overlap is None else options.overlap


def model_files(model: str) -> list[Path]:
    """The files of a model, which no output may be."""
    folder = find_model(model, "geovision")
    return [folder / CARD, folder / WEIGHTS]


@contextlib.contextmanager
def _open(mapper: Mapper, path: Path, options: MapOptions) -> Iterator[Scene]:
    """A scene that the model can map.

    Raises:
        InputError: it cannot.
    """
    with open_for_model(path, mapper.contract, **asdict(options.reading)) as scene:
        if not scene.grid.on_earth:
            scene.warnings.append(
                "has no place on the earth, and so its map has none: areas are in pixels"
                if scene.grid.gsd_m is None
                else "has a local CRS, and so has its map"
            )
        if options.polygons is not None:
            check_polygons(options.polygons, scene.grid)
        scene.check(mapper.contract, any_resolution=options.any_resolution)
        yield scene


def _outputs(output: Path, options: MapOptions) -> Outputs:
    files = {"map": output, SIDECAR: output.with_suffix(".json"), "quicklook": output.with_suffix(".png")}
    further = {"probabilities": options.probabilities, "polygons": options.polygons}
    if not options.no_report:
        files |= report_files(output)
    return Outputs(files | {kind: path for kind, path in further.items() if path is not None}, options.overwrite)


def _map_one_of_many(mapper: Mapper, path: Path, outputs: Outputs, options: MapOptions) -> Entries:
    """Map a scene of a folder, unless it is to be resumed and its map is there; returns the `status`."""
    with _open(mapper, path, options) as scene:
        sha256 = scene.sha256()
        changed = outputs.standing(_is_same(sha256, mapper.sha256, options)) if options.resume else None
        if changed is not None:
            return {"status": "skipped", "changed": [printable(path) for path in changed]}
        outputs.check(files_of(path))
        _write_map(mapper, scene, sha256, outputs, options)
    return {"status": "done"}


def _write_map(mapper: Mapper, scene: Scene, sha256: str, outputs: Outputs, options: MapOptions) -> Entries:
    """Write a scene's map and its side-car; returns the content of the latter."""
    run = mapper.card.get("training", {}).get("run_id")
    tags = {"input_sha256": sha256, "software": software(), **({"run_id": str(run)} if run else {})}
    with contextlib.closing(Meter("map", lines=not options.as_json)) as meter, outputs.placing() as staged:
        confidence = staged["map"].with_suffix(".confidence.tif") if "polygons" in staged else None
        certainty = None if options.no_report else Certainty(scene.shape, len(mapper.classes))
        figures = mapper.map(
            scene,
            staged["map"],
            probabilities=staged.get("probabilities"),
            confidence=confidence,
            certainty=certainty,
            tags=tags,
            on_progress=meter,
        )
        content = _side_car(mapper, scene, sha256, figures, options)
        write_quicklook(staged["quicklook"], scene, staged["map"], mapper.classes, content["classes"])
        if confidence is not None:
            smallest = options.min_area * 1e4
            content["polygons"] = write_polygons(
                staged["polygons"], staged["map"], confidence, mapper.classes, smallest_m2=smallest
            )
        if certainty is not None:
            content |= write_report(staged, scene, certainty, mapper.classes, content, options)
        return outputs.finish(staged, content)


def _side_car(mapper: Mapper, scene: Scene, sha256: str, figures: Document, options: MapOptions) -> Entries:
    rows = [
        {
            "id": entry["id"],
            "name": entry["name"],
            "pixels": figures[f"pixels_{entry['id']}"],
            "hectares": figures.get(f"hectares_{entry['id']}"),
        }
        for entry in mapper.classes
    ]
    about = describe_run(mapper, scene, sha256)
    about["warnings"] += _strange(rows)
    return {
        **about,
        "settings": _settings(options),
        "tile": {"size": mapper.tile, "margin": mapper.margin},
        "classes": rows,
        "timings_s": {name: round(figures[name], 3) for name in ("read", "network", "write", "all")},
    }


def _strange(rows: Sequence[Entries]) -> list[str]:
    """A warning where much of a scene looks like nothing that the model knows."""
    total = sum(row["pixels"] for row in rows)
    unknown = sum(row["pixels"] for row in rows if row["name"] == UNKNOWN)
    if unknown <= _MANY_UNKNOWN * total:
        return []
    return [
        f"{unknown / total:.0%} of the pixels look like no surface that the model knows; are these reflectances of the "
        "bands that they are named for?"
    ]


def _settings(options: MapOptions) -> Entries:
    """Settings that decide the map."""
    return {
        "overlap": _overlap(options),
        "tile": options.tile,
        "points": None if options.no_report else options.points,
        "seed": None if options.no_report else options.seed,
        "min_area": options.min_area if options.polygons is not None else None,
        "batch_size": options.batch_size,
        **asdict(options.reading),
        "any_resolution": options.any_resolution,
    }


def _is_same(sha256: str, model_sha256: str, options: MapOptions) -> IsSame:
    """Whether a side-car is of this input, model and settings."""
    settings = json.loads(json.dumps(_settings(options)))
    return lambda sidecar: (
        (sidecar["input"]["sha256"], sidecar["model"]["sha256"], sidecar["settings"])
        == (sha256, model_sha256, settings)
    )
