"""Texts of a page: what is left out of them, and what is not."""

import pytest

from pipelines.report.text import without_paths

LEFT = "[path left out]"


@pytest.mark.parametrize(
    "text",
    ["a <b>bold</b> word", "<svg:g></svg:g>", "</b></i>", "and/or 1/255", "https://host/a/b", "</custom-tag> <br/>"],
)
def test_text_that_only_looks_like_a_path_stays(text: str):
    assert without_paths(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>/home/jane</b>", f"<b>{LEFT}</b>"),
        ("</home/jane>", f"<{LEFT}>"),
        ("</b>/srv/jane.png", f"</b>{LEFT}"),
        ("</jane.png", f"<{LEFT}"),
        ("in ~/jane, C:\\jane", f"in {LEFT} {LEFT}"),
        ("jane.nii.gz is cut", f"{LEFT} is cut"),
    ],
)
def test_a_path_is_left_out(text: str, expected: str):
    assert without_paths(text) == expected
