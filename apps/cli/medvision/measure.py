"""The work of `medvision robustness`: what corruption does to a classifier's images, or to the scan of a segmenter."""

import contextlib
import json
import sys
import time
from typing import Any

from apps.cli.medvision.measurement import Measurement
from apps.cli.medvision.robustness import RobustnessOptions
from apps.cli.shared.classification import check_parents, new_folder
from apps.cli.shared.program import COMPLETE
from apps.cli.shared.program import find_model as find_registered
from medvision.models.catalogue import find_model
from pipelines.evaluation.robustness_files import write_robustness
from pipelines.evaluation.volume_robustness import STRIP_SIDE
from pipelines.report.robustness import robustness_report
from pipelines.report.verdicts import report_identity
from pipelines.runtime.progress import Meter
from shared_backbones.card import read_card
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

_OF_IMAGES = ("split", "corruptions", "images", "clean", "baseline", "batch_size", "seed")
_OF_VOLUMES = ("labels", "label_map", "modality", "severities")


def measure(options: RobustnessOptions) -> int:
    """Measure a model under corruption, write a folder of results, and return the exit code.

    Raises:
        InputError: model, data and options do not go together, or the results cannot be written.
    """
    require("sklearn", "train")
    folder = find_model(find_registered(options.model))
    segments = "slices" in (read_card(folder).get("input") or {})
    _check_options(options, segments)
    check_parents(options.output)
    started = time.perf_counter()
    silent = options.quiet or options.as_json
    with (
        new_folder(options.output) as target,
        contextlib.closing(Meter("corrupt", None if silent else 10.0)) as meter,
    ):
        on_progress = (lambda done, count: None) if silent else meter
        if segments:
            from apps.cli.medvision.measure_scan import measure_scan

            measurement = measure_scan(options, folder, on_progress)
        else:
            from apps.cli.medvision.measure_images import measure_images

            measurement = measure_images(options, folder, on_progress)
        content = measurement.content
        about = [content["model"]["sha256"], content["input"]["sha256"]]
        content["report"] = report_identity(
            content["case"], [*about, content["settings"], content["clean"], content["cells"]]
        )
        content["runtime_s"] = round(time.perf_counter() - started, 1)
        strip: dict[str, Any] = {"figure": "dice", "side": STRIP_SIDE} if segments else {}
        write_robustness(target, content, lambda name, severity: measurement.pictures[name, severity], **strip)
        pictures = [target / "robustness.svg", target / "robustness_strip.png"]
        page = robustness_report(content, measurement.tables, measurement.facts, measurement.notes, pictures)
        (target / "report.html").write_text(page, encoding="utf-8")
    _print(measurement, options)
    return COMPLETE


def _check_options(options: RobustnessOptions, segments: bool) -> None:
    """Refuse options that have no meaning for a model of this kind."""
    for name in _OF_IMAGES if segments else _OF_VOLUMES:
        if getattr(options, name) is not None:
            kind = "segments volumes" if segments else "classifies images"
            raise InputError(f"--{name.replace('_', '-')} means nothing for a model that {kind}; leave it out")


def _print(measurement: Measurement, options: RobustnessOptions) -> None:
    content = measurement.content
    if options.as_json:
        print(json.dumps({name: part for name, part in content.items() if name != "right"}, indent=2))
        return
    for warning in content["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if not options.quiet:
        for line in [*measurement.lines, *measurement.notes]:
            print(f"  {line}")
        print(f"{printable(options.output)}: {len(content['cells'])} cells in {content['runtime_s']:.1f} s")
