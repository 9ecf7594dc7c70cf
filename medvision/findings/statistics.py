"""Figures of a label map, structure by structure.

A figure that would mislead is None, and the row's `reasons` says why under the figure's name:

- `empty`: no voxel has the label, so it has no volume, mean or pieces (0 mL would read as a measurement);
- `touches_border`: the structure reaches the border of the scan, so its volume and its centre are those of a part;
- `not_finite`: the image holds NaN or infinity inside the structure;
- `not_measured`: the segmentation came without a confidence.

`voxels` is always the count.
"""

from collections.abc import Iterable, Mapping
from typing import NotRequired, TypedDict

import numpy as np
from scipy import ndimage

from shared_backbones.card import ClassEntry


class StructureRow(TypedDict):
    """Figures of one structure, plain Python values; a figure that would mislead is None.

    Attributes:
        id: label of its voxels.
        name: its name.
        voxels: number of its voxels.
        components: number of its pieces. Voxels that share a face, edge or corner are one piece, as thin sheets such as
            the cortex run diagonally.
        main_pieces: pieces that it has by nature: two, or what its class says.
        touches_border: whether it reaches the edge of the scan.
        volume_ml: its volume in mL.
        left_ml: that of its part in the left half of the body, and `right_ml`, where the model tells them apart.
        centroid_mm: mean position of its voxels in mm: to the right, to the front, up.
        mean_intensity: mean of the scan over it, in the scan's own unit.
        mean_confidence: mean confidence of its voxels, in [0, 1].
        largest_share: fraction of its voxels in the largest piece.
        main_share: fraction of its voxels in the `main_pieces` largest pieces.
        expected_dice: Dice that structures of its confidence had on average; the side-car has it.
        reasons: why figures are None, by their names.
    """

    id: int
    name: str
    voxels: int
    components: int
    main_pieces: int
    touches_border: bool
    volume_ml: float | None
    left_ml: NotRequired[float | None]
    right_ml: NotRequired[float | None]
    centroid_mm: list[float] | None
    mean_intensity: float | None
    mean_confidence: float | None
    largest_share: float | None
    main_share: float | None
    expected_dice: NotRequired[float | None]
    reasons: dict[str, str]


def structure_rows(
    labels: np.ndarray,
    image: np.ndarray,
    affine: np.ndarray,
    classes: Iterable[ClassEntry],
    confidence: Mapping[int, float | None] | None = None,
) -> list[StructureRow]:
    """Measure each structure of a label map.

    Args:
        labels: integer labels, (X, Y, Z).
        image: the scan on the same grid, (X, Y, Z), in its own intensity unit.
        affine: voxel to world in mm, (4, 4); a voxel has the volume |det| of its linear part, shear included.
        classes: the classes; id 0, the background, is left out.
        confidence: mean confidence of each class id, in [0, 1].

    Returns:
        One row per class.

    Raises:
        ValueError: the shapes differ.
    """
    if labels.shape != image.shape:
        raise ValueError(f"labels have shape {labels.shape}, the image {image.shape}")
    structures = [entry for entry in classes if entry["id"] != 0]
    highest = max((int(entry["id"]) for entry in structures), default=1)
    counts, sums = _counts_and_sums(labels, image, highest)
    boxes = ndimage.find_objects(labels, max_label=highest)
    rows = []
    for entry in structures:
        number = int(entry["id"])
        score = None if confidence is None else confidence.get(number)
        voxels = int(counts[number])
        mean = float(sums[number]) / voxels if voxels else None
        rows.append(_row(entry, labels, boxes[number - 1], voxels, mean, score, affine))
    return rows


def _row(
    entry: ClassEntry,
    labels: np.ndarray,
    box: tuple[slice, ...] | None,
    voxels: int,
    mean: float | None,
    confidence: float | None,
    affine: np.ndarray,
) -> StructureRow:
    number, pieces = int(entry["id"]), int(entry.get("pieces", 2))
    mask = None if box is None else labels[box] == number
    sizes = [] if mask is None else _component_sizes(mask)
    border = box is not None and _reaches_border(box, labels.shape)
    volume_ml = voxels * (abs(float(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3]))) / 1000)
    score = None if confidence is None else float(confidence)
    reasons = {
        "volume_ml": "touches_border" if border else None,
        "centroid_mm": "touches_border" if border else None,
        "mean_intensity": None if mean is None or np.isfinite(mean) else "not_finite",
        "mean_confidence": None if score is not None and np.isfinite(score) else "not_measured",
        "largest_share": None,
        "main_share": None,
    }
    if not voxels:
        reasons = dict.fromkeys(reasons, "empty")
    whole = bool(voxels) and not border
    return {
        "id": number,
        "name": str(entry["name"]),
        "voxels": voxels,
        "components": len(sizes),
        "main_pieces": pieces,
        "touches_border": border,
        "volume_ml": volume_ml if whole else None,
        "centroid_mm": _centroid_mm(mask, box, affine) if whole else None,
        "mean_intensity": None if reasons["mean_intensity"] else mean,
        "mean_confidence": None if reasons["mean_confidence"] else score,
        "largest_share": sum(sizes[:1]) / voxels if voxels else None,
        "main_share": sum(sizes[:pieces]) / voxels if voxels else None,
        "reasons": {figure: reason for figure, reason in reasons.items() if reason},
    }


def _counts_and_sums(labels: np.ndarray, image: np.ndarray, highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and summed intensity of each label 0..highest (0 itself is not counted), in one pass over slabs."""
    if labels.flags.f_contiguous:
        labels, image = labels.T, image.T  # slabs that lie together in memory
    counts, sums = np.zeros(highest + 1, dtype=np.int64), np.zeros(highest + 1)
    for index in range(len(labels)):
        slab, values = labels[index], image[index]
        inside = (slab > 0) & (slab <= highest)
        numbers = slab[inside].astype(np.intp)
        counts += np.bincount(numbers, minlength=highest + 1)
        sums += np.bincount(numbers, weights=values[inside], minlength=highest + 1)
    return counts, sums


def _centroid_mm(mask: np.ndarray | None, box: tuple[slice, ...] | None, affine: np.ndarray) -> list[float] | None:
    """Position of a mask's centre in mm, from its sums along each axis."""
    if mask is None or box is None:
        return None
    centre = []
    for axis, side in enumerate(box):
        counts = mask.sum(axis=tuple(other for other in range(mask.ndim) if other != axis), dtype=np.int64)
        centre.append(side.start + float(counts @ np.arange(len(counts))) / float(counts.sum()))
    return [round(float(value), 2) for value in np.asarray(affine, dtype=float)[:3] @ [*centre, 1.0]]


def _component_sizes(mask: np.ndarray) -> list[int]:
    """Voxels of each 26-connected piece, largest first."""
    pieces = np.empty(mask.shape, dtype=np.int32)
    ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=pieces)
    return sorted(np.bincount(pieces[mask]).tolist()[1:], reverse=True)


def _reaches_border(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(side.start == 0 or side.stop == size for side, size in zip(box, shape, strict=True))
