"""The report of one segmented scan, as one HTML page."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medvision.pictures.colours import contour_colours
from medvision.pictures.keyslices import SlicePlan, plan_slices
from medvision.pictures.overlays import render_slices
from medvision.volumes.geometry import Grid
from pipelines.report.drawings import slice_sections
from pipelines.report.page import render_page
from pipelines.report.sections import (
    Block,
    Bullets,
    Cell,
    Column,
    Page,
    Pairs,
    Section,
    Table,
    Text,
    hex_colour,
    verdict_section,
)
from pipelines.report.structures import changes_section, comparison_section, volumes_section
from pipelines.report.text import (
    as_text,
    code,
    fixed,
    in_words,
    list_at,
    moment,
    number_at,
    part_at,
    rows_at,
    text_at,
    without_paths,
    words,
)
from pipelines.report.viewer import Viewer, make_viewer
from shared_backbones.card import ClassEntry
from shared_backbones.json_values import Document, Json

# Bytes of pixels over all pictures. PNG stores a picture that does not compress at about its size and base64 adds a
# third, so that even a scan of pure noise makes a page under 8 MB.
_PIXELS = 3_400_000
_PAGE = 7_900_000  # bytes of the whole page; what the pictures leave is the viewer's
_LONGEST_SIDE = 380
_SLICES = 6  # of each plane


def segmentation_report(
    sidecar: Document,
    card: Document,
    image: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    *,
    reference: np.ndarray | None = None,
    reference_name: str = "reference",
    certainty: np.ndarray | None = None,
) -> str:
    """Build the page: slices with contours, those to look at first on top, figures, checks, and where it came from.

    The page is one file under 8 MB: style, pictures, scripts and the viewer's volumes are inside, and its content
    security policy runs these scripts alone and lets nothing be fetched. Without scripts it lacks the viewer and the
    form of the verdict, and nothing else. All texts are escaped; a path or the file name of a scan in one of them is
    left out.

    Args:
        sidecar: Content of `<name>_seg.json` (`medvision.findings.sidecar.Sidecar`). Only `case` is required; without
            `report` no verdict can be given.
        card: The model's `model.json`, of which only `classes` is required.
        image: Scan as it was read, (X, Y, Z).
        labels: Ids of the card's classes, integer, (X, Y, Z).
        grid: Grid of all arrays.
        reference: Labels to compare with, integer, (X, Y, Z); adds their contours and the difference to each slice.
        reference_name: What they are: `reference`, or `earlier result`.
        certainty: How certain each voxel's label is, uint8, (X, Y, Z), 255 where it is; a layer of the viewer.

    Returns:
        The page's HTML, to be written as UTF-8.

    Raises:
        ValueError: `case` is no pseudonym, or arrays and grid differ in shape.
    """
    if not re.fullmatch(r"case-[0-9a-f]{8}", str(sidecar.get("case"))):
        raise ValueError(f"case is {sidecar.get('case')!r}; expected case- and 8 hex digits")
    names = [str(entry["name"]) for entry in card["classes"]]
    data, about_model = (in_words(without_paths(document), names) for document in (sidecar, card))
    plan: SlicePlan = data.get("display") or plan_slices(image, labels, grid, reference=reference, count=_SLICES)
    classes: list[ClassEntry] = about_model["classes"]
    side = min(_LONGEST_SIDE, math.isqrt(_PIXELS // len(plan["slices"])))
    rendering = render_slices(image, labels, grid, reference=reference, plan=plan, side=side)
    page = _page(data, about_model, slice_sections(data, classes, rendering, plan["slices"], reference_name), grid)
    viewer = make_viewer(
        image,
        labels,
        grid,
        classes,
        modality=text_at(data, "input", "expected_modality"),
        window=rendering.window,
        room=_PAGE - len(_written(page).encode()),
        reference=reference,
        reference_name=reference_name,
        certainty=certainty,
    )
    return _written(page if viewer is None else _with_viewer(page, viewer), viewer)


def _page(data: Document, card: Document, slices: Sequence[Section], grid: Grid) -> Page:
    """The page without its viewer."""
    compared, judged = part_at(data, "reference"), part_at(data, "report")
    colours = _colours(card["classes"])
    return Page(
        title=f"{data['case']}: segmentation report",
        kind="Segmentation report",
        heading=str(data["case"]),
        lead=_lead(data),
        facts=_facts(data),
        sections=[
            *slices[:1],
            _checks(data),
            _viewer(None),
            *slices[1:],
            volumes_section(data, card, colours),
            *([comparison_section(data, colours)] if compared else []),
            *([changes_section(data, colours)] if part_at(data, "earlier") else []),
            *([_verdict(data)] if judged else []),
            _provenance(data, card, grid),
            _limits(card),
        ],
        footer=_footer(data),
    )


def _with_viewer(page: Page, viewer: Viewer) -> Page:
    sections = [_viewer(viewer) if section.id == "viewer" else section for section in page.sections]
    return replace(page, sections=sections, licences=viewer.program.notices, embedded=viewer.embedded)


def _written(page: Page, viewer: Viewer | None = None) -> str:
    digests = [] if viewer is None else [viewer.program.digest]
    judged = any(section.id == "verdict" for section in page.sections)
    styles = ("verdict.css", "viewer.css")
    return render_page(page, styles=styles, script="review.js", digests=digests, bar="report" if judged else "")


def _colours(classes: Sequence[ClassEntry]) -> dict[int, str]:
    """Colours of classes by their id."""
    return {number: hex_colour(rgb) for number, rgb in contour_colours(classes).items()}


def _lead(data: Mapping[str, Json]) -> str:
    version, created = text_at(data, "model", "version"), moment(text_at(data, "created"))
    name = text_at(data, "model", "name") or "unnamed model"
    return name + (f" {version}" if version else "") + (f", {created}" if created else "")


def _facts(data: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The line of figures below the heading."""
    rows = rows_at(data, "structures")
    facts = [("Structures found", f"{sum(bool(row.get('voxels')) for row in rows)} of {len(rows)}")]
    mean = number_at(data, "reference", "summary", "dice")
    if mean is not None:
        facts.append(("Mean Dice", fixed(mean, 3)))
    facts.append(("Quality flags", str(len(list_at(data, "flags")))))
    facts.append(("Warnings", str(len(list_at(data, "warnings")))))
    return facts


