"""Which slices of a scan a report shows: some spread over the labels, and those that a reader should look at first."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from medvision.volumes.geometry import Grid, to_ras

if TYPE_CHECKING:
    from medvision.findings.flags import Flag
    from medvision.findings.statistics import StructureRow
    from medvision.metrics.overlap import OverlapRow
    from medvision.scores import Weakest

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The RAS axis that a plane is stacked along."""
MOST_STRUCTURES = 3
"""Structures of each kind that slices are shown for: where the network was least sure, and where result and reference
differ most."""

_PERCENTILES = (0.5, 99.5)


class KeySlice(TypedDict):
    """A slice that a reader should look at first.

    Attributes:
        plane: `axial`, `coronal` or `sagittal`.
        index: slice along the RAS axis, counted upwards.
        structure: name of the structure that it is shown for.
        why: `least certain` or `most errors`.
        value: mean confidence of the structure there, or its voxels there that are in one of the two maps only.
    """

    plane: str
    index: int
    structure: str
    why: str
    value: float


class ShownSlice(TypedDict):
    """A slice that a report shows; those of `KeySlice` have all that is said there, too."""

    plane: str
    index: int
    position: str
    structure: NotRequired[str]
    why: NotRequired[str]
    value: NotRequired[float]


class SlicePlan(TypedDict):
    """Which window and slices a report shows.

    Attributes:
        window: intensities of black and white.
        window_rule: how the window was chosen.
        slices: the slices; key slices come last.
    """

    window: list[float]
    window_rule: str
    slices: list[ShownSlice]


def plan_slices(
    image: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    *,
    reference: np.ndarray | None = None,
    window: tuple[float, float] | None = None,
    count: int = 6,
    also: Sequence[KeySlice] = (),
) -> SlicePlan:
    """Which window and slices `medvision.pictures.overlays.render_slices` shows, in plain values.

    Args:
        image: (X, Y, Z), any real dtype.
        labels: (X, Y, Z), integer; 0 is background.
        grid: the grid of all arrays.
        reference: (X, Y, Z), integer, labels to compare with.
        window: (black, white); default: percentiles 0.5-99.5 of what is brighter than air.
        count: slices per plane, spread over the extent of labels > 0 (of the volume when there are none).
        also: slices to show beside these, to look at first. A slice is shown once, however often it is named.
    """
    scan = to_ras(image, grid)[0]
    extent = label_box([to_ras(array, grid)[0] for array in (labels, reference) if array is not None])
    rule = "set by the caller"
    if window is None:
        window, rule = _window(sample_intensities(scan)[0]), "percentiles 0.5 to 99.5 of the foreground"
    affine = ras_affine(grid)

    def position(plane: str, index: int) -> str:
        centre = [(n - 1) / 2 for n in scan.shape]
        centre[AXES[plane]] = index
        return _position(affine @ [*centre, 1.0], AXES[plane])

    first = {(entry["plane"], entry["index"]): entry for entry in reversed(also)}
    slices: list[ShownSlice] = [
        {"plane": plane, "index": index, "position": position(plane, index)}
        for plane, axis in AXES.items()
        for index in _spread(*extent[axis], count)
        if (plane, index) not in first
    ]
    for entry in reversed(first.values()):
        slices.append({
            "plane": entry["plane"], "index": entry["index"], "structure": entry["structure"], "why": entry["why"],
            "value": entry["value"], "position": position(entry["plane"], entry["index"]),
        })  # fmt: skip
    return {"window": list(window), "window_rule": rule, "slices": slices}


def uncertain_slices(
    rows: "Sequence[StructureRow]",
    flags: "Sequence[Flag]",
    weakest: "Weakest",
    scattered: Sequence[int] = (),
) -> list[KeySlice]:
    """Slices in which structures were least certain: flagged structures first, then by rising confidence.

    Args:
        rows: figures of the structures.
        flags: quality flags.
        weakest: least certain slices of each class and their mean scores, as `Segmentation.weakest_slices` has them.
        scattered: ids of structures whose confidence says nothing.

    Returns:
        Three planes of the first structure, and the least certain one of up to `MOST_STRUCTURES` - 1 others.
    """
    flagged = {flag["structure"] for flag in flags}
    judged = [row for row in rows if row["voxels"] and row["id"] in weakest and row["id"] not in scattered]

    def lowest(row: "StructureRow") -> float:
        return min(score for _, score in weakest[row["id"]])

    judged.sort(key=lambda row: (row["name"] not in flagged, lowest(row)))
    slices: list[KeySlice] = []
    for place, row in enumerate(judged[:MOST_STRUCTURES]):
        planes: list[KeySlice] = [
            {"plane": plane, "index": weakest[row["id"]][axis][0], "structure": row["name"], "why": "least certain",
             "value": round(weakest[row["id"]][axis][1], 4)}
            for plane, axis in AXES.items()
        ]  # fmt: skip
        slices += planes if place == 0 else [min(planes, key=lambda entry: entry["value"])]
    return slices


