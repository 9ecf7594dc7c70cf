"""Pictures of a segmented test case for the report of a training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import escape

from medvision.metrics.overlap import OverlapRow
from medvision.pictures.colours import contour_colours
from medvision.pictures.keyslices import plan_slices, wrong_slices
from medvision.pictures.overlays import Contours, Slice, render_slices
from medvision.volumes.geometry import Grid
from pipelines.report.sections import data_uri, hex_colour
from shared_backbones.card import ClassEntry
from shared_backbones.files import replacing

_SIDE = 300  # pixels of the longest side of a slice
_GAP, _LINE = 8, 20
_PLANES = 3


def write_case_panel(
    path: Path,
    image: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    grid: Grid,
    classes: Sequence[ClassEntry],
    scored: Sequence[OverlapRow],
) -> None:
    """Write an SVG picture of three planes with the contours of a result, and dashed those of its reference.

    The planes go through the place with most errors of the structure with the lowest Dice, or else through the middle.

    Args:
        path: Where to.
        image: (X, Y, Z).
        labels: Result, integer, (X, Y, Z).
        reference: Reference, integer, (X, Y, Z).
        grid: Grid of all arrays.
        classes: Classes of the labels.
        scored: Overlap of each structure.
    """
    worst = wrong_slices(labels, reference, grid, scored)[:_PLANES]
    plan = plan_slices(image, labels, grid, reference=reference, count=1, also=worst)
    chosen = {entry["plane"]: entry for entry in plan["slices"]}  # those to look at first come last
    plan["slices"] = list(chosen.values())
    rendering = render_slices(image, labels, grid, reference=reference, plan=plan, side=_SIDE)
    colours = {number: hex_colour(rgb) for number, rgb in contour_colours(classes).items()}
    left, parts = 0, []
    for item in rendering.slices:
        parts.append(f'<g transform="translate({left} 0)">{_slice(item, colours)}</g>')
        left += item.width + _GAP
    height = max(item.height for item in rendering.slices)
    legend = "".join(
        f'<tspan fill="{colours[entry["id"]]}">\u25a0</tspan> {escape(entry["name"])} \u2003'
        for entry in classes
        if entry["id"] in set(np.unique(labels).tolist()) - {0}
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left - _GAP} {height + 2 * _LINE}" '
        f'width="{left - _GAP}" height="{height + 2 * _LINE}" font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="#17212b"/>{"".join(parts)}'
        f'<text x="6" y="{height + 15}" fill="#e8edf1">{legend}</text>'
        f'<text x="6" y="{height + 33}" fill="#aab8c4">lines: result; dashed: reference</text></svg>\n'
    )
    with replacing(path) as temporary:
        temporary.write_text(svg, encoding="utf-8")


def _slice(item: Slice, colours: dict[int, str]) -> str:
    picture = f'<image href="{data_uri(item.grey, "image/png")}" width="{item.width}" height="{item.height}"/>'
    lines = _lines(item.result, colours, "")
    if item.reference is not None:
        lines += _lines(item.reference, colours, ' stroke-dasharray="4 3"')
    name = f'<text x="6" y="16" fill="#fff" stroke="#000" stroke-width="3" paint-order="stroke">{item.plane}'
    return f"{picture}{lines}{name} {escape(item.position)}</text>"


def _lines(contours: Contours, colours: dict[int, str], dashes: str) -> str:
    (across, down), (left, top) = contours.scale, contours.origin
    under = ' stroke="#000" stroke-width="3.5"'
    paths = "".join(
        f'<path d="{path}"{under}{dashes} vector-effect="non-scaling-stroke"/>'
        f'<path d="{path}" stroke="{colours.get(number, "#ffffff")}" stroke-width="1.5"{dashes} '
        'vector-effect="non-scaling-stroke"/>'
        for number, path in contours.paths.items()
    )
    return f'<g fill="none" transform="translate({left} {top}) scale({across:.5g} {down:.5g})">{paths}</g>'
