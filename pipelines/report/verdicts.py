"""Reviewers' verdicts, matched with the reports that they are about: a row for each report and reader."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from pipelines.report.verdict_files import (
    REPORTS,
    VERDICTS,
    WITHDRAWN,
    Identity,
    Report,
    Verdict,
    read_review_files,
)
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Json

COLUMNS = (
    "case", "report_id", "kind", "state", "verdict", "cause", "comment", "reviewer", "reviewed_at", "seconds",
    "verdicts", "readers", "consensus", "structures", "marks", "flags", "lowest_confidence", "model", "note",
    "report_file", "verdict_file",
)  # fmt: skip
DISAGREE = "disagree"
"""The consensus of readers who do not agree, where no rule decides."""
RULES = "worst, majority or adjudicator:NAME"

Value: TypeAlias = str | int | float | None
"""What a row of the table holds in a column."""
Row: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class Reviews:
    """Verdicts and reports, matched.

    Attributes:
        rows: Rows of the table, by `COLUMNS`: for each report, in the order of their numbers, a row for each reader,
            or one where nobody judged it; then verdicts without a report.
        problems: A line for each file that cannot be used.
        reports: The reports.
        given: Latest verdicts by report, and by the reader's name in lower case.
        answers: The same with those that were taken back, whose answers at points of maps and polygons stand.
    """

    rows: list[Row]
    problems: list[str]
    reports: list[Report] = field(default_factory=list)
    given: Mapping[Identity, Mapping[str, Verdict]] = field(default_factory=dict)
    answers: Mapping[Identity, Mapping[str, Verdict]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of reports, of open ones, of those with each consensus, and of verdicts without a report."""
        reports = {row["report_file"]: row for row in self.rows if row["state"] != "orphan"}
        states = [row["state"] for row in reports.values()]
        results = [row["consensus"] for row in reports.values()]
        return {
            "reports": len(reports),
            "open": states.count("open"),
            **{verdict: results.count(verdict) for verdict in (*VERDICTS, DISAGREE)},
            "orphan": sum(row["state"] == "orphan" for row in self.rows),
        }


def report_identity(case: str, about: "Sequence[Document | Json]") -> dict[str, str]:
    """Number (`id`) and content hash (`sha256`) of a report, by which verdicts on it are known.

    The page and its JSON twin both hold them, so they cannot be a hash of either.

    Args:
        case: `case-` and 8 hex digits; `model-` for a report on no input.
        about: What is judged, as valid JSON: hashes of model and input, and the figures.
    """
    sha256 = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return {"id": f"{case}-{sha256[:8]}", "sha256": sha256}


def collect_reviews(folders: Sequence[Path], consensus: str = "") -> Reviews:
    """Match verdicts with the JSON twins of their reports (`REPORTS`), under some folders.

    Number and content hash have to be the same; of several verdicts of a reader on a report the latest counts, and
    verdicts without a name are those of one reader. Scans of equal content give reports of one number, each with its
    rows, and a verdict is one on all of them; copies of a report are one.

    Args:
        folders: Where to look.
        consensus: Rule for readers who do not agree: `worst`, `majority` (of equally many the worse) or
            `adjudicator:NAME`; without one their consensus is `DISAGREE`.

    Raises:
        InputError: One is no folder, there is neither a report nor a verdict, or there is no such rule.
    """
    _check_rule(consensus)
    files = read_review_files(folders)
    if not (files.reports or files.verdicts or files.problems):
        names = ", ".join(printable(folder) for folder in folders)
        known = ", ".join(REPORTS)
        raise InputError(
            f"{names}: contains no {known} and no verdict; expected results that have a report, or verdicts; "
            "give another folder"
        )
    latest = _latest(files.verdicts)
    given = _standing(latest)
    times = Counter((verdict.about, verdict.reviewer.casefold()) for verdict in files.verdicts)
    twins = Counter(report.about for report in files.reports)
    reports = sorted(files.reports, key=lambda report: (*_order(report.about), report.file))
    rows: list[Row] = []
    for report in reports:
        verdicts = given.get(report.about, {})
        about = _about_report(report, twins[report.about])
        about |= {"readers": len(verdicts), "consensus": consensus_of(verdicts, consensus)}
        rows += [
            about | _about_verdict(verdict, times[report.about, reader]) for reader, verdict in sorted(verdicts.items())
        ] or [about]
    for identity in sorted((identity for identity in given if identity not in twins), key=_order):
        for reader, verdict in sorted(given[identity].items()):
            rows.append(_about_orphan(identity, twins) | _about_verdict(verdict, times[identity, reader], "orphan"))
    return Reviews(rows, files.problems, reports, given, latest)


