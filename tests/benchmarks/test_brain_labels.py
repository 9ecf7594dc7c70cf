"""The bundled model gives all real scans the labels that it gave before, in both modes."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.golden.brain_labels import DEMO, MODES, SCANS, check


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCANS)
def test_labels_of_a_real_scan(name: str, mode: str, data_root: Path, tmp_path: Path):
    if name == DEMO and find_spec("nilearn") is None:
        pytest.skip("the demo scan comes with nilearn; install the extra demo")
    check(name, mode, data_root, tmp_path)
