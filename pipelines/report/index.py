"""The index of a batch of segmented scans: one row a case, worst first, as a page and as its JSON twin."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypedDict

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from pipelines.report.page import render_page
from pipelines.report.sections import Cell, Column, Embedded, Page, Section, Table, Text
from pipelines.report.text import (
    DASH,
    fixed,
    heading,
    list_at,
    moment,
    number_at,
    rows_at,
    text_at,
    value_at,
    without_paths,
    words,
)
from shared_backbones.json_values import Document, Json

SCHEMA_VERSION = 1
TITLE = "Batch index"

_CASE = re.compile(r"case-[0-9a-f]{8}|unreadable-[0-9]+")
_MOST_THUMBNAILS = 300  # so that the page of a thousand scans stays small
_ML = "_ml"  # ends the names of columns with volumes
_OPTIONAL = ("intracranial_ml", "_left_ml", "_right_ml")  # which not every model gives
_STATUS = {"done": "Done", "skipped": "Done before", "changed": "Changed since", "failed": "Failed"}
_CHANGED = "a file of the result was changed since; the figures are those of the result before"


class CaseRow(TypedDict):
    """What an index says of one scan; figures are None where it has no side-car.

    Attributes:
        case: `case-` and 8 hex digits, or `unreadable-` and a number.
        status: `done`, `skipped`, `changed` (skipped, but a file of it was changed since) or `failed`.
        reason: Why it was not done.
        structures: Number of structures of the model.
        structures_found: Number of those that have voxels.
        flags: `code` and `structure` of each quality flag.
        lowest_confidence: Lowest mean confidence of a structure.
        least_certain: The structure that has it.
        mean_dice: Mean Dice, where there was a reference.
        lowest_dice: Lowest Dice of a structure, where there was a reference.
        worst_structure: The structure that has it.
        warnings: Warnings of the segmentation.
        report: Where the scan's report lies, seen from the index.
        report_id: The report's number; None where no verdict can be given on it.
        report_sha256: The report's content hash.
        volumes: Its row of the table of volumes; empty where it has no side-car.
    """

    case: str
    status: str
    reason: str | None
    structures: float | None
    structures_found: float | None
    flags: list[dict[str, Json]]
    lowest_confidence: float | None
    least_certain: Json
    mean_dice: float | None
    lowest_dice: float | None
    worst_structure: Json
    warnings: list[Json]
    report: str | None
    report_id: str | None
    report_sha256: str | None
    volumes: Mapping[str, Json]


class PlacedRow(CaseRow):
    """A row with its place, from 1, among the rows."""

    place: int


class BatchIndex(TypedDict):
    """The JSON twin of an index."""

    schema_version: int
    created: str
    model: Mapping[str, Json]
    count: dict[str, int]
    flagged: int
    cases: list[PlacedRow]


def case_row(
    case: str,
    status: str,
    *,
    reason: str | None = None,
    sidecar: Document | None = None,
    report: str | None = None,
    volumes: Mapping[str, Json] | None = None,
) -> CaseRow:
    """What an index says of one scan.

    Args:
        case: `case-` and 8 hex digits, or `unreadable-` and a number for a file without content to name it by.
        status: `done`, `skipped`, `changed` or `failed`.
        reason: Why it was not done; names and paths of files are the caller's to leave out.
        sidecar: The side-car of a scan that has one.
        report: Where its report lies, seen from the index.
        volumes: Its row of the table of volumes (`medvision.findings.tables`, wide).

    Raises:
        ValueError: `case` is no pseudonym.
    """
    if not _CASE.fullmatch(case):
        raise ValueError(f"case is {case!r}; expected case- and 8 hex digits")
    sidecar = without_paths(sidecar or {})
    scored = [row for row in rows_at(sidecar, "reference", "rows") if number_at(row, "dice") is not None]
    worst = min(scored, key=lambda row: number_at(row, "dice") or 0.0, default={})
    return {
        "case": case,
        "status": status,
        "reason": without_paths(reason),
        "structures": number_at(sidecar, "summary", "structures"),
        "structures_found": number_at(sidecar, "summary", "structures_found"),
        "flags": [{key: flag[key] for key in ("code", "structure")} for flag in rows_at(sidecar, "flags")],
        "lowest_confidence": number_at(sidecar, "summary", "lowest_confidence"),
        "least_certain": value_at(sidecar, "summary", "least_certain"),
        "mean_dice": number_at(sidecar, "reference", "summary", "dice"),
        "lowest_dice": number_at(worst, "dice"),
        "worst_structure": worst.get("name"),
        "warnings": [*list_at(sidecar, "warnings"), *([_CHANGED] if status == "changed" else [])],
        "report": report,
        "report_id": text_at(sidecar, "report", "id") or None,
        "report_sha256": text_at(sidecar, "report", "sha256") or None,
        "volumes": volumes or {},
    }


def batch_index(rows: Sequence[CaseRow], model: Mapping[str, Json]) -> BatchIndex:
    """The JSON twin: rows of `case_row`, worst first, and what the batch amounts to.

    Failed scans come first, then those with a reference by rising mean Dice, then the others by their number of flags
    and, where that is equal, by rising confidence.
    """
    rows = sorted(rows, key=_badness)
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": without_paths(dict(model)),
        "count": {"scans": len(rows), **Counter(row["status"] for row in rows)},
        "flagged": sum(bool(row["flags"]) for row in rows),
        "cases": [{"place": place, **row} for place, row in enumerate(rows, 1)],
    }


def index_page(index: BatchIndex, pictures: Mapping[str, str]) -> str:
    """The page of an index: the shell in which reports are read and judged, over a table of all scans, worst first.

    Without scripts it is the table. Its content security policy allows its script, and frames with files beside it.

    Args:
        index: What it says.
        pictures: Data URI of a small picture by case, where there is one (`pipelines.report.thumbnails`).
    """
    count = index["count"]
    version = text_at(index["model"], "version")
    name, made = text_at(index["model"], "name") or "unnamed model", moment(index["created"])
    facts = [(title, str(count[status])) for status, title in _STATUS.items() if count.get(status)]
    page = Page(
        title=TITLE,
        kind=TITLE,
        heading=f"{count['scans']} scan{'' if count['scans'] == 1 else 's'}",
        lead=f"{name} {version}, {made}" if version else f"{name}, {made}",
        facts=[*facts, ("With quality flags", str(index["flagged"]))],
        sections=[_cases(index["cases"], pictures), *_volumes(index["cases"])],
        footer="Every figure of this page is in index.json beside it, the volumes in volumes.csv, too. The page loads "
        "nothing but the reports beside it; its one script shows these, keeps verdicts and sorts the tables.",
        embedded=[
            Embedded("shell-data", "application/json", htmlsafe_json_dumps(shell_data(_worklist(index["cases"]))))
        ],
    )
    return render_page(page, styles=["verdict.css", "shell.css"], script="shell.js", bar="shell")


def shell_data(cases: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """What the shell of a batch knows of reports that can be judged; `batch` names the batch by what is in it.

    Args:
        cases: `case`, `id` and `sha256` of each report, where it lies (`report`), and its `confidence` and `flags`.
    """
    known = sorted(f"{case['id']} {case['sha256']}" for case in cases)
    return {"batch": hashlib.sha256("\n".join(known).encode()).hexdigest()[:16], "cases": cases}


def _worklist(rows: Sequence[PlacedRow]) -> list[dict[str, Json]]:
    return [
        {
            "case": row["case"],
            "id": row["report_id"],
            "sha256": row["report_sha256"],
            "report": row["report"],
            "confidence": row["lowest_confidence"],
            "flags": [words(f"{flag['structure'] or 'scan'}: {flag['code']}") for flag in row["flags"]],
        }
        for row in rows
        if row["report"] and row["report_id"] and row["report_sha256"]
    ]


def _cases(rows: Sequence[PlacedRow], pictures: Mapping[str, str]) -> Section:
    """The table of cases."""
    with_dice = any(row["mean_dice"] is not None for row in rows)
    text = Markup(
        "Failed scans, then {}by number of quality flags, then by the lowest mean confidence of a structure. Pictures: "
        "the slice to look at first. A case is named by its content, the first 8 digits of its file’s SHA-256; which "
        "file that was, the program’s lines on the terminal and its <code>--json</code> say."
    ).format("those with a reference by rising mean Dice, then " if with_dice else "")
    dice = [Column(name, numeric=True, sort="number") for name in ("Mean Dice", "Lowest Dice") if with_dice]
    columns = [
        Column("Place", numeric=True, sort="number"),
        Column("Slice"),
        Column("Case", sort="text"),
        Column("Status", sort="text"),
        Column("Flags", sort="number"),
        Column("Lowest confidence", numeric=True, sort="number"),
        *dice,
        Column("Structures found", numeric=True, sort="number"),
        Column("Warnings", sort="number"),
    ]
    cells = [_cells(row, pictures if number < _MOST_THUMBNAILS else {}, with_dice) for number, row in enumerate(rows)]
    return Section("cases", "Worst first", [Text(text, small=True), Table(columns, cells, header=2)])


def _cells(row: PlacedRow, pictures: Mapping[str, str], with_dice: bool) -> list[Cell]:
    case, link, status = row["case"], row["report"], row["status"]
    return [
        _figure(row["place"], 0),
        Cell(picture=pictures[case], link=link) if case in pictures else Cell(),
        Cell(case, link=link, sort=case),
        Cell(
            "done before" if status == "skipped" else status,
            alert=status == "failed",
            rest=f": {row['reason'] or 'no reason known'}" if status == "failed" else "",
            sort=status,
        ),
        _flags(row),
        _figure(row["lowest_confidence"], 2, row["least_certain"]),
        *([_figure(row["mean_dice"], 3), _figure(row["lowest_dice"], 3, row["worst_structure"])] if with_dice else []),
        _extent(row),
        _warnings(row),
    ]


def _volumes(rows: Sequence[PlacedRow]) -> list[Section]:
    """The table of volumes: of the structures, and of what else the model measures."""
    known = {name for row in rows for name, value in row["volumes"].items() if value is not None}
    names = dict.fromkeys(name for row in rows for name in row["volumes"] if name.endswith(_ML))
    shown = [name for name in names if name in known or not name.endswith(_OPTIONAL)]
    if not shown:
        return []
    titles = [Column(heading(name.removesuffix(_ML)), numeric=True, sort="number") for name in shown]
    cells = [
        [
            Cell(row["case"], link=row["report"], sort=row["case"]),
            *(_figure(number_at(row["volumes"], name), 2) for name in shown),
        ]
        for row in rows
        if row["volumes"]
    ]
    text = Text("In mL; none where a structure has no voxel, or reaches the edge of the scan.", small=True)
    return [Section("volumes", "Volumes", [text, Table([Column("Case", sort="text"), *titles], cells)])]


def _figure(number: float | None, digits: int, structure: Json = None) -> Cell:
    """A figure, and the structure that it is the figure of."""
    remark = words(str(structure)) if structure else ""
    return Cell(fixed(number, digits), sort="" if number is None else str(number), remark=remark)


def _flags(row: PlacedRow) -> Cell:
    """The number of flags, and how often each code occurs."""
    if row["structures"] is None:
        return Cell(DASH, sort="")
    counts = Counter(str(flag["code"]) for flag in row["flags"])
    if not counts:
        return Cell("none", sort="0")
    codes = ", ".join(f"{words(code)} {count}" if count > 1 else words(code) for code, count in counts.items())
    return Cell(str(counts.total()), alert=True, rest=f": {codes}", sort=str(counts.total()))


def _extent(row: PlacedRow) -> Cell:
    """How many of the structures have voxels."""
    present, structures = row["structures_found"], row["structures"]
    text = DASH if structures is None else f"{present} of {structures}"
    return Cell(text, sort="" if present is None else str(present))


def _warnings(row: PlacedRow) -> Cell:
    if row["structures"] is None:
        return Cell(DASH, sort="")
    count = len(row["warnings"])
    remark = "; ".join(map(str, row["warnings"]))
    return Cell(f"{count}:" if count else "none", remark=remark, sort=str(count))


def _badness(row: CaseRow) -> tuple[bool, float, int, float]:
    """Sorts worse cases before better ones."""
    dice, confidence = row["mean_dice"], row["lowest_confidence"]
    return (
        row["status"] != "failed",
        math.inf if dice is None else dice,
        -len(row["flags"]),
        math.inf if confidence is None else confidence,
    )
