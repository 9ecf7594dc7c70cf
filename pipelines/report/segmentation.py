"""The report of one segmented scan, as one HTML page."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from medvision.pictures.keyslices import plan_slices
from medvision.pictures.overlays import AGREEMENT, Slice, class_colours, render_slices
from medvision.volumes.geometry import Grid
from pipelines.report.page import as_text, render_page, without_paths
from pipelines.report.viewer import viewer_content

# Bytes of pixels over all pictures. PNG stores a picture that does not compress at about its size and base64 adds a
# third, so that even a scan of pure noise makes a page under 8 MB.
_PIXELS = 5_400_000
_PAGE = 7_900_000  # bytes of the whole page; what the pictures leave is the viewer's
_LONGEST_SIDE = 380
_SLICES = 6  # of each plane

_REASONS = {
    "empty": "no voxel has this label",
    "touches_border": "the structure reaches the edge of the scan, so only a part of it is in view",
    "not_finite": "the image holds NaN or infinite values inside the structure",
    "not_measured": "the segmentation came without a confidence",
    "not_calibrated": "what its confidence stands for was not measured, or not with these settings",
}
_STATES = {
    "missed": "missed",
    "false_positive": "false positive",
    "scored": "scored",
    "both_empty": "empty in both",
}


def segmentation_report(
    sidecar: Mapping[str, Any],
    card: Mapping[str, Any],
    image: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    *,
    reference: np.ndarray | None = None,
) -> str:
    """Build the page: slices with contours, figures, quality checks, and where all of it came from.

    The page is one file under 8 MB: style, pictures, scripts and the viewer's volumes are inside, and its content
    security policy runs these scripts alone and lets nothing be fetched. Without scripts it lacks the viewer and the
    form of the verdict, and nothing else. All texts are escaped; a path or the file name of a scan in one of them is
    left out.

    Args:
        sidecar: what `<name>_seg.json` holds. Required: `case` (`case-` and 8 hex digits). Shown where present:
            `created` (text); `model` (`name`, `version`, `sha256`, `architecture`); `input` (`sha256`, `shape`,
            `spacing_mm`, `orientation`, `qform_code`, `sform_code`, `units`, `modality`); `structures` (rows of
            `medvision.findings.statistics.structure_rows`); `flags` (of `medvision.findings.flags`); `warnings`
            (texts); `reference` (`rows` of `medvision.metrics.overlap.compare`, `summary` of `overlap.summary`,
            `nsd_tolerance_mm`, `sha256`); `report` (`id`, `sha256`), without which no verdict can be given; `display`
            (of `medvision.pictures.keyslices.plan_slices`: window and slices that are shown); `device` and
            `precision` (texts); `timings_s`; and any key of `settings` and `versions`. Other keys are not shown.
        card: the model's `model.json`, of which `classes` (`id`, `name`, `color`) is required and `limits`, `license`,
            `description` and `training` are shown where present.
        image: (X, Y, Z), the scan as it was read.
        labels: (X, Y, Z), integer, ids of `card["classes"]`.
        grid: the grid of all arrays.
        reference: (X, Y, Z), integer; adds a picture of agreement to each slice.

    Returns:
        The page's HTML, to be written as UTF-8.

    Raises:
        ValueError: `case` is no pseudonym, or arrays and grid differ in shape.
    """
    if not re.fullmatch(r"case-[0-9a-f]{8}", str(sidecar.get("case"))):
        raise ValueError(f"case is {sidecar.get('case')!r}; expected case- and 8 hex digits")
    data = without_paths(sidecar)
    about = without_paths(card)
    plan = data.get("display") or plan_slices(image, labels, grid, reference=reference, count=_SLICES)
    pictures = len(plan["slices"]) * (2 if reference is None else 3)
    side = min(_LONGEST_SIDE, math.isqrt(_PIXELS // pictures))
    rendering = render_slices(image, labels, grid, card["classes"], reference=reference, plan=plan, side=side)
    colours = {number: f"#{r:02x}{g:02x}{b:02x}" for number, (r, g, b) in class_colours(card["classes"]).items()}
    names = {int(entry["id"]): str(entry["name"]) for entry in about["classes"]}

    shown = list(zip(rendering.slices, plan["slices"], strict=True))
    structures, notes = _structure_table(data.get("structures", []))
    content: dict[str, Any] = dict(
        styles=("report.css", "verdict.css", "viewer.css"),
        script="review.js",
        case=data["case"],
        data=data,
        card=about,
        colours=colours,
        legend=[(names[number], colours[number]) for number in sorted(names) if number != 0],
        agreement=[(name, f"#{r:02x}{g:02x}{b:02x}") for name, (r, g, b) in AGREEMENT.items()],
        window=f"{rendering.window[0]:.4g} to {rendering.window[1]:.4g}",
        window_rule=rendering.window_rule,
        planes=_planes([drawn for drawn, said in shown if "why" not in said], names),
        key_slices=[_figure(drawn, names) | {"said": said} for drawn, said in shown if "why" in said],
        structures=structures,
        notes=notes,
        intensity_digits=_digits([row.get("mean_intensity") for row in structures]),
        reference=_reference(data.get("reference")),
        facts=_facts(data),
        calibration=(about.get("input") or {}).get("expected_dice") or {},
        geometry=_geometry(data.get("input", {}), grid),
        tables=[
            ("Run", [(key, data[key]) for key in ("created", "device", "precision") if key in data]),
            ("Settings", list(data.get("settings", {}).items())),
            ("Time", [(key, f"{seconds:.2f} s") for key, seconds in data.get("timings_s", {}).items()]),
            ("Software", list(data.get("versions", {}).items())),
        ],
    )
    viewer = viewer_content(
        image,
        labels,
        grid,
        about["classes"],
        modality=data.get("input", {}).get("modality"),
        window=rendering.window,
        room=_PAGE - len(render_page("segmentation.html.j2", **content, viewer=None).encode()),
    )
    digests = [viewer["digest"]] if viewer else []
    return render_page("segmentation.html.j2", digests=digests, **content, viewer=viewer)


def _planes(slices: Sequence[Slice], names: Mapping[int, str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Plane names with their figures."""
    return [
        (plane, [_figure(item, names) for item in items]) for plane, items in groupby(slices, lambda item: item.plane)
    ]


