"""Tables of volumes and of labels: what is in them, and that common programs read them."""

import io
import keyword
import re
from typing import Any, get_args

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvision.findings.flags import Flag
from medvision.findings.label_tables import FORMATS
from medvision.findings.statistics import StructureRow
from medvision.findings.tables import LONG, Form, Measured, identifiers, table_text, volume_rows
from medvision.models.catalogue import model_card
from shared_backbones.card import ClassEntry

SYNTACTIC = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # what R and Python take for a name without quotes


def structure(number: int, name: str, volume: float | None = 1.0, **more: float) -> Any:
    row: StructureRow = {
        "id": number, "name": name, "voxels": 10 * number, "components": 1, "main_pieces": 1, "touches_border": False,
        "volume_ml": volume, "centroid_mm": None, "mean_intensity": None, "mean_confidence": 0.12345678,
        "largest_share": None, "main_share": None, "reasons": {},
    }  # fmt: skip
    return {**row, **more}


def read(text: str, **options: Any) -> Any:
    return pandas.read_csv(io.StringIO(text), **options)


def flag(code: str, name: str | None) -> Flag:
    return {"code": code, "structure": name, "rule": "", "value": True}


MEASURED: Measured = {
    "case": "case-00000001",
    "structures": [structure(1, "grey-matter", 2.000049), structure(2, "left ventricle", None)],
    "flags": [flag("anisotropy", None), flag("empty", "left ventricle"), flag("position", "left ventricle")],
    "intracranial_ml": None,
}


def test_the_wide_form_has_a_row_a_scan():
    (row,) = volume_rows(MEASURED)
    assert row == {
        "case": "case-00000001", "intracranial_ml": None, "grey_matter_ml": 2.0, "left_ventricle_ml": None,
        "grey_matter_confidence": 0.1235, "left_ventricle_confidence": 0.1235, "flags": 3,
        "flagged": "anisotropy; empty: left ventricle; position: left ventricle", "grey_matter_left_ml": None,
        "grey_matter_right_ml": None,
    }  # fmt: skip
    assert list(row)[:4] == ["case", "intracranial_ml", "grey_matter_ml", "left_ventricle_ml"]


def test_the_long_form_has_a_row_a_structure():
    head, grey, ventricle = volume_rows(MEASURED, "long")
    assert list(head) == list(grey) == list(ventricle) == list(LONG)
    assert (head["structure"], head["volume_ml"]) == ("intracranial", None)
    assert (grey["id"], grey["structure"], grey["volume_ml"], grey["voxels"], grey["flags"]) == (
        1,
        "grey_matter",
        2.0,
        10,
        0,
    )
    assert (ventricle["flags"], ventricle["flagged"]) == (2, "empty; position")
    assert {row["scan_flags"] for row in (head, grey, ventricle)} == {"anisotropy"}


def test_sides_and_the_intracranial_volume_are_there_where_a_model_gives_them():
    given: Measured = {
        "case": "c", "intracranial_ml": 1500.0, "flags": [],
        "structures": [
            structure(1, "thalamus", 3.0, left_ml=1.25, right_ml=1.75), structure(2, "Left-Hippocampus", 4.0),
        ],
    }  # fmt: skip
    (row,) = volume_rows(given)
    assert (row["intracranial_ml"], row["thalamus_left_ml"], row["thalamus_right_ml"]) == (1500.0, 1.25, 1.75)
    assert row["left_hippocampus_ml"] == 4.0 and "left_hippocampus_left_ml" not in row
    long = {entry["structure"]: entry for entry in volume_rows(given, "long")}
    assert long["intracranial"]["volume_ml"] == 1500.0
    assert (long["thalamus"]["left_ml"], long["left_hippocampus"]["left_ml"]) == (1.25, None)
    given["structures"] = [structure(1, "intracranial", 7.0)]
    assert volume_rows(given)[0]["intracranial_ml"] == 7.0 and len(volume_rows(given, "long")) == 1


@given(
    names=st.lists(st.text(max_size=12), max_size=8)
    | st.lists(st.sampled_from(["a", "a_2", "A", "2", "a-2", "ä", ""]), max_size=8)
)
def test_any_names_become_names_of_columns_each_another(names: list[str]):
    words = identifiers(names)
    assert len(words) == len(set(words)) == len(names)
    assert all(SYNTACTIC.fullmatch(word) for word in words)
    measured: Measured = {
        "case": "c", "intracranial_ml": 1.0, "flags": [],
        "structures": [structure(number, name, float(number)) for number, name in enumerate(names, 2)],
    }  # fmt: skip
    for form in get_args(Form):
        rows = volume_rows(measured, form)
        table = read(table_text(rows))
        assert list(table.columns) == list(rows[0])
        assert all(SYNTACTIC.fullmatch(column) and not keyword.iskeyword(column) for column in table.columns)
    (wide,) = volume_rows(measured)
    assert [wide[f"{word}_ml"] for word in words] == [float(number) for number in range(2, len(names) + 2)]


@given(value=st.none() | st.floats(0, 5000))
def test_numbers_are_read_as_they_are(value: float | None):
    measured: Measured = {**MEASURED, "structures": [structure(1, "one", value)]}
    table = read(table_text(volume_rows(measured)))
    np.testing.assert_allclose(table["one_ml"].astype(float)[0], np.nan if value is None else value, atol=6e-5)


def test_rows_of_several_scans_keep_their_columns_and_are_no_formulas():
    text = table_text([{"scan": "=a", "x": 1}, {"scan": "b,c", "y": None}])
    assert text == 'scan,x,y\n\'=a,1,\n"b,c",,\n'


# ------------------------------------------------------------------------------------------------------- labels

CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "background", "color": [0, 0, 0]},
    {"id": 1, "name": "grey_matter", "color": [1, 2, 3]},
    {"id": 2, "name": 'the "left"\tone', "color": [255, 16, 0]},
]


def rows_of(form: str, classes: list[ClassEntry]) -> dict[int, tuple[str, tuple[int, ...]]]:
    """Name and colour by id, as the program that a table is for reads it."""
    text = FORMATS[form][1](classes)
    if form == "bids":
        table = read(text, sep="\t", quoting=3)
        assert list(table.columns) == ["index", "name", "abbreviation", "color"]
        return {
            int(row["index"]): (row["name"], tuple(bytes.fromhex(row["color"][1:]))) for row in table.to_dict("records")
        }
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if form == "itksnap":
            match = re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"([^"]*)"', line)
            assert match, line
            number, red, green, blue, *_, name = match.groups()
        else:
            number, name, red, green, blue, alpha = line.split()
            assert int(alpha) == (0 if form == "freesurfer" or number == "0" else 255)
        found[int(number)] = (name, (int(red), int(green), int(blue)))
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_label_tables_hold_every_label_in_its_colour(form: str):
    for classes in (CLASSES, model_card("brain-structures")["classes"]):
        rows = rows_of(form, classes)
        assert list(rows) == [entry["id"] for entry in classes]
        for entry in classes[1:]:
            name, colour = rows[entry["id"]]
            assert colour == tuple(entry["color"])
            assert re.sub(r"[\W_]+", "_", name) == re.sub(r"[\W_]+", "_", entry["name"])
    assert rows_of(form, CLASSES)[1][0] == ("grey matter" if form in ("bids", "itksnap") else "grey_matter")
