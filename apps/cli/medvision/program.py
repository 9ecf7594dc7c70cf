"""The program `medvision`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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
from apps.cli.shared.program import find_model, run
from apps.cli.shared.program import split as split_items
from apps.cli.shared.review_command import add_review
from apps.cli.shared.run_command import add_run
from apps.cli.shared.sharding import Shard, ShardOption
from shared_backbones.errors import InputError

app = typer.Typer(name="medvision", add_completion=False)
models_app = typer.Typer(help="The trained models at hand.")
app.add_typer(models_app, name="models")


@app.callback()
def medvision(version: VersionOption = False) -> None:
    """Segment medical volumes, classify medical images, and say how far to trust the result.

    Research use only, not for diagnosis.
    """


@app.command()
def segment(
    input: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="Scan (.nii, .nii.gz, .mgz, .mgh) or a folder of scans; or DICOM: a folder, .zip or file.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; by default beside the input.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Bundled model, trained-model folder, or models:/NAME@ALIAS.")
    ] = "brain-structures",
    device: DeviceOption = "auto",
    views: Annotated[
        str | None, typer.Option(help="Planes to run over, of axial,coronal,sagittal; by default the model's.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Structures to keep, names or ids with commas; the others become 0.")
    ] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Write class probabilities too.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Label map or DICOM segmentation to compare with (Dice, HD95, NSD); for a folder of scans, a folder "
            "of the same names."
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(help="DICOM: number or UID of the series (UID:2 for its second volume), where there are several."),
    ] = None,
    resample_irregular: Annotated[
        bool,
        typer.Option(
            "--resample-irregular", help="DICOM: interpolate tilted, missing or irregular slices on a regular grid."
        ),
    ] = False,
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="DICOM: write the labels as a DICOM segmentation, too; it names the patient."),
    ] = False,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="One view at a coarser spacing; brain-structures then wants a skull-stripped scan."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip scans whose results are there, of this input, model and settings.")
    ] = False,
    shard: ShardOption = None,
    pseudonyms: Annotated[
        bool, typer.Option("--pseudonyms", help="Name results by the scan's hash, not by its file name.")
    ] = False,
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    volume_index: Annotated[int | None, typer.Option(help="Which volume of a 4-D file, from 0.")] = None,
    use_sform: Annotated[
        bool, typer.Option("--use-sform", help="Trust the sform where it disagrees with the qform.")
    ] = False,
    use_qform: Annotated[
        bool, typer.Option("--use-qform", help="Trust the qform where it disagrees with the sform.")
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Read NaN and infinite voxels as 0.")
    ] = False,
    max_gigabytes: Annotated[float, typer.Option(min=0.001, max=1e6, help="Largest volume a header may claim.")] = 4.0,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the table of structures and timings.")
    ] = False,
    version: VersionOption = False,
) -> int:
    """Segment scans: a label map on the scan's own grid, a JSON side-car, and a report to open in a browser."""
    if use_sform and use_qform:
        raise InputError("--use-sform and --use-qform exclude each other; give one of them")
    if quiet and verbose:
        raise InputError("--quiet and --verbose exclude each other; give one of them")
    from apps.cli.medvision.scans import Job
    from apps.cli.medvision.segment import run_jobs

    job = Job(
        input=input,
        output=output,
        model=str(find_model(model)),
        device=device,
        views=split_items(views),
        labels=split_items(labels),
        save_probabilities=save_probabilities,
        reference=reference,
        fast=fast,
        resume=resume,
        threads=threads,
        precision=precision.value,
        volume_index=volume_index,
        geometry="sform" if use_sform else "qform" if use_qform else None,
        allow_nonfinite=allow_nonfinite,
        max_bytes=int(max_gigabytes * 2**30),
        series=series,
        resample_irregular=resample_irregular,
        dicom_seg=dicom_seg,
        pseudonyms=pseudonyms,
        shard=Shard.read(shard),
    )
    return run_jobs(job, as_json=as_json, quiet=quiet, verbose=verbose)


@app.command("series")
def list_series(
    input: Annotated[Path, typer.Argument(help="DICOM: a folder, a .zip or a file.")],
    max_gigabytes: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Largest that an archive may unpack to.")
    ] = 4.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the DICOM series with images, by the numbers that `segment --series` takes."""
    from medvision.dicom.series import find_series

    found = find_series(input, max_bytes=int(max_gigabytes * 2**30))
    if as_json:
        keys = ("number", "id", "uid", "modality", "description", "distinction", "images")
        print(json.dumps([{key: getattr(series, key) for key in keys} for series in found], indent=2))
        return
    for series in found:
        print(series.describe())


@app.command()
def classify(
    input: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="PNG, JPEG or TIFF image of 8 bits, grey or RGB, or a folder of them; or a .npz file of MedMNIST.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .csv or .parquet.")],
    model: TrainedModelOption,
    split: Annotated[str | None, typer.Option(help="Of a .npz file: train, val or test, which is the default.")] = None,
    grad_cam: Annotated[
        Path | None, typer.Option(help="New folder for pictures of what speaks for the class (Grad-CAM).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images that the network sees at once.")] = 64,
    shard: ShardOption = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out image files that cannot be used, and count them.")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    max_gigabytes: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Most that the images of a .npz file may take in memory.")
    ] = 4.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Classify images: a table of classes, probabilities, prediction sets and outliers, and a JSON side-car."""
    from apps.cli.medvision.classify import classify_images
    from apps.cli.shared.classification import report

    part = Shard.read(shard)
    output = part.beside(output) if part else output
    found, code = classify_images(
        input,
        output,
        model,
        split=split,
        shard=part,
        cam_folder=part.beside(grad_cam) if part and grad_cam else grad_cam,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
        max_gigabytes=max_gigabytes,
        quiet=quiet or as_json,
        network={"device": device, "threads": threads, "precision": precision.value},
    )
    report(found, output, as_json=as_json, quiet=quiet)
    return code


