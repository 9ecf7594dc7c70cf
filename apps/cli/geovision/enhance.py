"""The verb `enhance`: a scene's coarse bands at the resolution of its fine ones."""

import contextlib
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.geovision.reading import AnyResolutionOption, ReadingOptions
from apps.cli.shared.options import CommaSeparated, JsonOption, NetworkOptions, TrainedModelOption
from apps.cli.shared.outputs import SIDECAR, Outputs, OverwriteOption
from apps.cli.shared.program import COMPLETE, find_model
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.terminal import say

if TYPE_CHECKING:  # rasterio and torch are imported where a scene is opened
    from geovision.enhancing import Enhancer
    from geovision.scene import Scene


@dataclass(frozen=True, kw_only=True)
class EnhanceOptions:
    """What a user asks `enhance` for."""

    input: Annotated[Path, typer.Option("--input", "-i", help="GeoTIFF or JPEG 2000 file, or product.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoTIFF to write (.tif).")]
    model: TrainedModelOption
    output_bands: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Names of the bands to write, with commas; by default all of the model's."),
    ] = None
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False
    overwrite: OverwriteOption = False
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    any_resolution: AnyResolutionOption = False
    network: NetworkOptions = field(default_factory=NetworkOptions)
    as_json: JsonOption = False


def enhance(options: EnhanceOptions) -> int:
    """Bring a scene's coarse bands to its fine grid: a cloud-optimised GeoTIFF of all bands, a side-car and a report.

    Detail is inferred. What the result shows when it is degraded again is compared with what was measured, and noted.
    """
    from geovision.enhancing import Enhancer
    from geovision.scenes import files_of, open_for_model
    from shared_backbones.card import CARD
    from shared_backbones.weights import WEIGHTS

    if options.output.suffix.lower() not in {".tif", ".tiff"}:
        raise InputError(f"{printable(options.output)}: ends in {options.output.suffix or 'nothing'}, expected .tif")
    if not options.output.parent.is_dir():
        raise InputError(f"{printable(options.output.parent)}: no such folder; make it, or choose another output")
    files = {"scene": options.output, SIDECAR: options.output.with_suffix(".json")}
    if not options.no_report:
        files["report"] = options.output.with_name(f"{options.output.stem}_report.html")
    outputs, folder = Outputs(files, options.overwrite), find_model(options.model, "geovision")
    outputs.check([*files_of(options.input), folder / CARD, folder / WEIGHTS])
    enhancer = Enhancer(folder, **options.network.keywords())
    with open_for_model(options.input, enhancer.contract, **enhancer.opening, **asdict(options.reading)) as scene:
        scene.check(enhancer.contract, any_resolution=options.any_resolution)
        content = _written(enhancer, scene, outputs, options)
    if options.as_json:
        print(json.dumps(content, indent=2))
        return COMPLETE
    for warning in content["warnings"]:
        say(f"warning: {warning}", file=sys.stderr)
    for row in content["consistency"]:
        say(f"  {row['name']:<6} degraded again: {row['rms']:.2%} of its mean off, {row['worst']:.2%} at worst")
    say(f"scene: {options.output}")
    if not options.no_report:
        say(f"report: {files['report']}")
    return COMPLETE


def _written(enhancer: "Enhancer", scene: "Scene", outputs: Outputs, options: EnhanceOptions) -> Entries:
    """Write the scene and its side-car; returns the content of the latter."""
    from apps.cli.geovision.side_cars import describe_run, software
    from pipelines.runtime.progress import Meter

    sha256 = scene.sha256()
    tags = {"input_sha256": sha256, "model_sha256": enhancer.sha256, "software": software()}
    with contextlib.closing(Meter("enhance", lines=not options.as_json)) as meter, outputs.placing() as staged:
        figures = enhancer.enhance(scene, staged["scene"], bands=options.output_bands, tags=tags, on_progress=meter)
        described = describe_run(enhancer, scene, sha256)
        loose = [row["name"] for row in figures if not row["consistent"]]
        if loose:
            described["warnings"].append(f"{', '.join(loose)}: degraded again, not what was measured")
        content = {
            **described,
            "settings": {
                "output_bands": options.output_bands,
                **asdict(options.reading),
                "any_resolution": options.any_resolution,
            },
            "tile": {"size": enhancer.tile, "overlap": enhancer.sharpening.overlap},
            "consistency": figures,
        }
        if not options.no_report:
            _write_report(staged["scene"], staged["report"], enhancer, scene, content)
        return outputs.finish(staged, content)


def _write_report(result: Path, page: Path, enhancer: "Enhancer", scene: "Scene", content: Entries) -> None:
    from pipelines.report.enhanced_scenes import enhanced_pictures, scene_report

    contract, sharpened = enhancer.contract, [row["name"] for row in content["consistency"]]
    deviations = [contract.std[contract.bands.index(name)] * contract.scale for name in sharpened]
    names = enhancer.chosen(content["settings"]["output_bands"])
    pictures = enhanced_pictures(scene, result, names, sharpened, deviations)
    page.write_text(scene_report(content, pictures, scene.grid), encoding="utf-8")
