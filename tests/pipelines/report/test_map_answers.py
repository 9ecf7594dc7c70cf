"""What readers say of maps comes from files of strangers: it is read, or refused with a reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.map_answers import answers_in, fixes_in, sample_in
from pipelines.report.map_areas import AREA_COLUMNS, _estimated
from pipelines.report.map_pictures import distinct, ramp

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
rings = st.lists(st.lists(st.floats() | st.integers(), min_size=1, max_size=3), max_size=5)
fixes = st.lists(st.fixed_dictionaries({"class": scalars, "ring": rings | values}), max_size=3)
classes = st.lists(st.fixed_dictionaries({"name": scalars, "pixels": scalars, "hectares": scalars}), max_size=3)


@given(st.dictionaries(st.sampled_from(["points", "fixes", "classes"]), values | fixes | classes))
def test_anything_is_read_or_refused(content):
    for read in (sample_in, answers_in, fixes_in):
        try:
            read(content)
        except ValueError as error:
            assert str(error)
    try:
        read_fixes = fixes_in(content)
    except ValueError:
        return
    assert all(np.isfinite(fix.ring).all() and len(fix.ring) >= 3 for fix in read_fixes)


names = st.sampled_from(["water", "soil", "snow"])


@given(
    st.lists(st.tuples(names, names | st.just("cannot tell") | st.just("moon")), max_size=30),
    st.lists(st.integers(0, 100), min_size=3, max_size=3),
    st.booleans(),
)
def test_answers_become_rows_of_the_table_whatever_they_are(pairs, pixels, placed):
    known = [{"name": name, "pixels": count, "hectares": count / 10 if placed else None}
             for name, count in zip(("water", "soil", "snow"), pixels, strict=True)]  # fmt: skip
    of_map = [(own, answer) for own, answer in pairs if pixels[("water", "soil", "snow").index(own)]]
    points = [{"number": number, "class": own} for number, (own, _) in enumerate(of_map)]
    sample = sample_in({"classes": known, "points": points})
    assert sample is not None
    rows = _estimated(sample, {str(number): answer for number, (_, answer) in enumerate(of_map)})
    assert [row["class"] for row in rows] == ["water", "soil", "snow"]
    assert all(set(row) <= set(AREA_COLUMNS) for row in rows)
    answered = sum(answer in ("water", "soil", "snow") for _, answer in of_map)
    assert {row["answered"] for row in rows} == {answered} and rows[0]["unit"] == ("hectares" if placed else "pixels")
    told = {row["area"] is None for row in rows}
    assert len(told) == 1 and (told == {False} or all(row["note"] for row in rows))


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), max_size=60))
def test_no_two_classes_have_one_colour(colours):
    moved = distinct([*colours, (255, 255, 255), (255, 255, 255)])
    assert len(set(moved)) == len(moved) and all(0 <= part <= 255 for colour in moved for part in colour)


def test_confidences_have_colours_of_their_own_that_grow_lighter():
    lightness = [np.dot(colour, (0.2126, 0.7152, 0.0722)) for colour in ramp()]
    assert len(set(ramp())) == len(ramp()) and lightness == sorted(lightness)


def test_a_sample_needs_classes_with_names_of_their_own():
    row = {"name": "water", "pixels": 3, "hectares": None}
    with pytest.raises(ValueError, match="names of their own"):
        sample_in({"points": [], "classes": [row, row]})
