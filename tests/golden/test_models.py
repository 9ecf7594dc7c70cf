"""A trained model of each kind, kept in its folder as it was written, loads and predicts what it predicted then.

`python -m tests.golden.write_trainings` makes the models, `python -m tests.golden.predictions` what is expected.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.predictions import EXPECTED, NAMES, predict
from tests.golden.trainings import MODELS

ALL = json.loads(EXPECTED.read_text("utf-8"))
# Probabilities of maps are stored in steps of 1/255; of labels few may differ, where two classes are as probable.
TOLERANCES = {"probabilities": 0.005, "vectors": 1e-4, "network": 1e-4}


def test_a_model_of_each_kind_is_kept():
    assert sorted(path.name for path in MODELS.iterdir()) == sorted(NAMES) == sorted(ALL)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_predicts_what_it_predicted(name: str, tmp_path: Path):
    found = predict(name, tmp_path)
    assert found.keys() == ALL[name].keys()
    for part, values in ALL[name].items():
        if part == "labels":
            assert np.mean(np.array(found[part]) == np.array(values)) >= 0.98
        else:
            np.testing.assert_allclose(found[part], values, rtol=1e-4, atol=TOLERANCES[part])
