"""The work of `geovision map`: a scene, or a folder of them, in; maps of classes and side-cars out."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from apps.cli.geovision.map import MapOptions
from apps.cli.geovision.side_cars import describe_run, software, write_side_car
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, find_model
from apps.cli.shared.sharding import part_of
from geovision.mapping import Mapper
from geovision.scenes import Scene, find_scenes, open_for_model
from pipelines.runtime.progress import Meter
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries


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
    mapper = _load(options)
    with _open(mapper, options.input, options) as scene:
        return _write_map(mapper, scene, scene.sha256(), options.output, options)


def map_folder(options: MapOptions) -> tuple[list[dict[str, str]], int]:
    """Map the scenes of a folder into another one, which is made where it is absent, with the model loaded once.

    Each gets `<scene>_map.tif` and its side-car. One that cannot be used fails alone.

    Returns:
        For each scene its `input` and `status` (`done`, `skipped` or `failed`, with the `error`), and the exit code.

    Raises:
        InputError: nothing could be started.
    """
    scenes = find_scenes(options.input)
    stems = [scene.name if scene.is_dir() else scene.stem for scene in scenes]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError(f"{printable(options.input)}: holds several scenes named {printable(twice)}; rename them")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot be made ({error.strerror})"
        raise InputError(f"{printable(options.output)}: {reason}; choose another folder") from None
    mapper = _load(options)
    results = []
    chosen = part_of(list(zip(scenes, stems, strict=True)), options.shard)
    for number, (path, stem) in enumerate(chosen, 1):
        result = {"input": printable(path)}
        try:
            result["status"] = _map_one_of_many(mapper, path, options.output / f"{stem}_map.tif", options)
        except InputError as error:
            result |= {"status": "failed", "error": str(error)}
        results.append(result)
        print(f"[{number}/{len(chosen)}] {result['input']}: {result.get('error', result['status'])}", flush=True)
    failed = any(result["status"] == "failed" for result in results)
    return results, PARTLY_FAILED if failed else COMPLETE


def _load(options: MapOptions) -> Mapper:
    return Mapper(
        find_model(options.model), overlap=options.overlap, batch_size=options.batch_size, **asdict(options.network)
    )


@contextlib.contextmanager
def _open(mapper: Mapper, path: Path, options: MapOptions) -> Iterator[Scene]:
    """A scene that the model can map.

    Raises:
        InputError: it cannot.
    """
    with open_for_model(path, mapper.contract, **asdict(options.reading)) as scene:
        if scene.grid.crs is None:
            raise InputError(f"{scene.label}: has no CRS, so its map would have none; give it with --crs EPSG:CODE")
        scene.check(mapper.contract, any_resolution=options.any_resolution)
        yield scene


def _map_one_of_many(mapper: Mapper, path: Path, output: Path, options: MapOptions) -> str:
    """Map a scene of a folder, unless it is to be resumed and its map is there; returns `done` or `skipped`."""
    with _open(mapper, path, options) as scene:
        sha256 = scene.sha256()
        if options.resume and output.exists() and _is_complete(output, sha256, mapper.sha256, options):
            return "skipped"
        _write_map(mapper, scene, sha256, output, options)
    return "done"


def _write_map(mapper: Mapper, scene: Scene, sha256: str, output: Path, options: MapOptions) -> Entries:
    """Write a scene's map and then its side-car; returns the content of the latter."""
    run = mapper.card.get("training", {}).get("run_id")
    tags = {"input_sha256": sha256, "software": software(), **({"run_id": str(run)} if run else {})}
    with contextlib.closing(Meter("map")) as meter:
        figures = mapper.map(scene, output, probabilities=options.probabilities, tags=tags, on_progress=meter)
    gsd_m = scene.grid.gsd_m
    rows = [
        {
            "id": entry["id"],
            "name": entry["name"],
            "pixels": figures[f"pixels_{entry['id']}"],
            "hectares": None if gsd_m is None else figures[f"pixels_{entry['id']}"] * gsd_m**2 / 1e4,
        }
        for entry in mapper.classes
    ]
    content = {
        **describe_run(mapper, scene, sha256),
        "settings": _settings(options),
        "classes": rows,
        "timings_s": {name: round(figures[name], 3) for name in ("read", "network", "write", "all")},
    }
    write_side_car(output.with_suffix(".json"), content)
    return content


def _settings(options: MapOptions) -> Entries:
    """Settings that decide the map."""
    return {
        "overlap": options.overlap,
        "batch_size": options.batch_size,
        **asdict(options.reading),
        "any_resolution": options.any_resolution,
    }


def _is_complete(output: Path, sha256: str, model_sha256: str, options: MapOptions) -> bool:
    """Whether a map's side-car, which is written last, is of this input, model and settings."""
    try:
        content = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
        return (
            content["input"]["sha256"] == sha256
            and content["model"]["sha256"] == model_sha256
            and content["settings"] == json.loads(json.dumps(_settings(options)))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
