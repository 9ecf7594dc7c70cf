"""Figures of a label map, structure by structure.

A figure that would mislead is None, and the row's `reasons` says why under the figure's name:

- `empty`: no voxel has the label, so it has no volume, mean or pieces (0 mL would read as a measurement);
- `touches_border`: the structure reaches the edge of the scan, so its volume and its centre are those of a part;
- `not_finite`: the image holds NaN or infinity inside the structure;
- `not_measured`: the segmentation came without a confidence.

`voxels` is always the count.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy import ndimage


def structure_rows(
    labels: np.ndarray,
    image: np.ndarray,
    affine: np.ndarray,
    classes: Iterable[Mapping[str, Any]],
    confidence: Mapping[int, float | None] | None = None,
) -> list[dict[str, Any]]:
    """Measure each structure of a label map.

    Args:
        labels: integer labels, (X, Y, Z).
        image: the scan on the same grid, (X, Y, Z), in its own intensity unit.
        affine: voxel to world in mm, (4, 4); a voxel has the volume |det| of its linear part, shear included.
        classes: mappings with `id`, `name` and, where a structure is not one pair, `pieces`, how many parts it has by
            nature; id 0, the background, is left out.
        confidence: mean confidence of each class id, in [0, 1].

    Returns:
        One row per class of plain Python values: `id`, `name`, `voxels`, `volume_ml`, `mean_intensity`,
        `mean_confidence`, `components` (pieces; voxels that share a face, edge or corner are one piece, as thin sheets
        such as the cortex run diagonally), `largest_share` and `main_share` (share of the voxels in the largest piece,
        and in the `main_pieces` largest: two, or what its class says), `touches_border`, `centroid_mm` (mean position
        of its voxels: to the right, to the front, up), `reasons` (figure -> why it is None).

    Raises:
        ValueError: the shapes differ.
    """
    if labels.shape != image.shape:
        raise ValueError(f"labels have shape {labels.shape}, the image {image.shape}")
    wanted = [(int(c["id"]), str(c["name"]), int(c.get("pieces", 2))) for c in classes if c["id"] != 0]
    highest = max((number for number, *_ in wanted), default=1)
    voxel_ml = abs(float(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3]))) / 1000
    counts, sums = _counts_and_sums(labels, image, highest)
    boxes = ndimage.find_objects(labels, max_label=highest)

    rows = []
    for number, name, pieces in wanted:
        box, voxels = boxes[number - 1], int(counts[number])
        mask = None if box is None else labels[box] == number
        sizes = [] if mask is None else _component_sizes(mask)
        border = box is not None and _reaches_edge(box, labels.shape)
        mean = float(sums[number]) / voxels if voxels else None
        score = None if confidence is None else confidence.get(number)
        score = None if score is None else float(score)
        figures = {
            "volume_ml": (voxels * voxel_ml, "touches_border" if border else None),
            "centroid_mm": (_centroid_mm(mask, box, affine), "touches_border" if border else None),
            "mean_intensity": (mean, None if mean is None or np.isfinite(mean) else "not_finite"),
            "mean_confidence": (score, None if score is not None and np.isfinite(score) else "not_measured"),
            "largest_share": (sum(sizes[:1]) / max(voxels, 1), None),
            "main_share": (sum(sizes[:pieces]) / max(voxels, 1), None),
        }
        reasons = {figure: reason if voxels else "empty" for figure, (_, reason) in figures.items()}
        values = {figure: None if reasons[figure] else value for figure, (value, _) in figures.items()}
        rows.append(
            {
                "id": number,
                "name": name,
                "voxels": voxels,
                "components": len(sizes),
                "main_pieces": pieces,
                "touches_border": border,
                **values,
                "reasons": {figure: reason for figure, reason in reasons.items() if reason},
            }
        )
    return rows


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
        share = mask.sum(axis=tuple(other for other in range(mask.ndim) if other != axis), dtype=np.int64)
        centre.append(side.start + float(share @ np.arange(len(share))) / float(share.sum()))
    return [round(float(edge), 2) for edge in np.asarray(affine, dtype=float)[:3] @ [*centre, 1.0]]


def _component_sizes(mask: np.ndarray) -> list[int]:
    """Voxels of each 26-connected piece, largest first."""
    pieces = np.empty(mask.shape, dtype=np.int32)
    ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=pieces)
    return sorted(np.bincount(pieces[mask]).tolist()[1:], reverse=True)


def _reaches_edge(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(side.start == 0 or side.stop == size for side, size in zip(box, shape, strict=True))
