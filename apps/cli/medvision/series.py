"""The verb `series`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.options import BudgetOption
from shared_backbones.terminal import say


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """What a user asks `series` for."""

    input: Annotated[Path, typer.Argument(help="DICOM: a folder, a .zip or a file.")]
    max_gigabytes: BudgetOption = None
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False


def series(options: SeriesOptions) -> None:
    """List the DICOM series with images, by the numbers that `segment --series` takes; warn of what is not read."""
    from medvision.dicom.series import find_series

    listed = find_series(options.input)
    if options.as_json:
        keys = ("number", "id", "uid", "modality", "description", "distinction", "images", "warnings", "refusal")
        print(json.dumps([{key: getattr(entry, key) for key in keys} for entry in listed], indent=2))
        return
    for entry in listed:
        say(entry.describe())
    remarks = [(entry, [*entry.warnings, *([entry.advice] if entry.advice else [])]) for entry in listed]
    for text in dict.fromkeys(text for _, texts in remarks for text in texts):
        numbers = [str(entry.number) for entry, texts in remarks if text in texts]
        where = "" if len(numbers) == len(listed) else f"series {', '.join(numbers)}: "
        say(f"warning: {where}{text}", file=sys.stderr)
