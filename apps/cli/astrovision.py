"""The program `astrovision`."""

import sys
from typing import Annotated

import typer

from apps.cli.importing import add_import
from apps.cli.program import run, show_version
from apps.cli.running import add_run

app = typer.Typer(name="astrovision", add_completion=False)
add_import(app, "astrovision")
add_run(app, "astrovision")

_Version = Annotated[
    bool,
    typer.Option("--version", callback=show_version("astrovision"), is_eager=True, help="Print the version and leave."),
]


@app.callback()
def astrovision(version: _Version = False) -> None:
    """Published vision models for astronomical images."""


def main() -> None:
    """Entry point of the program."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
