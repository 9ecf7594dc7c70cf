"""`geovision info`, `geovision map` and `geovision embed`: scenes in; maps and embeddings out."""

import contextlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, find_model
from apps.cli.shared.sharding import Shard, share
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How a scene is read; the fields are the programs' options."""

    sensor: str | None
    bands: list[str] | None
    scale: float | None
    offset: float | None
    crs: str | None
    any_resolution: bool = False

    def reading(self) -> dict[str, Any]:
        """Arguments of `geovision.scenes.open_scene`."""
        return {
            "sensor": self.sensor, "bands": self.bands, "scale": self.scale, "offset": self.offset, "crs": self.crs
        }  # fmt: skip


def describe(path: Path, options: SceneOptions) -> dict[str, Any]:
    """What is known of a scene, in JSON types."""
    from geovision.scenes import open_scene

    with open_scene(path, **options.reading()) as scene:
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


def print_description(found: dict[str, Any]) -> None:
    """The same for a reader."""
    metres = "no metres" if found["gsd_m"] is None else f"{found['gsd_m']:.4g} m"
    print(
        f"{found['case']}  {found['sensor']}  {found['height']} x {found['width']} pixels  {metres}  "
        f"{found['crs'] or 'no CRS'}  {found['valid_share']:.1%} valid"
    )
    for band in found["bands"]:
        figures = "no valid pixel"
        if band["mean"] is not None:
            figures = f"{band['min']:.4g} .. {band['mean']:.4g} .. {band['max']:.4g}"
        print(f"  {band['name']:<6} {band['wavelength_nm']:>8.1f} nm  {band['unit']:<14} {figures}")


def map_scene(
    path: Path,
    output: Path,
    model: str,
    options: SceneOptions,
    *,
    probabilities: Path | None,
    overlap: float,
    batch_size: int,
    network: dict[str, Any],
) -> dict[str, Any]:
    """Map a scene and write the side-car beside the map; returns its content.

    Raises:
        InputError: scene, model and output do not go together, or the map cannot be written.
    """
    from geovision.mapping import Mapper

    for target in (output, probabilities):
        if target is not None and target.suffix.lower() not in {".tif", ".tiff"}:
            raise InputError(f"{printable(target)}: ends in {target.suffix or 'nothing'}, expected .tif")
        if target is not None and not target.parent.is_dir():
            raise InputError(f"{printable(target.parent)}: no such folder; make it, or choose another output")
    if probabilities == output:
        raise InputError(f"{printable(output)}: is named for classes and for probabilities; give two names")
    mapper = Mapper(find_model(model), overlap=overlap, batch_size=batch_size, **network)
    content = _map_one(mapper, path, output, options, probabilities, {"overlap": overlap, "batch_size": batch_size})
    assert content is not None  # noqa: S101 - nothing is skipped
    return content


def map_folder(
    path: Path,
    output: Path,
    model: str,
    options: SceneOptions,
    *,
    overlap: float,
    batch_size: int,
    resume: bool,
    shard: Shard | None,
    network: dict[str, Any],
) -> tuple[list[dict[str, Any]], int]:
    """Map the scenes of a folder into another one, with the model loaded once.

    Each gets `<scene>_map.tif` and its side-car. One that cannot be used fails alone.

    Args:
        path: the folder.
        output: folder of the maps; made where it is absent.
        model: folder or URI of a trained model.
        options: how scenes are read.
        overlap: share of a tile that is blended with the next.
        batch_size: tiles that the network sees at once.
        resume: leave out scenes whose maps are there, of the same input, model and settings.
        shard: part of the scenes; None for all.
        network: `device`, `threads` and `precision`.

    Returns:
        For each scene its `input` and `status` (`done`, `skipped` or `failed`, with the `error`), and the exit code.

    Raises:
        InputError: nothing could be started.
    """
    from geovision.mapping import Mapper
    from geovision.scenes import find_scenes

    scenes = find_scenes(path)
    stems = [scene.name if scene.is_dir() else scene.stem for scene in scenes]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError(f"{printable(path)}: holds several scenes named {printable(twice)}; rename them")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{printable(output)}: cannot be made ({error.strerror}); choose another folder") from None
    mapper = Mapper(find_model(model), overlap=overlap, batch_size=batch_size, **network)
    results = []
    settings = {"overlap": overlap, "batch_size": batch_size}
    chosen = share(list(zip(scenes, stems, strict=True)), shard)
    for number, (scene, stem) in enumerate(chosen, 1):
        found: dict[str, Any] = {"input": printable(scene), "status": "done"}
        try:
            if _map_one(mapper, scene, output / f"{stem}_map.tif", options, None, settings, resume=resume) is None:
                found["status"] = "skipped"
        except InputError as error:
            found |= {"status": "failed", "error": str(error)}
        results.append(found)
        print(f"[{number}/{len(chosen)}] {found['input']}: {found.get('error', found['status'])}", flush=True)
    failed = sum(found["status"] == "failed" for found in results)
    return results, PARTLY_FAILED if failed else COMPLETE


