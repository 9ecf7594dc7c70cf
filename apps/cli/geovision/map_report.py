"""The report of a map: its page, and the JSON twin by which answers at its points become areas."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from apps.cli.geovision.map import MapOptions
from geovision.certainty import Certainty
from geovision.sampling import draw_points
from geovision.scene import Scene
from pipelines.report.map_pictures import CHIP, map_pictures
from pipelines.report.maps import map_content, map_report
from shared_backbones.card import ClassEntry
from shared_backbones.json_values import Document, Entries

_DOUBTFUL = 12  # places that are shown first


def report_files(output: Path) -> dict[str, Path]:
    """The files of a map's report, beside it."""
    return {
        kind: output.with_name(f"{output.stem}_report.{end}") for kind, end in (("report", "html"), ("twin", "json"))
    }


def write_report(
    staged: Mapping[str, Path],
    scene: Scene,
    certainty: Certainty,
    classes: Sequence[ClassEntry],
    sidecar: Document,
    options: MapOptions,
) -> Entries:
    """Write the report of a map; returns what its side-car says of it.

    Args:
        staged: Where the files are written; the map is complete.
        scene: Open scene.
        certainty: How certain the map is.
        classes: Classes of the map.
        sidecar: Content of the side-car without what is returned.
        options: What the user asks for.
    """
    rows = [{**row, "confidence": _rounded(certainty.of_class(row["id"]))} for row in sidecar["classes"]]
    known = [row for row in rows if row["confidence"] is not None]
    worst: Entries = min(known, key=lambda row: row["confidence"], default={})
    about: Entries = {
        "classes": rows,
        "summary": {
            "mean_confidence": _rounded(certainty.mean),
            "lowest_confidence": worst.get("confidence"),
            "least_certain": worst.get("name"),
        },
    }
    pixels = {row["id"]: row["pixels"] for row in rows}
    points = draw_points(staged["map"], pixels, options.points, options.seed)
    content = map_content({**sidecar, **about}, points, options.seed)
    about["report"] = content["report"]
    doubtful = certainty.doubtful(min(CHIP, max(scene.shape) // 6), _DOUBTFUL)
    pictures = map_pictures(scene, staged["map"], certainty, classes, doubtful, points)
    page = map_report({**sidecar, **about}, content, pictures, scene.grid)
    staged["report"].write_text(page, encoding="utf-8")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    staged["twin"].write_text(text, encoding="utf-8")
    return about


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)
