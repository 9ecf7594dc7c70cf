"""Files with reviewers' verdicts and the JSON twins of reports: known by their content, and checked."""

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from pipelines.report.map_answers import Fix, PointSample, answers_in, fixes_in, sample_in
from pipelines.report.text import list_at, value_at
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Json

VERDICTS = ("accept", "needs_work", "reject")
"""Verdicts from best to worst."""
WITHDRAWN = "open"
"""What a reader who took a verdict back saves in its place."""
STRUCTURE_VERDICTS = ("ok", "fix", "wrong")
REPORTS = {
    "*_seg.json": "segmentation",
    "*_dseg.json": "segmentation",
    "robustness.json": "robustness",
    "report.json": "training",
    "*_report.json": "map",
}
"""Kind of a report, by what the JSON twin of its page is called."""

_SHARED = ("*_dseg.json", "*_report.json")  # which other programs write, too
_LARGEST_REPORT, _LARGEST_REVIEW = 16 << 20, 8 << 20  # bytes
_ID = re.compile(r"((?:case|model)-[0-9a-f]{8})-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What pages call the files that they save, second ones (`..._review (1).json`) and unfinished ones included.
_REVIEW = re.compile(rf".*_review\.json|{_ID.pattern}_review.*|reviews-[0-9a-f]{{8}}.*", re.I)
_LONGEST = {"comment": 4000, "reviewer": 16}  # as the page's form limits them
_LONGEST_NAME, _MOST_MARKS = 200, 100
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Identity:
    """Which report a file is about: its case, number and content hash."""

    case: str
    number: str
    sha256: str


@dataclass(frozen=True)
class Report:
    """The JSON twin of a report; `flags` is None where it has no quality flags, `confidence` where it has none.

    `path` is its own, `file` that as printed, `structures` are the names of what it segmented, `weights` is the sha256
    of what it trained, empty where it is of no training, and `sample` is of a map, at whose points readers say what is
    there.
    """

    about: Identity
    kind: str
    flags: int | None
    confidence: float | None
    model: str
    path: Path
    file: str
    structures: tuple[str, ...]
    weights: str
    sample: PointSample | None = None


@dataclass(frozen=True)
class Mark:
    """A word at a place of a picture.

    Attributes:
        plane: Plane of the slice.
        position: Its place in scanner coordinates.
        at: Place in the picture, from left and from top, as fractions of its size.
        word: The word.
        mm: The place in scanner coordinates (RAS+); None in files of earlier versions.
    """

    plane: str
    position: str
    at: tuple[float, float]
    word: str
    mm: tuple[float, float, float] | None

    @property
    def line(self) -> str:
        """The mark as a line of text."""
        return f"{self.plane} {self.position} ({self.at[0]:.3f}, {self.at[1]:.3f}): {self.word}"


@dataclass(frozen=True)
class Verdict:
    """A reader's verdict on a report, given at a time in UTC.

    Attributes:
        about: The report.
        verdict: One of `VERDICTS`, or `WITHDRAWN`.
        cause: `scan` where the scan is bad and not the result; else empty.
        comment: The comment.
        reviewer: Short name of the reader; empty where none was given.
        at: When it was given.
        seconds: How long the report was looked at; None where it was not measured.
        structures: One of `STRUCTURE_VERDICTS` by the structure's name.
        marks: Words at places of pictures.
        file: The file's path as printed.
        points: Answers at the points of a map, by number.
        fixes: Polygons that correct a map.
    """

    about: Identity
    verdict: str
    cause: str
    comment: str
    reviewer: str
    at: datetime
    seconds: float | None
    structures: Mapping[str, str]
    marks: Sequence[Mark]
    file: str
    points: Mapping[str, str] = field(default_factory=dict)
    fixes: Sequence[Fix] = ()


@dataclass(frozen=True)
class ReviewFiles:
    """What lies in some folders: reports, verdicts, and a line for each file that cannot be used."""

    reports: list[Report]
    verdicts: list[Verdict]
    problems: list[str]


def read_review_files(folders: Sequence[Path]) -> ReviewFiles:
    """All reports and verdicts under some folders.

    A verdict is a JSON file with a `report` and a `verdict`, or with a list of such `verdicts`, whatever it is called.
    A copy of a report (the same number and content hash under the same name) is one with it.

    Raises:
        InputError: One is no folder.
    """
    reports: dict[tuple[str, str], Report] = {}
    verdicts: list[Verdict] = []
    problems = []
    for path, kind in _files(folders):
        try:
            if kind is None:
                verdicts += _verdicts(path)
            elif report := _report(path, kind):
                reports.setdefault((report.about.sha256, path.name), report)
        except InputError as error:
            problems.append(str(error))
    return ReviewFiles(list(reports.values()), verdicts, problems)


def looks_like_verdict(name: str) -> bool:
    """Whether a file is called as pages call the verdicts that they save."""
    return _REVIEW.fullmatch(name) is not None


def _files(folders: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """Twins of reports with their kind; with None what is or may be a verdict."""
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{printable(folder)}: no such folder; expected one with reports or verdicts")
        for parent, children, names in os.walk(folder, onerror=_refuse_folder):  # links to folders are not followed
            children[:] = sorted(child for child in children if not child.startswith("."))
            for name in sorted(names):
                kind = next((kind for pattern, kind in REPORTS.items() if fnmatchcase(name, pattern)), None)
                path = Path(parent, name)
                candidate = kind or name.lower().endswith(".json") or looks_like_verdict(name)
                if candidate and (real := os.path.realpath(path)) not in seen:
                    seen.add(real)
                    yield path, kind


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"{printable(error.filename)}: cannot be listed ({error.strerror}); check its permissions")


def _report(path: Path, kind: str) -> Report | None:
    """The report that a file is the twin of; None of a file that other programs write, too."""
    content = _document(path, _bytes(path, _LARGEST_REPORT))
    if "report" not in content and any(fnmatchcase(path.name, pattern) for pattern in _SHARED):
        return None
    if "report" not in content:
        raise InputError(f"{printable(path)}: its report has no number, as an earlier version made it; make it again")
    flags, confidence = content.get("flags"), value_at(content, "summary", "lowest_confidence")
    names = [value_at(content, "model", key) for key in ("name", "version")]
    structures = [value_at(row, "name") for row in list_at(content, "structures")]
    weights = value_at(content, "model", "sha256") if kind == "training" else None
    return Report(
        about=read_identity(path, content),
        kind=kind,
        flags=len(flags) if isinstance(flags, list) else None,
        confidence=float(confidence) if isinstance(confidence, int | float) else None,
        model=" ".join(_encodable(name[:100]) for name in names if isinstance(name, str)),
        path=path,
        file=printable(path),
        structures=tuple(_encodable(name) for name in structures if isinstance(name, str)),
        weights=weights if isinstance(weights, str) and _SHA256.fullmatch(weights) else "",
        sample=_of_map(path, "points", sample_in, content) if kind == "map" else None,
    )


def _verdicts(path: Path) -> list[Verdict]:
    """Verdicts in a file; none where it is neither called like one nor has the content of one."""
    named = looks_like_verdict(path.name)
    if not path.name.lower().endswith(".json"):
        raise InputError(f"{printable(path)}: looks like a verdict, but is not taken: its name does not end in .json")
    try:
        content = _document(path, _bytes(path, _LARGEST_REVIEW), key="" if named else "verdict")
    except InputError:
        if named:
            raise
        return []
    entries = content.get("verdicts")
    if not isinstance(entries, list):
        return [_verdict(path, content)] if named or {"report", "verdict"} <= content.keys() else []
    objects = [entry for entry in entries if isinstance(entry, Mapping)]
    if len(objects) < len(entries) or not all({"report", "verdict"} <= entry.keys() for entry in objects):
        if named:
            raise _unusable(path, "verdicts", None, "a list of verdicts, each with its report")
        return []
    return [_verdict(path, entry) for entry in objects]


def _verdict(path: Path, content: Mapping[str, Json]) -> Verdict:
    about, verdict = read_identity(path, content), content.get("verdict")
    if not isinstance(verdict, str) or verdict not in (*VERDICTS, WITHDRAWN):
        raise _unusable(path, "verdict", verdict, " or ".join(VERDICTS))
    comment, reviewer = (_text(path, content, key, longest) for key, longest in _LONGEST.items())
    seconds = content.get("seconds")
    measured = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0
    return Verdict(
        about=about,
        verdict=verdict,
        cause="scan" if content.get("cause") == "scan" else "",
        comment=comment,
        reviewer=reviewer.strip(),
        at=_time(path, content.get("created")),
        seconds=float(seconds) if measured and isinstance(seconds, int | float) else None,
        structures=_structures(path, content.get("structures", {})),
        marks=_marks(path, content.get("marks", [])),
        file=printable(path),
        points=_of_map(path, "points", answers_in, content),
        fixes=_of_map(path, "fixes", fixes_in, content),
    )


def _of_map(path: Path, key: str, read: Callable[[Mapping[str, Json]], _Read], content: Mapping[str, Json]) -> _Read:
    try:
        return read(content)
    except ValueError as error:
        raise _unusable(path, key, None, str(error)) from None


def _structures(path: Path, given: Json) -> dict[str, str]:
    """Verdicts on structures by name."""
    if not isinstance(given, Mapping):
        raise _unusable(path, "structures", given, "an object")
    for name, verdict in given.items():
        if verdict not in STRUCTURE_VERDICTS or len(name) > _LONGEST_NAME:
            raise _unusable(path, "structures", str(verdict), f"{', '.join(STRUCTURE_VERDICTS)} by name")
    return {_encodable(name): str(verdict) for name, verdict in given.items()}


def _marks(path: Path, given: Json) -> list[Mark]:
    if not isinstance(given, list) or len(given) > _MOST_MARKS:
        raise _unusable(path, "marks", None, f"a list of at most {_MOST_MARKS}")
    marks = []
    for mark in given:
        words = [value_at(mark, key) for key in ("plane", "position", "word")]
        if not all(isinstance(word, str) and len(word) <= _LONGEST_NAME for word in words):
            raise _unusable(path, "marks", None, "plane, position and word as texts")
        at = _numbers([value_at(mark, key) for key in ("x", "y")])
        if at is None or not all(0 <= part <= 1 for part in at):
            raise _unusable(path, "marks", None, "x and y from 0 to 1")
        stated = value_at(mark, "mm")
        mm = _numbers(stated) if isinstance(stated, list) and len(stated) == 3 else None
        if stated is not None and mm is None:
            raise _unusable(path, "marks", None, "mm as three numbers")
        plane, position, word = (_encodable(str(word)) for word in words)
        marks.append(Mark(plane, position, (at[0], at[1]), word, None if mm is None else (mm[0], mm[1], mm[2])))
    return marks


def _numbers(values: Sequence[Json]) -> list[float] | None:
    """Finite numbers of a size that a scanner can have, or None where one is something else."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return numbers if len(numbers) == len(values) and all(abs(number) < 1e6 for number in numbers) else None


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


def read_identity(path: Path, content: Mapping[str, Json]) -> Identity:
    """The report that an object in a file is about.

    Raises:
        InputError: it names none.
    """
    number, sha256 = value_at(content, "report", "id"), value_at(content, "report", "sha256")
    match = _ID.fullmatch(number) if isinstance(number, str) else None
    if match is None or not isinstance(number, str):
        raise _unusable(path, "report.id", number, "case- or model-, 8 hex digits, - and 8 more")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _unusable(path, "report.sha256", sha256, "64 hex digits")
    return Identity(match[1], number, sha256)


def _bytes(path: Path, largest: int) -> bytes:
    name = printable(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{name}: not a regular file; remove it, or give another folder")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check the file") from None
    if len(content) > largest:
        raise InputError(f"{name}: larger than {largest >> 20} MB; expected what the program or a report wrote")
    return content


def _document(path: Path, content: bytes, key: str = "") -> Mapping[str, Json]:
    """A JSON object; an empty one where the file does not name `key` at all, which spares reading it."""
    if key and f'"{key}'.encode() not in content:
        return {}
    name = printable(path)
    try:
        document: Json = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{name}: is not JSON; expected what the program or a report wrote") from None
    if not isinstance(document, dict):
        raise InputError(f"{name}: contains a {type(document).__name__}; expected a JSON object")
    return document


def _encodable(text: str) -> str:
    """The text with what is half a character, which JSON can hold and no file can, as a question mark."""
    return text.encode("utf-8", "replace").decode()


def _unusable(path: Path, key: str, value: Json, expected: str) -> InputError:
    plain = isinstance(value, str | int | float | bool | None)
    shown = printable(json.dumps(value)[:60]) if plain else "something else"
    return InputError(f"{printable(path)}: its {key} is {shown}; expected {expected}; save the verdict again")
