"""Dice, HD95 and NSD of label maps, with one stated rule for every pair of masks.

State of a pair: which of the two masks holds the structure decides what can be said about it.

    state            prediction  reference  dice       hd95_mm, nsd
    scored           present     present    measured   measured
    missed           empty       present    0          None
    false_positive   present     empty      0          None
    both_empty       empty       empty      None       None

None means undefined: it is left out of every mean, and `summary` counts the states beside the means, so that a missed
structure stays visible although it has no distance.

Definitions, for masks A and B on one grid:

- Dice: 2 |A and B| / (|A| + |B|).
- Surface: the voxels of a mask that its erosion by the face-connected cross removes. Beyond the edge of the array there
  is background, so a mask that reaches the edge has a surface there.
- Surface distance: from the centre of each surface voxel to that of the nearest surface voxel of the other mask, in mm
  along the grid's own axes.
- HD95: the larger of the two directed 95th percentiles (linear interpolation) of the surface distances. The pooled
  percentile of medpy and the area-weighted one of DeepMind differ by some per cent.
- NSD (normalised surface Dice, Nikolov et al. 2018, arXiv:1809.04430): fraction of the surface voxels of both masks
  that lie within a tolerance of the other surface. Voxels count alike, not by area.

These are the definitions of MONAI's `compute_hausdorff_distance(percentile=95)` and
`compute_surface_dice(use_subvoxels=False)`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from shared_backbones.card import ClassEntry

STATES = ("scored", "missed", "false_positive", "both_empty")


class _Figures(TypedDict):
    state: str
    dice: float | None
    hd95_mm: float | None
    nsd: float | None


class OverlapRow(_Figures):
    """Overlap of one structure with its reference.

    Attributes:
        id: label of its voxels.
        name: its name.
        state: one of `STATES`.
        dice: Dice, in [0, 1].
        hd95_mm: 95th-percentile Hausdorff distance in mm; in voxels under a protocol that says so.
        nsd: normalised surface Dice, in [0, 1].
    """

    id: int
    name: str


class OverlapSummary(TypedDict):
    """Means over structures; None where no structure has the figure.

    Attributes:
        dice: mean over scored, missed and false positive structures.
        hd95_mm: mean over scored structures.
        nsd: mean over scored structures.
        states: number of structures in each state.
    """

    dice: float | None
    hd95_mm: float | None
    nsd: float | None
    states: dict[str, int]


def compare(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    classes: Iterable[ClassEntry],
    nsd_tolerance_mm: float = 1.0,
) -> list[OverlapRow]:
    """Compare two label maps structure by structure.

    Args:
        prediction: integer labels, (X, Y, Z).
        reference: integer labels on the same grid, (X, Y, Z).
        spacing_mm: voxel size along each axis.
        classes: the classes; id 0, the background, is left out.
        nsd_tolerance_mm: distance up to which surfaces count as agreeing; 1 mm, a voxel of a typical brain scan.

    Returns:
        One row per class.

    Raises:
        ValueError: the shapes differ, or the spacing does not fit them.
    """
    _check(prediction, reference, spacing_mm)
    structures = [(int(entry["id"]), str(entry["name"])) for entry in classes if entry["id"] != 0]
    highest = max((number for number, _ in structures), default=1)
    predicted_boxes = ndimage.find_objects(prediction, max_label=highest)
    reference_boxes = ndimage.find_objects(reference, max_label=highest)
    rows: list[OverlapRow] = []
    for number, name in structures:
        box = _join(predicted_boxes[number - 1], reference_boxes[number - 1])
        a, b = prediction[box] == number, reference[box] == number
        rows.append({"id": number, "name": name, **_measure(a, b, spacing_mm, nsd_tolerance_mm)})
    return rows


def summary(rows: Iterable[OverlapRow]) -> OverlapSummary:
    """Average the rows of `compare`."""
    rows = list(rows)
    count = Counter(row["state"] for row in rows)
    return {
        "dice": mean([row["dice"] for row in rows]),
        "hd95_mm": mean([row["hd95_mm"] for row in rows]),
        "nsd": mean([row["nsd"] for row in rows]),
        "states": {state: count[state] for state in STATES},
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def dice(prediction: np.ndarray, reference: np.ndarray) -> float | None:
    """Dice of two boolean masks of one shape: in [0, 1], None where both are empty."""
    _check(prediction, reference)
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return float(2 * np.count_nonzero(np.logical_and(prediction, reference)) / total) if total else None


def hd95(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> float | None:
    """95th-percentile Hausdorff distance of two boolean masks in mm, None where one of them is empty."""
    distances = surface_distances(prediction, reference, spacing_mm)
    return None if distances is None else _hd95(*distances)


def nsd(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float = 1.0
) -> float | None:
    """Normalised surface Dice of two boolean masks: in [0, 1], None where one of them is empty."""
    distances = surface_distances(prediction, reference, spacing_mm)
    return None if distances is None else _nsd(*distances, tolerance_mm)


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Distances in mm between the surfaces of two boolean masks.

    Returns:
        For each surface voxel of the prediction the distance to the reference's surface, (N,), and the reverse, (M,);
        None where one of the masks is empty.
    """
    _check(prediction, reference, spacing_mm)
    a, b = (_surface_points(np.asarray(mask, dtype=bool), spacing_mm) for mask in (prediction, reference))
    return (_nearest(a, b), _nearest(b, a)) if len(a) and len(b) else None


def _measure(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float) -> _Figures:
    distances = surface_distances(a, b, spacing_mm)
    if distances is not None:
        return {
            "state": "scored",
            "dice": dice(a, b),
            "hd95_mm": _hd95(*distances),
            "nsd": _nsd(*distances, tolerance_mm),
        }
    state = "false_positive" if a.any() else "missed" if b.any() else "both_empty"
    return {"state": state, "dice": dice(a, b), "hd95_mm": None, "nsd": None}


def _hd95(forward: np.ndarray, backward: np.ndarray) -> float:
    return float(max(np.percentile(forward, 95), np.percentile(backward, 95)))


def _nsd(forward: np.ndarray, backward: np.ndarray, tolerance_mm: float) -> float:
    limit = tolerance_mm * (1 + 1e-6)  # a distance that equals the tolerance must not fail by rounding
    near = np.count_nonzero(forward <= limit) + np.count_nonzero(backward <= limit)
    return float(near / (len(forward) + len(backward)))


def _surface_points(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Positions of the surface voxels in mm, (N, axes)."""
    (box,) = ndimage.find_objects(mask.view(np.uint8), max_label=1)
    if box is None:
        return np.empty((0, mask.ndim))
    mask = mask[box]
    start = [side.start for side in box]
    return (np.argwhere(mask ^ ndimage.binary_erosion(mask)) + start) * np.asarray(spacing_mm, dtype=float)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    # As exact as a distance transform, whose time and memory go with the box instead of the surface. On a lattice the
    # plain tree is the faster one: many points share a coordinate, and balancing splits between equal ones.
    return KDTree(others, balanced_tree=False, compact_nodes=False).query(points)[0]


def _join(a: tuple[slice, ...] | None, b: tuple[slice, ...] | None) -> tuple[slice, ...]:
    if a is None or b is None:
        return a or b or (slice(0),)
    return tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))


def _check(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float] | None = None) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, reference {reference.shape}")
    if spacing_mm is not None and (len(spacing_mm) != prediction.ndim or not all(0 < s < np.inf for s in spacing_mm)):
        raise ValueError(f"spacing {tuple(spacing_mm)} does not fit an array of shape {prediction.shape}")
