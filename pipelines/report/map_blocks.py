"""What reports of maps are made of, beside the sections that all reports have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipelines.report.map_pictures import Chip
from pipelines.report.sections import Block


@dataclass(frozen=True)
class MapLayer:
    """A picture of the whole map: its kind (`scene`, `classes` or `confidence`), data URI, caption and description."""

    kind: str
    source: str
    title: str
    alt: str


@dataclass(frozen=True)
class LegendEntry:
    """A class of a map: its number, its name as the model has it, its colour, and its area in words."""

    code: int
    name: str
    colour: str
    area: str


class MapBlock(Block):
    """A part that only reports of maps have."""

    template: ClassVar[str] = "map_blocks.html.j2"


@dataclass(frozen=True)
class MapView(MapBlock):
    """A map over its scene: pictures side by side, which the page's script lays on one another.

    Attributes:
        layers: The pictures, which have one size.
        size: Width and height in which they are drawn without the script.
        legend: Classes of the map.
        ramp: Colours of the confidence, from 0 to 1.
        bar: Length of the scale bar in the same unit; 0 where the map has no scale.
        bar_text: What that length is.
        north: Where north is, in degrees clockwise from up; None where it is not known.
        placed: Whether the map has places on the earth, in which polygons can be drawn.
    """

    layers: Sequence[MapLayer]
    size: tuple[float, float]
    legend: Sequence[LegendEntry]
    ramp: Sequence[str]
    bar: float
    bar_text: str
    north: float | None
    placed: bool
    macro: ClassVar[str] = "map_view"


@dataclass(frozen=True)
class PlacedChip:
    """A part of a scene, height over width of its pixels, the coordinates of its middle, and what is said of it."""

    chip: Chip
    aspect: float
    place: str
    caption: str


@dataclass(frozen=True)
class Chips(MapBlock):
    """Parts to look at, each in two pictures, with what these show."""

    chips: Sequence[PlacedChip]
    alts: tuple[str, str] = ("The scene", "The map")
    macro: ClassVar[str] = "chips"


@dataclass(frozen=True)
class PointForm(MapBlock):
    """Points at which a reader says what is there; `classes` are what can be said, in the order of the keys."""

    chips: Sequence[PlacedChip]
    classes: Sequence[str]
    macro: ClassVar[str] = "point_form"
