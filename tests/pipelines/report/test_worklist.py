"""A blinded reading: what is drawn, what it shows, and that it comes back as a second reading."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from pipelines.evaluation.reviews import review_figures
from pipelines.report.verdict_files import Identity
from pipelines.report.verdicts import collect_reviews
from pipelines.report.worklist import Entry, draw
from tests.pipelines.report.batches import write_batch
from tests.pipelines.report.browser import visit
from tests.pipelines.report.pages import scripts_in
from tests.pipelines.report.test_shell import judged

COUNT, FIRST = 10, 8  # reports, and those that the first reader judged


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    reports = write_batch(folder, COUNT)
    saved = [
        {"report": report, "verdict": "reject", "comment": "secret remark", "reviewer": "AB",
         "created": "2026-01-02T03:04:05Z"}
        for report in reports[:FIRST]
    ]  # fmt: skip
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "a.json").write_text(json.dumps({"schema_version": 2, "verdicts": saved}))
    return folder


def make(batch: Path, *arguments: str) -> int:
    first = str(batch.parent / "first")
    return run(app, ["review", "worklist", str(batch), first, "--reader", "C D", "-q", *arguments])


def listed(batch: Path) -> list[str]:
    page = (batch / "worklist-C_D.html").read_text()
    data = page.partition('id="shell-data">')[2].partition("</script>")[0]
    return [case["id"] for case in json.loads(data)["cases"]]


@given(
    others=st.sets(st.integers(0, 39)), overlap=st.floats(0, 1), seed=st.integers(0, 2**32), order=st.randoms()
)  # fmt: skip
def test_the_draw_has_all_that_is_open_and_the_overlap(others: set[int], overlap: float, seed: int, order):
    entries = [Entry(Identity(f"case-{n:08x}", f"case-{n:08x}-{n:08x}", "0" * 64), f"{n}") for n in range(40)]
    known = {entries[n].about for n in others}
    chosen, count = draw(entries, known, overlap, seed)
    assert len(set(chosen)) == len(chosen) and {entry for entry in entries if entry.about not in known} <= set(chosen)
    assert sum(entry.about in known for entry in chosen) == count
    assert abs(count - overlap * len(others)) <= 1 and (count > 0) == (overlap > 0 and bool(others))
    shuffled = list(entries)
    order.shuffle(shuffled)
    assert draw(shuffled, known, overlap, seed) == (chosen, count), "seed and verdicts decide alone"


def test_the_page_tells_nothing_of_the_first_reading(batch: Path):
    assert make(batch, "--overlap", "0.25", "--seed", "1") == 0
    page = (batch / "worklist-C_D.html").read_text()
    (script,) = scripts_in(page)
    assert "secret" not in page.replace(script, "") and '"AB"' not in page
    assert '"confidence": null' in page and "0.50" not in page.replace(script, "")
    first = listed(batch)
    assert len(first) == 2 + 2
    assert make(batch, "--overlap", "0.25", "--seed", "1") == 0 and listed(batch) == first
    assert make(batch, "--overlap", "0.25", "--seed", "2") == 0 and listed(batch) != first
    assert "case-" not in (batch / "worklist-C_D.json").read_text(), "nor which reports are read twice"


def test_the_second_reading_is_blind_and_comes_back(browser: Browser, batch: Path, tmp_path: Path):
    assert make(batch, "--overlap", "0.5", "--seed", "1") == 0
    seen = visit(browser, batch / "worklist-C_D.html")
    page = seen.page
    name = page.get_by_label("name", exact=True)
    assert name.input_value() == "C D" and not name.is_editable()
    assert page.locator("[aria-label='Which scans'] option").all_inner_texts() == ["all", "open", "mine"]
    assert not page.get_by_label("Order").is_visible()
    page.locator("#load").set_input_files(tmp_path / "first" / "a.json")
    page.get_by_text("0 of 8 verdicts loaded").wait_for()
    assert judged(page) == 0 and "reject" not in page.inner_text(".worklist")
    for number in range(6):
        page.keyboard.press("ar"[number % 2])
    assert judged(page) == 6
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(tmp_path / "second" / "b.json")
    assert seen.complaints == []
    collected = collect_reviews([batch, tmp_path / "first", tmp_path / "second"])
    figures = review_figures(collected)
    assert (figures["readers"], figures["judged_twice"], collected.counts["open"]) == (2, 4, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reader", "  "), "expected a short name"),
        (("--reader", "a" * 17), "expected a short name"),
        (("--reader", "B"), "contains no index.json"),
    ],
)
def test_what_cannot_be_listed_is_one_line(tmp_path: Path, capsys, arguments, says: str):
    assert run(app, ["review", "worklist", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)//case.html", "../case-00000000.html", "reports/a/b.html", "/x.html"]
)
def test_an_index_that_leads_elsewhere_is_refused(batch: Path, capsys, link: str):
    index = json.loads((batch / "index.json").read_text())
    index["cases"][0]["report"] = link
    (batch / "index.json").write_text(json.dumps(index))
    assert make(batch) == 2
    assert "names a report that is not beside it" in capsys.readouterr().err


def test_where_nothing_is_left_to_read_it_is_said(batch: Path, capsys):
    first = batch.parent / "first" / "a.json"
    saved = json.loads(first.read_text())
    reports = [case for case in json.loads((batch / "index.json").read_text())["cases"]]
    saved["verdicts"] = [
        saved["verdicts"][0] | {"report": {"id": case["report_id"], "sha256": case["report_sha256"]}}
        for case in reports
    ]  # fmt: skip
    first.write_text(json.dumps(saved))
    assert make(batch, "--overlap", "0") == 2
    assert "others have judged all reports" in capsys.readouterr().err
    assert make(batch, "--overlap", "0.01") == 0 and len(listed(batch)) == 1
