"""Pixels of padding have the lowest real value, however the header writes theirs."""

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement

from medvision.dicom.series import read_series
from tests.medvision.dicom.dicoms import AFFINE, SHAPE, expect, make_enhanced, make_slices, refused, write_series

REAL = np.random.default_rng(1).integers(100, 3000, SHAPE).astype(np.int16)
OUTSIDE = np.add.outer(np.add.outer(np.arange(9), np.arange(10)), np.arange(11)) < 9


def padded(folder: Path, data: np.ndarray, tags: dict[str, int], signed: int, kind: str) -> Path:
    slices = make_slices(data, AFFINE, slope=2, intercept=-1024, PixelRepresentation=signed)
    for dataset in slices:
        for key, value in tags.items():
            packed = np.array(value).astype(np.int64).astype({"SS": "<i2", "US": "<u2"}[kind])
            dataset[key] = DataElement(key, kind, int(packed))
    return write_series(folder, slices)


@settings(max_examples=25, deadline=None)
@given(
    value=st.sampled_from([-32768, -2000, -1, 0, 32767]), width=st.sampled_from([None, 0, 5]),
    signed=st.integers(0, 1), kind=st.sampled_from(["US", "SS"]),
)  # fmt: skip
def test_padding_of_any_value_becomes_the_lowest_real_one(
    tmp_path_factory: Any, value: int, width: int | None, signed: int, kind: str
):
    value = max(value - (width or 0), -32768)
    tags = {"PixelPaddingValue": value} | ({} if width is None else {"PixelPaddingRangeLimit": value + width})
    data = REAL.copy()
    data[OUTSIDE] = value
    if width:
        data[0, 0, 0] = value + width
    volume = read_series(padded(tmp_path_factory.mktemp("a") / "s", data, tags, signed, kind))
    expected = 2.0 * REAL - 1024
    expected[OUTSIDE] = expected[~OUTSIDE].min()
    expect(volume, expected.astype(np.float32), AFFINE)


def test_padding_of_multi_frame_images_and_of_resampled_ones(tmp_path: Path):
    data = REAL.copy()
    data[OUTSIDE] = -32768
    image = make_enhanced(data, AFFINE)
    image[0x00280120] = DataElement(0x00280120, "SS", -32768)
    (tmp_path / "a").mkdir()
    image.save_as(tmp_path / "a/x.dcm", enforce_file_format=True)
    lowest = REAL[~OUTSIDE].min()
    expect(read_series(tmp_path / "a"), np.where(OUTSIDE, lowest, REAL).astype(np.float32), AFFINE)
    tilted = AFFINE.copy()
    tilted[1, 2] = 0.5
    slices = make_slices(data, tilted)
    for dataset in slices:
        dataset[0x00280120] = DataElement(0x00280120, "SS", -32768)
    volume = read_series(write_series(tmp_path / "b", slices), resample_irregular=True)
    assert volume.resampled and volume.data.min() == lowest


def test_a_series_of_nothing_but_padding_is_refused(tmp_path: Path):
    slices = make_slices(np.full(SHAPE, -5, np.int16), AFFINE)
    for dataset in slices:
        dataset[0x00280120] = DataElement(0x00280120, "SS", -5)
    assert "every pixel is padding" in refused(tmp_path / "s", slices)


def test_slopes_that_overflow_are_refused(tmp_path: Path):
    for key in ("RescaleSlope", "RescaleIntercept"):
        slices = make_slices(REAL, AFFINE)
        slices[3].__setattr__(key, "1e35")
        assert f"{key} has 1 values; expected 1 finite ones" in refused(tmp_path / key, slices)
