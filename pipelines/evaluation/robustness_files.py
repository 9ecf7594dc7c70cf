"""Files of a measurement under corruption: its JSON, a table of cells, curves and a strip of pictures."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pipelines.report.charts import line_chart
from pipelines.report.sheets import picture_sheet
from pipelines.report.text import number_at, part_at, rows_at
from shared_backbones.files import replacing, write_rows
from shared_backbones.json_values import Document, Json


def write_robustness(
    folder: Path,
    content: Document,
    strip: Callable[[str | None, int], np.ndarray] | None = None,
    *,
    figure: str = "balanced_accuracy",
    side: int = 88,
) -> None:
    """Write `robustness.json`, `robustness.csv` (a row for each cell), `robustness.svg` (curves) and a strip of images.

    Args:
        folder: Existing folder.
        content: A measurement with `clean`, `cells` and `corruptions`.
        strip: Gives one image `(H, W, 3)` uint8 under a corruption at a severity; without it there are no pictures.
        figure: Figure of the cells, from 0 to 1, that the curves show.
        side: Side in pixels of a picture in the strip.
    """
    measurement: Mapping[str, Json] = content
    cells, names = rows_at(measurement, "cells"), list(part_at(measurement, "corruptions"))
    table = io.StringIO(newline="")
    rows = [_flat(cell) for cell in cells]
    write_rows(table, [list(rows[0]), *([row[key] for key in rows[0]] for row in rows)])
    severities = sorted({int(number_at(cell, "severity") or 0) for cell in cells})
    curves = {}
    for name in names:
        states = [part_at(measurement, "clean"), *(cell for cell in cells if cell["corruption"] == name)]
        curves[_title(name)] = [number_at(state, figure) or 0.0 for state in states]
    texts = {
        "robustness.json": json.dumps(measurement, indent=2, allow_nan=False) + "\n",
        "robustness.csv": table.getvalue(),
        "robustness.svg": line_chart(curves, "severity", _title(figure), (0, *severities)),
    }
    for file, text in texts.items():
        with replacing(folder / file) as path:
            path.write_text(text, encoding="utf-8")
    if strip is not None:
        sheet = picture_sheet(
            [[strip(None, 0), *(strip(name, severity) for severity in severities)] for name in names],
            size=(side, side),
            above=["clean", *map(str, severities)],
            beside=[_title(name) for name in names],
        )
        with replacing(folder / "robustness_strip.png") as path:
            sheet.save(path, "PNG")


def _flat(cell: Mapping[str, Json]) -> dict[str, Json]:
    """A cell for a table: lists are left out, and what is in a mapping has a column of its own."""
    row: dict[str, Json] = {}
    for name, value in cell.items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{key}": inner for key, inner in value.items()}
        elif not isinstance(value, list):
            row[name] = value
    return row


def _title(name: str) -> str:
    return name.replace("_", " ")
