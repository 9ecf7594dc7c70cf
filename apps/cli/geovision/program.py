"""The program `geovision`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli.shared.import_command import add_import
from apps.cli.shared.options import (
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    TrainedModelOption,
    VersionOption,
)
from apps.cli.shared.program import COMPLETE, run, split
from apps.cli.shared.review_command import add_review
from apps.cli.shared.run_command import add_run, add_run_of_kind
from apps.cli.shared.sharding import Shard, ShardText
from shared_backbones.errors import InputError
from shared_backbones.files import printable

app = typer.Typer(name="geovision", add_completion=False)
add_import(app, "geovision")
add_review(app)
add_run(app, "geovision")
add_run_of_kind(
    app, "geovision", "pretrain", "scene_pretraining", "Pretrain an encoder: `run`, for recipes that pretrain."
)
add_run_of_kind(app, "geovision", "finetune", "satellite_images", "Fine-tune a classifier: `run`, for such recipes.")
add_run_of_kind(
    app, "geovision", "probe", "satellite_images",
    "Judge an encoder as it is: a linear probe and its nearest neighbours; `run` with train.trainable=head.",
    ["train.trainable=head"],
)  # fmt: skip

_Scene = Annotated[Path, typer.Argument(help="GeoTIFF or JPEG 2000 file, or the folder of a product.")]
_Input = Annotated[Path, typer.Option("--input", "-i", help="GeoTIFF or JPEG 2000 file, or the folder of a product.")]
_Sensor = Annotated[str | None, typer.Option(help="Sensor, such as sentinel2_l1c; a wrong name lists those known.")]
_Bands = Annotated[str | None, typer.Option(help="Names of the file's bands in order, with commas.")]
_Scale = Annotated[float | None, typer.Option(help="Value = stored number * scale + offset.")]
_Offset = Annotated[float | None, typer.Option(help="See --scale.")]
_Crs = Annotated[str | None, typer.Option(help="CRS of a file that has none, such as EPSG:32633.")]
_AnyResolution = Annotated[bool, typer.Option("--any-resolution", help="Go on at another resolution than the model's.")]


@app.callback()
def geovision(version: VersionOption = False) -> None:
    """Published vision models for satellite images: georeferenced maps, embeddings and trained encoders."""


@app.command()
def info(
    scene: _Scene,
    sensor: _Sensor = None,
    bands: _Bands = None,
    scale: _Scale = None,
    offset: _Offset = None,
    crs: _Crs = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a scene holds: sensor, bands, units, grid and range of values."""
    from apps.cli.geovision.scenes import describe, print_description

    found = describe(scene, _options(sensor, bands, scale, offset, crs))
    print(json.dumps(found, indent=2)) if as_json else print_description(found)


@app.command("map")
def map_(
    input: Annotated[
        Path,
        typer.Option("--input", "-i", help="GeoTIFF or JPEG 2000 file, product, or folder of scenes."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="GeoTIFF of the classes to write (.tif); for many scenes a folder.")
    ],
    model: TrainedModelOption,
    probabilities: Annotated[
        Path | None, typer.Option(help="GeoTIFF of the classes' probabilities to write, too.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a tile that is blended with the next.")
    ] = 0.25,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Tiles that the network sees at once.")] = 8,
    resume: Annotated[
        bool, typer.Option("--resume", help="Of a folder: leave out scenes whose maps are there already.")
    ] = False,
    shard: ShardText = None,
    sensor: _Sensor = None,
    bands: _Bands = None,
    scale: _Scale = None,
    offset: _Offset = None,
    crs: _Crs = None,
    any_resolution: _AnyResolution = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    as_json: JsonOption = False,
) -> int:
    """Map a scene, or a folder of them: a cloud-optimised GeoTIFF of classes on its own grid, and a side-car."""
    from apps.cli.geovision.scenes import map_folder, map_scene
    from geovision.scenes import is_product

    options = _options(sensor, bands, scale, offset, crs, any_resolution)
    network = {"device": device, "threads": threads, "precision": precision.value}
    if input.is_dir() and not is_product(input):
        if probabilities is not None:
            raise InputError("--probabilities: means nothing for a folder of scenes; map one scene, or leave it out")
        results, code = map_folder(
            input, output, model, options,
            overlap=overlap, batch_size=batch_size, resume=resume, shard=Shard.read(shard), network=network,
        )  # fmt: skip
        if as_json:
            print(json.dumps({"results": results}, indent=2))
        return code
    if resume or shard is not None:
        raise InputError(f"{printable(input)}: is one scene; --resume and --shard are for a folder of them")
    found = map_scene(
        input,
        output,
        model,
        options,
        probabilities=probabilities,
        overlap=overlap,
        batch_size=batch_size,
        network=network,
    )
    if as_json:
        print(json.dumps(found, indent=2))
        return COMPLETE
    for warning in found["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    total = sum(row["pixels"] for row in found["classes"])
    for row in found["classes"]:
        hectares = "" if row["hectares"] is None else f"  {row['hectares']:,.1f} ha"
        print(f"  {row['name']:<24} {row['pixels'] / max(total, 1):6.1%}{hectares}")
    print(f"map: {output}")
    return COMPLETE


@app.command()
def embed(
    input: Annotated[Path, typer.Option("--input", "-i", help="Scene, product, or a folder of scenes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .parquet (GeoParquet) or .npz.")],
    model: TrainedModelOption,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Windows that the network sees at once.")] = 16,
    min_valid: Annotated[
        float, typer.Option(min=0, max=1, help="Windows with a smaller share of valid pixels are left out.")
    ] = 0.5,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out scenes that cannot be used, and count them.")
    ] = False,
    shard: ShardText = None,
    sensor: _Sensor = None,
    bands: _Bands = None,
    scale: _Scale = None,
    offset: _Offset = None,
    crs: _Crs = None,
    any_resolution: _AnyResolution = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    as_json: JsonOption = False,
) -> int:
    """Embed scenes window by window: vectors with footprints, scene and model, as GeoParquet or NumPy arrays."""
    from apps.cli.geovision.scenes import embed_scenes

    part = Shard.read(shard)
    found, code = embed_scenes(
        input,
        output,
        model,
        _options(sensor, bands, scale, offset, crs, any_resolution),
        batch_size=batch_size,
        min_valid=min_valid,
        skip_unreadable=skip_unreadable,
        shard=part,
        network={"device": device, "threads": threads, "precision": precision.value},
    )
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        counts = f"{found['vectors']} vectors of {found['width']} numbers from {len(found['inputs'])} scenes"
        print(f"{part.beside(output) if part else output}: {counts}")
    return code


def _options(
    sensor: str | None,
    bands: str | None,
    scale: float | None,
    offset: float | None,
    crs: str | None,
    any_resolution: bool = False,
) -> Any:
    from apps.cli.geovision.scenes import SceneOptions

    return SceneOptions(
        sensor=sensor, bands=split(bands), scale=scale, offset=offset, crs=crs, any_resolution=any_resolution
    )


def main() -> None:
    """Entry point of the program."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
