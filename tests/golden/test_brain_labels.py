"""The bundled models give real scans the labels that it gave before; `tests/benchmarks` compares all scans.

`python -m tests.golden.brain_labels` writes what is expected.
"""

from pathlib import Path

import pytest

from tests.golden.brain_labels import check


@pytest.mark.parametrize(
    ("name", "model", "mode"),
    [
        ("vxm_test_scan", "brain-structures-1", "fast"),
        ("1000", "brain-structures-1", "default"),
        ("vxm_test_scan", "brain-structures", "fast"),
        ("1000", "brain-structures", "default"),
    ],
)
def test_labels_of_a_real_scan(name: str, model: str, mode: str, data_root: Path, tmp_path: Path):
    check(name, model, mode, data_root, tmp_path)
