"""What a measurement under corruption gives: figures, pictures, and what is said of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.report.results import ResultTable


@dataclass(frozen=True)
class Measurement:
    """A measurement under corruption, and what a page and a terminal show of it.

    Attributes:
        content: what `robustness.json` holds.
        pictures: an image as it is, `(None, 0)`, and under each corruption and severity.
        tables: tables of the report.
        facts: names and values at the head of the report.
        notes: sentences below them.
        lines: lines for the terminal.
    """

    content: dict[str, Any]
    pictures: dict[tuple[str | None, int], np.ndarray]
    tables: list[ResultTable]
    facts: list[tuple[str, str]]
    notes: list[str]
    lines: list[str]


def words(name: str) -> str:
    """The name of a corruption for a reader."""
    return name.replace("_", " ")
