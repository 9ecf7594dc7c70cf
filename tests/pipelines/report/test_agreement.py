"""The page of readers' agreement in a real browser: what it says, and decisions that come back as verdicts."""

import json
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from pipelines.report.verdicts import collect_reviews
from tests.apps.shared.test_review import identity, put, put_report, verdict
from tests.pipelines.report.browser import opened_again, visit, warns
from tests.pipelines.report.firefox import firefox
from tests.pipelines.report.pages import scripts_in

READERS = {
    "AB": ["accept", "accept", "reject", "needs_work", "accept", "accept"],
    "Cd": ["accept", "reject", "reject", "accept", "needs_work"],
}


def measure(folder: Path, *arguments: str) -> dict:
    page = folder / "agreement.html"
    assert run(app, ["review", "agreement", str(folder), "-o", str(page), "--quiet", *arguments]) == 0
    return json.loads(page.with_suffix(".json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_verdicts(tmp_path)


def write_verdicts(folder: Path) -> Path:
    """Six reports; two readers, who disagree on three, and one of whom left one out."""
    for case in range(6):
        put_report(folder / f"p{case}_seg.json", case, 11 + case)
    for reader, given in READERS.items():
        saved = [
            verdict(case, 11 + case, judged, reviewer=reader, comment=f"{reader} on {case}, see /scans/jane.nii.gz")
            for case, judged in enumerate(given)
        ]
        put(folder / "verdicts" / f"{reader}.json", {"verdicts": saved})
    return folder


def test_figures_and_disagreements_are_those_of_the_verdicts_and_the_worst_comes_first(folder: Path):
    content = measure(folder)
    (pair,) = content["agreement"]["pairs"]
    assert pair["readers"] == ["AB", "Cd"] and pair["cases"] == 5
    assert pair["table"] == [[1, 1, 1], [1, 0, 0], [0, 0, 1]]
    assert content["agreement"]["gaps"] == 1
    assert [int(dispute["case"][5:]) for dispute in content["disagreements"]] == [1, 3, 4]
    page = (folder / "agreement.html").read_text()
    assert "jane" not in page and "AB on 1, see [path left out]" in page and "Cd on 1" in page
    assert "alpha of all readers" in page, "there is a gap"
    (script,) = scripts_in(page)
    assert "adjudicator" in script and str(folder) not in page


def test_a_page_beside_the_index_leads_to_reports_of_that_number_alone(folder: Path):
    (folder / "reports").mkdir()
    (folder / "reports" / "case-00000001.html").write_text(f'<form data-report="{identity(1, 12)["id"]}">')
    (folder / "case-00000003_report.html").write_text('<form data-report="case-00000003-ffffffff">')
    links = {dispute["case"]: dispute["link"] for dispute in measure(folder)["disagreements"]}
    assert links == {"case-00000001": "reports/case-00000001.html", "case-00000003": None, "case-00000004": None}


def test_decisions_come_back_as_verdicts_of_the_adjudicator(browser: Browser, folder: Path):
    measure(folder)
    seen = visit(browser, folder / "agreement.html")
    page = seen.page
    page.keyboard.press("a")
    assert "short name" in page.inner_text("#bar-state"), "an adjudicator is named first"
    page.get_by_label("name", exact=True).fill("cD")
    page.keyboard.press("Enter")
    assert "one of the readers" in page.inner_text("#bar-state")
    page.get_by_label("name", exact=True).fill("Judge")
    page.keyboard.press("Enter")
    page.keyboard.press("c")
    page.keyboard.type("war, see above")
    page.keyboard.press("Escape")
    for key in "Raw":
        page.keyboard.press(key)
    page.keyboard.press("u")
    assert warns(page)
    decided = "[...document.querySelectorAll('.decision')].map((each) => each.textContent)"
    page = opened_again(page, lambda again: again.evaluate(decided) == ["the scan is bad", "accept", ""])
    assert page.evaluate(decided) == ["the scan is bad", "accept", ""], "nothing is lost over a reload"
    page.keyboard.press("r")
    with page.expect_download() as download:
        page.keyboard.press("e")
    assert download.value.suggested_filename.endswith("-Judge.json")
    download.value.save_as(folder / "verdicts" / download.value.suggested_filename)
    assert seen.complaints == []

    rows = collect_reviews([folder], "adjudicator:judge").rows
    consensus = {row["case"]: row["consensus"] for row in rows}
    assert [consensus[f"case-{case:08x}"] for case in (1, 3, 4)] == ["reject", "accept", "reject"]
    own = [row for row in rows if row["reviewer"] == "Judge"]
    assert own[0]["comment"] == "war, see above" and own[0]["cause"] == "scan"

    content = measure(folder, "--adjudicator", "Judge")
    assert list(content["agreement"]["readers"]) == ["AB", "Cd"], "an adjudicator is no reader"
    assert [dispute["decided"]["verdict"] for dispute in content["disagreements"]] == ["reject", "accept", "reject"]
    again = visit(browser, folder / "agreement.html").page  # of another profile
    assert again.evaluate(decided) == ["the scan is bad", "accept", "reject"]


def test_firefox_adjudicates(folder: Path, tmp_path: Path):
    measure(folder)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with firefox(tmp_path / "profile", downloads) as browser:
        browser.command("WebDriver:Navigate", url=(folder / "agreement.html").as_uri())
        browser.run("document.querySelector('#adjudicator').focus()")
        browser.press("J", "D", "Enter", "a", "w", "r")
        assert browser.run("return document.querySelector('#bar-state').textContent") == "All are decided: save."
        browser.press("e")
        end = time.monotonic() + 60
        while not any(path.stat().st_size for path in downloads.glob("reviews-*-JD.json")) and time.monotonic() < end:
            time.sleep(0.1)
    rows = collect_reviews([folder, downloads], "adjudicator:JD").rows
    assert [row["verdict"] for row in rows if row["reviewer"] == "JD"] == ["accept", "needs_work", "reject"]


def test_without_scripts_the_page_is_complete(browser: Browser, folder: Path):
    measure(folder)
    page = visit(browser, folder / "agreement.html", scripts=False).page
    assert page.get_by_text("Cd on 4").is_visible() and not page.locator(".bar").is_visible()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("agreement", ".", "-o", "a.pdf"), "expected .html"),
        (("agreement", ".", "-o", "a.html"), "contains no verdict on a report that is here"),
        (("agreement", "nowhere", "-o", "a.html"), "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path: Path, monkeypatch, capsys, arguments, says: str):
    monkeypatch.chdir(tmp_path)
    put_report(tmp_path / "one_seg.json", 1, 11)
    before = sorted(tmp_path.iterdir())
    assert run(app, ["review", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and sorted(tmp_path.iterdir()) == before


def test_a_crowd_of_readers_is_refused(tmp_path: Path, capsys):
    put_report(tmp_path / "one_seg.json", 1, 11)
    put(tmp_path / "v.json", {"verdicts": [verdict(1, 11, reviewer=f"r{number}") for number in range(21)]})
    assert run(app, ["review", "agreement", str(tmp_path), "-o", str(tmp_path / "a.html")]) == 2
    assert "verdicts of 21 readers; expected at most 20" in capsys.readouterr().err


def test_paper_marks_no_disagreement_as_the_one_at_hand(browser: Browser, folder: Path):
    measure(folder)
    page = visit(browser, folder / "agreement.html").page
    style = "getComputedStyle(document.querySelector('.dispute[aria-current=true]')).outlineStyle"
    assert page.evaluate(style) == "solid"
    page.emulate_media(media="print")
    assert page.evaluate(style) == "none"
    assert "Reports that some of them did not judge: 1." in page.content()
