"""The bundled model gives two real scans the labels that it gave before; `tests/benchmarks` compares all scans.

`python -m tests.golden.brain_labels` writes what is expected.
"""

from pathlib import Path

import pytest

from tests.golden.brain_labels import check


@pytest.mark.parametrize(("name", "mode"), [("vxm_test_scan", "fast"), ("1000", "default")])
def test_labels_of_a_real_scan(name: str, mode: str, data_root: Path, tmp_path: Path):
    check(name, mode, data_root, tmp_path)