def _figure(item: Slice, names: Mapping[int, str]) -> dict[str, Any]:
    """A slice's place and size, and (kind, alternative text, data URI) of each of its pictures, the plain one first."""
    where = f"{item.plane.capitalize()} slice at {item.position}"
    inside = ", ".join(names.get(number, str(number)) for number in item.present) or "no structure in this slice"
    kinds = [("image", f"{where}, image alone", item.plain), ("contours", f"{where}: {inside}", item.contours)]
    if item.agreement is not None:
        kinds.append(("agreement", f"{where}, agreement with the reference", item.agreement))
    pictures = [(kind, alt, "data:image/png;base64," + base64.b64encode(png).decode()) for kind, alt, png in kinds]
    return {
        "plane": item.plane, "position": item.position, "index": item.index, "width": item.width,
        "height": item.height, "pictures": pictures,
    }  # fmt: skip


def _structure_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Rows with their missing figures marked (`marks`: figure -> letter), and the notes that the letters stand for."""
    letters: dict[str, str] = {}
    table = []
    for row in rows:
        marks = {}
        for figure, reason in (row.get("reasons") or {}).items():
            if row.get(figure) is None:
                marks[figure] = letters.setdefault(str(reason), chr(ord("a") + len(letters) % 26))
        table.append({**row, "marks": marks})
    return table, [(letter, _REASONS.get(reason, reason)) for reason, letter in letters.items()]


def _reference(reference: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The comparison with its rows worst first: missed and false positives, then rising Dice, then empty in both."""
    if not reference:
        return None
    rows = sorted(
        reference.get("rows", []),
        key=lambda row: (row.get("state") == "both_empty", math.inf if row.get("dice") is None else row["dice"]),
    )
    rows = [{**row, "state_text": _STATES.get(row.get("state", ""), row.get("state"))} for row in rows]
    return {"summary": {}, "nsd_tolerance_mm": None, **reference, "rows": rows}


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The line of figures below the heading."""
    rows = data.get("structures", [])
    facts = [("Structures found", f"{sum(bool(row.get('voxels')) for row in rows)} of {len(rows)}")]
    mean = ((data.get("reference") or {}).get("summary") or {}).get("dice")
    if mean is not None:
        facts.append(("Mean Dice", f"{mean:.3f}"))
    facts.append(("Quality flags", str(len(data.get("flags", [])))))
    facts.append(("Warnings", str(len(data.get("warnings", [])))))
    return facts


def _geometry(scan: Mapping[str, Any], grid: Grid) -> list[tuple[str, str]]:
    rows = [
        ("shape", " × ".join(str(size) for size in scan.get("shape", grid.shape))),
        ("voxel size", " × ".join(f"{edge:.4g}" for edge in scan.get("spacing_mm", grid.spacing_mm)) + " mm"),
        ("axes run towards", scan.get("orientation", grid.orientation)),
    ]
    known = ("modality", "qform_code", "sform_code", "units")
    return rows + [(key, as_text(scan[key])) for key in known if key in scan]


def _digits(numbers: Sequence[float | None]) -> int:
    """Decimals with which the largest of the numbers has four digits, at most six."""
    largest = max((abs(number) for number in numbers if number is not None), default=0.0)
    return min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 0
