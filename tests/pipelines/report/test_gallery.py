"""The gallery in a real browser: labels with one key each, and the table that they become."""

import csv
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from pipelines.report.gallery import MOST, Cutout, gallery_page, pages_of
from tests.pipelines.report.browser import Visit, opened_again, visit, warns
from tests.pipelines.report.firefox import firefox
from tests.pipelines.report.pages import scripts_in
from tests.pipelines.report.test_index import PIXEL

CLASSES = ["spiral", 'edge "on", <b>', "round"]
COUNT = 20
LONG = "a class whose name needs more than one line of its card"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_gallery(tmp_path / "t_gallery.html")


def write_gallery(page: Path) -> Path:
    """Images of rising margin; the outlier scores fall in threes."""
    cutouts = [
        Cutout(f"={number},a" if number == 3 else f"g{number}", number + 1, "10.000000 -5.000000", PIXEL, number / 40,
               None, -(number % 3) * 100 - number, "random" if number % 5 == 0 else "doubtful",
               [("spiral", 0.5), ("round", 0.3)], [PIXEL, PIXEL], PIXEL, "round", 0.5 if number < 10 else 0.4)
        for number in range(COUNT)
    ]  # fmt: skip
    page.write_text(gallery_page(cutouts, CLASSES, "probe", layers=["g", "<r>"]), encoding="utf-8")
    scripts_in(page.read_text())
    return page


def ids(seen: Visit) -> list[str]:
    return seen.page.locator(".cutouts figcaption > span:first-child").all_text_contents()


