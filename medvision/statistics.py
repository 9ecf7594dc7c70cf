"""Figures and quality flags of a label map, structure by structure.

A figure that would mislead is None, and the row's `reasons` says why under the figure's name:

- `empty`: no voxel has the label, so it has no volume, mean or pieces (0 mL would read as a measurement);
- `touches_border`: the structure reaches the edge of the scan, so its volume is that of a part;
- `not_finite`: the image holds NaN or infinity inside the structure;
- `not_measured`: the segmentation came without a confidence.

`voxels` is always the count.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
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
        classes: mappings with `id` and `name`; id 0, the background, is left out.
        confidence: mean confidence of each class id, in [0, 1].

    Returns:
        One row per class of plain Python values: `id`, `name`, `voxels`, `volume_ml`, `mean_intensity`,
        `mean_confidence`, `components` (pieces; voxels that share a face, edge or corner are one piece, as thin sheets
        such as the cortex run diagonally), `largest_share` and `main_share` (share of the voxels in the largest piece,
        and in the two largest: most structures are pairs), `touches_border`, `reasons` (figure -> why it is None).

    Raises:
        ValueError: the shapes differ.
    """
    if labels.shape != image.shape:
        raise ValueError(f"labels have shape {labels.shape}, the image {image.shape}")
    wanted = [(int(entry["id"]), str(entry["name"])) for entry in classes if entry["id"] != 0]
    highest = max((number for number, _ in wanted), default=1)
    voxel_ml = abs(float(np.linalg.det(np.asarray(affine, dtype=float)[:3, :3]))) / 1000
    counts, sums = _counts_and_sums(labels, image, highest)
    boxes = ndimage.find_objects(labels, max_label=highest)

    rows = []
    for number, name in wanted:
        box, voxels = boxes[number - 1], int(counts[number])
        sizes = [] if box is None else _component_sizes(labels[box] == number)
        border = box is not None and _reaches_edge(box, labels.shape)
        mean = float(sums[number]) / voxels if voxels else None
        score = None if confidence is None else confidence.get(number)
        figures = {
            "volume_ml": (voxels * voxel_ml, "touches_border" if border else None),
            "mean_intensity": (mean, None if mean is None or np.isfinite(mean) else "not_finite"),
            "mean_confidence": (score, None if score is not None and np.isfinite(score) else "not_measured"),
            "largest_share": (sum(sizes[:1]) / max(voxels, 1), None),
            "main_share": (sum(sizes[:2]) / max(voxels, 1), None),
        }
        reasons = {figure: reason if voxels else "empty" for figure, (_, reason) in figures.items()}
        values = {figure: None if reasons[figure] else float(value) for figure, (value, _) in figures.items()}
        rows.append(
            {
                "id": number,
                "name": name,
                "voxels": voxels,
                "components": len(sizes),
                "touches_border": border,
                **values,
                "reasons": {figure: reason for figure, reason in reasons.items() if reason},
            }
        )
    return rows


def qa_flags(
    rows: Iterable[Mapping[str, Any]],
    spacing_mm: Sequence[float],
    volume_range_ml: Mapping[str, Sequence[float]] | None = None,
    *,
    scattered: Collection[int] = (),
    max_components: int = 1000,
    min_main_share: float = 0.9,
    min_confidence: float = 0.6,
    max_anisotropy: float = 3.0,
) -> list[dict[str, Any]]:
    """Say which figures of `structure_rows` a person should look at.

    Args:
        rows: rows of `structure_rows`.
        spacing_mm: voxel size of the scan along each axis.
        volume_range_ml: lowest and highest volume of each structure in the training data, by name.
        scattered: ids of structures that lie in pieces by nature, such as fluid between the folds.
        max_components: pieces a structure may have. The cerebrospinal fluid of a correct map at 1 mm has up to 600.
        min_main_share: share of its voxels that a structure's two largest pieces must hold.
        min_confidence: mean confidence a structure must have.
        max_anisotropy: largest over smallest voxel size.

    Returns:
        One mapping per flag: `code`, `structure` (name; None for the scan as a whole), `rule` (with its threshold),
        `value` (the figure that met the rule).
    """
    flags = []

    def flag(code: str, structure: str | None, rule: str, value: float | bool | None) -> None:
        flags.append({"code": code, "structure": structure, "rule": rule, "value": value})

    anisotropy = float(max(spacing_mm) / min(spacing_mm))
    if anisotropy > max_anisotropy:
        flag("anisotropy", None, f"largest voxel size is more than {max_anisotropy:g} times the smallest", anisotropy)
    for row in rows:
        name = row["name"]
        if not row["voxels"]:
            flag("empty", name, "structure has no voxel", 0)
            continue
        if row["touches_border"]:
            flag("touches_border", name, "structure reaches the edge of the scan", True)
        if row["components"] > max_components:
            flag("fragments", name, f"structure has more than {max_components} pieces", row["components"])
        if row["id"] not in scattered and row["main_share"] < min_main_share:
            rule = f"two largest pieces hold less than {min_main_share:.0%} of the structure"
            flag("fragments", name, rule, row["main_share"])
        volume, limits = row["volume_ml"], (volume_range_ml or {}).get(name)
        if volume is not None and limits is not None and not limits[0] <= volume <= limits[1]:
            flag("volume_range", name, f"volume outside the training range {limits[0]:g} to {limits[1]:g} mL", volume)
        score = row["mean_confidence"]
        if score is not None and score < min_confidence:
            flag("low_confidence", name, f"mean confidence below {min_confidence:g}", score)
    return flags


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


def _component_sizes(mask: np.ndarray) -> list[int]:
    """Voxels of each 26-connected piece, largest first."""
    pieces = np.empty(mask.shape, dtype=np.int32)
    ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=pieces)
    return sorted(np.bincount(pieces[mask]).tolist()[1:], reverse=True)


def _reaches_edge(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(side.start == 0 or side.stop == size for side, size in zip(box, shape, strict=True))
