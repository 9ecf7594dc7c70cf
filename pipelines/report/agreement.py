"""The page of how far readers agree: figures, tables of counts, and the reports to adjudicate."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from jinja2.utils import htmlsafe_json_dumps

from pipelines.report.page import render_page
from pipelines.report.sections import (
    Block,
    Cell,
    Column,
    Embedded,
    Page,
    Section,
    Table,
    Text,
)
from pipelines.report.text import (
    DASH,
    fixed,
    list_at,
    moment,
    number_at,
    part_at,
    percent,
    rows_at,
    text_at,
    without_paths,
)
from pipelines.report.text import words as in_words
from pipelines.report.verdict_files import VERDICTS, Identity, Verdict
from shared_backbones.json_values import Document, Json

_NAMES = {verdict: in_words(verdict) for verdict in VERDICTS}
_METHOD = (
    "Alike: reports with the same verdict, with Wilson's 95\u00a0% interval. Kappa: Cohen's, with quadratic weights, "
    "so that accept against reject counts four times as much as accept against needs work. Alpha: Krippendorff's for "
    "ordered categories, over all reports with two verdicts or more, whoever gave them. Intervals of kappa and alpha "
    "are percentiles of {resamples} bootstrap resamples of the reports; where readers disagree on none there is no "
    "interval. Kappa is low where nearly all verdicts are the same, however often readers agree: read it beside the "
    "counts."
)


@dataclass(frozen=True)
class GivenVerdict:
    """What a reader said of a report; `details` are verdicts on structures and words at places, a line each."""

    reader: str
    verdict: str
    comment: str
    details: Sequence[str]


@dataclass(frozen=True)
class Dispute:
    """A report that readers disagree on: its case, its number, where it lies (may be empty), and what they said."""

    case: str
    report: str
    link: str
    given: Sequence[GivenVerdict]


@dataclass(frozen=True)
class Disputes(Block):
    """Reports on which somebody has to decide."""

    disputes: Sequence[Dispute]
    macro: ClassVar[str] = "disputes"


def agreement_content(
    agreement: Document,
    disputed: Mapping[Identity, Sequence[Verdict]],
    decided: Mapping[Identity, Verdict],
    links: Mapping[Identity, str],
    adjudicator: str,
) -> dict[str, Json]:
    """Content of the page in plain values, which is written as JSON beside it.

    Args:
        agreement: A `pipelines.evaluation.agreement.Agreement`.
        disputed: Readers' verdicts on each report that they disagree on.
        decided: The adjudicator's verdicts on some of these.
        links: Where reports lie, seen from the page, as far as they are there under names without any person's.
        adjudicator: Name of the one who decides; may be empty.
    """
    disagreements: list[dict[str, Json]] = [
        {
            "case": about.case,
            "id": about.number,
            "sha256": about.sha256,
            "link": links.get(about),
            "given": [_given(verdict) for verdict in verdicts],
            "decided": _given(decided[about]) if about in decided else None,
        }
        for about, verdicts in sorted(disputed.items(), key=lambda item: (-_distance(item[1]), item[0].number))
    ]
    return {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "adjudicator": adjudicator,
        "agreement": dict(agreement),
        "disagreements": disagreements,
    }


def agreement_page(content: Document, resamples: int, *, medical: bool) -> str:
    """Build the page of `agreement_content`. It is one file, and nothing is fetched.

    Args:
        content: What it says.
        resamples: Number of resamples of the intervals.
        medical: Whether the page says that it is for research only.
    """
    agreement, disputes = part_at(content, "agreement"), rows_at(content, "disagreements")
    pairs = rows_at(agreement, "pairs")
    page = Page(
        title="Agreement of readers",
        kind="Agreement of readers",
        heading=", ".join(part_at(agreement, "readers")) or "No reader",
        lead=moment(text_at(content, "created")),
        facts=_facts(agreement, disputes),
        sections=[
            Section("figures", "Figures", [Text(_METHOD.format(resamples=resamples), small=True), *_figures(agreement)],
                    contents="Figures"),
            Section("counts", "Counts", [_counts(agreement), *map(_table, pairs)], contents="Counts"),
            _disputes(disputes),
        ],
        footer="Every figure of this page is in the JSON file beside it. The page loads nothing; its one script keeps "
        "and saves the decisions.",
        medical=medical,
        embedded=[Embedded("agreement-data", "application/json", htmlsafe_json_dumps(_data(content)))],
    )  # fmt: skip
    return render_page(page, styles=["verdict.css", "agreement.css"], script="agreement.js", bar="agreement")


def _given(verdict: Verdict) -> dict[str, Json]:
    """A reader's verdict, without the file that it is in."""
    return without_paths({
        "reviewer": verdict.reviewer,
        "verdict": verdict.verdict,
        "cause": verdict.cause,
        "comment": verdict.comment,
        "structures": dict(verdict.structures),
        "marks": [mark.line for mark in verdict.marks],
        "created": verdict.at.isoformat(timespec="seconds"),
    })  # fmt: skip


def _distance(verdicts: Sequence[Verdict]) -> int:
    """How far apart the best and the worst verdict are."""
    places = [VERDICTS.index(verdict.verdict) for verdict in verdicts]
    return max(places) - min(places)


