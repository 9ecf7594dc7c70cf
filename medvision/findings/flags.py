"""Quality flags: rules with thresholds that say what a person should look at in a segmentation.

Flags of the scan as a whole (`scan_flags`):

- `anisotropy`: voxels are much longer along one axis than along another;
- `orientation`: header fields leave open, or disagree on, where left, front and up are;
- `intensity`: values are none of the modality that the model was made for;
- `outside_brain`: labels that did not hang together with the brain were taken off;
- `field_of_view`: the scan ends inside the skull, so that a part of the brain may be missing;
- `fallback`: something ran in another way than was preferred.

Flags of a structure (`structure_flags`):

- `empty`, `touches_border`, `fragments`, `volume_range`, `low_confidence`: figures of `medvision.findings.statistics`;
- `intensity`: a structure is darker than one that the modality shows darker;
- `position`: a structure lies on the wrong side of another one, such as a left kidney to the right of the right one.

A flag is no verdict: a correct segmentation may have some, and a wrong one none.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np

from medvision.contract import Expectations
from medvision.findings.statistics import StructureRow
from medvision.volumes.geometry import CONFLICT_TOLERANCE_VOXELS, Grid, forms_apart_voxels
from medvision.volumes.hounsfield import looks_like_hounsfield


class Flag(TypedDict):
    """One quality flag.

    Attributes:
        code: kind of the flag.
        structure: name of the structure; None for the scan as a whole.
        rule: the rule in words, with its threshold.
        value: the figure that met the rule; True where there is none.
    """

    code: str
    structure: str | None
    rule: str
    value: float | bool


DIRECTIONS = {
    "R": (0, 1, "to the right of"), "L": (0, -1, "to the left of"), "A": (1, 1, "in front of"),
    "P": (1, -1, "behind"), "S": (2, 1, "above"), "I": (2, -1, "below"),
}  # fmt: skip
"""Axis in mm, sign and words of each direction."""
HU_LIMIT = -500.0
"""The darkest hundredth of a CT is air, around -1000 HU."""

OUTSIDE_LIMIT = 0.01
"""Share of labels outside the brain above which the others deserve a look."""

_SIDES = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}


def scan_flags(
    image: np.ndarray,
    grid: Grid,
    modality: str | None,
    fallbacks: Sequence[str] = (),
    outside_share: float | None = None,
    is_cut: bool | None = None,
    *,
    max_anisotropy: float = 3.0,
) -> list[Flag]:
    """Flags of a scan as a whole.

    Args:
        image: the scan, (X, Y, Z), in its own intensity unit.
        grid: its voxels' places.
        modality: what the model's card says of the scans it is for.
        fallbacks: what ran in another way than was preferred, one clause each.
        outside_share: share of the labels that were taken off outside the brain; None where that was not looked for.
        is_cut: whether the scan ends inside the skull; None where that was not looked for.
        max_anisotropy: largest over smallest voxel size.
    """
    flags = []
    anisotropy = float(max(grid.spacing_mm) / min(grid.spacing_mm))
    if anisotropy > max_anisotropy:
        rule = f"largest voxel size is more than {max_anisotropy:g} times the smallest"
        flags.append(_flag("anisotropy", None, rule, anisotropy))
    apart = forms_apart_voxels(grid)
    if apart is None:
        flags.append(_flag("orientation", None, "neither qform nor sform is set: left and right are assumed", True))
    elif apart > CONFLICT_TOLERANCE_VOXELS:
        rule = f"qform and sform place the corners more than {CONFLICT_TOLERANCE_VOXELS:g} voxels apart"
        flags.append(_flag("orientation", None, rule, float(apart) if np.isfinite(apart) else True))
    step = max(1, round((image.size / 1e6) ** (1 / 3)))
    darkest = float(np.percentile(image[::step, ::step, ::step], 1))
    if re.search(r"\bCT\b", modality or "") and darkest > HU_LIMIT:
        flags.append(_flag("intensity", None, f"CT in HU has air: darkest hundredth above {HU_LIMIT:g}", darkest))
    if re.search(r"\bMRI?\b", modality or "") and looks_like_hounsfield(image):
        rule = "looks like HU, not MR: air near -1000, soft tissue near 0 to 100"
        flags.append(_flag("intensity", None, rule, darkest))
    if outside_share is not None and outside_share > OUTSIDE_LIMIT:
        rule = f"labels outside the brain, taken off: more than {OUTSIDE_LIMIT:.0%} of all"
        flags.append(_flag("outside_brain", None, rule, outside_share))
    if is_cut:
        rule = "the scan ends inside the skull: a part of the brain may be missing, and volumes too small"
        flags.append(_flag("field_of_view", None, rule, True))
    return flags + [_flag("fallback", None, clause, True) for clause in fallbacks]


def structure_flags(
    rows: Sequence[StructureRow],
    expected: Expectations | None = None,
    *,
    max_components: int = 1000,
    min_main_share: float = 0.9,
    min_confidence: float = 0.6,
) -> list[Flag]:
    """Flags of the structures.

    Args:
        rows: figures of the structures.
        expected: what the model's card says of its input.
        max_components: pieces a structure may have. The cerebrospinal fluid of a correct map at 1 mm has up to 600.
        min_main_share: fraction of its voxels that a structure's largest pieces, as many as it has by nature, must
            hold.
        min_confidence: mean confidence a structure must have where the card does not say.
    """
    expected = expected or {}
    by_name = {row["name"]: row for row in rows}
    flags: list[Flag] = []
    for row in rows:
        name = row["name"]
        if not row["voxels"]:
            flags.append(_flag("empty", name, "structure has no voxel", 0))
            continue
        flags += _shape_flags(row, expected, max_components, min_main_share)
        flags += _figure_flags(row, expected, min_confidence)
        flags += _misplaced(name, by_name, expected)
        flags += _too_dark(name, by_name, expected)
    return flags


def _shape_flags(
    row: StructureRow, expected: Expectations, max_components: int, min_main_share: float
) -> Iterator[Flag]:
    """Flags of a structure that is cut off, or in pieces."""
    name, main = row["name"], row["main_share"]
    if row["touches_border"]:
        yield _flag("touches_border", name, "structure reaches the border of the scan", True)
    if row["components"] > max_components:
        yield _flag("fragments", name, f"structure has more than {max_components} pieces", row["components"])
    if row["id"] not in expected.get("attached", ()) and main is not None and main < min_main_share:
        rule = f"{row['main_pieces']} largest pieces hold less than {min_main_share:.0%} of the structure"
        yield _flag("fragments", name, rule, main)


def _figure_flags(row: StructureRow, expected: Expectations, min_confidence: float) -> Iterator[Flag]:
    """Flags of a structure whose volume or confidence lies outside its limits."""
    name, volume, score = row["name"], row["volume_ml"], row["mean_confidence"]
    limits = (expected.get("volume_range_ml") or {}).get(name)
    if volume is not None and limits is not None and not limits[0] <= volume <= limits[1]:
        rule = f"volume outside the training range {limits[0]:g} to {limits[1]:g} mL"
        yield _flag("volume_range", name, rule, volume)
    limit = (expected.get("min_confidence") or {}).get(name, min_confidence)
    if row["id"] not in expected.get("attached", ()) and score is not None and score < limit:
        yield _flag("low_confidence", name, f"mean confidence below {limit:g}", score)


def sided_positions(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Where left structures belong, for every name with `left` whose partner with `right` is there, too."""
    known = set(names)
    for name in names:
        for left, right in _SIDES.items():
            partner = re.sub(rf"(?<![A-Za-z]){left}(?![A-Za-z])", right, name)
            if partner != name and partner in known:
                yield name, "L", partner


