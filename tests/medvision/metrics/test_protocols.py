"""Each protocol on masks whose figures are known, and beside MONAI."""

import numpy as np
import pytest
import torch

from medvision.metrics.protocols import PROTOCOLS, aggregate, evaluate_case
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError

CLASSES: list[ClassEntry] = [{"id": 0, "name": "background"}, {"id": 1, "name": "part"}]


def cube(*bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[tuple(slice(*b) for b in bounds)] = 1
    return mask


REFERENCE = cube((5, 15), (5, 15), (5, 15))
VOXEL = np.zeros((20, 20, 20), np.uint8)
VOXEL[0, 0, 0] = 1
POINT = np.zeros((20, 20, 20), np.uint8)
POINT[10, 10, 10] = 1
# What medpy 0.5.2 gives for a cube [5, 15)³.
MEDPY = [
    (cube((6, 16), (5, 15), (5, 15)), 0.9, 1.0),
    (cube((8, 18), (5, 15), (5, 15)), 0.7, 3.0),
    (cube((7, 13), (7, 13), (7, 13)), 0.355263, 2.837006),
    (cube((5, 10), (5, 15), (5, 15)), 0.666667, 5.0),
    (REFERENCE | VOXEL, 0.999500, 0.0),
    (POINT, 0.001998, 7.469288),
]


@pytest.mark.parametrize("protocol", ["synapse-transunet", "hbformer"])
@pytest.mark.parametrize(("prediction", "dice", "hd95"), MEDPY)
def test_published_scores_are_those_of_medpy(prediction, dice, hd95, protocol):
    # whatever the spacing: published distances are in voxels
    (row,) = evaluate_case(prediction, REFERENCE, (0.8, 0.8, 3.0), CLASSES, protocol)
    assert row["state"] == "scored"
    assert (row["dice"], row["hd95_mm"]) == (pytest.approx(dice, abs=1e-6), pytest.approx(hd95, abs=1e-6))


EMPTY = np.zeros_like(REFERENCE)
RULES = {
    "default": ((None, None), (0, None), (0, None)),
    "synapse-transunet": ((0, 0), (1, 0), (0, 0)),
    "hbformer": ((1, 0), (0, 0), (0, 0)),
    "nnunet": ((None, None), (0, None), (0, None)),
    "monai": ((None, None), (None, None), (0, None)),
}


@pytest.mark.parametrize("protocol", list(RULES))
def test_empty_masks_follow_the_protocol_and_keep_their_state(protocol):
    pairs = {"both_empty": (EMPTY, EMPTY), "false_positive": (REFERENCE, EMPTY), "missed": (EMPTY, REFERENCE)}
    for (state, pair), expected in zip(pairs.items(), RULES[protocol], strict=True):
        (row,) = evaluate_case(*pair, (1, 1, 1), CLASSES, protocol)
        assert (row["state"], row["dice"], row["hd95_mm"]) == (state, *expected)
    assert set(RULES) == set(PROTOCOLS)


@pytest.mark.filterwarnings("ignore")
def test_monai_gives_the_same():
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice

    prediction, spacing = cube((6, 17), (4, 13), (5, 15)), (0.7, 1.0, 2.0)
    (row,) = evaluate_case(prediction, REFERENCE, spacing, CLASSES, "monai")
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, REFERENCE))
    assert row["dice"] == pytest.approx(compute_dice(a, b).item(), rel=1e-6)
    distance = compute_hausdorff_distance(a, b, percentile=95, spacing=spacing, include_background=True)
    assert row["hd95_mm"] == pytest.approx(distance.item(), rel=1e-5)


def test_means_are_over_cases_first_and_leave_out_what_is_undefined():
    rows = [
        {"id": 1, "name": "a", "state": "scored", "dice": 0.5, "hd95_mm": 2.0, "nsd": 1.0},
        {"id": 1, "name": "a", "state": "both_empty", "dice": None, "hd95_mm": None, "nsd": None},
        {"id": 2, "name": "b", "state": "missed", "dice": 0.0, "hd95_mm": None, "nsd": None},
        {"id": 2, "name": "b", "state": "scored", "dice": 1.0, "hd95_mm": 1.0, "nsd": 0.5},
        {"id": 2, "name": "b", "state": "scored", "dice": 0.5, "hd95_mm": 3.0, "nsd": 0.5},
    ]
    found = aggregate(rows)
    assert [row["dice"] for row in found["classes"]] == [0.5, 0.5]
    assert [row["hd95_mm"] for row in found["classes"]] == [2.0, 2.0]
    assert found["overall"] == {"dice": 0.5, "hd95_mm": 2.0, "nsd": 0.75}
    assert found["classes"][1]["states"] == {"scored": 2, "missed": 1, "false_positive": 0, "both_empty": 0}


def test_an_unknown_protocol_is_named():
    with pytest.raises(InputError, match="protocol 'medpy' is unknown; expected one of: default, synapse-transunet"):
        evaluate_case(EMPTY, EMPTY, (1, 1, 1), CLASSES, "medpy")
