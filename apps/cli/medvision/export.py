"""The verb `export`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from shared_backbones.terminal import say


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a user asks `export` for."""

    bundle: Annotated[str, typer.Option(metavar="MODEL", help="Trained model that becomes a MONAI bundle.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle to write.")]
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Write it even where its labels will differ from the model's own.")
    ] = False


def export(options: ExportOptions) -> None:
    """Write a trained 3-D network as a MONAI bundle, which `python -m monai.bundle run` runs."""
    from medvision.bundles.exporting import export_bundle

    for difference in export_bundle(options.bundle, options.output, options.approximate):
        say(f"warning: {options.bundle}: {difference}", file=sys.stderr)
    say(f"{options.output}: run it there: python -m monai.bundle run --config_file configs/inference.json")
