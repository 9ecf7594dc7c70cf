"""Volumes that share a series, as echoes, b-values, phases and time points do, told apart by their headers."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medvision.dicom.frames import MARKS, Frame

SAME_PLACE_MM = 1e-3
"""Slices nearer to one another than this, along their normal, lie at one place."""

Part = tuple[tuple[str, ...], list[Frame]]


def split_volumes(frames: Sequence[Frame]) -> list[Part]:
    """The volumes among the slices of a series, each with the clauses that tell it from the others.

    As long as slices lie at one place, they are parted by the next of `MARKS`, where each of its values has slices at
    more than half of the places; at last by their order, where every place has as many. What is one volume, or cannot
    be parted so, is given back whole.
    """
    parts: list[Part] = [((), list(frames))]
    for index, name in enumerate(MARKS):
        parts = [piece for part in parts for piece in _by_mark(part, index, name)]
    return [piece for part in parts for piece in _by_order(part)]


def _by_mark(part: Part, index: int, name: str) -> list[Part]:
    clauses, frames = part
    places = _places(frames)
    if len(set(places)) == len(frames):
        return [part]
    values: dict[str | None, list[int]] = defaultdict(list)
    for position, frame in enumerate(frames):
        values[frame.marks[index]].append(position)
    fewest = min(len({places[position] for position in positions}) for positions in values.values())
    if len(values) < 2 or 2 * fewest <= len(set(places)):
        return [part]
    texts = _short(list(values))
    return [
        ((*clauses, f"{name} {texts[value]}"), [frames[position] for position in values[value]])
        for value in sorted(values, key=_in_order)
    ]


def _by_order(part: Part) -> list[Part]:
    """The first slices of all places, the second ones, and so on, as their instance numbers have them."""
    clauses, frames = part
    at: dict[int, list[Frame]] = defaultdict(list)
    for frame, place in zip(frames, _places(frames), strict=True):
        at[place].append(frame)
    counts = {len(group) for group in at.values()}
    orders = [frame.order for group in at.values() for frame in group]
    known = all(number is not None for number, _ in orders) or len({frame.member for frame in frames}) == 1
    if counts == {1} or len(counts) > 1 or not known or len(set(orders)) < len(orders):
        return [part]
    ordered = [sorted(group, key=lambda frame: (frame.order[0] or 0, frame.order[1])) for group in at.values()]
    return [
        ((*clauses, f"repeat {number}"), list(volume)) for number, volume in enumerate(zip(*ordered, strict=True), 1)
    ]


def _places(frames: Sequence[Frame]) -> list[int]:
    """Number of the place of each slice along the normal; slices of several orientations have places of their own."""
    cosines = np.array([frame.cosines for frame in frames])
    if np.abs(cosines - cosines[0]).max() > 0.01:
        return list(range(len(frames)))
    along = np.array([frame.position for frame in frames]) @ np.cross(*cosines[0])
    order = np.argsort(along, kind="stable")
    numbers = np.empty(len(frames), int)
    numbers[order] = np.cumsum(np.diff(along[order], prepend=along[order[0]]) > SAME_PLACE_MM)
    return numbers.tolist()


def _short(values: list[str | None]) -> dict[str | None, str]:
    """Each value without the words that all of them have, as image types have many."""
    words = {value: (value or "unknown").split("\\") for value in values}
    common = set.intersection(*(set(parts) for parts in words.values()))
    return {value: " ".join(word for word in parts if word not in common) or "plain" for value, parts in words.items()}


def _in_order(value: str | None) -> tuple[bool, float, str]:
    try:
        return value is None, float(value or 0), ""
    except ValueError:
        return value is None, np.inf, value or ""
