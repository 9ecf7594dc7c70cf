"""Which slices of a scan a report shows: some spread over the labels, and those that a reader should look at first."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from medvision.volumes.geometry import Grid, to_ras

if TYPE_CHECKING:
    from medvision.findings.flags import Flag
    from medvision.findings.statistics import StructureRow
    from medvision.metrics.overlap import OverlapRow

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The RAS axis that a plane is stacked along."""
MOST_KEY_SLICES = 3
"""Slices of each kind: where the network was least sure, and where result and reference differ most."""

_PERCENTILES = (0.5, 99.5)


class KeySlice(TypedDict):
    """An axial slice that a reader should look at first.

    Attributes:
        index: slice along the RAS axis, counted upwards.
        structure: name of the structure that it is shown for.
        why: `least certain` or `most errors`.
        value: mean confidence of the structure there, or its voxels there that are in one of the two maps only.
    """

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
        also: axial slices to show beside these.
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

    slices: list[ShownSlice] = [
        {"plane": plane, "index": index, "position": position(plane, index)}
        for plane, axis in AXES.items()
        for index in _spread(*extent[axis], count)
    ]
    for entry in also:
        index = entry["index"]
        slices.append({
            "plane": "axial", "index": index, "structure": entry["structure"], "why": entry["why"],
            "value": entry["value"], "position": position("axial", index),
        })  # fmt: skip
    return {"window": list(window), "window_rule": rule, "slices": slices}


def uncertain_slices(
    rows: "Sequence[StructureRow]",
    flags: "Sequence[Flag]",
    weakest: Mapping[int, tuple[int, float]],
    scattered: Sequence[int] = (),
) -> list[KeySlice]:
    """Axial slices in which structures were least certain: flagged structures first, then by rising confidence.

    Args:
        rows: figures of the structures.
        flags: quality flags.
        weakest: least certain slice of each class and its mean score, as `Segmentation.weakest_slices` has it.
        scattered: ids of structures whose confidence says nothing.

    Returns:
        At most `MOST_KEY_SLICES`.
    """
    flagged = {flag["structure"] for flag in flags}
    judged = [row for row in rows if row["voxels"] and row["id"] in weakest and row["id"] not in scattered]
    judged.sort(key=lambda row: (row["name"] not in flagged, weakest[row["id"]][1]))
    return [
        {"index": weakest[row["id"]][0], "structure": row["name"], "why": "least certain",
         "value": round(weakest[row["id"]][1], 4)}
        for row in judged[:MOST_KEY_SLICES]
    ]  # fmt: skip


def wrong_slices(
    labels: np.ndarray, reference: np.ndarray, grid: Grid, compared: "Sequence[OverlapRow]"
) -> list[KeySlice]:
    """Axial slices with most false voxels, of the structures of lowest Dice, worst first.

    Args:
        labels: (X, Y, Z), integer.
        reference: (X, Y, Z), integer.
        grid: the grid of both.
        compared: overlap of each structure.

    Returns:
        At most `MOST_KEY_SLICES`.
    """
    scored = [(row["dice"], row) for row in compared if row["dice"] is not None]
    worst = [row for _, row in sorted(scored, key=lambda pair: pair[0])[:MOST_KEY_SLICES]]
    prediction, truth = to_ras(labels, grid)[0], to_ras(reference, grid)[0]
    slices: list[KeySlice] = []
    for row in worst:
        wrong = [
            np.count_nonzero((prediction[..., index] == row["id"]) != (truth[..., index] == row["id"]))
            for index in range(prediction.shape[2])
        ]
        index = int(np.argmax(wrong))
        if wrong[index]:
            slices.append({"index": index, "structure": row["name"], "why": "most errors", "value": int(wrong[index])})
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
