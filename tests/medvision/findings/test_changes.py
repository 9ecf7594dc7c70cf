"""What changed since an earlier result."""

from typing import Any

import numpy as np
import pytest

from medvision.findings.changes import changes

ROWS: Any = [
    {"id": 1, "name": "cortex", "volume_ml": 440.0},
    {"id": 2, "name": "hippocampus", "volume_ml": 3.0},
    {"id": 3, "name": "brainstem", "volume_ml": None},
    {"id": 4, "name": "thalamus", "volume_ml": 6.0},
]
EARLIER: Any = {
    "structures": [  # of another model, with other ids
        {"id": 17, "name": "hippocampus", "volume_ml": 4.0},
        {"id": 3, "name": "cortex", "volume_ml": 400.0},
        {"id": 16, "name": "brainstem", "volume_ml": 20.0},
    ]
}
LABELS = np.array([1, 1, 2, 2, 0, 3])
BEFORE = np.array([3, 0, 17, 17, 17, 0])


def test_structures_of_one_name_are_compared_whatever_their_ids():
    cortex, hippocampus, brainstem, thalamus = changes(ROWS, EARLIER, LABELS, BEFORE)
    assert (cortex["change_ml"], cortex["change_share"]) == (40, pytest.approx(0.1))
    assert (hippocampus["change_ml"], hippocampus["change_share"]) == (-1, -0.25)
    assert cortex.get("dice") == pytest.approx(2 / 3) and hippocampus.get("dice") == pytest.approx(0.8)
    assert (brainstem["earlier_ml"], brainstem["change_ml"], brainstem.get("dice")) == (20, None, 0)
    assert thalamus["earlier_ml"] is None and thalamus["change_share"] is None and "dice" not in thalamus


def test_scans_that_differ_have_volumes_alone():
    assert all("dice" not in row for row in changes(ROWS, EARLIER, LABELS, None))
