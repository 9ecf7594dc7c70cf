"""Figures and tables that evaluations leave behind as JSON, and that reports show."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict

from shared_backbones.documents import read_bounded
from shared_backbones.errors import InputError
from shared_backbones.files import replacing

_LARGEST = 64 * 2**20  # bytes of a summary

Value: TypeAlias = str | float | None
"""What a table of results holds in a cell."""
Figures: TypeAlias = dict[str, float | None]
"""Figures by name; None where one is undefined."""


class ResultTable(TypedDict):
    """A table: the first column names the rows."""

    title: str
    columns: list[str]
    rows: list[list[Value]]


class Interval(TypedDict):
    """Mean of a figure over cases, and the ends of its 95 % bootstrap interval."""

    mean: float | None
    low: float | None
    high: float | None


class Spread(Interval):
    """A figure of a structure over cases."""

    median: float | None
    std: float | None


class StructureSummary(TypedDict):
    """A structure over all cases; `states` counts the cases in each state."""

    id: int
    name: str
    states: dict[str, int]
    dice: Spread
    hd95_mm: Spread
    nsd: Spread


class SegmentationSummary(TypedDict):
    """What an evaluation of segmentations amounts to; `hd95_unit` is `mm` or `voxels`."""

    protocol: str
    cases: int
    skipped: int
    hd95_unit: str
    classes: list[StructureSummary]
    overall: dict[str, Interval]


class FigureSummary(TypedDict):
    """What an evaluation of anything else amounts to."""

    figures: Figures
    tables: list[ResultTable]


Summary: TypeAlias = SegmentationSummary | FigureSummary


def read_summary(folder: Path) -> Summary:
    """The summary that an evaluation wrote into its folder.

    Raises:
        InputError: it is damaged, or not there.
    """
    path = folder / "summary.json"
    try:
        summary: Summary = json.loads(read_bounded(path, _LARGEST))
    except (RecursionError, ValueError):
        raise InputError(f"{path}: damaged; delete its folder and run the stage evaluate again") from None
    return summary


def write_summary(folder: Path, figures: Figures, tables: Sequence[ResultTable]) -> None:
    """Write `summary.json`, which the report and the tracking store read."""
    summary: FigureSummary = {"figures": figures, "tables": [*tables]}
    with replacing(folder / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
