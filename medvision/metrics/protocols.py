"""How published work scores a segmentation: the rules for empty masks, distances and means, under names.

    protocol           Dice where both | false positive | missed    HD95 of those   distances
    default            left out | 0 | 0                              left out        larger directed percentile, mm
    synapse-transunet  0 | 1 | 0                                     0 | 0 | 0       pooled percentile, voxels
    hbformer           1 | 0 | 0                                     0 | 0 | 0       pooled percentile, voxels
    nnunet             left out | 0 | 0                              left out        larger directed percentile, mm
    monai              left out | left out | 0                       left out        larger directed percentile, mm

`synapse-transunet` is what TransUNet's evaluation and those after it compute, ParaTransCNN's included: a structure that
is found where there is none scores a perfect Dice, and one that is missed has distance 0, which lowers the mean.
`nnunet` averages over cases first and over classes then; it publishes no distances, which are ours. `monai` is the
default of its metrics: what was found where there is none is not seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from scipy import ndimage

from medvision.metrics.overlap import STATES, OverlapRow, OverlapSummary, compare, mean, surface_distances
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

EMPTY_STATES = ("both_empty", "false_positive", "missed")


class Means(TypedDict):
    """Means of figures; None where none is known."""

    dice: float | None
    hd95_mm: float | None
    nsd: float | None


class ClassMeans(OverlapSummary):
    """Means of one class over cases; `states` counts its cases in each state."""

    id: int
    name: str


class Aggregate(TypedDict):
    """Means over cases.

    Attributes:
        classes: means of each class over cases.
        overall: means over classes.
    """

    classes: list[ClassMeans]
    overall: Means


@dataclass(frozen=True)
class Protocol:
    """Rules of a protocol.

    Attributes:
        dice: Dice in the states in which a mask is empty, in the order of `EMPTY_STATES`; None leaves the pair out.
        distance: HD95 in those states.
        pooled: HD95 is the percentile of both directed distances together, in voxels, as medpy computes it without a
            spacing; else the larger of the two directed percentiles, in mm.
    """

    dice: tuple[float | None, float | None, float | None] = (None, 0.0, 0.0)
    distance: tuple[float | None, float | None, float | None] = (None, None, None)
    pooled: bool = False


PROTOCOLS = {
    "default": Protocol(),
    "synapse-transunet": Protocol((0.0, 1.0, 0.0), (0.0, 0.0, 0.0), pooled=True),
    "hbformer": Protocol((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), pooled=True),
    "nnunet": Protocol(),
    "monai": Protocol((None, None, 0.0)),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} is unknown; expected one of: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def evaluate_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    classes: Iterable[ClassEntry],
    protocol: str = "default",
    nsd_tolerance_mm: float = 1.0,
) -> list[OverlapRow]:
    """Score a label map structure by structure, as a protocol does.

    Args:
        prediction: integer labels, (X, Y, Z).
        reference: integer labels on the same grid, (X, Y, Z).
        spacing_mm: voxel size along each axis.
        classes: the classes; id 0, the background, is left out.
        protocol: a key of `PROTOCOLS`.
        nsd_tolerance_mm: distance up to which surfaces count as agreeing.

    Returns:
        One row per class, with None where the protocol leaves the pair out. The state is there under every protocol.

    Raises:
        InputError: the protocol is unknown.
        ValueError: the shapes differ.
    """
    rules = find_protocol(protocol)
    rows = compare(prediction, reference, spacing_mm, classes, nsd_tolerance_mm)
    for row in rows:
        if row["state"] in EMPTY_STATES:
            number = EMPTY_STATES.index(row["state"])
            row["dice"], row["hd95_mm"] = rules.dice[number], rules.distance[number]
        elif rules.pooled:
            row["hd95_mm"] = _pooled_hd95(prediction == row["id"], reference == row["id"])
    return rows


def aggregate(rows: Iterable[Document]) -> Aggregate:
    """Means of the rows of many cases, `OverlapRow`s with any columns beside: of each class, and of those means."""
    by_class: dict[int, list[Document]] = {}
    for row in rows:
        by_class.setdefault(row["id"], []).append(row)
    classes: list[ClassMeans] = []
    for number, group in sorted(by_class.items()):
        states = {state: sum(row["state"] == state for row in group) for state in STATES}
        classes.append({"id": number, "name": group[0]["name"], **_means(group), "states": states})
    return {"classes": classes, "overall": _means(classes)}


def _means(rows: Sequence[Document]) -> Means:
    return {
        "dice": mean([row["dice"] for row in rows]),
        "hd95_mm": mean([row["hd95_mm"] for row in rows]),
        "nsd": mean([row["nsd"] for row in rows]),
    }


def _pooled_hd95(prediction: np.ndarray, reference: np.ndarray) -> float:
    box = ndimage.find_objects((prediction | reference).astype(np.uint8))[0]
    distances = surface_distances(prediction[box], reference[box], (1.0,) * prediction.ndim)
    if distances is None:
        raise ValueError("a mask is empty")
    return float(np.percentile(np.concatenate(distances), 95))
