"""The shell of a batch in real browsers, from files: one key a scan, and nothing of what was given is lost."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from pipelines.report.verdicts import collect_reviews
from tests.pipelines.report.batches import write_batch
from tests.pipelines.report.browser import opened_again, visit, warns
from tests.pipelines.report.firefox import firefox

COUNT = 60
KEYS = "awrR"
VERDICTS = {"a": "accept", "w": "needs_work", "r": "reject", "R": "reject"}
READY = "document.querySelector('iframe.shown')"


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch") / "results"
    write_batch(folder, COUNT)
    return folder


@pytest.fixture(autouse=True)
def closed_pages(browser: Browser) -> Iterator[None]:
    """Leave no page of a test to the next one."""
    yield
    for context in browser.contexts:
        context.close()


def name_reader(page: Page, name: str) -> None:
    page.get_by_label("name", exact=True).fill(name)
    page.keyboard.press("Enter")


def judged(page: Page) -> int:
    return int(page.inner_text(".progress").split("; ")[1].split(" ")[0])


def expected(count: int) -> list[str]:
    return [VERDICTS[KEYS[number % len(KEYS)]] for number in range(count)]


def test_sixty_reports_by_sixty_keys_are_saved_loaded_elsewhere_and_collected(
    browser: Browser, batch: Path, tmp_path: Path
):
    seen = visit(browser, batch / "index.html")
    page = seen.page
    page.keyboard.press("a")
    assert "short name" in page.inner_text("#bar-state") and judged(page) == 0, "a reader is named first"
    name_reader(page, "AB")
    for number in range(COUNT):
        page.keyboard.press(KEYS[number % len(KEYS)])
        if number == 20:
            assert warns(page)
            page = opened_again(page, lambda again: judged(again) == 21)
            assert judged(page) == 21, "nothing is lost"
    assert judged(page) == COUNT
    with page.expect_download() as download:
        page.keyboard.press("e")
    assert download.value.suggested_filename.startswith("reviews-")
    saved = tmp_path / "saved" / download.value.suggested_filename
    download.value.save_as(saved)
    rows = collect_reviews([batch, saved.parent]).rows
    assert [row["verdict"] for row in rows] == expected(COUNT) and {row["state"] for row in rows} == {"reviewed"}
    assert [row["cause"] for row in rows[:4]] == ["", "", "", "scan"] and {row["reviewer"] for row in rows} == {"AB"}
    assert seen.complaints == []

    elsewhere = visit(browser, batch / "index.html").page
    assert judged(elsewhere) == 0
    elsewhere.locator("#load").set_input_files(saved)
    elsewhere.get_by_text("60 of 60 verdicts loaded").wait_for()
    assert judged(elsewhere) == COUNT
    elsewhere.keyboard.press("k")
    elsewhere.keyboard.press("w")
    with elsewhere.expect_download() as second:
        elsewhere.keyboard.press("e")
    second.value.save_as(saved.parent / "again (1).json")
    again = collect_reviews([batch, saved.parent]).rows
    assert len(again) == COUNT, "a second save replaces verdicts and adds no row"


def test_the_next_report_is_loaded_before_its_turn_comes_and_cannot_reach_out(browser: Browser, batch: Path):
    page = visit(browser, batch / "index.html").page
    name_reader(page, "AB")
    for _ in range(3):
        waiting = page.locator("iframe:not(.shown)")
        waiting.wait_for(state="attached")
        ahead = waiting.get_attribute("src")
        page.frame_locator("iframe:not(.shown)").locator("body.in-shell").wait_for(state="attached")
        page.keyboard.press("a")
        assert page.locator("iframe.shown").get_attribute("src") == ahead
        assert page.frame_locator("iframe.shown").locator("svg.drawing").first.is_visible()
    assert page.locator("iframe.shown").get_attribute("sandbox") == "allow-scripts"


def test_a_message_of_another_page_or_about_another_report_is_not_heard(browser: Browser, batch: Path):
    page = visit(browser, batch / "index.html").page
    name_reader(page, "AB")
    page.frame_locator("iframe.shown").locator("svg.drawing").first.wait_for()
    page.evaluate("""() => {
        const { cases } = JSON.parse(document.getElementById("shell-data").textContent);
        const { id, sha256 } = cases[0];
        window.postMessage({ domainVision: 1, type: "key", key: "a", id, sha256 }, "*");
    }""")
    frame = page.frames[1]
    frame.evaluate("() => parent.postMessage({ domainVision: 1, type: 'key', key: 'a', id: 'x', sha256: 'y' }, '*')")
    page.wait_for_timeout(300)
    assert judged(page) == 0
    frame.locator("body").press("a")
    page.get_by_text("1 of 60 judged").wait_for()


def test_undo_comment_structures_and_filters(browser: Browser, batch: Path):
    page = visit(browser, batch / "index.html").page
    name_reader(page, "AB")
    page.keyboard.press("c")
    page.keyboard.type("awr")
    page.keyboard.press("Escape")
    assert judged(page) == 0, "no key works in a text field"
    page.frame_locator("iframe.shown").locator(".judge").first.click()
    first = page.locator("iframe.shown").get_attribute("src")
    page.keyboard.press("r")
    page.get_by_text("1 of 60 judged").wait_for()  # the report tells the shell of the key
    page.select_option("[aria-label='Which scans']", "open")
    assert page.locator(".worklist li").count() == COUNT - 1
    page.select_option("[aria-label='Which scans']", "mine")
    assert page.locator(".worklist li").count() == 1
    page.select_option("[aria-label='Which scans']", "all")
    page.keyboard.press("u")
    page.get_by_text("0 of 60 judged").wait_for()
    assert page.locator("iframe.shown").get_attribute("src") == first
    assert page.get_by_label("Comment").input_value() == "awr", "what was written stays"
    assert page.frame_locator("iframe.shown").locator(".judge").first.inner_text() == "ok"


def test_random_order_is_a_readers_own_and_tells_nothing(browser: Browser, batch: Path):
    orders = []
    for reader in ("AB", "AB", "CD"):
        page = visit(browser, batch / "index.html").page
        name_reader(page, reader)
        page.select_option("[aria-label='Order']", "random")
        orders.append(page.locator(".worklist .case").all_text_contents())
        assert "0.50" not in page.inner_text(".worklist")
        page.context.close()
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])


def test_a_chosen_folder_keeps_a_file_up_to_date(browser: Browser, batch: Path):
    """The dialog cannot be driven; what it would give is stood in for by a folder that keeps what is written."""
    page = visit(browser, batch / "index.html").page
    page.evaluate("""() => {
        window.files = {};
        const stream = (name) => ({ write: async (text) => { window.files[name] = text; }, close: async () => {} });
        const getFileHandle = async (name) => ({ createWritable: async () => stream(name) });
        window.showDirectoryPicker = async () => ({ getFileHandle });
    }""")
    name_reader(page, "AB")
    page.click("#keep")
    page.keyboard.press("a")
    page.get_by_text("is up to date").wait_for()
    page.keyboard.press("w")
    page.wait_for_function("() => Object.values(window.files).some(text => JSON.parse(text).verdicts.length === 2)")
    (written,) = page.evaluate("Object.values(window.files)")
    assert [each["verdict"] for each in json.loads(written)["verdicts"]] == ["accept", "needs_work"]


def test_firefox_judges_saves_and_keeps_over_a_reload(batch: Path, tmp_path: Path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with firefox(tmp_path / "profile", downloads) as browser:
        browser.command("WebDriver:Navigate", url=(batch / "index.html").as_uri())
        browser.run("document.querySelector('.choices input').focus()")
        browser.press("A", "B", "Enter")
        for number in range(COUNT):
            browser.press(KEYS[number % len(KEYS)])
            if number == 5:
                browser.until(f"return {READY} !== null")
                browser.command("WebDriver:Refresh")
                progress = browser.until("return document.querySelector('.progress').textContent")
                assert progress.endswith("6 of 60 judged"), "nothing is lost on reload"
        assert browser.run("return document.querySelector('.progress').textContent").endswith("60 of 60 judged")
        browser.press("k")
        browser.command("WebDriver:SwitchToFrame", element=browser.command(
            "WebDriver:FindElement", using="css selector", value="iframe.shown"
        ))  # fmt: skip
        assert browser.until("return document.body.classList.contains('in-shell')")
        assert browser.run("return document.querySelectorAll('svg.drawing').length") == 18
        browser.run("document.body.focus()")
        browser.press("w")  # a key in the report is the shell's
        browser.command("WebDriver:SwitchToFrame", element=None)
        browser.until("return document.querySelectorAll('[data-verdict=needs_work]').length === 16")
        browser.press("e")
        end = time.monotonic() + 60
        while not any(path.stat().st_size for path in downloads.glob("reviews-*.json")) and time.monotonic() < end:
            time.sleep(0.1)
    rows = collect_reviews([batch, downloads]).rows
    assert len(rows) == COUNT and {row["reviewer"] for row in rows} == {"AB"}
    assert [row["verdict"] for row in rows] == [*expected(58), "needs_work", "reject"]
