"""What changed since an earlier result: volumes of structures, and their overlap where both are of one scan."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from medvision.findings.statistics import StructureRow
from medvision.metrics.overlap import dice
from shared_backbones.json_values import Document


class Change(TypedDict):
    """How one structure changed.

    Attributes:
        id: label of its voxels.
        name: its name.
        earlier_ml: its volume in the earlier result, in mL; None where that has none.
        volume_ml: its volume now, in mL; None where the scan cuts it off.
        change_ml: the difference, in mL.
        change_share: the difference as a share of the earlier volume.
        dice: overlap of both, in [0, 1]; left out where the scans differ, None where neither has a voxel of it.
    """

    id: int
    name: str
    earlier_ml: float | None
    volume_ml: float | None
    change_ml: float | None
    change_share: float | None
    dice: NotRequired[float | None]


class Changes(TypedDict):
    """What a side-car says of an earlier result.

    Attributes:
        case: its case.
        created: when it was made, UTC, ISO 8601.
        model: name, version and sha256 of its model.
        sha256: digest of its label map.
        same_scan: whether it is of the same scan.
        rows: how each structure changed.
    """

    case: str
    created: str
    model: dict[str, str]
    sha256: str
    same_scan: bool
    rows: list[Change]


def changes(
    rows: Sequence[StructureRow], earlier: Document, labels: np.ndarray, earlier_labels: np.ndarray | None
) -> list[Change]:
    """How structures changed; those of one name are one, whatever model they are of.

    Args:
        rows: figures of the structures now.
        earlier: side-car of the earlier result.
        labels: `(X, Y, Z)`, the labels now.
        earlier_labels: the earlier labels on the same grid; None where the scans differ.
    """
    before: Mapping[str, Document] = {str(row["name"]): row for row in earlier["structures"]}
    return [_change(row, before.get(row["name"]), labels, earlier_labels) for row in rows]


def _change(
    row: StructureRow, before: Document | None, labels: np.ndarray, earlier_labels: np.ndarray | None
) -> Change:
    now, then = row["volume_ml"], None if before is None else before.get("volume_ml")
    then = float(then) if isinstance(then, int | float) else None
    differs = None if now is None or then is None else now - then
    change: Change = {
        "id": row["id"], "name": row["name"], "earlier_ml": then, "volume_ml": now, "change_ml": differs,
        "change_share": differs / then if differs is not None and then else None,
    }  # fmt: skip
    if earlier_labels is not None and before is not None:
        change["dice"] = dice(labels == row["id"], earlier_labels == int(before["id"]))
    return change
