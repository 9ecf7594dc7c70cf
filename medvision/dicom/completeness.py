"""Slices that may be missing at the ends of a series, where no gap shows: its numbering and its neighbours tell."""

from collections.abc import Sequence

import numpy as np

from medvision.dicom.frames import Frame
from medvision.dicom.headers import Instance
from medvision.dicom.stacks import COSINE_TOLERANCE, REGULAR_TOLERANCE, Stack, arrange
from medvision.volumes.files import SMALLEST_AXIS
from shared_backbones.errors import InputError

Part = tuple[Sequence[Instance], Sequence[Frame]]
"""Files of a volume, and its slices."""


def end_notes(parts: Sequence[Part]) -> list[list[str]]:
    """For each volume of an input, a clause for each reason to think that slices are missing at its ends.

    The reasons: instance numbers that do not begin with the first; fewer images than the header gives the acquisition;
    slices that another volume of the same frame of reference, orientation, places and spacing has beyond the last.
    """
    stacks = [_stack(frames) for _, frames in parts]
    places = [instances[0].place for instances, _ in parts]
    notes = []
    for index, ((instances, _), stack) in enumerate(zip(parts, stacks, strict=True)):
        own: list[str] = []
        if stack is not None:
            others = [
                other
                for number, (other, place) in enumerate(zip(stacks, places, strict=True))
                if other is not None and number != index and place == places[index] != ""
            ]
            series = [instance for files, _ in parts for instance in files if instance.series_uid == _uid(instances)]
            elsewhere = {_number(i) for files, _ in parts for i in files if i.series_uid != _uid(instances)}
            own = [*_numbering(series, elsewhere), *_neighbours(stack, others)]
        notes.append(own)
    return notes


def _stack(frames: Sequence[Frame]) -> Stack | None:
    """The slices in order, where they are enough for a volume."""
    try:
        return arrange(frames, "") if len(frames) >= SMALLEST_AXIS else None
    except InputError:
        return None


def _uid(instances: Sequence[Instance]) -> str:
    return instances[0].series_uid


def _number(instance: Instance) -> int | None:
    return instance.frames[0].order[0] if len(instance.frames) == 1 else None


def _numbering(series: Sequence[Instance], elsewhere: set[int | None]) -> list[str]:
    """What the instance numbers and the promised number of images say."""
    notes = []
    numbers = sorted({number for instance in series if (number := _number(instance)) is not None})
    if len(numbers) == len({instance.uid for instance in series}) and len(numbers) > 1:
        step = int(np.gcd.reduce(np.diff(numbers)))
        before = [number for number in range(numbers[0] - step, 0, -step) if number not in elsewhere]
        if before:
            notes.append(
                f"its instance numbers begin at {numbers[0]}: {len(before)} images may be missing before the first"
            )
    promised = max((instance.expected or 0 for instance in series), default=0)
    images = sum(len(instance.frames) or 1 for instance in {instance.uid: instance for instance in series}.values())
    if promised > images:
        notes.append(f"its headers give the acquisition {promised} images, {images} are there: some may be missing")
    return notes


def _neighbours(stack: Stack, others: Sequence[Stack]) -> list[str]:
    """What other volumes at the same places have beyond its ends."""
    beyond = max((_beyond(stack, other) for other in others), default=0)
    return [f"another series has {beyond} slices more beyond its ends: some may be missing"] if beyond else []


def _beyond(stack: Stack, other: Stack) -> int:
    """How many slices another volume has beyond the ends of one whose slices are all among its own; else 0."""
    first, second = stack.frames[0], other.frames[0]
    if stack.shape[:2] != other.shape[:2] or np.abs(stack.cosines - other.cosines).max() > COSINE_TOLERANCE:
        return 0
    if len(stack.frames) >= len(other.frames) or not np.allclose(first.spacing, second.spacing, rtol=1e-3):
        return 0
    near = REGULAR_TOLERANCE * float(np.diff(stack.distances).min())
    apart = np.linalg.norm(stack.positions[:, None] - other.positions[None], axis=-1).min(axis=1)
    if apart.max() > near:
        return 0
    low, high = stack.distances[[0, -1]]
    distances = other.positions @ np.cross(*stack.cosines)
    inside = int(((distances >= low - near) & (distances <= high + near)).sum())
    return len(other.frames) - inside if inside == len(stack.frames) else 0
