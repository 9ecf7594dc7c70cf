"""The page that shows what an enhancement changed: before and after under one swipe, the difference, and numbers."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from pipelines.report.map_blocks import Chips, MapLayer, PlacedChip
from pipelines.report.map_pictures import LEVELS, ramp
from pipelines.report.page import render_page
from pipelines.report.sections import Block, Bullets, Embedded, Page, Section, Text, hex_colour
from shared_backbones.json_values import Json

_NONE = 65535  # of a number that is not known, among those of 16 bits
_SIDE = 512.0  # of the longer side of pictures without the script


@dataclass(frozen=True)
class Samples:
    """Numbers before and after at places on a lattice.

    Attributes:
        rows, columns: Where the places are, in pixels.
        names: What the numbers are of, such as bands.
        before, after: `(R, C, K)`, NaN where unknown.
    """

    rows: Sequence[int]
    columns: Sequence[int]
    names: Sequence[str]
    before: np.ndarray
    after: np.ndarray

    def packed(self) -> dict[str, Json]:
        """As the page's script reads them: 16 bits each, from the lowest to the highest number."""
        both = [self.before, self.after]
        known = np.concatenate([part[np.isfinite(part)].ravel() for part in both])
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        texts = []
        for part in both:
            steps = np.round((part - low) / max(high - low, 1e-12) * (_NONE - 1))
            numbers = np.where(np.isfinite(part), steps, _NONE).astype("<u2")
            texts.append(base64.b64encode(numbers.tobytes()).decode())
        return {
            "rows": list(self.rows), "columns": list(self.columns), "names": list(self.names), "low": low, "high": high,
            "before": texts[0], "after": texts[1],
        }  # fmt: skip


@dataclass(frozen=True)
class EnhancedPictures:
    """What a report shows of an enhancement.

    Attributes:
        shape: Height and width in pixels.
        aspect: Height over width of a pixel.
        shown: What the pictures show, such as names of bands.
        before, after, difference: Data URIs of pictures of the whole, of one size.
        largest: What the brightest colour of the difference stands for.
        samples: Numbers at places.
        chips: Parts that changed most.
    """

    shape: tuple[int, int]
    aspect: float
    shown: str
    before: str
    after: str
    difference: str
    largest: str
    samples: Samples
    chips: Sequence[PlacedChip] = ()


@dataclass(frozen=True)
class Wording:
    """What a report calls things.

    Attributes:
        kind: Kind of the report.
        difference: What the colours of the difference are.
        curve: What the curves at a place are.
        number: What each number is of.
        remark: What a reader must know first.
    """

    kind: str
    difference: str
    curve: str
    number: str
    remark: str


@dataclass(frozen=True)
class EnhancedView(Block):
    """Before, after and difference on one another, and numbers at a place."""

    layers: Sequence[MapLayer]
    size: tuple[float, float]
    ramp: Sequence[str]
    largest: str
    difference: str
    curve: str
    number: str
    bar: float = 0.0
    bar_text: str = ""
    north: float | None = None
    template: ClassVar[str] = "enhanced_blocks.html.j2"
    macro: ClassVar[str] = "enhanced_view"


def enhanced_report(
    case: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    pictures: EnhancedPictures,
    wording: Wording,
    sections: Sequence[Section],
    *,
    placed: Mapping[str, Json] | None = None,
    medical: bool = False,
) -> str:
    """The report of an enhancement, one HTML page that loads nothing.

    Without its script the pictures stand side by side. No path and no name of an input is in it.

    Args:
        case: Pseudonym of the input.
        lead: Line below the heading.
        facts: What stands at the top.
        pictures: What is shown.
        wording: What things are called.
        sections: What follows the pictures.
        placed: What the script knows of the place on the earth: `crs`, `transform`, `degrees` and `metres`.
        medical: Whether it is of a scan.

    Returns:
        The page's HTML, to be written as UTF-8.

    Raises:
        ValueError: `case` is no pseudonym.
    """
    if not re.fullmatch(r"case-[0-9a-f]{8}", case):
        raise ValueError(f"case is {case!r}; expected case- and 8 hex digits")
    height, width = pictures.shape[0] * pictures.aspect, float(pictures.shape[1])
    factor = max(height, width) / _SIDE
    view = EnhancedView(
        layers=[
            MapLayer("before", pictures.before, f"before: {pictures.shown}", "What was given"),
            MapLayer("after", pictures.after, f"after: {pictures.shown}", "The result"),
            MapLayer("difference", pictures.difference, "difference", "Where the result differs from what was given"),
        ],
        size=(width / factor, height / factor),
        ramp=[hex_colour(colour) for colour in ramp()[:: LEVELS // 8]],
        largest=pictures.largest,
        difference=wording.difference,
        curve=wording.curve,
        number=wording.number,
    )
    blocks: list[Block] = [Bullets([wording.remark], alert=True) if medical else Text(wording.remark), view]
    changed = (
        [Section("changed", "Where it changed most", [Chips(pictures.chips, ("Before", "After"))], contents="Changes")]
        if pictures.chips
        else []
    )
    data: dict[str, Json] = {
        "height": pictures.shape[0], "width": pictures.shape[1], "aspect": pictures.aspect, "crs": None,
        "transform": [], "degrees": None, "metres": None, **(placed or {}), "samples": pictures.samples.packed(),
    }  # fmt: skip
    page = Page(
        title=f"{case}: report on an enhancement",
        kind=wording.kind,
        heading=case,
        lead=lead,
        facts=list(facts),
        sections=[Section("first", "Before and after", blocks, contents="Before and after"), *changed, *sections],
        footer="Every figure of this page is in the JSON file beside it. The page loads nothing; its script lays the "
        "pictures on one another.",
        medical=medical,
        noun="scan" if medical else "scene",
        embedded=[Embedded("enhanced-data", "application/json", htmlsafe_json_dumps(data))],
    )
    return render_page(page, styles=["map.css", "enhanced.css"], script="enhanced.js")
