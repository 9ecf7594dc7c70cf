"""What the verbs `robustness` of all programs share: a folder of results, and the last lines."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from apps.cli.shared.classification import check_parents
from apps.cli.shared.measurement import Measurement
from apps.cli.shared.program import COMPLETE
from pipelines.evaluation.robustness_files import write_robustness
from pipelines.report.robustness import robustness_report
from pipelines.report.verdicts import report_identity
from pipelines.runtime.progress import Meter
from shared_backbones.errors import InputError, require
from shared_backbones.files import new_folder, printable
from shared_backbones.terminal import say

Progress: TypeAlias = Callable[[int, int], None]


def write_measurement(
    measure: Callable[[Progress], Measurement],
    output: Path,
    *,
    as_json: bool,
    quiet: bool,
    program: str,
    figure: str = "balanced_accuracy",
    side: int = 88,
) -> int:
    """Measure a model under corruption, write a new folder of results, print what they say; returns the exit code.

    Args:
        measure: Measures the model; it is given what is called with the cells done and their number.
        output: New or empty folder for the results.
        as_json: Whether one JSON document is printed.
        quiet: Whether warnings alone are printed.
        program: Program that collects a reviewer's verdicts.
        figure: Figure of the cells that the curves show.
        side: Side in pixels of a picture in the strip.

    Raises:
        InputError: model, data and options do not go together, or the results cannot be written.
    """
    require("sklearn", "train")
    check_parents(output)
    started, silent = time.perf_counter(), quiet or as_json
    with new_folder(output) as target, contextlib.closing(Meter("corrupt", lines=not silent)) as meter:
        measurement = measure((lambda done, count: None) if silent else meter)
        content = measurement.content
        about = [content["model"]["sha256"], content["input"]["sha256"]]
        content["report"] = report_identity(
            content["case"], [*about, content["settings"], content["clean"], content["cells"]]
        )
        content["runtime_s"] = round(time.perf_counter() - started, 1)
        pictures = measurement.pictures
        write_robustness(target, content, lambda name, severity: pictures[name, severity], figure=figure, side=side)
        page = robustness_report(
            content,
            measurement.tables,
            measurement.facts,
            measurement.notes,
            [target / "robustness.svg", target / "robustness_strip.png"],
            program,
        )
        (target / "report.html").write_text(page, encoding="utf-8")
    _print(measurement, output, as_json=as_json, quiet=quiet)
    return COMPLETE


def chosen(only: list[str] | None, names: list[str], of: str) -> list[str]:
    """Names of the corruptions asked for, in the order of the set.

    Raises:
        InputError: one is unknown.
    """
    unknown = [name for name in only or [] if name not in names]
    if unknown or only == []:
        given = repr(printable(unknown[0])) if unknown else "nothing"
        raise InputError(f"--only has {given}, unknown for {of}; expected some of: {', '.join(names)}")
    return [name for name in names if not only or name in only]


def _print(measurement: Measurement, output: Path, *, as_json: bool, quiet: bool) -> None:
    content = measurement.content
    if as_json:
        print(json.dumps({name: part for name, part in content.items() if name != "right"}, indent=2))
        return
    for warning in content["warnings"]:
        say(f"warning: {warning}", file=sys.stderr)
    if not quiet:
        for line in [*measurement.lines, *measurement.notes]:
            say(f"  {line}")
        say(f"{printable(output)}: {len(content['cells'])} cells in {content['runtime_s']:.1f} s")
