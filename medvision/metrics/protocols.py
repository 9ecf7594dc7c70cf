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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from medvision.metrics.overlap import STATES, compare, surface_distances
from shared_backbones.errors import InputError

EMPTY_STATES = ("both_empty", "false_positive", "missed")


@dataclass(frozen=True)
class Protocol:
    """Rules of a protocol.

    Attributes:
        dice: of the three states in which a mask is empty, in the order of `EMPTY_STATES`; None leaves the pair out.
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
    classes: Iterable[Mapping[str, Any]],
    protocol: str = "default",
    nsd_tolerance_mm: float = 1.0,
) -> list[dict[str, Any]]:
    """Score a label map structure by structure, as a protocol does.

    Args:
        prediction: integer labels, (X, Y, Z).
        reference: integer labels on the same grid, (X, Y, Z).
        spacing_mm: voxel size along each axis.
        classes: mappings with `id` and `name`; id 0, the background, is left out.
        protocol: a key of `PROTOCOLS`.
        nsd_tolerance_mm: distance up to which surfaces count as agreeing.

    Returns:
        One row per class with `id`, `name`, `state`, `dice`, `hd95_mm` (voxels where the protocol says so) and `nsd`;
        None where the protocol leaves the pair out. The state is there under every protocol.

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


def aggregate(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of rows of many cases: per class over cases, and over classes of those means.

    Returns:
        `classes`: rows with `id`, `name`, the means of `dice`, `hd95_mm` and `nsd` (None where every pair is left out)
        and the count of each state; `overall`: the means over classes.
    """
    by_class: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["id"], []).append(row)
    classes = []
    for number, group in sorted(by_class.items()):
        means = {figure: _mean([row[figure] for row in group]) for figure in ("dice", "hd95_mm", "nsd")}
        states = {state: sum(row["state"] == state for row in group) for state in STATES}
        classes.append({"id": number, "name": group[0]["name"], **means, "states": states})
    overall = {figure: _mean([row[figure] for row in classes]) for figure in ("dice", "hd95_mm", "nsd")}
    return {"classes": classes, "overall": overall}


def _pooled_hd95(prediction: np.ndarray, reference: np.ndarray) -> float:
    box = ndimage.find_objects((prediction | reference).astype(np.uint8))[0]
    distances = surface_distances(prediction[box], reference[box], (1.0,) * prediction.ndim)
    if distances is None:
        raise ValueError("a mask is empty")
    return float(np.percentile(np.concatenate(distances), 95))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
