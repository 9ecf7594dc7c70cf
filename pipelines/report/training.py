"""The report of a training run: what was trained, how it went, and how good it is, as one HTML page."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.report.page import picture_uri, render_page, without_paths

_WIDTH, _HEIGHT = 640, 220  # of a curve's picture, in its own units
_LEFT, _BOTTOM = 56, 26  # room for the axes


def training_report(
    recipe: Mapping[str, Any],
    card: Mapping[str, Any],
    history: Path,
    summary: Mapping[str, Any] | None = None,
    figures: Sequence[Path] = (),
) -> str:
    """Build the page. It is one file: style and pictures are inside, there is no script, and nothing is fetched.

    Args:
        recipe: what is shown of the recipe (`pipelines.recipe.shown`).
        card: the trained model's `model.json`.
        history: lines of JSON with `step` and figures, as training wrote them; may be absent.
        summary: of the evaluation: `classes` with rows of figures.
        figures: SVG or PNG pictures of the evaluation.

    Returns:
        The page's HTML, to be written as UTF-8.
    """
    return render_page(
        "training.html.j2",
        recipe=without_paths(dict(recipe)),
        card=without_paths(dict(card)),
        curves=_curves(_read(history)),
        summary=without_paths(dict(summary)) if summary else None,
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
