"""The bundled models give all real scans the labels that it gave before, in both modes."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.golden.brain_labels import DEMO, MODELS, MODES, SCANS, check


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("model", MODELS)
def test_labels_of_a_real_scan(name: str, model: str, mode: str, data_root: Path, tmp_path: Path):
    if name == DEMO and find_spec("nilearn") is None:
        pytest.skip("the demo scan comes with nilearn; install the extra demo")
    check(name, model, mode, data_root, tmp_path)