def test_labels_are_given_by_keys_and_saved_as_a_table(browser: Browser, path: Path, tmp_path: Path):
    seen = visit(browser, path)
    page = seen.page
    assert len(ids(seen)) == COUNT + 1, "a twentieth is shown twice"
    assert ids(seen)[:4] == ["g0", "g1", "g2", "=3,a"], "the smallest margin comes first"
    (repeated,) = ids(seen)[COUNT:]
    assert not page.locator(".answer").first.is_visible(), "the answer is hidden until a label is given"
    page.keyboard.press("e")
    assert "short name" in page.inner_text("#bar-state"), "a reader is named first"
    page.get_by_label("name", exact=True).fill("AB")
    page.keyboard.press("Enter")
    for key in "13x2cu":
        page.keyboard.press(key)
    assert warns(page)
    page = opened_again(page, lambda again: again.inner_text("#progress") == "4 of 21 labelled")
    assert page.locator(".answer").first.is_visible() and not page.locator(".answer").nth(5).is_visible()
    page.keyboard.press("h")
    assert not page.locator(".answer").first.is_visible()
    for _ in range(COUNT - 4):
        page.keyboard.press("1")
    page.keyboard.press("2")  # the one that is shown again
    assert "All are labelled" in page.inner_text("#bar-state")
    with page.expect_download() as download:
        page.keyboard.press("e")
    assert download.value.suggested_filename == "labels-fixed.csv" and not warns(page)
    download.value.save_as(tmp_path / "labels-fixed.csv")
    with (tmp_path / "labels-fixed.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["spiral", "round", "artefact", CLASSES[1], *["spiral"] * 16]
    assert [row["id"] for row in rows if row["again"]] == [repeated if repeated != "=3,a" else "'=3,a"]
    assert rows[3]["id"] == "'=3,a" and {row["reader"] for row in rows} == {"AB"}
    assert [row["drawn"] for row in rows[:2]] == ["random", "doubtful"] and rows[0]["answer"] == "spiral"
    assert seen.complaints == []


@pytest.fixture
def saved(browser: Browser, path: Path, tmp_path: Path) -> Path:
    """The table of a reader who labelled the first four images, the last of them as it comes again."""
    page = visit(browser, path).page
    page.get_by_label("name", exact=True).fill("AB")
    page.keyboard.press("Enter")
    for key in "13x2":
        page.keyboard.press(key)
    page.locator(".cutouts li").last.click()
    page.keyboard.press("1")
    return save(page, tmp_path / "labels-fixed.csv")


def save(page: Page, path: Path) -> Path:
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(path)
    return path


def load(page: Page, file: Path) -> str:
    """What the page says when a file was chosen."""
    page.locator("#load").set_input_files(file)
    page.wait_for_function("name => document.getElementById('bar-state').textContent.includes(name)", arg=file.name)
    return page.inner_text("#bar-state")


def test_saved_labels_are_taken_back_on_another_machine(browser: Browser, path: Path, saved: Path, tmp_path: Path):
    seen = visit(browser, path)
    page = seen.page
    assert load(page, saved) == "5 of 5 labels loaded from labels-fixed.csv"
    assert page.inner_text("#progress") == "5 of 21 labelled" and page.locator("#reader").input_value() == "AB"
    assert page.locator(".given").all_inner_texts()[:5] == ["spiral", "round", "artefact", CLASSES[1], ""]
    assert not warns(page), "what was loaded is in a file"
    before, after = (list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
                     for file in (saved, save(page, tmp_path / "again.csv")))  # fmt: skip
    assert after == before and [row["again"] for row in before if row["again"]] == ["spiral"]
    page.keyboard.press("1")
    page.locator(".cutouts li").first.click()
    page.keyboard.press("x")
    load(page, saved)
    assert page.inner_text("#progress") == "6 of 21 labelled", "labels that are not in the file stay"
    assert page.locator(".given").first.inner_text() == "artefact", "the later label counts"
    assert seen.complaints == []


def test_tables_of_earlier_versions_and_of_spreadsheets_are_loaded(browser: Browser, path: Path, saved: Path):
    page = visit(browser, path).page
    rows = list(csv.reader(saved.read_text(encoding="utf-8").splitlines()))
    with saved.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(row[:-1] for row in rows)  # without the gallery's number
    assert load(page, saved) == "5 of 5 labels loaded from labels-fixed.csv"


def test_what_is_no_table_of_this_gallery_is_one_line(browser: Browser, path: Path, saved: Path, tmp_path: Path):
    seen = visit(browser, path)
    page, text = seen.page, saved.read_text(encoding="utf-8")
    for name, content in {
        "empty": "",
        "notes": "id,label\n1,2\n",
        "quote": '"',
        "binary": '\0\x1f,"',
        "json": "{}",
    }.items():
        (tmp_path / name).write_text(content)
        assert load(page, tmp_path / name) == f"{name}: is no table that a gallery saved; nothing was loaded."
    (gallery,) = {row["gallery"] for row in csv.DictReader(text.splitlines())}
    others = {"hash": text.replace(gallery, "0" * 16), "ids": re.sub(r"(?m)^.?g", "h", text).replace("=3", "=4")}
    for name, content in others.items():
        (tmp_path / name).write_text(content)
        assert load(page, tmp_path / name) == f"{name}: is of another gallery; nothing was loaded."
    (tmp_path / "word").write_text(text.replace("artefact", "nonsense"))
    assert load(page, tmp_path / "word") == "4 of 5 labels loaded from word"
    page.get_by_label("name", exact=True).fill("CD")
    page.keyboard.press("Enter")
    assert load(page, saved) == "labels-fixed.csv: has labels of AB, not of CD; nothing was loaded."
    assert page.inner_text("#progress") == "4 of 21 labelled" and seen.complaints == []


def test_images_are_ordered_by_what_is_asked_for(browser: Browser, path: Path):
    seen = visit(browser, path)
    assert seen.page.locator("#order option").all_inner_texts() == [
        "smallest margin", "highest outlier score", "least believed label",
    ]  # fmt: skip
    seen.page.select_option("#order", "outlier")
    assert ids(seen)[:3] == ["g0", "=3,a", "g6"]
    seen.page.select_option("#order", "believed")
    assert ids(seen)[:2] == ["g10", "g11"] and ids(seen)[10] == "g0"


def test_grad_cam_flickers_over_the_image_at_hand_and_bands_are_shown_alone(browser: Browser, path: Path):
    seen = visit(browser, path)
    page, glow, band = seen.page, seen.page.locator(".glow"), seen.page.locator("[data-layer]")
    covers = """() => { const [a, b] = [...document.querySelectorAll(".current .stack img:not([data-layer])")]
        .map((image) => image.getBoundingClientRect()); return a.width > 200 && a.x === b.x && a.width === b.width; }"""
    assert glow.count() == COUNT + 1 and not glow.first.is_visible()
    page.keyboard.down(" ")
    glow.first.wait_for()
    assert not glow.nth(1).is_visible(), "of the image at hand alone"
    assert page.evaluate(covers), "it lies on the picture"
    page.keyboard.up(" ")
    assert not glow.first.is_visible()
    page.keyboard.press(".")
    assert page.evaluate("getComputedStyle(document.querySelector('.current .glow')).animationName") == "flicker"
    page.keyboard.press(".")
    assert not glow.first.is_visible() and not band.first.is_visible()
    page.keyboard.press("]")
    assert page.locator("#layer option:checked").inner_text() == "band g"
    assert [band.nth(number).is_visible() for number in range(4)] == [True, False, True, False]
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert page.locator("#layer option:checked").inner_text() == "band <r>"
    assert seen.complaints == []


def test_a_phone_names_each_button_and_hides_nothing_under_the_bar(browser: Browser, path: Path):
    page = visit(browser, path).page
    page.set_viewport_size({"width": 390, "height": 844})
    assert all(page.locator(".bar button").all_inner_texts()), "keys are left out, words are not"
    for _ in range(COUNT):
        page.keyboard.press("j")
    page.locator("li:last-child .current").wait_for()
    below = """() => document.querySelector(".current").getBoundingClientRect().bottom
        <= document.querySelector(".bar").getBoundingClientRect().top"""
    page.wait_for_function(below)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_paper_has_no_room_for_answers_that_are_hidden(browser: Browser, path: Path):
    page = visit(browser, path).page
    page.keyboard.press("1")
    page.emulate_media(media="print")
    shown = "() => [...document.querySelectorAll('.answer')].map((each) => getComputedStyle(each).display !== 'none')"
    page.wait_for_function(f"({shown})().filter(Boolean).length === 1")
    assert page.evaluate(shown)[0] and not page.locator(".bar").is_visible()


def test_a_hidden_answer_does_not_show_in_the_size_of_its_card(browser: Browser, path: Path):
    cutouts = [
        Cutout(f"g{number}", number + 1, "10.000000 -5.000000", PIXEL, number / 40, None, -number, "doubtful",
               [(LONG if number % 2 else "round", 0.5), ("spiral", 0.3)], [], PIXEL, "round", 0.5)
        for number in range(6)
    ]  # fmt: skip
    path.write_text(gallery_page(cutouts, [LONG, "round", "spiral"], "probe"), encoding="utf-8")
    page = visit(browser, path).page
    heights = page.locator(".cutouts figure").evaluate_all("all => all.map((each) => each.offsetHeight)")
    assert len(heights) >= len(cutouts) and len(set(heights)) == 1


def test_pages_have_room_for_their_images():
    def image(number: int, size: int) -> Cutout:
        return Cutout("i", number, "", "x" * size, 1 - number / 3000, None, None, "doubtful", [("a", 0.5)])

    assert [len(page) for page in pages_of([image(number, 10) for number in range(MOST + 1)])] == [MOST, 1]
    heavy = pages_of([image(number, 3_000_000) for number in range(5)])
    assert [[each.row for each in page] for page in heavy] == [[4, 3], [2, 1], [0]], "the most doubtful first"
    (page,) = pages_of([image(0, 10), replace(image(1, 10), label="a", believed=0.01), image(2, 10)])
    assert [each.row for each in page] == [1, 2, 0], "a label that is hardly believed is doubtful, however sure"
    assert pages_of([]) == [[]] and [len(page) for page in pages_of([image(0, 9_000_000)])] == [1]


@pytest.mark.parametrize("count", [0, 1])
def test_a_gallery_of_nearly_nothing_is_a_page(browser: Browser, tmp_path: Path, count: int):
    cutouts = [Cutout("g", 1, "", PIXEL, 0.1, None, None, "random", [("spiral", 0.5)])] * count
    path = tmp_path / "t_gallery.html"
    path.write_text(gallery_page(cutouts, CLASSES, "probe"), encoding="utf-8")
    seen = visit(browser, path)
    for key in "1]. jke":
        seen.page.keyboard.press(key)
    assert seen.page.locator(".labelled").count() == count and seen.complaints == []


def test_firefox_labels_shows_layers_saves_and_loads(path: Path, tmp_path: Path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with firefox(tmp_path / "profile", downloads) as browser:
        browser.command("WebDriver:Navigate", url=path.as_uri())
        browser.until("return document.querySelector('.bar') && !document.querySelector('.bar').hidden")
        browser.press("1", "3", ".", "]")
        shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
        assert browser.run(shown, ".current .glow") == "block" and browser.run(shown, "[data-layer='0']") == "block"
        assert browser.run(shown, "[data-layer='1']") == "none"
        browser.command("WebDriver:Refresh")
        browser.until("return document.getElementById('progress').textContent === '2 of 21 labelled'")
        browser.run("document.getElementById('reader').value = 'AB'")
        browser.press("e")
        end = time.monotonic() + 60
        while not (saved := [file for file in downloads.glob("*.csv") if file.stat().st_size]):
            assert time.monotonic() < end, "nothing was saved"
            time.sleep(0.1)
        browser.run("localStorage.clear()")
        browser.command("WebDriver:Refresh")
        browser.until("return document.getElementById('progress').textContent === '0 of 21 labelled'")
        browser.choose("#load", saved[0])
        browser.until("return document.getElementById('progress').textContent === '2 of 21 labelled'")
        assert browser.run("return document.getElementById('reader').value") == "AB"
    rows = list(csv.DictReader(saved[0].read_text(encoding="utf-8").splitlines()))
    assert [(row["label"], row["reader"]) for row in rows] == [("spiral", "AB"), ("round", "AB")]


def test_without_scripts_images_and_answers_are_there(browser: Browser, path: Path):
    page = visit(browser, path, scripts=False).page
    assert page.locator(".answer").first.is_visible() and not page.locator(".bar").is_visible()
    assert page.locator(".cutouts li").count() == COUNT
