"""The report of a training run: the recipe, the curves and the evaluation on one HTML page."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from pipelines.report.charts import step_chart
from pipelines.report.page import render_page
from pipelines.report.results import SegmentationSummary, Summary
from pipelines.report.sections import (
    Block,
    Cell,
    Chart,
    Column,
    Page,
    Pairs,
    Picture,
    Section,
    Table,
    Text,
    verdict_section,
)
from pipelines.report.text import as_text, fixed, heading, part_at, text_at, value_at, without_paths, words
from pipelines.report.verdicts import report_identity
from shared_backbones.json_values import Document, Json

SCHEMA_VERSION = 1
_FACTS = 4  # figures of an evaluation below the heading


class TrainingContent(TypedDict):
    """Content of a report in plain values; written as JSON beside its page.

    Attributes:
        case: `model-` and 8 hex digits of the weights' hash.
        report: `id` and `sha256`, the same for the same weights with the same figures of the evaluation.
        model: Name, version, architecture and hash of the weights.
        recipe: What is shown of the recipe.
        card: The model's card.
        history: Values by figure and step.
        summary: Figures of the evaluation, if there was one.
    """

    schema_version: int
    case: str
    report: dict[str, str]
    model: dict[str, Json]
    recipe: Mapping[str, Json]
    card: Document
    history: dict[str, dict[int, float]]
    summary: Summary | None


def training_content(
    recipe: Mapping[str, Json], card: Document, history: Path, summary: Summary | None = None
) -> TrainingContent:
    """Content of a report in plain values, which is written as JSON beside its page.

    Args:
        recipe: What is shown of the recipe (`pipelines.recipe.shown.shown`).
        card: The trained model's `model.json`.
        history: Lines of JSON with `step` and figures, as training wrote them; may be absent.
        summary: Figures of the evaluation.
    """
    weights = as_text(card["weights_sha256"])
    case = f"model-{weights[:8]}"
    content: TrainingContent = {
        "schema_version": SCHEMA_VERSION,
        "case": case,
        "report": report_identity(case, [weights, summary]),
        "model": {key: card.get(key) for key in ("name", "version", "architecture")} | {"sha256": weights},
        "recipe": dict(recipe),
        "card": dict(card),
        "history": _read(history),
        "summary": summary,
    }
    return without_paths(content)


def training_report(content: TrainingContent, pictures: Sequence[Path] = ()) -> str:
    """Build the page. It is one file with style, pictures and the verdict's script inside; nothing is downloaded.

    Args:
        content: Content of the report.
        pictures: SVG or PNG pictures of the evaluation.

    Returns:
        The page's HTML, to be written as UTF-8.
    """
    recipe, card, summary = content["recipe"], content["card"], content["summary"]
    name, program = as_text(recipe["name"]), as_text(recipe["domain"])
    page = Page(
        title=f"{name}: training report",
        kind="Training report",
        heading=name,
        lead=text_at(card, "description"),
        facts=_facts(card, summary),
        sections=[
            *([_evaluation(summary, pictures)] if summary else []),
            _curves(content["history"]),
            verdict_section(content["report"], content["case"], "Is this model fit for its purpose?", program, ""),
            _recipe(recipe, card),
        ],
        footer="Every figure of this page is in report.json beside it. The page loads nothing; its one script saves "
        "the verdict.",
        medical=program == "medvision",
        noun="",
    )
    return render_page(page, styles=["verdict.css"], script="review.js", bar="report")


def _facts(card: Document, summary: Summary | None) -> list[tuple[str, str]]:
    steps = value_at(card, "training", "steps")
    facts = [("Architecture", as_text(card["architecture"])), ("Steps", as_text(steps))]
    if summary is None:
        return facts
    if "overall" in summary:
        dice = summary["overall"]["dice"]["mean"]
        return [*facts, ("Mean Dice", fixed(dice, 3)), ("Test cases", str(summary["cases"]))]
    figures = [(heading(name), as_text(value)) for name, value in summary["figures"].items() if value is not None]
    return facts + figures[:_FACTS]


def _evaluation(summary: Summary, pictures: Sequence[Path]) -> Section:
    """Figures, tables and pictures of the evaluation."""
    blocks: list[Block]
    if "overall" in summary:
        protocol = f"Protocol {summary['protocol']}; intervals contain 95\u00a0% of bootstrap means over cases."
        blocks = [Text(protocol), _structures(summary)]
    else:
        figures = Pairs.of("Figures", summary["figures"], figures=True)
        blocks = [figures, *(Table.of(table) for table in summary.get("tables", ()))]
    return Section("evaluation", "Evaluation", [*blocks, *map(Picture.of, pictures)], contents="Evaluation")


def _structures(summary: SegmentationSummary) -> Table:
    """A row of figures for each structure."""
    names = ("Dice", "95 % interval", f"HD95 ({summary['hd95_unit']})", "NSD", "Scored", "Missed", "False positive")
    rows = [
        [
            Cell(words(row["name"])),
            Cell(fixed(row["dice"]["mean"], 3)),
            Cell(f"{fixed(row['dice']['low'], 3)} to {fixed(row['dice']['high'], 3)}"),
            Cell(fixed(row["hd95_mm"]["mean"], 2)),
            Cell(fixed(row["nsd"]["mean"], 3)),
            *(Cell(str(row["states"][state])) for state in ("scored", "missed", "false_positive")),
        ]
        for row in summary["classes"]
    ]
    return Table([Column("Structure"), *(Column(name, numeric=True) for name in names)], rows)


def _curves(history: Mapping[str, Mapping[int, float]]) -> Section:
    """A chart of each figure with two steps or more."""
    charts = [
        Chart(step_chart(words(name), values), words(name))
        for name, values in history.items()
        if len(values) > 1 and name != "steps_per_second"
    ]
    if not charts:
        return Section("curves", "Training", [Text("No figures were recorded during training.")], contents="Training")
    return Section("curves", "Training", charts, contents="Training", columns=True)


def _recipe(recipe: Mapping[str, Json], card: Document) -> Section:
    """The recipe's sections and the resulting model."""
    model = {
        "name": card.get("name"),
        "weights sha256": card["weights_sha256"],
        "licence": card.get("license"),
        "seed": recipe["seed"],
    }
    parts = {"Data": "data", "Model": "model", "Training": "train"}
    blocks = [Pairs.of(title, part_at(recipe, key)) for title, key in parts.items()]
    return Section("recipe", "Recipe", [*blocks, Pairs.of("Trained model", model)], contents="Recipe", columns=True)


def _read(history: Path) -> dict[str, dict[int, float]]:
    """Figures by name and step; for a step that was repeated after an interruption, the later values."""
    figures: dict[str, dict[int, float]] = {}
    if history.exists():
        for line in history.read_text(encoding="utf-8").splitlines():
            try:
                entry: dict[str, float] = json.loads(line)
            except ValueError:
                continue  # cut off by an interruption
            for name, value in entry.items():
                if name != "step" and math.isfinite(value):
                    figures.setdefault(name, {})[int(entry["step"])] = value
    return figures