def consensus_of(verdicts: Mapping[str, Verdict], rule: str) -> str | None:
    """The verdict of all readers together, `DISAGREE`, or None where nobody judged; rules as in `collect_reviews`."""
    votes = Counter(verdict.verdict for verdict in verdicts.values())
    if len(votes) <= 1:
        return next(iter(votes), None)
    name, _, adjudicator = rule.partition(":")
    if name == "worst":
        return max(votes, key=VERDICTS.index)
    if name == "majority":
        return max(votes, key=lambda verdict: (votes[verdict], VERDICTS.index(verdict)))
    if name == "adjudicator" and (decision := verdicts.get(adjudicator.strip().casefold())):
        return decision.verdict
    return DISAGREE


def _check_rule(rule: str) -> None:
    name, _, adjudicator = rule.partition(":")
    if rule not in ("", "worst", "majority") and not (name == "adjudicator" and adjudicator.strip()):
        raise InputError(f"--consensus {printable(rule)}: no such rule; expected {RULES}")


def _order(about: Identity) -> tuple[str, str]:
    return about.number, about.sha256


def _latest(verdicts: Sequence[Verdict]) -> dict[Identity, dict[str, Verdict]]:
    """For each report the latest verdict of each reader."""
    latest: dict[Identity, dict[str, Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: (verdict.at, verdict.file)):
        latest.setdefault(verdict.about, {})[verdict.reviewer.casefold()] = verdict
    return latest


def _standing(latest: Mapping[Identity, Mapping[str, Verdict]]) -> dict[Identity, dict[str, Verdict]]:
    """Verdicts that were not taken back, of reports that have some."""
    standing = {
        about: {reader: verdict for reader, verdict in given.items() if verdict.verdict != WITHDRAWN}
        for about, given in latest.items()
    }
    return {about: given for about, given in standing.items() if given}


def _about_report(report: Report, twins: int) -> Row:
    return dict.fromkeys(COLUMNS) | {
        "case": report.about.case,
        "report_id": report.about.number,
        "kind": report.kind,
        "state": "open",
        "verdicts": 0,
        "flags": report.flags,
        "lowest_confidence": report.confidence,
        "model": report.model,
        "note": f"one of {twins} of equal content" if twins > 1 else "",
        "report_file": report.file,
    }


def _about_orphan(about: Identity, reports: Collection[Identity]) -> Row:
    note = "no report of this case is here"
    if any(about.number == known.number for known in reports):
        note = "the report of this number has another content hash"
    elif any(known.number.startswith(about.case) for known in reports):
        note = "the report of this case was made again since, with another result"
    return dict.fromkeys(COLUMNS) | {"case": about.case, "report_id": about.number, "note": note}


def _about_verdict(verdict: Verdict, times: int, state: str = "reviewed") -> Row:
    return {
        "state": state,
        "verdict": verdict.verdict,
        "cause": verdict.cause,
        "comment": verdict.comment,
        "reviewer": verdict.reviewer,
        "reviewed_at": verdict.at.isoformat(timespec="seconds"),
        "seconds": verdict.seconds,
        "verdicts": times,
        "structures": "; ".join(f"{name}: {judged}" for name, judged in verdict.structures.items()),
        "marks": "; ".join(mark.line for mark in verdict.marks),
        "verdict_file": verdict.file,
    }
