"""The work of `geovision embed`: a scene, or a folder of them, in; one table of embeddings and a side-car out."""

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path

from apps.cli.geovision.embed import EmbedOptions
from apps.cli.geovision.scene_maps import model_files
from apps.cli.geovision.side_cars import describe_input, now, versions
from apps.cli.shared.journal import Journal, LeftOut
from apps.cli.shared.outputs import Outputs
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, find_model
from apps.cli.shared.sharding import part_facts, part_of
from geovision.embedding import Embedded, Embedder, check_format, write_embeddings
from geovision.scenes import files_of, find_scenes, open_for_model
from pipelines.runtime.progress import Meter
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.terminal import say


def embed_scenes(options: EmbedOptions, journal: Journal) -> tuple[Entries, int]:
    """Embed a scene or all scenes of a folder into one table; returns the side-car's content and the exit code.

    Raises:
        InputError: nothing could be embedded, or a scene cannot be used and is not to be skipped.
    """
    check_format(options.output)
    every = find_scenes(options.input)
    scenes = part_of(every, options.shard)
    outputs = Outputs.table(options.table, options.overwrite)
    outputs.check([*(file for scene in scenes for file in files_of(scene)), *model_files(options.model)])
    embedder = Embedder(
        find_model(options.model, "geovision"),
        window=options.window,
        batch_size=options.batch_size,
        min_valid=options.min_valid,
        **options.network.keywords(),
    )
    parts: list[tuple[str, str, Embedded]] = []
    inputs: list[Entries] = []
    failed = 0
    with contextlib.closing(Meter("embed", lines=not options.as_json)) as meter:
        for number, path in enumerate(scenes, 1):
            try:
                with journal.working_on(path):
                    beside = sum(len(part.vectors) for _, _, part in parts)
                    embedded, described = _embed(embedder, path, options, beside, meter if len(scenes) == 1 else None)
            except InputError as error:
                if not options.skip_unreadable and not isinstance(error, LeftOut):
                    raise
                failed += 1
                say(f"cannot be used: {error}", file=sys.stderr)
                continue
            parts.append((_name(path, options.input), described["sha256"], embedded))
            inputs.append({**described, "windows": len(embedded.vectors)})
            if len(scenes) > 1:
                meter(number, len(scenes))
    if options.shard is None and not any(len(embedded.vectors) for _, _, embedded in parts):
        raise InputError(
            f"{printable(options.input)}: no window with enough valid pixels; lower --min-valid, or mend the scenes"
        )
    with outputs.placing() as staged:
        write_embeddings(staged["table"], parts or [("", "", embedder.nothing())], embedder.sha256)
        content = _side_car(embedder, inputs, failed, options)
        content = outputs.finish(staged, content | part_facts(options.shard, len(every), {}))
    return content, PARTLY_FAILED if failed else COMPLETE


def _embed(
    embedder: Embedder, path: Path, options: EmbedOptions, beside: int, meter: Meter | None
) -> tuple[Embedded, Entries]:
    """Embeddings of a scene, and what the side-car says of it."""
    with open_for_model(path, embedder.contract, **asdict(options.reading)) as scene:
        scene.check(embedder.contract, any_resolution=options.any_resolution)
        sha256 = scene.sha256()
        return embedder.embed(scene, beside=beside, on_progress=meter), describe_input(scene, sha256)


def _name(path: Path, home: Path) -> str:
    """Name of a scene in the table: its path in the folder that was given."""
    return path.relative_to(home).as_posix() if home.is_dir() and path != home else path.name


def _side_car(embedder: Embedder, inputs: list[Entries], failed: int, options: EmbedOptions) -> Entries:
    return {
        "created": now(),
        "model": embedder.provenance(),
        **embedder.described(),
        "settings": {
            "window": embedder.window,
            "batch_size": options.batch_size,
            "min_valid": options.min_valid,
            **asdict(options.reading),
            "any_resolution": options.any_resolution,
        },
        "inputs": inputs,
        "failed": failed,
        "width": embedder.width,
        "vectors": sum(part["windows"] for part in inputs),
        "warnings": embedder.warnings,
        "versions": versions(),
    }
