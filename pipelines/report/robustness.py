"""The report of a model under corruption, as one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.report.page import picture_uri, render_page, without_paths


def robustness_report(
    found: Mapping[str, Any],
    tables: Sequence[Mapping[str, Any]],
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    pictures: Sequence[Path],
) -> str:
    """Build the page. It is one file: style, pictures and the verdict's script are inside, and nothing is fetched.

    Args:
        found: what `robustness.json` holds: `case`, `report` (`id` and `sha256`, what a verdict is about), `created`,
            `model`, `input`, `settings`, `device`, `precision`, `warnings`, `runtime_s` and `versions` are shown.
        tables: each with `title`, `columns` and `rows`.
        facts: names and values of the line of figures below the heading.
        notes: sentences before the tables.
        pictures: SVG or PNG files.

    Returns:
        The page's HTML, to be written as UTF-8.
    """
    data = without_paths({key: value for key, value in found.items() if key not in {"cells", "right"}})
    run = {key: data[key] for key in ("created", "device", "precision", "runtime_s")}
    return render_page(
        "robustness.html.j2",
        styles=("report.css", "verdict.css"),
        script="review.js",
        case=data["case"],
        report=data["report"],
        model=data["model"],
        lead=f"{data['case']}, {data['created']}",
        facts=facts,
        notes=notes,
        warnings=data["warnings"],
        tables=without_paths(list(tables)),
        pictures=[(path.stem.replace("_", " "), picture_uri(path)) for path in pictures],
        provenance=[
            ("Model", data["model"]),
            ("Input", data["input"]),
            ("Settings", data["settings"]),
            ("Run", run),
            ("Software", data["versions"]),
        ],
    )
