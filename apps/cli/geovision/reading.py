"""Options of every verb that reads scenes."""

from dataclasses import dataclass
from typing import Annotated

import typer

from apps.cli.shared.options import CommaSeparated

AnyResolutionOption = Annotated[
    bool, typer.Option("--any-resolution", help="Go on at another resolution than the model's.")
]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a scene is read; the fields are arguments of `geovision.scenes.open_scene`."""

    sensor: Annotated[
        str | None, typer.Option(help="Sensor, such as sentinel2_l1c; a wrong name lists those known.")
    ] = None
    bands: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Names of the file's bands in order, with commas; or order:NAME, such as order:eurosat."),
    ] = None
    scale: Annotated[float | None, typer.Option(help="Value = stored number * scale + offset.")] = None
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None
    crs: Annotated[str | None, typer.Option(help="CRS of a file that has none, such as EPSG:32633.")] = None
    georeference: Annotated[
        str | None, typer.Option(help="gcps or rpcs: lay the scene by its ground control points or polynomials.")
    ] = None
    mask_clouds: Annotated[
        bool, typer.Option("--mask-clouds", help="Leave out clouds and shadows, by the product's own cloud band.")
    ] = False
