"""Tables and intervals of an evaluation: one row per case and structure, and what they say together."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medvision.metrics.protocols import aggregate, find_protocol
from pipelines.report.charts import strip_plot
from pipelines.report.results import Interval, SegmentationSummary, Spread, StructureSummary
from shared_backbones.files import replacing, write_rows
from shared_backbones.json_values import Document

FIGURES = ("dice", "hd95_mm", "nsd")
COLUMNS = ("case", "id", "name", "state", *FIGURES)


def write_tables(
    folder: Path,
    rows: Sequence[Document],
    protocol: str,
    *,
    seed: int = 0,
    resamples: int = 2000,
    skipped: int = 0,
) -> SegmentationSummary:
    """Write `cases.csv`, `cases.parquet`, `summary.json` and `dice.svg`; each file appears complete or not at all.

    Args:
        folder: Existing folder.
        rows: Rows of `medvision.metrics.protocols.evaluate_case`, each with its `case`.
        protocol: Name of the protocol under which they were scored.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        skipped: Number of cases that could not be read.
    """
    summary = summarise(rows, protocol, seed=seed, resamples=resamples, skipped=skipped)
    texts = {
        "cases.csv": _csv(rows),
        "dice.svg": strip_plot(_dice_of(rows)),
        "summary.json": json.dumps(summary, indent=2, sort_keys=True) + "\n",
    }
    with replacing(folder / "cases.parquet") as path:
        _write_parquet(path, rows)
    for name, text in texts.items():
        with replacing(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return summary


def summarise(
    rows: Sequence[Document], protocol: str, *, seed: int, resamples: int, skipped: int = 0
) -> SegmentationSummary:
    """The summary of cases, with percentile intervals of the means over bootstrap resamples of the cases.

    Args:
        rows: Rows of `medvision.metrics.protocols.evaluate_case`, each with its `case`.
        protocol: Name of the protocol under which they were scored.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        skipped: Number of cases that could not be read.
    """
    cases = sorted({row["case"] for row in rows})
    drawn = np.random.default_rng(seed).integers(0, len(cases), (resamples, len(cases)))
    means = aggregate(rows)["classes"]
    values = {figure: _matrix(rows, figure, cases, [row["id"] for row in means]) for figure in FIGURES}
    resampled = {figure: _nanmean(matrix[drawn], 1) for figure, matrix in values.items()}  # (resamples, classes)
    spread = {figure: _spreads(values[figure], resampled[figure]) for figure in FIGURES}
    classes: list[StructureSummary] = [
        {
            "id": row["id"],
            "name": row["name"],
            "states": row["states"],
            "dice": spread["dice"][column],
            "hd95_mm": spread["hd95_mm"][column],
            "nsd": spread["nsd"][column],
        }
        for column, row in enumerate(means)
    ]
    overall: dict[str, Interval] = {}
    for figure in FIGURES:
        low, high = _ends(_nanmean(resampled[figure], 1))
        mean = float(_nanmean(_nanmean(values[figure], 0), 0))
        overall[figure] = {"mean": None if np.isnan(mean) else mean, "low": low, "high": high}
    return {
        "protocol": protocol,
        "cases": len(cases),
        "skipped": skipped,
        "hd95_unit": "voxels" if find_protocol(protocol).pooled else "mm",
        "classes": classes,
        "overall": overall,
    }


def _csv(rows: Sequence[Document]) -> str:
    table = io.StringIO(newline="")
    write_rows(table, [COLUMNS, *([row[column] for column in COLUMNS] for row in rows)])
    return table.getvalue()


def _matrix(rows: Sequence[Document], figure: str, cases: Sequence[str], ids: Sequence[int]) -> np.ndarray:
    """A figure of each case and structure, `(cases, ids)`; NaN where it has none."""
    places = {case: place for place, case in enumerate(cases)}
    values = np.full((len(cases), len(ids)), np.nan)
    for row in rows:
        if row[figure] is not None:
            values[places[row["case"]], ids.index(row["id"])] = row[figure]
    return values


def _dice_of(rows: Sequence[Document]) -> list[tuple[str, list[float]]]:
    """Dice of every case by structure, in the order of their ids."""
    names = {row["id"]: str(row["name"]).replace("_", " ") for row in rows}
    return [
        (name, [row["dice"] for row in rows if row["id"] == number and row["dice"] is not None])
        for number, name in sorted(names.items())
    ]


def _spreads(values: np.ndarray, resampled: np.ndarray) -> list[Spread]:
    """Statistics of each structure over cases `(cases, classes)`, with means over resamples `(resamples, classes)`."""
    return [_spread(column, means) for column, means in zip(values.T, resampled.T, strict=True)]


def _spread(values: np.ndarray, resampled: np.ndarray) -> Spread:
    known = values[~np.isnan(values)]
    if not len(known):
        return {"mean": None, "median": None, "std": None, "low": None, "high": None}
    low, high = _ends(resampled)
    return {
        "mean": float(known.mean()),
        "median": float(np.median(known)),
        "std": float(known.std(ddof=1)) if len(known) > 1 else 0.0,
        "low": low,
        "high": high,
    }


def _ends(resampled: np.ndarray) -> tuple[float | None, float | None]:
    """Ends of the 95 % percentile interval of what is defined."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return None, None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is defined; NaN, without a warning, where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    return np.where(count > 0, np.where(defined, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def _write_parquet(path: Path, rows: Sequence[Document]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {"case": pyarrow.string(), "id": pyarrow.int64(), "name": pyarrow.string(), "state": pyarrow.string()}
    schema = pyarrow.schema([(column, kinds.get(column, pyarrow.float64())) for column in COLUMNS])
    content = [{column: row[column] for column in COLUMNS} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content, schema), path)
