"""The report of a training run: what was trained, how it went, and how good it is, as one HTML page."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.report.page import picture_uri, render_page, without_paths
from pipelines.report.verdicts import report_identity

SCHEMA_VERSION = 1

_WIDTH, _HEIGHT = 640, 220  # of a curve's picture, in its own units
_LEFT, _BOTTOM = 76, 26  # room for the axes


def training_content(
    recipe: Mapping[str, Any], card: Mapping[str, Any], history: Path, summary: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a report says, in plain values: the JSON twin of its page.

    Args:
        recipe: what is shown of the recipe (`pipelines.recipe.shown.shown`).
        card: the trained model's `model.json`.
        history: lines of JSON with `step` and figures, as training wrote them; may be absent.
        summary: of the evaluation: `classes` with rows of figures.

    Returns:
        `case` (`model-` and 8 hex digits of the weights' hash); `report` (`id` and `sha256`), the same for the same
        weights with the same figures of the evaluation; `model`; `recipe`; `card`; `history`, values by figure and
        step; and `summary`.
    """
    case = f"model-{card['weights_sha256'][:8]}"
    model = {key: card.get(key) for key in ("name", "version", "architecture")}
    return without_paths(
        {
            "schema_version": SCHEMA_VERSION,
            "case": case,
            "report": report_identity(case, [card["weights_sha256"], summary]),
            "model": model | {"sha256": card["weights_sha256"]},
            "recipe": dict(recipe),
            "card": dict(card),
            "history": _read(history),
            "summary": summary,
        }
    )


def training_report(content: Mapping[str, Any], figures: Sequence[Path] = ()) -> str:
    """Build the page. It is one file: style, pictures and the verdict's script are inside, and nothing is fetched.

    Args:
        content: of `training_content`.
        figures: SVG or PNG pictures of the evaluation.

    Returns:
        The page's HTML, to be written as UTF-8.
    """
    return render_page(
        "training.html.j2",
        styles=("report.css", "verdict.css"),
        script="review.js",
        **{key: content[key] for key in ("case", "report", "recipe", "card", "summary")},
        curves=_curves(content["history"]),
        figures=[(path.stem.replace("_", " "), picture_uri(path)) for path in figures],
    )


def _read(history: Path) -> dict[str, dict[int, float]]:
    """Figures by name and step; of a step that was done twice, after an interruption, the later one."""
    found: dict[str, dict[int, float]] = {}
    if history.exists():
        for line in history.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off by an interruption
            for name, value in entry.items():
                if name != "step" and math.isfinite(value):
                    found.setdefault(name, {})[entry["step"]] = value
    return found


def _curves(history: Mapping[str, Mapping[int, float]]) -> list[dict[str, Any]]:
    """Points and axis labels of a picture for each figure with two steps or more."""
    curves = []
    for name, values in history.items():
        if len(values) < 2 or name == "steps_per_second":
            continue
        steps, numbers = list(values), list(values.values())
        low, high = min(numbers), max(numbers)
        span = (high - low) or 1.0
        width = (max(steps) - min(steps)) or 1
        points = " ".join(
            f"{_LEFT + (step - min(steps)) / width * (_WIDTH - _LEFT - 8):.1f},"
            f"{8 + (high - value) / span * (_HEIGHT - _BOTTOM - 16):.1f}"
            for step, value in sorted(values.items())
        )
        curves.append(
            {
                "name": name.replace("_", " "),
                "points": points,
                "low": f"{low:.4g}",
                "high": f"{high:.4g}",
                "first": min(steps),
                "last": max(steps),
                "end": f"{numbers[-1]:.4g}",
            }
        )
    return curves
