"""Reviewers' verdicts: found in folders, checked, and matched with the reports that they are about."""

import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from pipelines.report.text import value_at
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Json

VERDICTS = ("accept", "needs_work", "reject")
COLUMNS = (
    "case", "report_id", "kind", "state", "verdict", "comment", "reviewer", "reviewed_at", "verdicts", "flags", "model",
    "note", "report_file", "verdict_file",
)  # fmt: skip

REPORTS = {
    "*_seg.json": "segmentation",
    "*_dseg.json": "segmentation",
    "robustness.json": "robustness",
    "report.json": "training",
}
"""Kind of a report, by what the JSON twin of its page is called."""
_SHARED = "*_dseg.json"  # which other programs write, too
REVIEWS = "*_review.json"
_LARGEST_REPORT, _LARGEST_REVIEW = 16 << 20, 64 << 10  # bytes
_ID = re.compile(r"((?:case|model)-[0-9a-f]{8})-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = {"comment": 4000, "reviewer": 16}  # as the page's form limits them


Value: TypeAlias = str | int | None
"""What a row of the table holds in a column."""


@dataclass(frozen=True)
class Reviews:
    """Verdicts and reports, matched.

    Attributes:
        rows: Rows of the table, by `COLUMNS`: reports in the order of their numbers, then verdicts without a report.
        problems: A line for each file that cannot be used.
    """

    rows: list[dict[str, Value]]
    problems: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of reports, of open ones, of those with each verdict, and of verdicts without a report."""
        states = [row["state"] for row in self.rows]
        given = [row["verdict"] for row in self.rows if row["state"] == "reviewed"]
        return {
            "reports": len(states) - states.count("orphan"),
            "open": states.count("open"),
            **{verdict: given.count(verdict) for verdict in VERDICTS},
            "orphan": states.count("orphan"),
        }


@dataclass(frozen=True)
class _Identity:
    """Which report a file is about: its case, number and content hash."""

    case: str
    number: str
    sha256: str


@dataclass(frozen=True)
class _Report:
    """The JSON twin of a report; `flags` is None where it has no quality flags."""

    about: _Identity
    kind: str
    flags: int | None
    model: str
    file: str


@dataclass(frozen=True)
class _Verdict:
    """A reviewer's verdict on a report, given at a time in UTC."""

    about: _Identity
    verdict: str
    comment: str
    reviewer: str
    at: datetime
    file: str


def report_identity(case: str, about: "Sequence[Document | Json]") -> dict[str, str]:
    """Number (`id`) and content hash (`sha256`) of a report, by which verdicts on it are known.

    The page and its JSON twin both hold them, so they cannot be a hash of either.

    Args:
        case: `case-` and 8 hex digits; `model-` for a report on no input.
        about: What is judged, as valid JSON: hashes of model and input, and the figures.
    """
    sha256 = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return {"id": f"{case}-{sha256[:8]}", "sha256": sha256}


def collect_reviews(folders: Sequence[Path]) -> Reviews:
    """Match verdicts (`REVIEWS`) with the JSON twins of their reports (`REPORTS`), under some folders.

    Number and content hash have to be the same; of several verdicts on a report the latest counts. Files of equal
    content give reports of one number, each a row, and a verdict is one on all of them; copies of a report are one.

    Raises:
        InputError: One is no folder, or there is neither a report nor a verdict.
    """
    reports: dict[str, _Report] = {}  # by the hash of the file, as a copied folder is one report
    verdicts: dict[_Identity, list[_Verdict]] = {}
    problems = []
    for path, kind in _files(folders):
        try:
            if kind is not None:
                if about := _report(path, kind):
                    reports.setdefault(*about)
            else:
                verdict = _verdict(path)
                verdicts.setdefault(verdict.about, []).append(verdict)
        except InputError as error:
            problems.append(str(error))
    if not (reports or verdicts or problems):
        names = ", ".join(printable(folder) for folder in folders)
        known = ", ".join([*REPORTS, REVIEWS])
        raise InputError(
            f"{names}: contains no {known}; expected results that have a report, or verdicts; give another folder"
        )
    twins = Counter(report.about for report in reports.values())
    rows = [
        _row(report, verdicts.get(report.about, []), twins[report.about])
        for report in sorted(reports.values(), key=lambda report: (*_order(report.about), report.file))
    ]
    rows += [_orphan(verdicts[about], twins) for about in sorted(verdicts, key=_order) if about not in twins]
    return Reviews(rows, problems)


def _order(about: _Identity) -> tuple[str, str]:
    return about.number, about.sha256


def _files(folders: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """Twins of reports with their kind, and verdicts with None."""
    kinds = {REVIEWS: None, **REPORTS}
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{printable(folder)}: no such folder; expected one with reports or verdicts")
        for parent, children, names in os.walk(folder, onerror=_refuse_folder):  # links to folders are not followed
            children[:] = sorted(child for child in children if not child.startswith("."))
            for name in sorted(names):
                pattern = next((pattern for pattern in kinds if fnmatchcase(name, pattern)), None)
                path = Path(parent, name)
                if pattern and (real := os.path.realpath(path)) not in seen:
                    seen.add(real)
                    yield path, kinds[pattern]


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"{printable(error.filename)}: cannot be listed ({error.strerror}); check its permissions")


def _report(path: Path, kind: str) -> tuple[str, _Report] | None:
    """The hash of a file, and the report that it is the twin of; None of a file that other programs write, too."""
    content, sha256 = _read(path, _LARGEST_REPORT)
    if "report" not in content and fnmatchcase(path.name, _SHARED):
        return None
    if "report" not in content:
        raise InputError(f"{printable(path)}: its report has no number, as an earlier version made it; make it again")
    flags = content.get("flags")
    names = [value_at(content, "model", key) for key in ("name", "version")]
    return sha256, _Report(
        about=_identity(path, content),
        kind=kind,
        flags=len(flags) if isinstance(flags, list) else None,
        model=" ".join(_encodable(name[:100]) for name in names if isinstance(name, str)),
        file=printable(path),
    )


def _verdict(path: Path) -> _Verdict:
    content, _ = _read(path, _LARGEST_REVIEW)
    about, verdict = _identity(path, content), content.get("verdict")
    if not isinstance(verdict, str) or verdict not in VERDICTS:
        raise _unusable(path, "verdict", verdict, " or ".join(VERDICTS))
    comment, reviewer = (_text(path, content, key, longest) for key, longest in _LONGEST.items())
    return _Verdict(about, verdict, comment, reviewer, _time(path, content.get("created")), printable(path))


def _text(path: Path, content: Mapping[str, Json], key: str, longest: int) -> str:
    text = content.get(key, "")
    if not isinstance(text, str) or len(text) > longest:
        raise _unusable(path, key, text, f"a text of at most {longest} characters")
    return _encodable(text)


def _time(path: Path, created: Json) -> datetime:
    try:
        at = datetime.fromisoformat(str(created))
        if at.tzinfo is None:
            raise ValueError("a time without its zone")
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _unusable(path, "created", created, "a date and time with its zone") from None


def _identity(path: Path, content: Mapping[str, Json]) -> _Identity:
    """The report that a file is about."""
    number, sha256 = value_at(content, "report", "id"), value_at(content, "report", "sha256")
    match = _ID.fullmatch(number) if isinstance(number, str) else None
    if match is None or not isinstance(number, str):
        raise _unusable(path, "report.id", number, "case- or model-, 8 hex digits, - and 8 more")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _unusable(path, "report.sha256", sha256, "64 hex digits")
    return _Identity(match[1], number, sha256)


def _read(path: Path, largest: int) -> tuple[Mapping[str, Json], str]:
    """Content of a JSON file, and its hash."""
    name = printable(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{name}: not a regular file; remove it, or give another folder")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check the file") from None
    if len(content) > largest:
        raise InputError(f"{name}: larger than {largest >> 10} KB; expected what the program or a report wrote")
    try:
        document: Json = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{name}: is not JSON; expected what the program or a report wrote") from None
    if not isinstance(document, dict):
        raise InputError(f"{name}: contains a {type(document).__name__}; expected a JSON object")
    return document, hashlib.sha256(content).hexdigest()


def _encodable(text: str) -> str:
    """The text with what is half a character, which JSON can hold and no file can, as a question mark."""
    return text.encode("utf-8", "replace").decode()


def _unusable(path: Path, key: str, value: Json, expected: str) -> InputError:
    plain = isinstance(value, str | int | float | bool | None)
    shown = printable(json.dumps(value)[:60]) if plain else "something else"
    return InputError(f"{printable(path)}: its {key} is {shown}; expected {expected}; save the verdict again")


def _row(report: _Report, given: Sequence[_Verdict], twins: int) -> dict[str, Value]:
    row = dict.fromkeys(COLUMNS) | {
        "case": report.about.case, "report_id": report.about.number, "kind": report.kind, "flags": report.flags,
        "model": report.model, "note": f"one of {twins} of equal content" if twins > 1 else "",
        "report_file": report.file,
    }  # fmt: skip
    return row | {"state": "open", "verdicts": 0} if not given else row | {"state": "reviewed"} | _latest(given)


def _orphan(given: Sequence[_Verdict], reports: Collection[_Identity]) -> dict[str, Value]:
    about = given[0].about
    note = "no report of this case is here"
    if any(about.number == known.number for known in reports):
        note = "the report of this number has another content hash"
    elif any(known.number.startswith(about.case) for known in reports):
        note = "the report of this case was made again since, with another result"
    row = dict.fromkeys(COLUMNS) | {"case": about.case, "report_id": about.number, "state": "orphan", "note": note}
    return row | _latest(given)


def _latest(given: Sequence[_Verdict]) -> dict[str, Value]:
    last = max(given, key=lambda verdict: (verdict.at, verdict.file))
    return {
        "verdict": last.verdict,
        "comment": last.comment,
        "reviewer": last.reviewer,
        "reviewed_at": last.at.isoformat(timespec="seconds"),
        "verdicts": len(given),
        "verdict_file": last.file,
    }
