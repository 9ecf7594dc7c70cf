"""The verb `review list`: scans whose results readers did not accept, laid out to be corrected."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.agreement_command import FoldersArgument
from apps.cli.shared.options import BudgetOption, CommaSeparated, QuietOption
from apps.cli.shared.outputs import OverwriteOption
from apps.cli.shared.review_command import ConsensusOption


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What a user asks `review list` for."""

    folders: FoldersArgument
    inputs: Annotated[
        Path, typer.Option("--inputs", "-i", help="Folder with the scans, at any depth; known by content.")
    ]
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for scans, label maps and marks.")]
    verdicts: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option("--verdict", help="Some of accept,needs_work,reject,disagree; by default needs_work,reject."),
    ] = None
    consensus: ConsensusOption = ""
    max_gigabytes: BudgetOption = None
    overwrite: OverwriteOption = False
    quiet: QuietOption = False


def list_corrections(options: ListOptions) -> int:
    """Lay out the scans that readers did not accept, to be corrected in ITK-SNAP or 3D Slicer and trained on.

    Scans are found by the hash of their content. The folder gets images/, labels/, marks/ (3D Slicer), cases.csv and
    marks.csv, and is a data set of layout `pairs`. Scans that are bad themselves are left out, and so is, with a line,
    what cannot be read.
    """
    from apps.cli.medvision.corrections import lay_out

    return lay_out(options)
