"""The report of a model under corruption, as one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.report.page import render_page
from pipelines.report.results import ResultTable
from pipelines.report.sections import Bullets, Page, Pairs, Picture, Section, Table, Text, verdict_section
from pipelines.report.text import as_text, list_at, moment, part_at, text_at, without_paths
from shared_backbones.json_values import Document, Json


def robustness_report(
    measurement: Document,
    tables: Sequence[ResultTable],
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    pictures: Sequence[Path],
    program: str = "medvision",
) -> str:
    """Build the page. It is one file: style, pictures and the verdict's script are inside, and nothing is fetched.

    Args:
        measurement: Content of `robustness.json`, of which `case`, `report` (`id` and `sha256`, what a verdict is
            about), `created`, `model`, `input`, `settings`, `device`, `precision`, `warnings`, `runtime_s` and
            `versions` are shown.
        tables: Tables of the measurement.
        facts: Names and values of the line of figures below the heading.
        notes: Sentences before the tables.
        pictures: SVG or PNG files.
        program: Program that collects a reviewer's verdicts.

    Returns:
        The page's HTML, to be written as UTF-8.
    """
    data = without_paths({key: value for key, value in measurement.items() if key not in {"cells", "right"}})
    case = as_text(data["case"])
    report = {key: text_at(data, "report", key) for key in ("id", "sha256")}
    warnings = list_at(data, "warnings")
    page = Page(
        title=f"{case}: robustness report",
        kind="Robustness report",
        heading=text_at(data, "model", "name") or "Unnamed model",
        lead=f"{case}, {moment(text_at(data, 'created'))}",
        facts=facts,
        sections=[
            *([Section("warnings", "Warnings", [Bullets([*map(str, warnings)], alert=True)])] if warnings else []),
            _figures(notes, tables),
            Section("pictures", "Pictures", [*map(Picture.of, pictures)], contents="Pictures"),
            verdict_section(report, case, "Is this model robust enough for its purpose?", program, ""),
            _provenance(data),
        ],
        footer="Every figure of this page is in robustness.json beside it. The page loads nothing; its one script "
        "saves the verdict.",
        medical=program == "medvision",
        noun="",
    )
    return render_page(page, styles=["verdict.css"], script="review.js", bar="report")


def _figures(notes: Sequence[str], tables: Sequence[ResultTable]) -> Section:
    shown = [Table.of(table) for table in without_paths(list(tables))]
    return Section("figures", "Figures", [*map(Text, notes), *shown], contents="Figures")


def _provenance(data: Mapping[str, Json]) -> Section:
    """Model and input of the measurement, and how it was made."""
    parts = {
        "Model": part_at(data, "model"),
        "Input": part_at(data, "input"),
        "Settings": part_at(data, "settings"),
        "Run": {key: data[key] for key in ("created", "device", "precision", "runtime_s")},
        "Software": part_at(data, "versions"),
    }
    blocks = [Pairs.of(title, values) for title, values in parts.items()]
    return Section("provenance", "Provenance", blocks, contents="Provenance", columns=True)
