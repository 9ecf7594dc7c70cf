"""The verb `classify`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

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
    split: Annotated[str | None, typer.Option(help="Of a .npz file: train, val or test, which is the default.")] = None
    grad_cam: Annotated[
        Path | None, typer.Option(help="New folder for pictures of what speaks for the class (Grad-CAM).")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images that the network sees at once.")] = 64
    shard: ShardOption = None
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out image files that cannot be used, and count them.")
    ] = False
    overwrite: OverwriteOption = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    max_gigabytes: Annotated[
        float,
        typer.Option(
            min=0.001, max=1e6, help="Most that the images of a .npz file, or a DICOM image, may take in memory."
        ),
    ] = 4.0
    as_json: JsonOption = False
    quiet: QuietOption = False


def classify(options: ClassifyOptions) -> int:
    """Classify images: a table of classes, probabilities, prediction sets and outliers, and a JSON side-car."""
    from apps.cli.medvision.classify_images import classify_images
    from apps.cli.shared.classification import report

    content, code = classify_images(options)
    report(content, options.table, as_json=options.as_json, quiet=options.quiet)
    return code
