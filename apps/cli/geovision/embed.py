"""The verb `embed`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.geovision.reading import AnyResolutionOption, ReadingOptions
from apps.cli.shared.array_command import ShardsResumeOption, share_out
from apps.cli.shared.job_options import ArrayOptions
from apps.cli.shared.journal import Journal
from apps.cli.shared.options import JsonOption, NetworkOptions, TrainedModelOption
from apps.cli.shared.outputs import OverwriteOption
from apps.cli.shared.sharding import ShardOption
from shared_backbones.terminal import say


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """What a user asks `embed` for."""

    input: Annotated[Path, typer.Option("--input", "-i", help="Scene, product, or a folder of scenes.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .parquet (GeoParquet) or .npz.")]
    model: TrainedModelOption = "satmae-mini"
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side in pixels of the windows that get a vector each; by default that of the network's images.",
        ),
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images that the network sees at once.")] = 16
    min_valid: Annotated[
        float, typer.Option(min=0, max=1, help="Windows with a smaller share of valid pixels are left out.")
    ] = 0.5
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out scenes that cannot be used, and count them.")
    ] = False
    shard: ShardOption = None
    resume: ShardsResumeOption = False
    overwrite: OverwriteOption = False
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    any_resolution: AnyResolutionOption = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    as_json: JsonOption = False
    array: ArrayOptions = field(default_factory=ArrayOptions)

    @property
    def table(self) -> Path:
        """The table to write, of the whole input or of a shard."""
        return self.shard.beside(self.output) if self.shard else self.output


def embed(options: EmbedOptions) -> int:
    """Embed scenes window by window: vectors with footprints, scene and model, as GeoParquet or NumPy arrays."""
    return share_out(options, ("geovision", "embed"), _embed, check=_check, resumes=False)


def _check(options: EmbedOptions) -> None:
    from geovision.scenes import find_scenes

    find_scenes(options.input)


def _embed(options: EmbedOptions, journal: Journal) -> int:
    from apps.cli.geovision.scene_embeddings import embed_scenes

    content, code = embed_scenes(options, journal)
    if options.as_json:
        print(json.dumps(content, indent=2))
    else:
        counts = f"{content['vectors']} vectors of {content['width']} numbers from {len(content['inputs'])} scenes"
        say(f"{options.table}: {counts}")
    return code
