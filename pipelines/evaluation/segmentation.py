"""Tables and intervals of an evaluation: one row per case and structure, and what they say together."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvision.metrics.protocols import aggregate, find_protocol
from pipelines.report.charts import strip_plot
from shared_backbones.files import replacing, spreadsheet_safe

FIGURES = ("dice", "hd95_mm", "nsd")
COLUMNS = ("case", "id", "name", "state", *FIGURES)


def write_tables(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    protocol: str,
    *,
    seed: int = 0,
    resamples: int = 2000,
    skipped: int = 0,
) -> dict[str, Any]:
    """Write `cases.csv`, `cases.parquet`, `summary.json` and `dice.svg`; each file appears complete or not at all.

    Args:
        folder: exists.
        rows: of `medvision.metrics.protocols.evaluate_case`, each with its `case`.
        protocol: the name under which they were scored.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        skipped: cases that could not be read.

    Returns:
        The summary: `protocol`, `cases`, `skipped`, `hd95_unit`, `overall` and `classes`; of each figure the `mean`,
        `median`, `std`, and `low` and `high`, the ends of the 95 % percentile interval of the mean over resamples.
    """
    summary = {
        **summarise(rows, protocol, seed=seed, resamples=resamples),
        "skipped": skipped,
        "hd95_unit": "voxels" if find_protocol(protocol).pooled else "mm",
    }
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(["" if row[column] is None else spreadsheet_safe(row[column]) for column in COLUMNS])
    texts = {
        "cases.csv": table.getvalue(),
        "dice.svg": strip_plot(_dice_of(rows)),
        "summary.json": json.dumps(summary, indent=2, sort_keys=True) + "\n",
    }
    with replacing(folder / "cases.parquet") as path:
        _write_parquet(path, rows)
    for name, text in texts.items():
        with replacing(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return summary


def summarise(rows: Sequence[Mapping[str, Any]], protocol: str, *, seed: int, resamples: int) -> dict[str, Any]:
    """What `write_tables` returns, but for what was skipped."""
    cases = sorted({row["case"] for row in rows})
    means = aggregate(rows)
    numbers = [row["id"] for row in means["classes"]]
    place = {case: i for i, case in enumerate(cases)}
    drawn = np.random.default_rng(seed).integers(0, len(cases), (resamples, len(cases)))
    classes: list[dict[str, Any]] = [
        {"id": row["id"], "name": row["name"], "states": row["states"]} for row in means["classes"]
    ]
    overall: dict[str, Any] = {}
    for figure in FIGURES:
        values = np.full((len(cases), len(numbers)), np.nan)
        for row in rows:
            if row[figure] is not None:
                values[place[row["case"]], numbers.index(row["id"])] = row[figure]
        resampled = _nanmean(values[drawn], 1)  # (resamples, classes)
        for column, entry in enumerate(classes):
            entry[figure] = _describe(values[:, column], resampled[:, column])
        overall[figure] = {
            "mean": _number(_nanmean(_nanmean(values, 0), 0)),
            **_interval(_nanmean(resampled, 1)),
        }
    return {"protocol": protocol, "cases": len(cases), "classes": classes, "overall": overall}


def _dice_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[float]]]:
    """Dice of every case by structure, in the order of their ids."""
    names = {row["id"]: str(row["name"]).replace("_", " ") for row in rows}
    return [
        (name, [row["dice"] for row in rows if row["id"] == number and row["dice"] is not None])
        for number, name in sorted(names.items())
    ]


def _describe(values: np.ndarray, resampled: np.ndarray) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys(("mean", "median", "std", "low", "high"))
    spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return {"mean": float(known.mean()), "median": float(np.median(known)), "std": spread, **_interval(resampled)}


def _interval(resampled: np.ndarray) -> dict[str, float | None]:
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return {"low": None, "high": None}
    low, high = np.percentile(known, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is there; NaN, without a warning, where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis)
    return np.where(count > 0, np.where(there, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {"case": pyarrow.string(), "id": pyarrow.int64(), "name": pyarrow.string(), "state": pyarrow.string()}
    schema = pyarrow.schema([(column, kinds.get(column, pyarrow.float64())) for column in COLUMNS])
    content = [{column: row[column] for column in COLUMNS} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content, schema), path)
