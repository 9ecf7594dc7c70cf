"""The report of a map in Firefox, from a file: layers, the map's own file, points and fixes."""

import json
import time
from pathlib import Path

from pipelines.report.map_areas import area_rows, fix_collections
from pipelines.report.verdicts import collect_reviews
from tests.pipelines.report.firefox import firefox
from tests.pipelines.report.maps import CLASSES, COLOURS, write_map

KEYS = {entry["name"]: key for entry, key in zip(CLASSES, "1234", strict=True)}
PIXEL = """
    const canvas = document.querySelector(".map-stage canvas");
    const zoom = Math.min(canvas.width / 480, canvas.height / 320);
    const [column, row] = arguments;
    const [x, y] = [canvas.width / 2 + (column - 240) * zoom, canvas.height / 2 + (row - 160) * zoom];
    return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
"""
DRAW = """
    const canvas = document.querySelector(".map-stage canvas");
    const box = canvas.getBoundingClientRect();
    for (const [x, y] of [[0.4, 0.4], [0.6, 0.4], [0.5, 0.6]]) {
      const at = { bubbles: true, detail: 1, clientX: box.left + x * box.width, clientY: box.top + y * box.height };
      canvas.dispatchEvent(new MouseEvent("click", at));
    }
"""


def test_firefox_shows_judges_and_saves_a_map(tmp_path: Path):
    written, downloads = write_map(tmp_path / "map"), tmp_path / "downloads"
    downloads.mkdir()
    points = json.loads(written.twin.read_text())["points"]
    with firefox(tmp_path / "profile", downloads) as browser:
        browser.command("WebDriver:Navigate", url=written.page.as_uri())
        end = time.monotonic() + 60
        while (pixel := browser.run(PIXEL, 80, 150)) != list(COLOURS[0]):
            assert time.monotonic() < end, f"the map is not drawn: {pixel}"
            time.sleep(0.05)
        assert browser.run(PIXEL, 400, 150) == list(COLOURS[2])
        browser.choose("#map-file", written.map)
        browser.until("return document.getElementById('map-file-state').textContent.includes('full resolution')")
        while browser.run(PIXEL, 241.5, 100.5) != list(COLOURS[0]):
            assert time.monotonic() < end, "the pixel of another class is not drawn"
            time.sleep(0.05)
        browser.run("document.body.focus()")
        browser.press("p")
        for point in points:
            browser.press(KEYS[point["class"]])
        browser.until("return document.getElementById('point-progress').textContent === '60 of 60 answered'")
        browser.command("WebDriver:Refresh")
        browser.until("return document.getElementById('point-progress').textContent === '60 of 60 answered'")
        browser.press("m")
        browser.run(DRAW)
        browser.press("Enter", "a")
        browser.until("return document.querySelectorAll('#fix-list li').length === 1")
        browser.run("document.querySelector('[name=reviewer]').value = 'AB'")
        browser.press("e")
        while not any(path.stat().st_size for path in downloads.glob("*_review.json")) and time.monotonic() < end + 60:
            time.sleep(0.1)
    reviews = collect_reviews([tmp_path / "map", downloads])
    assert reviews.problems == [] and [row["verdict"] for row in reviews.rows] == ["accept"]
    assert {row["accuracy"] for row in area_rows(reviews)} == {1.0}, "each answer was the map's class"
    assert list(fix_collections(reviews)) == ["smith42_0"]
