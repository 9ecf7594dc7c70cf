"""The verb `robustness`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.options import CommaSeparated, JsonOption, NetworkOptions, QuietOption


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions:
    """What a user asks `robustness` for."""

    model: Annotated[str, typer.Option(help="Bundled model, trained-model folder, or models:/NAME@ALIAS.")]
    data: Annotated[
        Path,
        typer.Option(
            help="For a classifier a .npz file of MedMNIST, a folder of files of MedMNIST-C, or images in folders by "
            "class; for a model that segments, a scan (.nii, .nii.gz, .mgz, .mgh)."
        ),
    ]
    output: Annotated[Path, typer.Option("--output", "-o", help="New or empty folder for the results.")]
    only: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Corruptions to measure, with commas; by default all."),
    ] = None
    split: Annotated[str | None, typer.Option(help="Images: split: train, val or test (the default).")] = None
    corruptions: Annotated[
        str | None, typer.Option(help="Images: MedMNIST set whose corruptions are made; by default that of the file.")
    ] = None
    images: Annotated[int | None, typer.Option(min=1, help="Images: measure on so many, spread over the split.")] = None
    clean: Annotated[
        Path | None, typer.Option(help="Images: the .npz file without corruption that MedMNIST-C's belong to.")
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Images: compare with alexnet (published errors), none, or the folder of an earlier measurement."
        ),
    ] = None
    batch_size: Annotated[int | None, typer.Option(min=1, max=4096, help="Images: batch size; by default 64.")] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Images: seed of the intervals; by default 0.")] = None
    labels: Annotated[
        Path | None, typer.Option(help="Scan: its label map; by default the segmentation of the scan as it is.")
    ] = None
    label_map: Annotated[
        Path | None, typer.Option(help='Scan: JSON file of the labels\' ids and the model\'s: {"17": 4, "53": 4}.')
    ] = None
    modality: Annotated[str | None, typer.Option(help="Scan: mr or ct; by default the model's.")] = None
    severities: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Scan: some of 1 to 5, with commas; by default all."),
    ] = None
    network: NetworkOptions = field(default_factory=NetworkOptions)
    as_json: JsonOption = False
    quiet: QuietOption = False


def robustness(options: RobustnessOptions) -> int:
    """Measure a model under corruption of its input: a matrix, curves, pictures and a report in a new folder."""
    from apps.cli.medvision.measure import measure

    return measure(options)
