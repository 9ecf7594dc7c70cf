"""The verb `series`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """What a user asks `series` for."""

    input: Annotated[Path, typer.Argument(help="DICOM: a folder, a .zip or a file.")]
    max_gigabytes: Annotated[float, typer.Option(min=0.001, max=1e6, help="Largest that an archive may unpack to.")] = (
        4.0
    )
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False


def series(options: SeriesOptions) -> None:
    """List the DICOM series with images, by the numbers that `segment --series` takes."""
    from medvision.dicom.series import find_series

    listed = find_series(options.input, max_bytes=int(options.max_gigabytes * 2**30))
    if options.as_json:
        keys = ("number", "id", "uid", "modality", "description", "distinction", "images")
        print(json.dumps([{key: getattr(entry, key) for key in keys} for entry in listed], indent=2))
        return
    for entry in listed:
        print(entry.describe())