def _facts(agreement: Mapping[str, Json], disputes: Sequence[Json]) -> list[tuple[str, str]]:
    facts = [
        ("Readers", str(len(part_at(agreement, "readers")))),
        ("Reports judged twice", text_at(agreement, "cases")),
        ("To adjudicate", str(len(disputes))),
    ]
    pairs = rows_at(agreement, "pairs")
    if len(pairs) == 1:
        facts += [
            ("Alike", percent(number_at(pairs[0], "alike", "value"))),
            ("Kappa", fixed(number_at(pairs[0], "kappa", "value"), 2)),
        ]
    else:
        facts.append(("Alpha", fixed(number_at(agreement, "alpha", "value"), 2)))
    return facts


def _figures(agreement: Mapping[str, Json]) -> list[Block]:
    """A row for each two readers; alpha where there are more, or reports that not all judged."""
    columns = [Column("Readers"), *(Column(name, numeric=True) for name in ("Both judged", "Alike", "Kappa"))]
    rows = [
        [
            Cell(" and ".join(map(str, list_at(pair, "readers")))),
            Cell(text_at(pair, "cases")),
            Cell(percent(number_at(pair, "alike", "value")), remark=_interval(pair, "alike")),
            Cell(fixed(number_at(pair, "kappa", "value"), 2), remark=_interval(pair, "kappa")),
        ]
        for pair in rows_at(agreement, "pairs")
    ]
    if not rows:
        return [Text("No report was judged by two readers.")]
    gaps, remark = int(number_at(agreement, "gaps") or 0), ""
    if len(part_at(agreement, "readers")) > 2 or gaps:
        alpha, ends = fixed(number_at(agreement, "alpha", "value"), 2), _interval(agreement, "alpha")
        left_out = f" Reports that some of them did not judge: {gaps}." if gaps else ""
        remark = f"Krippendorff's alpha of all readers: {alpha}{f' ({ends})' if ends else ''}.{left_out}"
    return [Table(columns, rows, remark=remark)]


def _interval(row: Mapping[str, Json], figure: str) -> str:
    low, high = (number_at(row, figure, end) for end in ("low", "high"))
    if low is None or high is None:
        return ""
    return f"{low:.1%} to {high:.1%}" if figure == "alike" else f"{low:.2f} to {high:.2f}"


def _counts(agreement: Mapping[str, Json]) -> Table:
    """Verdicts of each reader."""
    columns = [Column("Reader"), *(Column(name, numeric=True) for name in (*_NAMES.values(), "all"))]
    rows = [
        [Cell(name), *(Cell(str(count)) for count in _numbers(counts)), Cell(str(sum(_numbers(counts))))]
        for name, counts in part_at(agreement, "readers").items()
    ]
    return Table(columns, rows, "Verdicts of each reader")


def _table(pair: Mapping[str, Json]) -> Table:
    """Verdicts of one reader against those of another one."""
    first, second = map(str, list_at(pair, "readers"))
    columns = [Column(""), *(Column(name, numeric=True) for name in _NAMES.values())]
    rows = [
        [Cell(name), *(Cell(str(count) if count else DASH) for count in _numbers(counts))]
        for name, counts in zip(_NAMES.values(), list_at(pair, "table"), strict=True)
    ]
    return Table(columns, rows, f"{first} (rows) and {second} (columns)")


def _numbers(values: Json) -> list[int]:
    return [int(value) for value in values if isinstance(value, int)] if isinstance(values, list | tuple) else []


def _disputes(disputes: Sequence[Mapping[str, Json]]) -> Section:
    """The reports that readers disagree on, those furthest apart first."""
    if not disputes:
        return Section("disagreements", "Disagreements", [Text("Readers disagree on no report.")])
    shown = [
        Dispute(
            case=text_at(dispute, "case"),
            report=text_at(dispute, "id"),
            link=text_at(dispute, "link"),
            given=[
                GivenVerdict(
                    reader=text_at(given, "reviewer") or "(no name)",
                    verdict="the scan is bad" if given.get("cause") else _NAMES[text_at(given, "verdict")],
                    comment=text_at(given, "comment"),
                    details=[*(f"{name}: {judged}" for name, judged in part_at(given, "structures").items()),
                             *map(str, list_at(given, "marks"))],
                )
                for given in rows_at(dispute, "given")
            ],
        )
        for dispute in disputes
    ]  # fmt: skip
    return Section("disagreements", "Disagreements", [Disputes(shown)], contents="Disagreements")


def _data(content: Document) -> dict[str, Json]:
    """What the page's script knows; `batch` names the disagreements by what they are."""
    disputes = rows_at(content, "disagreements")
    known = sorted(f"{dispute['id']} {dispute['sha256']}" for dispute in disputes)
    return {
        "batch": hashlib.sha256("\n".join(["adjudication", *known]).encode()).hexdigest()[:16],
        "adjudicator": content["adjudicator"],
        "readers": [name.casefold() for name in part_at(content, "agreement", "readers")],
        "cases": [{key: dispute[key] for key in ("case", "id", "sha256", "decided")} for dispute in disputes],
    }
