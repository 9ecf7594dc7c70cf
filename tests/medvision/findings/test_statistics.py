"""Figures per structure, and the reasons of missing ones."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvision.findings.statistics import StructureRow, structure_rows
from shared_backbones.card import ClassEntry

CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "background", "color": [0, 0, 0]},
    {"id": 1, "name": "one", "color": [255, 0, 0]},
    {"id": 4, "name": "four", "color": [0, 255, 0]},
]


def row_of(mask: np.ndarray, image: np.ndarray | None = None, **options: Any) -> StructureRow:
    """The row of one structure with label 1."""
    image = np.ones(mask.shape, dtype=np.float32) if image is None else image
    (row,) = structure_rows(mask.astype(np.uint8), image, options.pop("affine", np.eye(4)), CLASSES[:2], **options)
    return row


def test_row_of_a_known_structure() -> None:
    labels = np.zeros((10, 11, 12), dtype=np.uint8)
    labels[2:5, 2:4, 2:7] = 1  # 30 voxels
    labels[7, 7, 7:9] = 1  # 2 voxels
    labels[8, 2, 2] = 3  # a label nobody asked for
    labels[3, 8, 8] = 9  # the same, above the highest id
    image = np.full(labels.shape, 1000, dtype=np.float32)
    image[labels == 1] = np.arange(32)
    row, absent = structure_rows(labels, image, np.diag([-0.5, 2.0, 3.0, 1.0]), CLASSES, {1: 0.875, 4: 0.5})
    assert row == {
        "id": 1,
        "name": "one",
        "voxels": 32,
        "components": 2,
        "main_pieces": 2,
        "touches_border": False,
        "volume_ml": pytest.approx(32 * 3 / 1000),
        "mean_intensity": 15.5,
        "mean_confidence": 0.875,
        "largest_share": 30 / 32,
        "main_share": 1.0,
        "centroid_mm": pytest.approx(
            [-0.5 * (30 * 3 + 2 * 7) / 32, 2 * (30 * 2.5 + 2 * 7) / 32, 3 * (30 * 4 + 15) / 32], abs=0.005
        ),
        "reasons": {},
    }
    figures = ("volume_ml", "centroid_mm", "mean_intensity", "mean_confidence", "largest_share", "main_share")
    assert absent == {
        "id": 4,
        "name": "four",
        "voxels": 0,
        "components": 0,
        "main_pieces": 2,
        "touches_border": False,
        **dict.fromkeys(figures),
        "reasons": dict.fromkeys(figures, "empty"),
    }


def test_volume_follows_the_determinant_of_an_oblique_sheared_affine() -> None:
    linear = np.array([[0.9, 0.3, -0.1], [-0.4, 1.1, 0.2], [0.05, 0.3, 2.0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, [-90, 120, 7]
    mask = np.pad(np.ones((4, 5, 6), dtype=bool), 1)
    assert row_of(mask, affine=affine)["volume_ml"] == pytest.approx(120 * np.linalg.det(linear) / 1000)
    affine[:, 0] *= -1  # the other handedness
    assert row_of(mask, affine=affine)["volume_ml"] == pytest.approx(120 * np.linalg.det(linear) / 1000)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, -1])
def test_structure_cut_by_the_edge_has_no_volume(axis: int, side: int) -> None:
    mask = np.pad(np.ones((4, 4, 4), dtype=bool), 2)
    assert row_of(mask)["touches_border"] is False
    at_edge = [4, 4, 4]
    at_edge[axis] = side
    mask[tuple(at_edge)] = True
    row = row_of(mask, confidence={1: 0.5})
    assert row["touches_border"] is True
    assert row["volume_ml"] is None
    assert row["reasons"] == {"volume_ml": "touches_border", "centroid_mm": "touches_border"}
    assert (row["voxels"], row["mean_intensity"], row["mean_confidence"]) == (65, 1.0, 0.5)


@pytest.mark.parametrize("confidence", [None, {}, {1: None}, {1: float("nan")}])
def test_missing_confidence_says_so(confidence: dict[int, float | None] | None) -> None:
    row = row_of(np.pad(np.ones((2, 2, 2), dtype=bool), 1), confidence=confidence)
    assert row["mean_confidence"] is None
    assert row["reasons"] == {"mean_confidence": "not_measured"}


def test_intensity_that_is_not_finite_says_so() -> None:
    mask = np.pad(np.ones((2, 2, 2), dtype=bool), 1)
    image = np.ones(mask.shape, dtype=np.float32)
    image[0, 0, 0] = np.nan  # outside the structure: no matter
    assert row_of(mask, image)["mean_intensity"] == 1
    image[1, 1, 1] = np.nan
    row = row_of(mask, image)
    assert row["mean_intensity"] is None
    assert row["reasons"]["mean_intensity"] == "not_finite"


def test_pieces_that_share_a_corner_are_one() -> None:
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert row_of(mask)["components"] == 1
    mask[4, 4, 4] = True
    row = row_of(mask)
    assert (row["components"], row["largest_share"], row["main_share"]) == (2, pytest.approx(2 / 3), 1)
    (row,) = structure_rows(mask.astype(np.uint8), mask, np.eye(4), [{**CLASSES[1], "pieces": 1}])
    assert (row["main_pieces"], row["main_share"]) == (1, pytest.approx(2 / 3))


def test_sums_are_exact_where_float32_would_drift() -> None:
    image = np.full((40, 160, 160), 1000.1, dtype=np.float32)
    row = row_of(np.ones(image.shape, dtype=bool), image)
    assert row["mean_intensity"] == pytest.approx(float(image[0, 0, 0]), rel=1e-10)


def test_different_shapes_raise() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4, 4\).*\(4, 4, 5\)"):
        structure_rows(np.ones((4, 4, 4), np.uint8), np.ones((4, 4, 5)), np.eye(4), CLASSES)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.uint64]),
    orders=st.tuples(*[st.sampled_from(["C", "F"])] * 2),
)
def test_rows_equal_masks_one_by_one(
    seed: int, shape: tuple[int, int, int], dtype: Any, orders: tuple[Any, Any]
) -> None:
    """The one pass gives what a mask per label gives, whatever the memory order; the rows are plain JSON."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(rng.choice([0, 1, 2, 4, 200], size=shape).astype(dtype), order=orders[0])
    image = np.asarray(rng.normal(100, 30, shape).astype(np.float32), order=orders[1])
    rows = structure_rows(labels, image, np.diag([2, 1, 1, 1]), CLASSES)
    for row in rows:
        mask = labels == row["id"]
        inner = mask[1:-1, 1:-1, 1:-1]
        assert row["voxels"] == mask.sum()
        assert row["touches_border"] == bool(mask.sum() > inner.sum())
        assert row["components"] == ndimage.label(mask, np.ones((3, 3, 3)), output=np.empty(shape, dtype=np.int32))
        if mask.any():
            assert row["mean_intensity"] == pytest.approx(image[mask].mean(dtype=float))
            assert row["volume_ml"] == (None if row["touches_border"] else pytest.approx(mask.sum() * 0.002))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert {type(value) for row in rows for value in row.values()} <= {int, str, float, bool, type(None), dict, list}
