"""Tables of an evaluation: means, intervals and files against numbers worked out by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from pipelines.evaluation.segmentation import COLUMNS, summarise, write_tables


def row(case: str, identity: int, dice: float | None, state: str = "scored", **more: Any) -> dict[str, Any]:
    return {
        "case": case, "id": identity, "name": ("", "left", "right")[identity], "state": state, "dice": dice,
        "hd95_mm": more.get("hd95_mm"), "nsd": more.get("nsd"),
    }  # fmt: skip


ROWS = [
    row("case-00000001", 1, 0.9, hd95_mm=1.0, nsd=0.8),
    row("case-00000001", 2, None, "both_empty"),
    row("case-00000002", 1, 0.7, hd95_mm=3.0, nsd=0.6),
    row("case-00000002", 2, 0.5, hd95_mm=2.0, nsd=0.5),
    row("case-00000003", 1, 0.8, hd95_mm=2.0, nsd=0.7),
    row("case-00000003", 2, 0.0, "missed"),
]


def test_means_leave_out_what_the_protocol_leaves_out():
    found = summarise(ROWS, "default", seed=0, resamples=500)
    left, right = found["classes"]
    assert found["protocol"] == "default" and found["cases"] == 3
    assert left["dice"]["mean"] == pytest.approx(0.8) and left["dice"]["median"] == pytest.approx(0.8)
    assert left["dice"]["std"] == pytest.approx(0.1)
    assert right["dice"]["mean"] == pytest.approx(0.25) and right["hd95_mm"]["mean"] == 2.0
    assert right["states"]["both_empty"] == right["states"]["missed"] == 1
    # the mean over classes of the means over cases
    assert found["overall"]["dice"]["mean"] == pytest.approx((0.8 + 0.25) / 2)


def test_intervals_are_those_of_the_percentile_bootstrap():
    random = np.random.default_rng(5)
    values = random.normal(0.8, 0.05, 60)
    rows = [row(f"case-{number:08x}", 1, float(value)) for number, value in enumerate(values)]
    found = summarise(rows, "default", seed=1, resamples=4000)["classes"][0]["dice"]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert summarise(rows, "default", seed=1, resamples=4000)["classes"][0]["dice"] == found
    one = summarise(rows[:1], "default", seed=1, resamples=50)["classes"][0]["dice"]
    assert one["low"] == one["high"] == one["mean"] and one["std"] == 0


def test_a_structure_that_no_case_has_is_none():
    found = summarise([row("case-00000001", 1, None, "both_empty")], "default", seed=0, resamples=50)
    assert found["classes"][0]["dice"] == dict.fromkeys(("mean", "median", "std", "low", "high"))
    assert found["overall"]["dice"] == {"mean": None, "low": None, "high": None}


def test_files_say_the_same_and_nothing_else_is_left(tmp_path: Path):
    hostile = {**ROWS[0], "name": "=cmd()|'<b>\"&"}
    rows = [hostile, *ROWS[1:]]
    summary = write_tables(tmp_path, rows, "default", resamples=50)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cases.csv",
        "cases.parquet",
        "dice.svg",
        "summary.json",
    ]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["hd95_unit"] == "mm"
    assert write_tables(tmp_path, rows, "synapse-transunet", resamples=50)["hd95_unit"] == "voxels"
    with (tmp_path / "cases.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS and len(table) == 6
    assert table[0]["name"] == f"'{hostile['name']}"  # no formula for a spreadsheet
    assert float(table[0]["dice"]) == 0.9 and table[1]["dice"] == ""
    stored = pyarrow.parquet.read_table(tmp_path / "cases.parquet").to_pylist()
    assert stored == [{column: entry[column] for column in COLUMNS} for entry in rows]
