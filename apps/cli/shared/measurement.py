"""What a measurement under corruption gives: figures, pictures, and what is said of them."""

from dataclasses import dataclass

import numpy as np

from pipelines.report.results import ResultTable
from shared_backbones.json_values import Entries


@dataclass(frozen=True)
class Measurement:
    """A measurement under corruption, and what a page and a terminal show of it.

    Attributes:
        content: What `robustness.json` holds.
        pictures: An image as it is, `(None, 0)`, and under each corruption and severity.
        tables: Tables of the report.
        facts: Names and values at the head of the report.
        notes: Sentences below them.
        lines: Lines for the terminal.
    """

    content: Entries
    pictures: dict[tuple[str | None, int], np.ndarray]
    tables: list[ResultTable]
    facts: list[tuple[str, str]]
    notes: list[str]
    lines: list[str]


def words(name: str) -> str:
    """The name of a corruption for a reader."""
    return name.replace("_", " ")
