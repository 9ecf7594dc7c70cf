"""Each quality flag: raised by what its rule says, silent otherwise, with its threshold in words."""

import json
from typing import Any

import numpy as np
import pytest

from medvision.contract import InputContract
from medvision.findings.flags import DIRECTIONS, Flag, scan_flags, sided_positions, structure_flags
from medvision.findings.statistics import StructureRow, structure_rows
from medvision.models.catalogue import model_card
from medvision.volumes.files import read_volume
from medvision.volumes.geometry import Grid
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError
from tests.medvision.phantoms import make_affine, make_image, write_scan

GOOD: StructureRow = {
    "id": 1,
    "name": "one",
    "voxels": 1000,
    "components": 2,
    "main_pieces": 2,
    "touches_border": False,
    "volume_ml": 1.0,
    "centroid_mm": [0.0, 0.0, 0.0],
    "mean_intensity": 5.0,
    "mean_confidence": 0.9,
    "largest_share": 0.5,
    "main_share": 1.0,
    "reasons": {},
}
SHAPE = (9, 10, 11)


def changed(**change: Any) -> Any:
    """The good row, with other figures."""
    return {**GOOD, **change}


def summed(flags: list[Flag]) -> list[tuple[str, str | None]]:
    return [(flag["code"], flag["structure"]) for flag in flags]


def test_nothing_to_flag() -> None:
    """A pair of organs within every limit, the limits themselves included."""
    assert structure_flags([GOOD], {"volume_range_ml": {"one": [1.0, 2.0], "other": [5, 6]}}) == []
    assert structure_flags([changed(components=1000, main_share=0.9, mean_confidence=0.6)]) == []
    grid = Grid.from_affine(SHAPE, np.diag([1.0, 1, 3, 1]))
    assert scan_flags(np.ones(SHAPE, np.float32), grid, "T1-weighted MRI") == []


@pytest.mark.parametrize(
    ("change", "code", "value", "threshold"),
    [
        ({"touches_border": True, "volume_ml": None}, "touches_border", True, "border"),
        ({"components": 1001}, "fragments", 1001, "1000"),
        ({"main_share": 0.89}, "fragments", 0.89, "90%"),
        ({"volume_ml": 0.99}, "volume_range", 0.99, "1 to 2.5 mL"),
        ({"volume_ml": 2.51}, "volume_range", 2.51, "1 to 2.5 mL"),
        ({"mean_confidence": 0.59}, "low_confidence", 0.59, "0.6"),
        ({"voxels": 0, "main_share": None, "volume_ml": None, "mean_confidence": None}, "empty", 0, "no voxel"),
    ],
)
def test_each_rule_raises_its_flag(change: dict[str, Any], code: str, value: Any, threshold: str) -> None:
    (flag,) = structure_flags([changed(**change)], {"volume_range_ml": {"one": [1.0, 2.5]}})
    assert (flag["code"], flag["structure"], flag["value"]) == (code, "one", value)
    assert threshold in flag["rule"]


def test_thresholds_can_be_set_and_a_card_goes_first() -> None:
    flags = structure_flags([GOOD], max_components=1, min_main_share=1.1, min_confidence=0.95)
    assert [flag["code"] for flag in flags] == ["fragments", "fragments", "low_confidence"]
    (flag,) = structure_flags([GOOD], {"min_confidence": {"one": 0.91}})
    assert flag["rule"] == "mean confidence below 0.91"
    assert structure_flags([changed(mean_confidence=0.3)], {"min_confidence": {"one": 0.2}}) == []


def test_what_is_scattered_by_nature_is_judged_by_neither_pieces_nor_confidence() -> None:
    row = changed(main_share=0.3, mean_confidence=0.2)
    assert [flag["code"] for flag in structure_flags([row])] == ["fragments", "low_confidence"]
    assert structure_flags([row], {"attached": [row["id"]]}) == []


@pytest.mark.parametrize("letter", DIRECTIONS)
def test_a_structure_on_the_wrong_side_of_another(letter: str) -> None:
    axis, sign, words = DIRECTIONS[letter]
    assert axis == ["RL", "AP", "SI"].index(next(pair for pair in ("RL", "AP", "SI") if letter in pair))
    place = [3.0, 3.0, 3.0]
    place[axis] = 3.0 + 2.5 * sign
    rows = [changed(name="a", centroid_mm=place), changed(name="b", centroid_mm=[3.0, 3.0, 3.0])]
    assert structure_flags(rows, {"positions": [["a", letter, "b"]]}) == []
    (flag,) = structure_flags(rows, {"positions": [["b", letter, "a"]]})
    assert (flag["code"], flag["structure"], flag["value"]) == ("position", "b", 2.5)
    assert f"{words} that of a" in flag["rule"]
    rows[0] |= {"touches_border": True, "centroid_mm": None}  # of a part nothing is known
    assert summed(structure_flags(rows, {"positions": [["b", letter, "a"]]})) == [("touches_border", "a")]


def test_left_and_right_are_known_by_name() -> None:
    names = ["kidney_left", "kidney_right", "Left-Hippocampus", "Right-Hippocampus", "left_lung", "cleft", "cright"]
    assert list(sided_positions(names)) == [
        ("kidney_left", "L", "kidney_right"),
        ("Left-Hippocampus", "L", "Right-Hippocampus"),
    ]
    rows = [
        changed(name="kidney_left", centroid_mm=[4.0, 0, 0]),
        changed(name="kidney_right", centroid_mm=[-3.0, 0, 0]),
    ]
    (flag,) = structure_flags(rows)
    assert (flag["code"], flag["structure"], flag["value"]) == ("position", "kidney_left", 7.0)
    rows[0]["centroid_mm"] = [-4.0, 0, 0]
    assert structure_flags(rows) == []


