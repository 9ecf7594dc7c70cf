"""The index of a batch of segmented scans: one row a case, worst first, as a page and as its JSON twin."""

import base64
import binascii
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from pipelines.report.page import render_page, without_paths

SCHEMA_VERSION = 1
TITLE = "Batch index"

_CASE = re.compile(r"case-[0-9a-f]{8}|unreadable-[0-9]+")
_PICTURE = re.compile(r'<img class="contours" src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
_THUMBNAIL = 112  # pixels of the longest side
_MOST_THUMBNAILS = 300  # so that the page of a thousand scans stays small


def case_row(
    case: str,
    status: str,
    *,
    reason: str | None = None,
    sidecar: Mapping[str, Any] | None = None,
    report: str | None = None,
) -> dict[str, Any]:
    """What an index says of one scan.

    Args:
        case: `case-` and 8 hex digits, or `unreadable-` and a number for a file without content to name it by.
        status: `done`, `skipped` or `failed`.
        reason: why it was not done; names and paths of files are the caller's to leave out.
        sidecar: of a scan that has one.
        report: where its report lies, seen from the index.

    Returns:
        Plain values: the arguments, and of the side-car `structures`, `structures_found`, `flags` (`code` and
        `structure` of each), `lowest_confidence` and `least_certain`, the structure that it is of, `mean_dice`,
        `lowest_dice` and `worst_structure` where there was a reference, and `warnings`. Figures of a scan without
        side-car are None.

    Raises:
        ValueError: `case` is no pseudonym.
    """
    if not _CASE.fullmatch(case):
        raise ValueError(f"case is {case!r}; expected case- and 8 hex digits")
    said: dict[str, Any] = without_paths(dict(sidecar or {}))
    summary = said.get("summary") or {}
    reference = said.get("reference") or {}
    scored = [row for row in reference.get("rows", []) if row["dice"] is not None]
    worst = min(scored, key=lambda row: row["dice"], default={})
    return {
        "case": case,
        "status": status,
        "reason": without_paths(reason),
        **{key: summary.get(key) for key in ("structures", "structures_found")},
        "flags": [{key: flag[key] for key in ("code", "structure")} for flag in said.get("flags", [])],
        **{key: summary.get(key) for key in ("lowest_confidence", "least_certain")},
        "mean_dice": (reference.get("summary") or {}).get("dice"),
        "lowest_dice": worst.get("dice"),
        "worst_structure": worst.get("name"),
        "warnings": list(said.get("warnings", [])),
        "report": report,
    }


def batch_index(rows: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> dict[str, Any]:
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


def index_page(index: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The page of an index: a table that a small script makes sortable, and that is sorted worst first without it.

    Its content security policy allows that script and nothing else.

    Args:
        index: of `batch_index`.
        pictures: data URI of a small picture by case, where there is one (`thumbnail`).
    """
    cases = [{**row, "flag_counts": Counter(flag["code"] for flag in row["flags"])} for row in index["cases"]]
    return render_page(
        "index.html.j2",
        script="index.js",
        index=index,
        cases=cases,
        pictures={row["case"]: pictures[row["case"]] for row in cases[:_MOST_THUMBNAILS] if row["case"] in pictures},
        with_dice=any(row["mean_dice"] is not None for row in cases),
    )


def thumbnail(report: str) -> str | None:
    """Data URI of the first picture with contours of a report, made small; None where there is none."""
    found = _PICTURE.search(report)
    if not found:
        return None
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
    except (binascii.Error, OSError, ValueError):
        return None
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.quantize(64).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _badness(row: Mapping[str, Any]) -> tuple[bool, float, int, float]:
    """Sorts worse cases before better ones."""
    dice, confidence = row["mean_dice"], row["lowest_confidence"]
    return (
        row["status"] != "failed",
        math.inf if dice is None else dice,
        -len(row["flags"]),
        math.inf if confidence is None else confidence,
    )
