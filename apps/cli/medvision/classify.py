"""The verb `classify`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.array_command import ShardsResumeOption, share_out
from apps.cli.shared.job_options import ArrayOptions
from apps.cli.shared.journal import Journal
from apps.cli.shared.options import JsonOption, NetworkOptions, QuietOption, TrainedModelOption
from apps.cli.shared.outputs import OverwriteOption
from apps.cli.shared.sharding import ShardedTable, ShardOption


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(ShardedTable):
    """What a user asks `classify` for."""

    input: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="PNG, JPEG or TIFF image of 8 bits, grey or RGB, or a grey DICOM image of one frame, or a folder of "
            "them; or a .npz file in the form of MedMNIST.",
        ),
    ]
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .csv or .parquet.")]
    model: TrainedModelOption
    split: Annotated[str | None, typer.Option(help="Split of a .npz file: train, val or test (the default).")] = None
    grad_cam: Annotated[
        Path | None, typer.Option(help="New folder for pictures of what speaks for the class (Grad-CAM).")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images that the network sees at once.")] = 64
    shard: ShardOption = None
    resume: ShardsResumeOption = False
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out image files that cannot be used, and count them.")
    ] = False
    overwrite: OverwriteOption = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    as_json: JsonOption = False
    quiet: QuietOption = False
    array: ArrayOptions = field(default_factory=ArrayOptions)


def classify(options: ClassifyOptions) -> int:
    """Classify images: a table of classes, probabilities, prediction sets and outliers, and a JSON side-car."""
    return share_out(options, ("medvision", "classify"), _classify, check=_check, resumes=False)


def _check(options: ClassifyOptions) -> None:
    from apps.cli.medvision.image_sources import find_files

    find_files(options)


def _classify(options: ClassifyOptions, journal: Journal) -> int:
    from apps.cli.medvision.classify_images import classify_images
    from apps.cli.shared.classification import report

    content, code = classify_images(options, journal)
    report(content, options.table, as_json=options.as_json, quiet=options.quiet)
    return code
