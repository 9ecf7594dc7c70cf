"""The index of a folder of maps: one row a scene, worst first, as a page and as its JSON twin."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypedDict

from jinja2.utils import htmlsafe_json_dumps

from pipelines.report.index import shell_data
from pipelines.report.page import render_page
from pipelines.report.sections import Cell, Column, Embedded, Page, Section, Table, Text
from pipelines.report.text import DASH, fixed, heading, moment, number_at, text_at, without_paths
from shared_backbones.json_values import Document, Json

TITLE = "Index of maps"
_STATUS = {"done": "Done", "skipped": "Done before", "changed": "Changed since", "failed": "Failed"}


class MapRow(TypedDict):
    """What an index says of one scene.

    Attributes:
        case: `case-` and 8 hex digits, or `unreadable-` and a number for a scene that has no map.
        status: `done`, `skipped`, `changed` (skipped, but a file of it was changed since) or `failed`.
        reason: Why it was not done.
        classes: `name`, `pixels` and `hectares` of each class; hectares are None where the scene has no place.
        warnings: Warnings of the map.
        confidence: Mean confidence of the map; None where it was not measured.
        report: Where the map's report lies, seen from the index; None where it has none.
        report_id: The report's number.
        report_sha256: The report's content hash.
    """

    case: str
    status: str
    reason: str | None
    classes: list[dict[str, Json]]
    warnings: list[str]
    confidence: float | None
    report: str | None
    report_id: str | None
    report_sha256: str | None


class MapIndex(TypedDict):
    """The JSON twin of an index."""

    schema_version: int
    created: str
    model: Mapping[str, Json]
    count: dict[str, int]
    cases: list[MapRow]


def map_row(case: str, status: str, sidecar: Document, reason: str | None = None, report: str | None = None) -> MapRow:
    """What an index says of one scene; names of files in the reason are the caller's to leave out.

    Args:
        case: The scene's pseudonym.
        status: What became of it.
        sidecar: The side-car of its map; empty where there is none.
        reason: Why it was not done.
        report: Where the map's report lies, seen from the index.
    """
    names = ("name", "pixels", "hectares")
    return {
        "case": case,
        "status": status,
        "reason": without_paths(reason),
        "classes": [{name: entry[name] for name in names} for entry in sidecar.get("classes", ())],
        "warnings": list(sidecar.get("warnings", ())),
        "confidence": number_at(sidecar, "summary", "mean_confidence"),
        "report": report,
        "report_id": text_at(sidecar, "report", "id") or None,
        "report_sha256": text_at(sidecar, "report", "sha256") or None,
    }


def map_index(rows: Sequence[MapRow], model: Mapping[str, Json]) -> MapIndex:
    """The JSON twin: failed scenes first, the others by rising confidence."""
    return {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": without_paths(dict(model)),
        "count": {"scenes": len(rows), **Counter(row["status"] for row in rows)},
        "cases": sorted(rows, key=_badness),
    }


def _badness(row: MapRow) -> tuple[bool, float]:
    confidence = row["confidence"]
    return row["status"] != "failed", math.inf if confidence is None else confidence


def map_index_page(index: MapIndex, pictures: Mapping[str, str]) -> str:
    """The page of an index: the shell in which reports are read and judged, over a table of all scenes, worst first.

    Without scripts it is the table, which they make sortable.

    Args:
        index: What it says.
        pictures: Data URI of a small picture of each map, by case.
    """
    count, rows = index["count"], index["cases"]
    names = list(dict.fromkeys(str(entry["name"]) for row in rows for entry in row["classes"]))
    columns = [
        Column("Map"),
        Column("Case", sort="text"),
        Column("Status", sort="text"),
        Column("Mean confidence", numeric=True, sort="number"),
        *(Column(heading(name), numeric=True, sort="number") for name in names),
        Column("Warnings", sort="number"),
    ]
    cells = [[*_beginning(row, pictures), *_areas(row, names), _warnings(row)] for row in rows]
    about = Text(
        "Failed scenes, then others by rising mean confidence. Each class's share of the map, and its area. A case is "
        "named by its content, the first 8 digits of its SHA-256; which scene that was, the map's side-car and the "
        "program's lines on the terminal say.",
        small=True,
    )
    page = Page(
        title=TITLE,
        kind=TITLE,
        heading=f"{count['scenes']} scene{'' if count['scenes'] == 1 else 's'}",
        lead=f"{text_at(index['model'], 'name') or 'unnamed model'}, {moment(index['created'])}",
        facts=[(title, str(count[status])) for status, title in _STATUS.items() if count.get(status)],
        sections=[Section("cases", "Scenes", [about, Table(columns, cells, header=1)])],
        footer="Every figure of this page is in index.json beside it. The page loads nothing but the reports beside "
        "it; its one script shows these, keeps verdicts and sorts the table.",
        medical=False,
        noun="scene",
        embedded=[Embedded("shell-data", "application/json", htmlsafe_json_dumps(shell_data(_worklist(rows))))],
    )
    return render_page(page, styles=["verdict.css", "shell.css"], script="shell.js", bar="shell")


def _worklist(rows: Sequence[MapRow]) -> list[dict[str, Json]]:
    return [
        {
            "case": row["case"],
            "id": row["report_id"],
            "sha256": row["report_sha256"],
            "report": row["report"],
            "confidence": row["confidence"],
            "flags": row["warnings"],
        }
        for row in rows
        if row["report"] and row["report_id"] and row["report_sha256"]
    ]


def _beginning(row: MapRow, pictures: Mapping[str, str]) -> list[Cell]:
    failed = row["status"] == "failed"
    picture = pictures.get(row["case"])
    return [
        Cell(picture=picture, link=row["report"]) if picture else Cell(),
        Cell(row["case"], sort=row["case"], link=row["report"]),
        Cell(
            _STATUS[row["status"]].lower(),
            alert=failed,
            rest=f": {row['reason'] or 'no reason known'}" if failed else "",
            sort=row["status"],
        ),
        Cell(fixed(row["confidence"], 2), sort="" if row["confidence"] is None else str(row["confidence"])),
    ]


def _areas(row: MapRow, names: Sequence[str]) -> list[Cell]:
    areas = {str(entry["name"]): entry for entry in row["classes"]}
    total = sum(float(str(entry["pixels"])) for entry in areas.values())
    cells = []
    for name in names:
        entry = areas.get(name)
        if entry is None or not total:
            cells.append(Cell(DASH, sort=""))
            continue
        fraction = float(str(entry["pixels"])) / total
        hectares = entry["hectares"]
        remark = f"{hectares:,.1f} ha" if isinstance(hectares, int | float) else ""
        cells.append(Cell(f"{fraction:.1%}", sort=f"{fraction:.6f}", remark=remark))
    return cells


def _warnings(row: MapRow) -> Cell:
    if not row["classes"]:
        return Cell(DASH, sort="")
    count = len(row["warnings"])
    return Cell(f"{count}:" if count else "none", remark="; ".join(row["warnings"]), sort=str(count))
