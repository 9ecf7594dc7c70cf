"""The verb `enhance`: thick slices made thinner."""

import contextlib
import json
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.shared.options import BudgetOption, DeviceOption, JsonOption, ThreadsOption, TrainedModelOption
from apps.cli.shared.outputs import SIDECAR, Outputs, OverwriteOption
from apps.cli.shared.program import COMPLETE, find_model
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.terminal import say

if TYPE_CHECKING:  # torch is imported where a scan is enhanced
    from medvision.enhancing import Enhancer
    from medvision.volumes.files import Volume

_MARK = "_enhanced"
_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class EnhanceOptions:
    """What a user asks `enhance` for."""

    input: Annotated[Path, typer.Option("--input", "-i", help="Scan (.nii, .nii.gz, .hdr/.img, .mgz, .mgh).")]
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, ending in _enhanced.nii.gz; by default beside the scan."),
    ] = None
    model: TrainedModelOption
    volume_index: Annotated[int | None, typer.Option(help="Which volume of a 4-D file, from 0.")] = None
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Read NaN and infinite voxels as the lowest finite value.")
    ] = False
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False
    overwrite: OverwriteOption = False
    device: DeviceOption = "auto"
    threads: ThreadsOption = None
    max_gigabytes: BudgetOption = None
    as_json: JsonOption = False


def enhance(options: EnhanceOptions) -> int:
    """Make thick slices thinner: a NIfTI file that says so in its name and header, a side-car and a report.

    Not for diagnosis: made-up detail is possible. `segment` warns when it is given such a file.
    """
    from medvision.enhancing import Enhancer
    from medvision.volumes.files import read_volume, scan_parts, scan_stem
    from shared_backbones.card import CARD
    from shared_backbones.weights import WEIGHTS

    output = options.output or options.input.with_name(f"{scan_stem(options.input)}{_MARK}.nii.gz")
    stem = next((output.name.removesuffix(end) for end in _SUFFIXES if output.name.endswith(f"{_MARK}{end}")), None)
    if stem is None:
        raise InputError(
            f"{printable(output)}: expected a name that ends in {_MARK}.nii.gz, so that nobody takes it for a scan"
        )
    if not output.parent.is_dir():
        raise InputError(f"{printable(output.parent)}: no such folder; make it, or choose another output")
    files = {"scan": output, SIDECAR: output.with_name(f"{stem}.json")}
    if not options.no_report:
        files["report"] = output.with_name(f"{stem}_report.html")
    outputs, folder = Outputs(files, options.overwrite), find_model(options.model, "medvision")
    outputs.check([*scan_parts(options.input), folder / CARD, folder / WEIGHTS])
    enhancer = Enhancer(folder, device=options.device, threads=options.threads)
    volume = read_volume(
        options.input, volume_index=options.volume_index, allow_nonfinite=options.allow_nonfinite, smallest_axis=2
    )
    content = _written(enhancer, volume, outputs, options)
    if options.as_json:
        print(json.dumps(content, indent=2))
        return COMPLETE
    for warning in content["warnings"]:
        say(f"warning: {warning}", file=sys.stderr)
    say(f"scan: {output}")
    if not options.no_report:
        say(f"report: {files['report']}")
    return COMPLETE


def _written(enhancer: "Enhancer", volume: "Volume", outputs: Outputs, options: EnhanceOptions) -> Entries:
    """Write the scan, its report and its side-car; returns the content of the latter."""
    from medvision.volumes.headers import ENHANCED
    from medvision.volumes.writing import write_volume
    from pipelines.report.enhanced_volumes import volume_report
    from pipelines.runtime.progress import Meter

    with contextlib.closing(Meter("enhance", lines=not options.as_json)) as meter, outputs.placing() as staged:
        try:
            result = enhancer.enhance(volume, meter)
        except InputError as error:  # the network knows the case, the user knows the file
            raise InputError(str(error).replace(volume.case_id, printable(options.input))) from None
        write_volume(staged["scan"], result.data, result.grid, description=ENHANCED)
        content: Entries = {
            "schema_version": 1,
            "case": volume.case_id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "enhanced": "not for diagnosis: made-up detail is possible",
            "model": enhancer.provenance(),
            "input": {
                "sha256": volume.sha256,
                "shape": list(volume.grid.shape),
                "spacing_mm": list(volume.grid.spacing_mm),
            },
            "result": {
                "shape": list(result.grid.shape),
                "spacing_mm": list(result.grid.spacing_mm),
                "axis": result.axis,
                "degraded_again_rms": result.rms,
            },
            "device": str(enhancer.device),
            "settings": {"volume_index": options.volume_index, "allow_nonfinite": options.allow_nonfinite},
            "warnings": [*enhancer.warnings, *volume.warnings],
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("domain-vision", "torch", "numpy", "nibabel")},
            },
        }
        if not options.no_report:
            staged["report"].write_text(volume_report(content, volume, result), encoding="utf-8")
        return outputs.finish(staged, content)
