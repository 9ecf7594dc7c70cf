"""Reviewers' verdicts: found in folders, checked, and matched with the reports that they are about."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from shared_backbones.errors import InputError
from shared_backbones.files import printable

VERDICTS = ("accept", "needs_work", "reject")
COLUMNS = (
    "case", "report_id", "kind", "state", "verdict", "comment", "reviewer", "reviewed_at", "verdicts", "flags", "model",
    "note", "report_file", "verdict_file",
)  # fmt: skip

#: What the JSON twin of a report's page is called, by the report's kind.
REPORTS = {"segmentation": "*_seg.json", "robustness": "robustness.json", "training": "report.json"}
REVIEWS = "*_review.json"
_LARGEST_REPORT, _LARGEST_REVIEW = 16 << 20, 64 << 10  # bytes
_ID = re.compile(r"((?:case|model)-[0-9a-f]{8})-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = {"comment": 4000, "reviewer": 16}  # as the page's form limits them


@dataclass(frozen=True)
class Reviews:
    """What was found.

    Attributes:
        rows: of the table, by `COLUMNS`: reports in the order of their numbers, then verdicts without a report.
        problems: a line for each file that cannot be used.
    """

    rows: list[dict[str, Any]]
    problems: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """Of reports in all, open ones, each verdict, and of verdicts without a report."""
        states = [row["state"] for row in self.rows]
        given = [row["verdict"] for row in self.rows if row["state"] == "reviewed"]
        return {
            "reports": len(states) - states.count("orphan"),
            "open": states.count("open"),
            **{verdict: given.count(verdict) for verdict in VERDICTS},
            "orphan": states.count("orphan"),
        }


def report_identity(case: str, about: Any) -> dict[str, str]:
    """Number (`id`) and content hash (`sha256`) of a report, by which verdicts on it are known.

    The page and its JSON twin both hold them, so they cannot be a hash of either.

    Args:
        case: `case-` or, of a report on no input, `model-`, and 8 hex digits.
        about: what is judged, as valid JSON: hashes of model and input, and the figures.
    """
    sha256 = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return {"id": f"{case}-{sha256[:8]}", "sha256": sha256}


def collect_reviews(folders: Sequence[Path]) -> Reviews:
    """Match verdicts (`REVIEWS`) with the JSON twins of their reports (`REPORTS`), under some folders.

    Number and content hash have to be the same; of several verdicts on a report the latest counts.

    Raises:
        InputError: one is no folder, or there is neither a report nor a verdict.
    """
    reports: dict[tuple[str, str], dict[str, Any]] = {}
    verdicts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    problems = []
    for path, kind in _files(folders):
        try:
            if kind is not None:
                row = _report(path, kind)
                reports.setdefault((row["report_id"], row["sha256"]), row)  # a copied folder is one report
            else:
                row = _verdict(path)
                verdicts.setdefault((row["report_id"], row["sha256"]), []).append(row)
        except InputError as error:
            problems.append(str(error))
    if not (reports or verdicts or problems):
        names = ", ".join(printable(folder) for folder in folders)
        known = ", ".join([*REPORTS.values(), REVIEWS])
        raise InputError(f"{names}: none of {known} is in it; expected results that have a report, or verdicts")
    rows = [_row(report, verdicts.pop(key, [])) for key, report in sorted(reports.items())]
    rows += [_orphan(given, reports) for _, given in sorted(verdicts.items())]
    return Reviews(rows, problems)


def _files(folders: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """Twins of reports with their kind, and verdicts with None."""
    kinds = {REVIEWS: None, **{pattern: kind for kind, pattern in REPORTS.items()}}
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{printable(folder)}: no such folder; expected one with reports or verdicts")
        for parent, children, names in os.walk(folder, onerror=_refuse_folder):  # links to folders are not followed
            children[:] = sorted(child for child in children if not child.startswith("."))
            for name in sorted(names):
                pattern = next((pattern for pattern in kinds if fnmatchcase(name, pattern)), None)
                path = Path(parent, name)
                if pattern and (real := path.resolve()) not in seen:
                    seen.add(real)
                    yield path, kinds[pattern]


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"{printable(error.filename)}: cannot be listed ({error.strerror}); check its permissions")


def _report(path: Path, kind: str) -> dict[str, Any]:
    content = _read(path, _LARGEST_REPORT)
    if "report" not in content:
        raise InputError(f"{printable(path)}: its report has no number, as an earlier version made it; make it again")
    case, number, sha256 = _identity(path, content)
    flags, model = content.get("flags"), content.get("model")
    model = model if isinstance(model, Mapping) else {}
    return {
        "case": case,
        "report_id": number,
        "sha256": sha256,
        "kind": kind,
        "flags": len(flags) if isinstance(flags, list) else None,
        "model": " ".join(_whole(model[key][:100]) for key in ("name", "version") if isinstance(model.get(key), str)),
        "file": printable(path),
    }


def _verdict(path: Path) -> dict[str, Any]:
    content = _read(path, _LARGEST_REVIEW)
    case, number, sha256 = _identity(path, content)
    if content.get("verdict") not in VERDICTS:
        raise _unusable(path, "verdict", content.get("verdict"), " or ".join(VERDICTS))
    texts = {}
    for key, longest in _LONGEST.items():
        text = content.get(key, "")
        if not isinstance(text, str) or len(text) > longest:
            raise _unusable(path, key, text, f"a text of at most {longest} characters")
        texts[key] = _whole(text)
    try:
        at = datetime.fromisoformat(content["created"])
        if at.tzinfo is None:
            raise ValueError
        at = at.astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _unusable(path, "created", content.get("created"), "a date and time with its zone") from None
    return {
        "case": case, "report_id": number, "sha256": sha256, "verdict": content["verdict"], **texts, "at": at,
        "file": printable(path),
    }  # fmt: skip


def _identity(path: Path, content: Mapping[str, Any]) -> tuple[str, str, str]:
    """Case, number and content hash of the report that a file is about."""
    report = content.get("report")
    report = report if isinstance(report, Mapping) else {}
    number, sha256 = report.get("id"), report.get("sha256")
    match = _ID.fullmatch(number) if isinstance(number, str) else None
    if match is None or not isinstance(number, str):
        raise _unusable(path, "report.id", number, "case- or model-, 8 hex digits, - and 8 more")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _unusable(path, "report.sha256", sha256, "64 hex digits")
    return match[1], number, sha256


def _read(path: Path, largest: int) -> Mapping[str, Any]:
    name = printable(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{name}: is no file; remove it, or give another folder")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check the file") from None
    if len(content) > largest:
        raise InputError(f"{name}: larger than {largest >> 10} KB; expected what the program or a report wrote")
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{name}: is not JSON; expected what the program or a report wrote") from None
    if not isinstance(read, dict):
        raise InputError(f"{name}: holds a {type(read).__name__}; expected a JSON object")
    return read


def _whole(text: str) -> str:
    """The text with what is half a character, which JSON can hold and no file can, as a question mark."""
    return text.encode("utf-8", "replace").decode()


def _unusable(path: Path, key: str, found: Any, expected: str) -> InputError:
    shown = (
        printable(json.dumps(found)[:60]) if isinstance(found, str | int | float | bool | None) else "something else"
    )
    return InputError(f"{printable(path)}: its {key} is {shown}; expected {expected}; save the verdict again")


def _row(report: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row = {key: report.get(key) for key in COLUMNS} | {"report_file": report["file"], "state": "open", "note": ""}
    return row | {"verdicts": 0} if not given else row | {"state": "reviewed"} | _latest(given)


def _orphan(given: Sequence[Mapping[str, Any]], reports: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    case, number = given[0]["case"], given[0]["report_id"]
    note = "no report of this case is here"
    if any(number == known for known, _ in reports):
        note = "the report of this number has another content hash"
    elif any(known.startswith(case) for known, _ in reports):
        note = "the report of this case was made again since, with another result"
    row = dict.fromkeys(COLUMNS) | {"case": case, "report_id": number, "state": "orphan", "note": note}
    return row | _latest(given)


def _latest(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = max(given, key=lambda verdict: (verdict["at"], verdict["file"]))
    return {
        **{key: last[key] for key in ("verdict", "comment", "reviewer")},
        "reviewed_at": last["at"].isoformat(timespec="seconds"),
        "verdicts": len(given),
        "verdict_file": last["file"],
    }