def test_a_structure_darker_than_its_modality_shows_it() -> None:
    rows = [changed(name=name, mean_intensity=value) for name, value in (("a", 5.0), ("b", 7.0), ("c", None))]
    assert structure_flags(rows, {"brightest_first": ["b", "absent", "a", "c"]}) == []
    (flag,) = structure_flags(rows, {"brightest_first": ["a", "b"]})
    assert (flag["code"], flag["structure"], flag["value"]) == ("intensity", "a", 5.0)
    assert flag["rule"] == "should be brighter than b (7 on average)"


@pytest.mark.parametrize(
    ("modality", "lowest", "flagged"),
    [
        ("T1-weighted MRI", 0, False),
        ("T1-weighted MRI", -1000, True),
        ("MR", -6, False),  # scaled to mean 0
        ("CT", -1000, False),
        ("CT", 0, True),
        ("Primrose CTA", 0, False),  # neither word
        (None, -1000, False),
    ],
)
def test_intensities_unlike_the_modality(modality: str | None, lowest: float, flagged: bool) -> None:
    image = np.full(SHAPE, 40, np.float32)
    image[0] = lowest
    flags = scan_flags(image, Grid.from_affine(SHAPE, np.eye(4)), modality)
    assert [(flag["code"], flag["value"]) for flag in flags] == [("intensity", lowest)] * flagged


def test_flags_of_geometry() -> None:
    image = np.ones(SHAPE, np.float32)
    (flag,) = scan_flags(image, Grid.from_affine(SHAPE, np.diag([1.5, 5.0, 1.25, 1])), None)
    assert (flag["code"], flag["structure"], flag["value"]) == ("anisotropy", None, 4.0)
    assert "3 times" in flag["rule"]
    assert scan_flags(image, Grid.from_affine(SHAPE, np.diag([1.5, 5.0, 1.25, 1])), None, max_anisotropy=4) == []


@pytest.mark.parametrize("geometry", ["sform", "qform"])
def test_a_choice_between_forms_that_disagree_is_flagged(tmp_path, geometry: str) -> None:
    affine = make_affine("LPI", (2, 2, 2))
    fields = {"srow_x": [2, 0, 0, affine[0, 3] + 3]}
    scan = write_scan(tmp_path / "scan.nii", make_image(SHAPE), affine, fields=fields)
    volume = read_volume(scan, geometry=geometry)
    (flag,) = scan_flags(volume.data, volume.grid, None)
    assert (flag["code"], flag["structure"]) == ("orientation", None)
    assert flag["value"] > 0.1 and "0.1 voxels" in flag["rule"]
    json.dumps(flag, allow_nan=False)


def test_a_header_without_orientation_is_flagged(tmp_path) -> None:
    codes = {"qform_code": 0, "sform_code": 0}
    volume = read_volume(write_scan(tmp_path / "scan.nii", make_image(SHAPE), np.eye(4), fields=codes))
    (flag,) = scan_flags(volume.data, volume.grid, None)
    assert (flag["code"], flag["value"]) == ("orientation", True)


def test_every_fallback_is_a_flag() -> None:
    flags = scan_flags(np.ones(SHAPE), Grid.from_affine(SHAPE, np.eye(4)), None, ["cuda ran out of memory", "b"])
    assert [(flag["code"], flag["rule"]) for flag in flags] == [
        ("fallback", "cuda ran out of memory"),
        ("fallback", "b"),
    ]


def test_flags_of_a_measured_map_are_plain_json() -> None:
    classes: list[ClassEntry] = [
        {"id": 0, "name": "background"},
        {"id": 1, "name": "one"},
        {"id": 4, "name": "four"},
    ]
    labels = np.zeros((9, 9, 9), dtype=np.uint8)
    labels[0:3, 1:3, 1:3] = labels[5, 5, 5] = labels[7, 7, 7] = 1
    rows = structure_rows(labels, labels.astype(np.float32), np.eye(4), classes, {1: 0.25})
    flags = structure_flags(rows, {"volume_range_ml": {"one": [0.1, 0.2]}})
    assert summed(flags) == [("touches_border", "one"), ("low_confidence", "one"), ("empty", "four")]
    assert json.loads(json.dumps(flags)) == flags


@pytest.mark.parametrize(
    "wrong",
    [
        {"volume_range_ml": {"brainstem": [5, 2]}},
        {"volume_range_ml": {"brainstem": 5}},
        {"volume_range_ml": {"liver": [1, 2]}},
        {"min_confidence": {"brainstem": 1.5}},
        {"min_confidence": ["brainstem"]},
        {"expected_dice": {"knots": {"brainstem": [[0.5, 0.2], [0.1, 0.2]]}}},
        {"expected_dice": {"knots": {"brainstem": [[0.2, 0.5], [0.1]]}}},
        {"expected_dice": {"knots": {"brainstem": [[0.2, 0.5], [0.1, 1.5]]}}},
        {"expected_dice": {"knots": {"liver": [[0.5], [0.1]]}}},
        {"brightest_first": ["liver"]},
        {"brightest_first": "brainstem"},
        {"positions": [["brainstem", "X", "ventricles"]]},
        {"positions": [["brainstem", "I"]]},
        {"positions": [["brainstem", "I", ["ventricles"]]]},
    ],
)
def test_a_card_whose_expectations_cannot_be_compared_with_is_refused(wrong: dict[str, Any]) -> None:
    card = model_card("brain-structures")
    InputContract.from_card(card, "right")
    card["input"] = {**card["input"], **wrong}
    with pytest.raises(InputError, match="model wrong: its card cannot be used"):
        InputContract.from_card(card, "wrong")