@app.command()
def robustness(
    model: Annotated[str, typer.Option(help="Bundled model, trained-model folder, or models:/NAME@ALIAS.")],
    data: Annotated[
        Path,
        typer.Option(
            help="For a classifier a .npz file of MedMNIST, a folder of files of MedMNIST-C, or images in folders by "
            "class; for a model that segments, a scan (.nii, .nii.gz, .mgz, .mgh)."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="New or empty folder for the results.")],
    only: Annotated[str | None, typer.Option(help="Corruptions to measure, with commas; by default all.")] = None,
    split: Annotated[str | None, typer.Option(help="Images: train, val or test, which is the default.")] = None,
    corruptions: Annotated[
        str | None, typer.Option(help="Images: MedMNIST set whose corruptions are made; by default that of the file.")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images: how many, spread over the split.")] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Images: the .npz file without corruption that MedMNIST-C's belong to.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Images: whose errors are the unit: alexnet (published), none, or a folder of this program."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Images: that the network sees at once; by default 64.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Images: of the intervals; by default 0.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Scan: its label map; by default the segmentation of the scan as it is.")
    ] = None,
    label_map: Annotated[
        Path | None, typer.Option(help='Scan: JSON file of the labels\' ids and the model\'s: {"17": 4, "53": 4}.')
    ] = None,
    modality: Annotated[str | None, typer.Option(help="Scan: mr or ct; by default the model's.")] = None,
    severities: Annotated[str | None, typer.Option(help="Scan: some of 1 to 5, with commas; by default all.")] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    max_gigabytes: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Most that the images, or a volume, may take in memory.")
    ] = 4.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Measure a model under corruption of its input: a matrix, curves, pictures and a report in a new folder."""
    from apps.cli.medvision.robustness import run_robustness
    from apps.cli.medvision.robustness_inputs import Job

    job = Job(
        model=model,
        data=data,
        output=output,
        only=split_items(only),
        split=split,
        corruptions=corruptions,
        images=images,
        clean=clean,
        baseline=baseline,
        batch_size=batch_size,
        seed=seed,
        labels=labels,
        label_map=label_map,
        modality=modality,
        severities=split_items(severities),
        device=device,
        threads=threads,
        precision=precision.value,
        max_gigabytes=max_gigabytes,
    )
    return run_robustness(job, as_json=as_json, quiet=quiet)


add_import(app)
add_run(app, "medvision")
add_review(app)


@models_app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the bundled models."""
    from medvision.models.catalogue import bundled_models, model_card

    cards = [model_card(name) for name in bundled_models()]
    if as_json:
        print(json.dumps(cards, indent=2))
        return
    for card in cards:
        print(f"{card['name']}  {card['version']}  {card['license']}  {card['description']}")


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Bundled name or trained-model folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as it is.")] = False,
) -> None:
    """Show what a model does, expects, was trained on, and cannot do."""
    from medvision.models.catalogue import model_card

    card = model_card(name)
    if as_json:
        print(json.dumps(card, indent=2))
        return
    about = ("name", "version", "description", "license", "architecture", "weights_sha256")
    _print_entries({key: card.get(key) for key in about})
    for key in ("input", "training", "metrics"):
        if card.get(key):
            print(f"\n{key}")
            _print_entries(card[key], "  ")
    print("\nlabels")
    for entry in card.get("classes", []):
        print(f"  {entry['id']:3} {entry['name']}")
    print("\nlimits")
    for limit in card.get("limits", []):
        print(f"  {limit}")


def _print_entries(entries: Mapping[str, Any], indent: str = "") -> None:
    for key, value in entries.items():
        name = f"{indent}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            print(name)
            _print_entries(value, indent + "  ")
        else:
            print(f"{name:26}{_words(value)}")


def _words(value: Any) -> str:
    """A value of a card for a reader; of lists in a list, each after a semicolon."""
    if isinstance(value, list):
        return ("; " if any(isinstance(part, list) for part in value) else ", ").join(map(_words, value))
    return "-" if value is None else str(value)


def main() -> None:
    """Entry point of the program."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
