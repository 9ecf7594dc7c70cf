"""The program `astrovision`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.importing import add_import
from apps.cli.program import run, show_version, split
from apps.cli.review import add_review
from apps.cli.running import add_run
from apps.cli.sharding import Shard, ShardOption

app = typer.Typer(name="astrovision", add_completion=False)
add_import(app, "astrovision")
add_review(app)
add_run(app, "astrovision")


class Precision(StrEnum):
    """Number formats of the network's arithmetic."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


_Version = Annotated[
    bool,
    typer.Option("--version", callback=show_version("astrovision"), is_eager=True, help="Print the version and leave."),
]


@app.callback()
def astrovision(version: _Version = False) -> None:
    """Published vision models for astronomical images: classes of galaxies, with what their probabilities are worth."""


@app.command()
def classify(
    input: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            help="JPEG or PNG image or a folder of them, HDF5 file of images, or FITS: one file, or one for each band "
            "in a folder or with commas.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table to write: .vot, .fits, .ecsv, .csv or .parquet.")
    ],
    model: Annotated[str, typer.Option(help="Folder of a trained model, or models:/NAME@ALIAS.")],
    catalogue: Annotated[Path | None, typer.Option(help="Table of the sources in a FITS mosaic.")] = None,
    ra: Annotated[str | None, typer.Option(help="The catalogue's column of right ascensions, ICRS.")] = None,
    dec: Annotated[str | None, typer.Option(help="Its column of declinations.")] = None,
    x: Annotated[str | None, typer.Option(help="Its column of pixels along rows, counted from 0.")] = None,
    y: Annotated[str | None, typer.Option(help="Its column of pixels along columns.")] = None,
    hdu: Annotated[str | None, typer.Option(help="FITS images, by number or name; several with commas.")] = None,
    bands: Annotated[str | None, typer.Option(help="Names of the FITS images in order, with commas.")] = None,
    coverage: Annotated[float | None, typer.Option(help="Coverage of prediction sets; the model has one.")] = None,
    no_symmetries: Annotated[
        bool, typer.Option("--no-symmetries", help="See each image once, not turned and mirrored eight times.")
    ] = False,
    grad_cam: Annotated[
        Path | None, typer.Option(help="New folder for pictures of what speaks for the class (Grad-CAM).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images that the network sees at once.")] = 64,
    shard: ShardOption = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out image files that cannot be used, and count them.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    precision: Annotated[Precision, typer.Option(help="Number format of the network.")] = Precision.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors alone.")] = False,
) -> int:
    """Classify galaxies: a table of classes, probabilities, prediction sets and outliers, and a JSON side-car."""
    from apps.cli.classifying import report
    from apps.cli.galaxies import classify_galaxies
    from apps.cli.galaxy_inputs import InputOptions

    part = Shard.read(shard)
    output = part.beside(output) if part else output
    found, code = classify_galaxies(
        input,
        output,
        model,
        InputOptions(catalogue=catalogue, ra=ra, dec=dec, x=x, y=y, hdu=split(hdu), bands=split(bands)),
        coverage=coverage,
        symmetries=not no_symmetries,
        shard=part,
        cam_folder=part.beside(grad_cam) if part and grad_cam else grad_cam,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
        quiet=quiet or as_json,
        network={"device": device, "threads": threads, "precision": precision.value},
    )
    report(found, output, as_json=as_json, quiet=quiet)
    return code


def main() -> None:
    """Entry point of the program."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
