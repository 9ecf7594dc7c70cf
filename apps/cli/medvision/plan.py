"""The verb `plan`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.options import CommaSeparated, QuietOption


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a user asks `plan` for."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the labelled volumes.")]
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Recipe to write; by default NAME.yaml in the current folder.")
    ] = None
    name: Annotated[str | None, typer.Option(help="Name of the recipe; by default the folder's.")] = None
    layout: Annotated[
        str | None, typer.Option(help="How the files lie; by default nnunet, msd or pairs, by names.")
    ] = None
    test_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the subjects that is kept for the test.")
    ] = 0.2
    modality: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="What the images are, CT or MRI, or their channels, CT,PET; by default by dataset.json."),
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(min=2.0, max=1000.0, help="Gigabytes of a training step; by default the GPU's, or 8."),
    ] = None
    width: Annotated[
        int | None, typer.Option(min=4, max=64, help="Channels at full resolution; by default 32 with a GPU, else 16.")
    ] = None
    hours: Annotated[
        float | None,
        typer.Option(min=0.01, max=1000.0, help="Hours of training on this machine; a few steps are timed."),
    ] = None
    quiet: QuietOption = False


def plan(options: PlanOptions) -> int:
    """Plan a training from the data: a recipe in which each number has its reason, to be read, changed and run."""
    from apps.cli.medvision.plan_training import plan_training

    return plan_training(options)