def _checks(data: Mapping[str, Json]) -> Section:
    """Rules that were met, and warnings."""
    rule, value = Column("Rule that was met", wide=True), Column("Found", numeric=True)
    rows = [
        [
            Cell(text_at(flag, "structure") or "whole scan"),
            Cell(words(text_at(flag, "code"))),
            Cell(as_text(flag.get("rule"))),
            Cell(as_text(flag.get("value"))),
        ]
        for flag in rows_at(data, "flags")
    ]
    none = "No rule was met. That is no proof of a correct segmentation: look at the slices."
    columns = [Column("Structure"), Column("Check"), rule, value]
    blocks: list[Block] = [Table(columns, rows, alert=True) if rows else Text(none)]
    warnings = [as_text(warning) for warning in list_at(data, "warnings")]
    if warnings:
        blocks.append(Bullets(warnings, "Warnings", alert=True))
    return Section("checks", "Quality checks", blocks, contents="Quality checks")


def _viewer(viewer: Viewer | None) -> Section:
    """The interactive viewer."""
    without = Text(
        "This page was made without the interactive viewer: it was not built with this installation, or had no room "
        "here. The pictures below are complete.",
        small=True,
    )
    return Section("viewer", "Viewer", [viewer or without], contents="Viewer")


def _verdict(data: Mapping[str, Json]) -> Section:
    report = {key: text_at(data, "report", key) for key in ("id", "sha256")}
    return verdict_section(report, str(data["case"]), "Is this segmentation fit for use?", "medvision")


def _provenance(data: Mapping[str, Json], card: Mapping[str, Json], grid: Grid) -> Section:
    """Model and input, settings and software."""
    model = part_at(data, "model")
    rows = [(key, as_text(model[key])) for key in ("name", "version", "architecture") if model.get(key)]
    if card.get("license"):
        rows.append(("licence", as_text(card["license"])))
    if model.get("sha256"):
        rows.append(("weights, SHA-256", code(str(model["sha256"]))))
    times = {key: f"{seconds:.2f} s" for key, seconds in part_at(data, "timings_s").items()}
    further = {
        "Run": {key: data[key] for key in ("created", "device", "precision") if key in data},
        "Settings": part_at(data, "settings"),
        "Time": times,
        "Software": part_at(data, "versions"),
    }
    blocks = [Pairs(rows, "Model"), Pairs(_input(data, grid), "Input")]
    blocks += [
        Pairs([(words(key), as_text(value)) for key, value in values.items()], title)
        for title, values in further.items()
        if values
    ]
    return Section("provenance", "Provenance", blocks, contents="Provenance", columns=True)


def _input(data: Mapping[str, Json], grid: Grid) -> list[tuple[str, str]]:
    """Geometry and hashes of the scan and its reference."""
    scan = part_at(data, "input")
    shape = list_at(scan, "shape") or grid.shape
    spacing_mm = [float(size) for size in list_at(scan, "spacing_mm") if isinstance(size, int | float)]
    rows = [
        ("shape", " × ".join(str(size) for size in shape)),
        ("voxel size", " × ".join(f"{size:.4g}" for size in spacing_mm or grid.spacing_mm) + " mm"),
        ("axes run towards", text_at(scan, "orientation") or grid.orientation),
    ]
    said, expected = text_at(scan, "modality") or "not stated", text_at(scan, "expected_modality")
    rows.append(("modality", f"{said}; the model expects {expected}" if expected else said))
    if channels := list_at(scan, "channels"):
        rows.append(("channels", ", ".join(map(as_text, channels))))
    rows += [(words(key), as_text(scan[key])) for key in ("qform_code", "sform_code", "units") if key in scan]
    hashes = {"file, SHA-256": text_at(scan, "sha256"), "reference, SHA-256": text_at(data, "reference", "sha256")}
    return rows + [(name, code(sha256)) for name, sha256 in hashes.items() if sha256]


def _limits(card: Mapping[str, Json]) -> Section:
    """What the model is not for."""
    description = card.get("description")
    limits = [as_text(limit) for limit in list_at(card, "limits")]
    limits.append("Research use only: not a medical device, and not validated for any clinical decision.")
    blocks: list[Block] = [*([Text(as_text(description))] if description else []), Bullets(limits)]
    return Section("limits", "Limits of the model", blocks, contents="Limits")


def _footer(data: Mapping[str, Json]) -> str:
    version = text_at(data, "versions", "domain-vision")
    return (
        f"Made by domain-vision{f' {version}' if version else ''}. This file is complete: it loads nothing. Its "
        "scripts open the viewer and save the verdict; all else is here without them."
    )