def _map_one(
    mapper: Any,
    path: Path,
    output: Path,
    options: SceneOptions,
    probabilities: Path | None,
    settings: dict[str, Any],
    *,
    resume: bool = False,
) -> dict[str, Any] | None:
    """Map one scene; returns the side-car's content, None where the same map is there already."""
    from geovision.scenes import open_for_model
    from pipelines.runtime.progress import Meter

    beside = output.with_suffix(".json")
    with open_for_model(path, mapper.contract, **options.reading()) as scene:
        if scene.grid.crs is None:
            raise InputError(f"{scene.label}: has no CRS, so its map would have none; give it with --crs EPSG:CODE")
        scene.check(mapper.contract, any_resolution=options.any_resolution)
        sha256 = scene.sha256()
        asked = {**settings, **_shown(options)}
        if resume and output.exists() and _is_of(beside, sha256, mapper.sha256, asked):
            return None
        run = mapper.card.get("training", {}).get("run_id")
        tags = {"input_sha256": sha256, "software": _software(), **({"run_id": str(run)} if run else {})}
        with contextlib.closing(Meter("map")) as meter:
            figures = mapper.map(scene, output, probabilities=probabilities, tags=tags, on_progress=meter)
        area = scene.grid.gsd_m
        rows = [
            {
                "id": entry["id"],
                "name": entry["name"],
                "pixels": figures[f"pixels_{entry['id']}"],
                "hectares": None if area is None else figures[f"pixels_{entry['id']}"] * area**2 / 1e4,
            }
            for entry in mapper.classes
        ]
        content = {
            **_provenance(mapper, scene, sha256),
            "settings": asked,
            "classes": rows,
            "timings_s": {name: round(figures[name], 3) for name in ("read", "network", "write", "all")},
        }
    _write_json(beside, content)
    return content


def _is_of(beside: Path, sha256: str, model_sha256: str, settings: dict[str, Any]) -> bool:
    """Whether a side-car, which is written last, is of this input, model and settings."""
    try:
        there = json.loads(beside.read_text(encoding="utf-8"))
        return (
            there["input"]["sha256"] == sha256
            and there["model"]["sha256"] == model_sha256
            and there["settings"] == json.loads(json.dumps(settings))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def embed_scenes(
    path: Path,
    output: Path,
    model: str,
    options: SceneOptions,
    *,
    batch_size: int,
    min_valid: float,
    skip_unreadable: bool,
    shard: Shard | None,
    network: dict[str, Any],
) -> tuple[dict[str, Any], int]:
    """Embed a scene or all scenes of a folder into one table; returns the side-car's content and the exit code.

    Raises:
        InputError: nothing could be embedded, or a scene cannot be used and is not to be skipped.
    """
    from geovision.embedding import Embedder, check_format, write_embeddings
    from geovision.scenes import find_scenes, open_for_model
    from pipelines.runtime.progress import Meter

    check_format(output)
    scenes = share(find_scenes(path), shard)
    output = output if shard is None else shard.beside(output)
    embedder = Embedder(find_model(model), batch_size=batch_size, min_valid=min_valid, **network)
    parts, noted, failed = [], [], 0
    with contextlib.closing(Meter("embed")) as meter:
        for number, file in enumerate(scenes):
            try:
                with open_for_model(file, embedder.contract, **options.reading()) as scene:
                    scene.check(embedder.contract, any_resolution=options.any_resolution)
                    sha256 = scene.sha256()
                    found = embedder.embed(scene, on_progress=meter if len(scenes) == 1 else None)
                    noted.append({**_provenance(embedder, scene, sha256)["input"], "windows": len(found.vectors)})
            except InputError as error:
                if not skip_unreadable:
                    raise
                failed += 1
                print(f"cannot be used: {error}")
                continue
            name = file.relative_to(path).as_posix() if path.is_dir() and file != path else file.name
            parts.append((name, sha256, found))
            if len(scenes) > 1:
                meter(number + 1, len(scenes))
    if not any(len(part.vectors) for _, _, part in parts):
        raise InputError(
            f"{printable(path)}: no window with enough valid pixels; lower --min-valid, or mend the scenes"
        )
    write_embeddings(output, parts, embedder.sha256)
    content = {
        "created": _now(),
        "model": embedder.provenance(),
        "device": str(embedder.device),
        "precision": embedder.precision,
        "settings": {"batch_size": batch_size, "min_valid": min_valid, **_shown(options)},
        "inputs": noted,
        "failed": failed,
        "width": embedder.width,
        "vectors": sum(len(part.vectors) for _, _, part in parts),
        "warnings": embedder.warnings,
        "versions": _versions(),
    }
    _write_json(output.with_suffix(".json"), content)
    return content, PARTLY_FAILED if failed else COMPLETE


def _provenance(network: Any, scene: Any, sha256: str) -> dict[str, Any]:
    code = scene.grid.crs.to_epsg()
    return {
        "schema_version": 1,
        "case": f"case-{sha256[:8]}",
        "created": _now(),
        "model": network.provenance(),
        "input": {
            "sha256": sha256,
            "sensor": scene.sensor.name,
            "bands": scene.bands,
            "shape": list(scene.shape),
            "crs": f"EPSG:{code}" if code else scene.grid.crs.to_wkt(),
            "transform": list(scene.grid.transform)[:6],
            "gsd_m": scene.grid.gsd_m,
        },
        "device": str(network.device),
        "precision": network.precision,
        "warnings": [*network.warnings, *scene.warnings],
        "versions": _versions(),
    }


def _shown(options: SceneOptions) -> dict[str, Any]:
    return {**options.reading(), "any_resolution": options.any_resolution}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names: Sequence[str] = ("domain-vision", "torch", "numpy", "rasterio")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _software() -> str:
    from importlib.metadata import version

    return f"domain-vision {version('domain-vision')}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
