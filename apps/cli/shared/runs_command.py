"""`runs compare`: what two runs differ in."""

import json
from dataclasses import dataclass
from typing import Annotated

import typer

from apps.cli.shared.options import JsonOption, add_verb
from shared_backbones.errors import require
from shared_backbones.terminal import say

_RUN = "Id or name of a run in the tracking store, output folder of a recipe, or a file of its folder runs."


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What a user asks `runs compare` for."""

    first: Annotated[str, typer.Argument(metavar="A", help=_RUN)]
    second: Annotated[str, typer.Argument(metavar="B", help="The same; differences are B less A.")]
    as_json: JsonOption = False


def add_runs(app: typer.Typer) -> None:
    """Give a program the command `runs compare`."""
    runs = typer.Typer(help="Runs of recipes.")
    app.add_typer(runs, name="runs")

    @runs.callback()
    def group() -> None:
        """Runs of recipes."""

    def compare(options: CompareOptions) -> None:
        """Say what two runs differ in: settings, data and figures, with paired tests over their test cases."""
        require("mlflow", "train")
        from pipelines.comparison import compare as compare_runs
        from pipelines.comparison import lines_of, read_run

        comparison = compare_runs(read_run(options.first), read_run(options.second))
        if options.as_json:
            print(json.dumps(comparison, indent=1))
            return
        for line in lines_of(comparison):
            say(line)

    add_verb(runs, compare)
