"""Pictures of a map for its report: decimated reads, so that time and memory do not grow with the scene."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from geovision.certainty import Certainty, Place
from geovision.mapping import NODATA
from geovision.pictures import limits, shown_bands, stretched
from geovision.rasters import open_raster
from geovision.sampling import Point
from geovision.scene import Scene
from pipelines.report.sections import data_uri
from shared_backbones.card import ClassEntry

Colour = tuple[int, int, int]

CHIP = 64
"""Side in pixels of the parts of a scene that are shown alone."""
LEVELS = 32
"""Colours between a confidence of 0 and of 1."""

_LONGEST = 2048
_SPARSE, _STRIP = 3, 256  # pixels from one that decides the stretch to the next, and rows that are stretched at once
# Bytes of each picture, at most: together with chips of pure noise, and a third more as base64, under 8 MB.
_SCENE, _CLASSES, _CONFIDENCE = 2_000_000, 1_400_000, 600_000
_RAMP = ((68, 1, 84), (33, 144, 140), (253, 231, 37))  # from doubtful to certain: apart in grey and to the colour-blind


@dataclass(frozen=True)
class Chip:
    """A part of a scene at full resolution.

    Attributes:
        row, column: The pixel that it is about.
        top, left, height, width: Where it lies in the scene.
        scene: Data URI of the scene.
        classes: Data URI of the map; empty where it must not be seen.
        confidence: Mean confidence there; None where it must not be seen.
    """

    row: int
    column: int
    top: int
    left: int
    height: int
    width: int
    scene: str
    classes: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class MapPictures:
    """What a report shows of a map.

    Attributes:
        shape: Height and width of the map in pixels.
        bands: Names of the bands that are red, green and blue.
        scene, classes, confidence: Data URIs of pictures of the whole.
        colours: Colour of each class, no two alike.
        doubtful: Parts with the lowest confidence.
        points: Points at which readers say what is there, without the map.
    """

    shape: tuple[int, int]
    bands: list[str]
    scene: str
    classes: str
    confidence: str
    colours: list[Colour]
    doubtful: list[Chip]
    points: list[Chip]


def map_pictures(
    scene: Scene,
    classes_map: Path,
    certainty: Certainty,
    classes: Sequence[ClassEntry],
    doubtful: Sequence[Place],
    points: Sequence[Point],
) -> MapPictures:
    """Draw the pictures of a map.

    Args:
        scene: Open scene.
        classes_map: Its map, a GeoTIFF with overviews.
        certainty: How certain the map is.
        classes: Classes of the map, with colours.
        doubtful: Parts of the map to look at first.
        points: Points of a sample.
    """
    bands = shown_bands(scene.bands)
    whole, valid = scene.sample(_LONGEST, bands)
    whole[:, ~valid] = np.nan
    between = limits(whole[:, ::_SPARSE, ::_SPARSE]).astype(np.float32)
    colours = distinct([_colour(entry) for entry in classes])
    strips = range(0, whole.shape[1], _STRIP)
    drawn = np.concatenate([stretched(whole[:, top : top + _STRIP], between) for top in strips])
    cut = _Cutter(scene, bands, between, classes_map, colours)
    return MapPictures(
        shape=scene.shape,
        bands=bands,
        scene=within(_SCENE, lambda side: jpeg(thinned(drawn, side))),
        classes=_of_classes(classes_map, colours),
        confidence=_of_confidence(certainty.cells),
        colours=colours,
        doubtful=[cut.doubtful(place) for place in doubtful],
        points=cut.points(points),
    )


def ramp() -> list[Colour]:
    """Colours of confidences from 0 to 1, `LEVELS` of them, no two alike."""
    at = np.linspace(0, len(_RAMP) - 1, LEVELS)
    parts = [np.interp(at, range(len(_RAMP)), [colour[part] for colour in _RAMP]).round() for part in range(3)]
    return [(int(red), int(green), int(blue)) for red, green, blue in zip(*parts, strict=True)]


def distinct(colours: Sequence[Colour]) -> list[Colour]:
    """The same colours, but those that come twice are moved until no two are alike: pages tell classes by them."""
    taken: list[Colour] = []
    for red, green, blue in colours:
        code = red << 16 | green << 8 | blue
        while (colour := (code >> 16 & 255, code >> 8 & 255, code & 255)) in taken:
            code = (code + 1) % (1 << 24)
        taken.append(colour)
    return taken


class _Cutter:
    """Cuts parts out of a scene and its map, all stretched alike."""

    def __init__(
        self,
        scene: Scene,
        bands: list[str],
        between: np.ndarray,
        classes_map: Path,
        colours: list[Colour],
    ) -> None:
        self.scene, self.bands, self.between = scene, bands, between
        self.classes_map, self.colours = classes_map, colours

    def points(self, points: Sequence[Point]) -> list[Chip]:
        """Parts around points, in their order; read from the top down, so that each block of a file is decoded once."""
        order = sorted(range(len(points)), key=lambda place: (points[place].row // 512, points[place].column))
        chips = {place: Chip(*points[place][:2], *self._cut(*points[place][:2])) for place in order}
        return [chips[place] for place in range(len(points))]

    def doubtful(self, place: Place) -> Chip:
        """A part with its map."""
        side = min(CHIP, max(CHIP // 3, max(self.scene.shape) // 4))
        top, left, height, width, scene = self._cut(place.row, place.column, side)
        with open_raster(self.classes_map) as source:
            classes = source.read(1, window=((top, top + height), (left, left + width)))
        picture = data_uri(palette(classes, self.colours, NODATA), "image/png")
        return Chip(place.row, place.column, top, left, height, width, scene, picture, place.confidence)

    def _cut(self, row: int, column: int, side: int = CHIP) -> tuple[int, int, int, int, str]:
        (top, height), (left, width) = (
            (max(0, min(at - side // 2, length - side)), min(side, length))
            for at, length in zip((row, column), self.scene.shape, strict=True)
        )
        values, valid = self.scene.read(top, left, height, width, bands=self.bands)
        values[:, ~valid] = np.nan
        return top, left, height, width, data_uri(jpeg(stretched(values, self.between)), "image/jpeg")


def _of_classes(classes_map: Path, colours: list[Colour]) -> str:
    def draw(side: int) -> bytes:
        with open_raster(classes_map) as source:
            factor = max(1.0, max(source.shape) / side)
            shape = tuple(max(1, round(length / factor)) for length in source.shape)
            return palette(source.read(1, out_shape=shape), colours, NODATA)

    return within(_CLASSES, draw, "image/png")


def _of_confidence(cells: np.ndarray) -> str:
    unknown = ~np.isfinite(cells)
    levels = np.where(unknown, NODATA, np.clip(np.nan_to_num(cells) * LEVELS, 0, LEVELS - 1)).astype(np.uint8)
    return within(_CONFIDENCE, lambda side: palette(thinned(levels, side), ramp(), NODATA), "image/png")


def within(room: int, draw: Callable[[int], bytes], kind: str = "image/jpeg") -> str:
    """Data URI of a picture in the largest size that has room; `draw` makes one of a longest side."""
    side = _LONGEST
    while len(content := draw(side)) > room and side > 64:
        side = math.floor(side / math.sqrt(2))
    return data_uri(content, kind)


def thinned(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture in at most so many pixels a side (nearest)."""
    height, width = picture.shape[:2]
    factor = max(1.0, max(height, width) / side)
    rows, columns = (
        ((np.arange(max(1, round(length / factor))) + 0.5) * length / max(1, round(length / factor))).astype(int)
        for length in (height, width)
    )
    return picture[rows[:, None], columns]


def palette(numbers: np.ndarray, colours: Sequence[Colour], missing: int) -> bytes:
    """A PNG of numbers in their colours, transparent where there is none."""
    image = Image.fromarray(numbers)
    image.putpalette(bytes(part for colour in colours for part in colour).ljust(768, b"\0"))
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=missing)
    return stream.getvalue()


def jpeg(picture: np.ndarray) -> bytes:
    """A JPEG of a picture `(H, W, 3)` uint8."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def _colour(entry: ClassEntry) -> Colour:
    red, green, blue = entry["color"]
    return red, green, blue
