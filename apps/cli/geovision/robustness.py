"""The verb `robustness`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.geovision.reading import ReadingOptions
from apps.cli.shared.options import (
    CommaSeparated,
    JsonOption,
    NetworkOptions,
    QuietOption,
    TrainedModelOption,
)


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions:
    """What a user asks `robustness` for."""

    model: TrainedModelOption
    data: Annotated[Path, typer.Option(help="Folder of labelled images: in folders by class, or as --layout says.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="New or empty folder for the results.")]
    layout: Annotated[
        str, typer.Option(help="How the images lie: folders, eurosat, bigearthnet, fmow_sentinel or fmow_rgb.")
    ] = "folders"
    only: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Corruptions to measure, with commas; by default all."),
    ] = None
    split: Annotated[str | None, typer.Option(help="Split to measure on: train, val or test (the default).")] = None
    images: Annotated[int | None, typer.Option(min=1, help="Measure on so many images, spread over the split.")] = None
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of an earlier measurement, to test against on the same images.")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images that the network sees at once.")] = 64
    seed: Annotated[int, typer.Option(min=0, help="Seed of the corruptions and the intervals.")] = 0
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    as_json: JsonOption = False
    quiet: QuietOption = False


def robustness(options: RobustnessOptions) -> int:
    """Measure a classifier under corruption of its images: a matrix, curves, pictures and a report in a new folder."""
    import functools

    from apps.cli.geovision.measure_images import measure_images
    from apps.cli.shared.robustness import write_measurement

    measure = functools.partial(measure_images, options)
    return write_measurement(measure, options.output, as_json=options.as_json, quiet=options.quiet, program="geovision")
