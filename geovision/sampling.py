"""Points of a stratified random sample, at which people say what a map should show."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geovision.rasters import open_raster

_LEAST = 2  # points of a class, without which its variance is not known
_STRIP = 2**22  # pixels of a map that are looked at once


class Point(NamedTuple):
    """A pixel of a map: its row and column, and the class that the map has there."""

    row: int
    column: int
    number: int


def allocate(pixels: Mapping[int, int], count: int) -> dict[int, int]:
    """How many points each class gets: half of all equally, half by the classes' pixels.

    Rare classes get enough for an interval of their own, and large ones, which decide the whole, get more. A class on
    the map has two points at least and no more than it has pixels, which may make their sum another one than `count`.

    Args:
        pixels: Pixels of each class on the map.
        count: Points in all.
    """
    present = {number: amount for number, amount in pixels.items() if amount > 0}
    if not present:
        return {}
    equal = max(_LEAST, count // 2 // len(present))
    points = {number: min(amount, equal) for number, amount in present.items()}
    while (rest := min(count, sum(present.values())) - sum(points.values())) > 0:
        room = {number: amount - points[number] for number, amount in present.items() if amount > points[number]}
        total = sum(present[number] for number in room)
        for number in sorted(room, key=lambda number: -present[number]):
            more = min(room[number], max(1, round(rest * present[number] / total)), count - sum(points.values()))
            points[number] += max(0, more)
    return points


def draw_points(classes_map: Path, pixels: Mapping[int, int], count: int, seed: int) -> list[Point]:
    """Draw points at random among the pixels of each class, in an order that tells nothing of the classes.

    Args:
        classes_map: GeoTIFF of classes, of which one strip at a time is in memory.
        pixels: Pixels of each class on the map.
        count: Points in all, as `allocate` divides them.
        seed: Seed of the draw.
    """
    generator = np.random.default_rng(seed)
    ranks = {
        number: np.sort(generator.choice(pixels[number], points, replace=False))
        for number, points in sorted(allocate(pixels, count).items())
    }
    points, seen = [], dict.fromkeys(ranks, 0)
    with open_raster(classes_map) as source:
        height = max(1, _STRIP // source.width)
        for top in range(0, source.height, height):
            strip = source.read(1, window=((top, min(top + height, source.height)), (0, source.width)))
            flat = strip.ravel()
            for number, wanted in ranks.items():
                first = seen[number]
                here = np.flatnonzero(flat == number)
                seen[number] += len(here)
                for rank in wanted[(wanted >= first) & (wanted < seen[number])]:
                    row, column = divmod(int(here[rank - first]), source.width)
                    points.append(Point(top + row, column, number))
    points.sort()
    return [points[place] for place in generator.permutation(len(points))]
