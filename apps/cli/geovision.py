"""The program `geovision`."""

import sys
from typing import Annotated

import typer

from apps.cli.importing import add_import
from apps.cli.program import run, show_version
from apps.cli.running import add_run

app = typer.Typer(name="geovision", add_completion=False)
add_import(app, "geovision")
add_run(app, "geovision")

_Version = Annotated[
    bool,
    typer.Option("--version", callback=show_version("geovision"), is_eager=True, help="Print the version and leave."),
]


@app.callback()
def geovision(version: _Version = False) -> None:
    """Published vision models for satellite images."""


def main() -> None:
    """Entry point of the program."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
