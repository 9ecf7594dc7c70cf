"""What looks like a CT, and what only has negative values."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvision.volumes.files import read_volume
from medvision.volumes.hounsfield import looks_like_hounsfield
from tests.medvision.heads import make_head_labels

TISSUES = {507: 900, 502: 60, 24: 10, 3: 38, 42: 38, 2: 28, 41: 28}


def make_ct(rng: np.random.Generator) -> np.ndarray:
    """A head in Hounsfield units with noise."""
    labels = make_head_labels(32)
    values = np.full(labels.shape, 32.0)
    values[labels == 0] = -1000
    for number, value in TISSUES.items():
        values[labels == number] = value
    return (values + rng.normal(0, 15, labels.shape)).astype(np.float32)


@given(seed=st.integers(0, 99), table=st.booleans(), padding=st.sampled_from([None, -1024, -2048, -3024]))
def test_heads_in_hounsfield_units_look_so(seed: int, table: bool, padding: int | None):
    image = make_ct(np.random.default_rng(seed))
    if table:
        image[:, :2] = -300
    if padding is not None:
        image[:3] = padding
    assert looks_like_hounsfield(image)


@given(seed=st.integers(0, 99), scale=st.floats(0.05, 4), offset=st.floats(-3000, 500))
def test_other_heads_do_not_whatever_their_sign(seed: int, scale: float, offset: float):
    random = np.random.default_rng(seed)
    labels = make_head_labels(32)
    table = random.uniform(50, 900, 600)
    table[0] = 0
    image = (table[labels] + random.normal(0, 20, labels.shape)) * scale + offset
    tissue = image[image > -500]
    soft = np.mean((tissue > -20) & (tissue < 120)) if tissue.size else 0
    air = np.mean(np.abs(image + 1000) < 150)
    assert not looks_like_hounsfield(image.astype(np.float32)) or (soft > 0.3 and air > 0.05)
    centred = (image - image.mean()) / image.std()
    assert not looks_like_hounsfield(centred.astype(np.float32))


def test_constant_volumes_do_not():
    assert not looks_like_hounsfield(np.full((9, 9, 9), -1000, np.float32))


@pytest.mark.parametrize(("name", "expected"), [("ct", True), ("ct_sm", True), ("mr_sm", False)])
def test_real_scans(data_root: Path, name: str, expected: bool):
    image = read_volume(data_root / f"medical/ct_mr_totalseg/example_{name}.nii.gz").data
    assert looks_like_hounsfield(image) == expected
