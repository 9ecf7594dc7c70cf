"""Numbers of headers in other forms than the standard's: read where they can mean one thing, else named."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement

from medvision.dicom.numbers import numbers
from medvision.dicom.series import read_series
from shared_backbones.errors import InputError
from tests.medvision.dicom.dicoms import STORED, expect, make_slices, refusal, write_series
from tests.medvision.phantoms import make_affine

AFFINE = make_affine("LPS", (1, 2, 3))
COMMAS = {"PixelSpacing": "2,0\\1,0", "RescaleSlope": "1,0", "ImageOrientationPatient": "1,0\\0,0\\0\\0\\1,0\\0,0"}


def write_as(folder: Path, key: str, text: str, kind: str) -> Path:
    """A series whose attribute is this text, of any type."""
    slices = make_slices(STORED, AFFINE)
    for dataset in slices:
        dataset[key] = DataElement(key, "UT", text)
    write_series(folder, slices)
    tag = tag_for_keyword(key)
    assert tag is not None
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    for path in folder.iterdir():
        content = path.read_bytes()
        place = content.index(start + b"UT")
        size = content[place + 8 : place + 12]
        begin = bytes(2) + size if kind in ("UN", "UT") else size[:2]
        path.write_bytes(content[:place] + start + kind.encode() + begin + content[place + 12 :])
    return folder


@pytest.mark.parametrize("kind", ["DS", "UT", "UN", "LO", "SH"])
@pytest.mark.parametrize("key", COMMAS)
def test_text_of_any_type_with_points_or_commas_is_read(tmp_path: Path, key: str, kind: str):
    for name, text in (("commas", COMMAS[key]), ("points", COMMAS[key].replace(",", "."))):
        volume = read_series(write_as(tmp_path / name, key, text, kind))
        expect(volume, STORED.astype(np.float32), AFFINE)
        assert volume.warnings == []


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("PixelSpacing", "1,5"),  # one and a half, or one and five
        ("PixelSpacing", "0,5,0,5"),
        ("PixelSpacing", "1.5mm\\1.5mm"),
        ("RescaleSlope", "1.234,5"),
        ("ImagePositionPatient", "1\\2\\3 mm"),
    ],
)
def test_what_can_mean_several_things_is_named_with_its_value(tmp_path: Path, key: str, text: str):
    line = refusal(lambda: read_series(write_as(tmp_path / "s", key, text, "DS")))
    assert f"its {key} is '{text}'; expected" in line and "with decimal points; export it again" in line


def test_values_that_are_no_numbers_are_not_quoted(tmp_path: Path):
    line = refusal(lambda: read_series(write_as(tmp_path / "s", "PixelSpacing", "DOE^JOHN", "UT")))
    assert "its PixelSpacing is no number" in line and "DOE" not in line


finite = st.floats(-1e5, 1e5).map(lambda number: round(number, 3))


@given(values=st.lists(finite, min_size=1, max_size=6), comma=st.booleans(), packed=st.booleans())
def test_decimal_commas_mean_what_points_mean(values: list[float], comma: bool, packed: bool):
    text: Any = "\\".join(f"{value:.3f}".replace(".", "," if comma else ".") for value in values)
    assert numbers(text.encode() if packed else text, "ImagePositionPatient", len(values), "a") == values


@given(values=st.lists(finite, min_size=2, max_size=6))
def test_commas_between_values_are_seen_where_points_are_decimal(values: list[float]):
    assert numbers(",".join(f"{value:.3f}" for value in values), "PixelSpacing", len(values), "a") == values


@given(text=st.text(max_size=20), count=st.integers(1, 6))
def test_any_text_is_numbers_or_ends_in_one_line(text: str, count: int):
    try:
        assert len(numbers(text, "PixelSpacing", count, "a")) == count
    except InputError as error:
        assert "\n" not in str(error) and str(error).isprintable()
