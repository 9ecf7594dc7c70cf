"""The verb `classify`."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.array_command import ShardsResumeOption, share_out
from apps.cli.shared.job_options import ArrayOptions
from apps.cli.shared.journal import Journal
from apps.cli.shared.options import CommaSeparated, JsonOption, NetworkOptions, QuietOption, TrainedModelOption
from apps.cli.shared.outputs import OverwriteOption
from apps.cli.shared.sharding import ShardedTable, ShardOption
from shared_backbones.errors import InputError


class Parity(StrEnum):
    """Parity of FITS images: the sign of the determinant of the pixel scale matrix."""

    east_left = "-1"
    east_right = "1"


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(ShardedTable):
    """What a user asks `classify` for."""

    input: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            help="JPEG or PNG image or a folder of them, HDF5 file of images, or FITS: one file, one for each band in "
            "a folder or with commas, or a folder of cut-outs, one for each object, or each object and band "
            "(NAME_BAND.fits).",
        ),
    ]
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table to write: .vot, .fits, .ecsv, .csv or .parquet.")
    ]
    model: TrainedModelOption = "galaxy-morphology"
    catalogue: Annotated[
        Path | None, typer.Option(help="Table of the sources in a FITS mosaic, or of a folder of cut-outs.")
    ] = None
    ra: Annotated[str | None, typer.Option(help="The catalogue's column of right ascensions.")] = None
    dec: Annotated[str | None, typer.Option(help="The catalogue's column of declinations.")] = None
    x: Annotated[str | None, typer.Option(help="The catalogue's column of x, in pixels from 0.")] = None
    y: Annotated[str | None, typer.Option(help="The catalogue's column of y, in pixels from 0.")] = None
    hdu: Annotated[
        list[str] | None, CommaSeparated, typer.Option(help="FITS images, by number or name; several with commas.")
    ] = None
    bands: Annotated[
        list[str] | None, CommaSeparated, typer.Option(help="Names of the FITS images in order, with commas.")
    ] = None
    parity: Annotated[
        Parity | None,
        typer.Option(
            help="That of the FITS images, if the WCS does not say or is wrong: -1 where east is left of north when "
            "the first row is at the bottom, else 1."
        ),
    ] = None
    centre: Annotated[
        bool, typer.Option("--centre", help="Cut the middle out of FITS images larger than the model's cut-outs.")
    ] = False
    keep_columns: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Columns of the catalogue to keep in the table, with commas; all for all."),
    ] = None
    coverage: Annotated[float | None, typer.Option(help="Coverage of prediction sets; the model has one.")] = None
    no_symmetries: Annotated[
        bool, typer.Option("--no-symmetries", help="See each image once, not turned and mirrored eight times.")
    ] = False
    grad_cam: Annotated[
        Path | None, typer.Option(help="New folder for pictures of what speaks for the class (Grad-CAM).")
    ] = None
    gallery: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            help="Write NAME_gallery.html to label the most doubtful images with a key each, so many of them.",
        ),
    ] = 0
    gallery_random: Annotated[
        int, typer.Option(min=0, max=100_000, help="So many more in the gallery, drawn at random from all images.")
    ] = 0
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table with the labels that the images are thought to have, by id: the gallery shows the ones that "
            "the network believes least, too."
        ),
    ] = None
    label_column: Annotated[str, typer.Option(help="Its column of labels, names of classes of the model.")] = "label"
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images that the network sees at once.")] = 64
    shard: ShardOption = None
    resume: ShardsResumeOption = False
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out image files that cannot be used, and count them.")
    ] = False
    overwrite: OverwriteOption = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    as_json: JsonOption = False
    quiet: QuietOption = False
    array: ArrayOptions = field(default_factory=ArrayOptions)


def classify(options: ClassifyOptions) -> int:
    """Classify galaxies: a table of classes, probabilities, prediction sets and outliers, and a JSON side-car."""
    if (options.gallery or options.gallery_random) and (options.shard or options.array.shards):
        raise InputError("--gallery: is made of all images at once; classify without shards for it")
    if options.labels is not None and not (options.gallery or options.gallery_random):
        raise InputError("--labels: orders the images of a gallery; ask for one with --gallery")
    return share_out(options, ("astrovision", "classify"), _classify, check=_check, resumes=False)


def _check(options: ClassifyOptions) -> None:
    from apps.cli.astrovision.sources import find_input

    find_input(options.input)


def _classify(options: ClassifyOptions, journal: Journal) -> int:
    from apps.cli.astrovision.classify_galaxies import classify_galaxies
    from apps.cli.shared.classification import report

    content, code = classify_galaxies(options, journal)
    report(content, options.table, as_json=options.as_json, quiet=options.quiet)
    return code
