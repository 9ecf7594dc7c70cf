"""Options that mean the same in all programs."""

from enum import StrEnum
from typing import Annotated

import typer


class Precision(StrEnum):
    """Number formats of the network's arithmetic."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Number format of the network.")]
TrainedModelOption = Annotated[str, typer.Option(help="Folder of a trained model, or models:/NAME@ALIAS.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors alone.")]


def _show_version(context: typer.Context, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"{context.find_root().info_name} (domain-vision {version('domain-vision')})")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
]
