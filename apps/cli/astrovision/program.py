"""The program `astrovision`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.import_command import add_import
from apps.cli.shared.options import (
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    QuietOption,
    ThreadsOption,
    TrainedModelOption,
    VersionOption,
)
from apps.cli.shared.program import run, split
from apps.cli.shared.review_command import add_review
from apps.cli.shared.run_command import add_run
from apps.cli.shared.sharding import Shard, ShardText

app = typer.Typer(name="astrovision", add_completion=False)
add_import(app, "astrovision")
add_review(app)
add_run(app, "astrovision")


@app.callback()
def astrovision(version: VersionOption = False) -> None:
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
    model: TrainedModelOption,
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
    shard: ShardText = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out image files that cannot be used, and count them.")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Classify galaxies: a table of classes, probabilities, prediction sets and outliers, and a JSON side-car."""
    from apps.cli.astrovision.classify import classify_galaxies
    from apps.cli.astrovision.sources import InputOptions
    from apps.cli.shared.classification import report

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