def _misplaced(name: str, rows: Mapping[str, StructureRow], expected: Expectations) -> Iterator[Flag]:
    """Flags of one structure that does not lie where it belongs, seen from another."""
    for structure, letter, other in [*sided_positions(list(rows)), *(expected.get("positions") or ())]:
        if structure != name or other not in rows:
            continue
        axis, sign, words = DIRECTIONS[letter]
        here, there = rows[structure]["centroid_mm"], rows[other]["centroid_mm"]
        if here is not None and there is not None and sign * (here[axis] - there[axis]) < 0:
            rule = f"its centre should lie {words} that of {other}; mm on the wrong side"
            yield _flag("position", name, rule, round(abs(here[axis] - there[axis]), 2))


def _too_dark(name: str, rows: Mapping[str, StructureRow], expected: Expectations) -> Iterator[Flag]:
    """The flag of one structure that is not brighter than the next in the order of brightness."""
    order = [structure for structure in expected.get("brightest_first") or () if structure in rows]
    for brighter, darker in itertools.pairwise(order):
        here, there = rows[brighter]["mean_intensity"], rows[darker]["mean_intensity"]
        if brighter == name and here is not None and there is not None and here <= there:
            yield _flag("intensity", name, f"should be brighter than {darker} ({there:.4g} on average)", here)


def _flag(code: str, structure: str | None, rule: str, value: float | bool) -> Flag:
    return {"code": code, "structure": structure, "rule": rule, "value": value}
