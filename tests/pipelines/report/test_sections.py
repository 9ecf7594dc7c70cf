"""Sections of a page: every block is drawn, escaped, and named for those who cannot see it."""

import dataclasses
import re

import pytest

from pipelines.report import agreement, gallery, sections, viewer
from pipelines.report.page import render_page
from pipelines.report.sections import (
    Block,
    Bullets,
    Cell,
    Chart,
    Column,
    Drawing,
    Figure,
    Gallery,
    JudgedStructure,
    Judgement,
    Layer,
    Legend,
    Outline,
    Page,
    Pairs,
    Picture,
    Section,
    Switches,
    Table,
    Text,
    VerdictForm,
)
from pipelines.report.text import moment
from tests.pipelines.report.test_segmentation import HOSTILE
from tests.pipelines.report.test_segmentation import Page as Parsed

PIXEL = "data:image/png;base64,AAAA"
PICTURE = Picture(PIXEL, HOSTILE, HOSTILE)
LAYER = Layer("result", [Outline("M0 0h1v1h-1z", "#ff0000", 1, HOSTILE)], "scale(1 1)")
LETTERS: dict[str, str] = dict.fromkeys(("left", "right", "top", "bottom"), HOSTILE)
DRAWING = Drawing(PIXEL, HOSTILE, (1, 1), [LAYER], LETTERS, 1.0, HOSTILE, HOSTILE)
TABLE = Table(
    [Column(HOSTILE), Column("Dice", numeric=True, sort="number"), Column("Rule", wide=True)],
    [[Cell(HOSTILE, swatch="#ff0000"), Cell("0.5", bar=0.5, note="a", sort="0.5"), Cell(HOSTILE, rest=HOSTILE)]],
    HOSTILE,
    foot=[Cell("Mean"), Cell("0.5", remark=HOSTILE), Cell(HOSTILE, alert=True)],
    notes=[("a", HOSTILE)],
    remark=HOSTILE,
)
BLOCKS = [
    Text(HOSTILE, HOSTILE),
    Bullets([HOSTILE], HOSTILE, alert=True),
    TABLE,
    Pairs([(HOSTILE, HOSTILE)], HOSTILE),
    Legend([(HOSTILE, "#ff0000")], HOSTILE, HOSTILE),
    PICTURE,
    Chart("<svg></svg>", HOSTILE),
    Gallery([Figure(DRAWING, HOSTILE, HOSTILE, HOSTILE, [0.0] * 9)], HOSTILE, HOSTILE),
    Switches(HOSTILE),
    Judgement([JudgedStructure(1, HOSTILE, "#ff0000", HOSTILE)], [HOSTILE]),
    VerdictForm(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
    agreement.Disputes(
        [agreement.Dispute(HOSTILE, HOSTILE, "", [agreement.GivenVerdict(HOSTILE, HOSTILE, HOSTILE, [HOSTILE])])]
    ),
    gallery.Cutouts(
        [gallery.Cutout(HOSTILE, 1, HOSTILE, PIXEL, 0.5, 1, 1.0, "random", [(HOSTILE, 0.5)])],
        [("1", HOSTILE)], {"margin": HOSTILE},
    ),
    viewer.Viewer(
        viewer.Program(b"", "", HOSTILE), b"", b"", None, HOSTILE, b"", [viewer.Structure(1, HOSTILE, (1, 2, 3), None)],
        {HOSTILE: (0.0, 1.0)}, (1, 1, 1), (1, 1, 1), "", 1.0, HOSTILE,
    ),
]  # fmt: skip


def page_of(*blocks: Block, columns: bool = False) -> str:
    section = Section("all", HOSTILE, blocks, contents=HOSTILE, columns=columns)
    return render_page(Page(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [section], HOSTILE, [(HOSTILE, HOSTILE)]))


def test_every_block_there_is_is_tried_here():
    known = {
        each
        for module in (sections, viewer, agreement, gallery)
        for each in vars(module).values()
        if isinstance(each, type)
    }
    assert {type(block) for block in BLOCKS} == {each for each in known if issubclass(each, Block)} - {Block}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.macro)
@pytest.mark.parametrize("columns", [False, True])
def test_hostile_texts_are_shown_and_never_run(block: Block, columns: bool):
    page = Parsed(page_of(block, columns=columns))
    around = Parsed(page_of())
    assert page.all("script") == []
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
    assert {attributes["src"] for attributes in page.all("img")} <= {PIXEL}
    assert page.text.count('alert("x")') > around.text.count('alert("x")')


def test_a_section_is_listed_and_named():
    html = render_page(
        Page("t", "k", "h", "l", [Section("one", "First", [], contents="1"), Section("two", "Second", [])], "f")
    )
    assert re.findall(r'<li><a href="#(\w+)">(\w+)</a></li>', html) == [("one", "1")]
    assert re.findall(r'<section id="(\w+)" aria-labelledby="(\w+-title)">', html) == [
        ("one", "one-title"), ("two", "two-title"),
    ]  # fmt: skip
    assert "<nav" not in render_page(Page("t", "k", "h", "l", [Section("two", "Second", [])], "f"))


def test_a_table_is_named_by_its_own_title_or_else_by_its_sections():
    html = page_of(TABLE, dataclasses.replace(TABLE, title=""))
    own, others = re.findall(r'tabindex="0" aria-labelledby="([\w-]+)"', html)
    assert f'<h3 id="{own}">' in html and others == "all-title"


def test_the_note_on_research_stands_on_medical_pages_alone():
    page = Page("t", "k", "h", "l", [], "f")
    note = "Research use only"
    assert note in render_page(page) and note not in render_page(dataclasses.replace(page, medical=False))


def test_a_table_of_results_has_names_and_figures():
    table = Table.of({"title": "t", "columns": ["Class", "Dice"], "rows": [["a_b", 0.51239], ["c", None]]})
    assert [[cell.text for cell in row] for row in table.rows] == [["a_b", "0.5124"], ["c", "–"]]
    assert [column.numeric for column in table.columns] == [False, True]


@pytest.mark.parametrize(
    ("iso", "shown"),
    [
        ("2026-11-30T08:10:05+00:00", "2026-11-30 08:10 UTC"),
        ("2026-11-30T00:10:05+02:00", "2026-11-29 22:10 UTC"),
        ("", ""),
        ("long ago", "long ago"),
    ],
)
def test_a_time_is_shown_to_the_minute(iso: str, shown: str):
    assert moment(iso) == shown
