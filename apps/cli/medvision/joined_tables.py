"""Tables of shards of `medvision classify` in one."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.cli.medvision.image_sources import NO_CLASS, figures_of
from apps.cli.shared.classified_images import table_meta
from apps.cli.shared.joined_rows import join_rows
from apps.cli.shared.merging import Part
from shared_backbones.errors import require
from shared_backbones.json_values import Entries


def join_tables(path: Path, parts: Sequence[Part], content: Entries) -> Entries:
    """Write the rows of all parts; returns the side-car, with figures where it is known what the images show.

    Raises:
        InputError: parts have different columns, or the table cannot be written.
    """
    join_rows(path, [part.table for part in parts], table_meta(content))
    if not all("targets" in part.content["shard"] for part in parts):
        return content
    targets = np.concatenate([np.array(part.content["shard"]["targets"], np.uint8) for part in parts])
    names = [f"p_{entry['name']}" for entry in content["classes"]]
    figures, remarks = figures_of(_columns(path, names), targets, multi_label=content["settings"]["multi_label"])
    warnings = [warning for warning in content["warnings"] if warning != NO_CLASS]
    return {**content, **({"figures": figures} if figures else {}), "warnings": [*remarks, *warnings]}


def _columns(table: Path, names: Sequence[str]) -> np.ndarray:
    """Columns of numbers of a table, `(N, K)` float32."""
    if table.suffix.lower() == ".parquet":
        parquet = require("pyarrow.parquet", "train")
        with table.open("rb") as file:
            return np.stack([column.to_numpy() for column in parquet.read_table(file, columns=list(names)).columns], 1)
    with table.open(encoding="utf-8", newline="") as file:
        return np.array([[np.float32(row[name]) for name in names] for row in csv.DictReader(file)])