def wrong_slices(
    labels: np.ndarray, reference: np.ndarray, grid: Grid, compared: "Sequence[OverlapRow]"
) -> list[KeySlice]:
    """Slices with most false voxels, of the structures of lowest Dice, worst first.

    Args:
        labels: (X, Y, Z), integer.
        reference: (X, Y, Z), integer.
        grid: the grid of both.
        compared: overlap of each structure.

    Returns:
        Three planes of the worst structure, and the one with most false voxels of up to `MOST_STRUCTURES` - 1 others.
    """
    scored = [(row["dice"], row) for row in compared if row["dice"] is not None]
    worst = [row for _, row in sorted(scored, key=lambda pair: pair[0])[:MOST_STRUCTURES]]
    prediction, truth = to_ras(labels, grid)[0], to_ras(reference, grid)[0]
    slices: list[KeySlice] = []
    for place, row in enumerate(worst):
        wrong = [np.zeros(size, np.int64) for size in prediction.shape]
        for index in range(prediction.shape[2]):
            differs = (prediction[..., index] == row["id"]) != (truth[..., index] == row["id"])
            wrong[0] += differs.sum(1)
            wrong[1] += differs.sum(0)
            wrong[2][index] = differs.sum()
        planes: list[KeySlice] = [
            {"plane": plane, "index": int(wrong[axis].argmax()), "structure": row["name"], "why": "most errors",
             "value": int(wrong[axis].max())}
            for plane, axis in AXES.items()
        ]  # fmt: skip
        if wrong[2].any():
            slices += planes if place == 0 else [max(planes, key=lambda entry: entry["value"])]
    return slices


def ras_affine(grid: Grid) -> np.ndarray:
    """(3, 4): from an index of the RAS-ordered view to scanner mm, read off `to_ras` so that the two cannot differ."""
    corner = np.zeros(3)
    steps = np.zeros((3, 3))
    for axis, size in enumerate(grid.shape):
        ramp = np.arange(size).reshape([-1 if other == axis else 1 for other in range(3)])
        view = to_ras(np.broadcast_to(ramp, grid.shape), grid)[0]  # number of the stored voxel along `axis`; no copy
        corner[axis] = view[0, 0, 0]
        ends = (view[-1, 0, 0], view[0, -1, 0], view[0, 0, -1])
        steps[axis] = [(float(end) - corner[axis]) / max(1, n - 1) for end, n in zip(ends, view.shape, strict=True)]
    affine = np.asarray(grid.affine, dtype=np.float64)
    return np.column_stack([affine[:3, :3] @ steps, affine[:3, :3] @ corner + affine[:3, 3]])


def sample_intensities(scan: np.ndarray) -> tuple[np.ndarray, int]:
    """Every `step`-th voxel along each axis as float32, about a million in all; NaN and infinite ones become NaN."""
    step = max(1, math.ceil((scan.size / 1e6) ** (1 / 3)))
    sample = scan[::step, ::step, ::step].astype(np.float32)
    sample[~np.isfinite(sample)] = np.nan
    return sample, step


def label_box(label_maps: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Half-open range of labels > 0 along each axis, over all maps; the whole volume when there are none."""
    box = []
    for axis, size in enumerate(label_maps[0].shape):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(np.logical_or.reduce([view.any(axis=others) for view in label_maps]))
        box.append((int(used[0]), int(used[-1]) + 1) if used.size else (0, size))
    return box


def _window(sample: np.ndarray) -> tuple[float, float]:
    """Percentiles 0.5 and 99.5 of the voxels above air, which is the lowest 2 % of the range of intensities."""
    values = sample[np.isfinite(sample)]
    if not values.size:
        return 0.0, 1.0
    darkest, brightest = np.percentile(values, (0.1, 99.9))
    foreground = values[values > darkest + 0.02 * (brightest - darkest)]
    low, high = np.percentile(foreground if foreground.size else values, _PERCENTILES)
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def _spread(first: int, last: int, count: int) -> list[int]:
    """At most `count` indices spread evenly over the half-open range, away from its ends."""
    indices = first + (np.arange(count) + 0.5) * (last - first) / count
    return sorted({int(index) for index in indices})


def _position(point: np.ndarray, axis: int) -> str:
    value = float(point[axis])
    return f"{'RAS'[axis] if value >= 0 else 'LPI'[axis]} {abs(value):.1f} mm"
