"""The report of an enhancement: what its pictures and numbers are, and how it behaves in a browser."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Position

from geovision.scenes import open_scene
from pipelines.report import enhanced_scenes
from pipelines.report.enhanced import Samples
from pipelines.report.enhanced_scenes import enhanced_pictures, scene_report
from tests.geovision.rasters import write_scene
from tests.pipelines.report.browser import visit

BANDS = ["B2", "B5", "B11"]
HEIGHT, WIDTH = 130, 200
SIDECAR = {
    "case": "case-0123abcd", "created": "2026-01-01T00:00:00+00:00",
    "model": {"name": "sharp", "version": "1", "architecture": "hat", "sha256": "ab"},
    "input": {"shape": [HEIGHT, WIDTH], "gsd_m": 10.0, "sensor": "sentinel2_l1c", "bands": BANDS, "sha256": "cd"},
    "settings": {}, "tile": {"size": 64}, "versions": {"torch": "2"}, "warnings": ["a warning <b>"],
    "consistency": [{"name": "B5", "rms": 0.001, "worst": 0.01, "consistent": True}],
}  # fmt: skip


def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Before and after: one block of B5 and B11 is changed, and a corner is unknown."""
    before = np.random.default_rng(0).integers(800, 1200, (3, HEIGHT, WIDTH)).astype(np.uint16)
    before[:, :10, :10] = 0
    after = before.copy()
    after[1:, 70:110, 130:180] += 500
    return before, after


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enhanced")
    before, after = numbers()
    scene = write_scene(folder / "private-name.tif", before, BANDS, nodata=0)
    result = write_scene(folder / "result.tif", np.where(before == 0, np.nan, after * 1e-4).astype(np.float32), BANDS)
    with open_scene(scene, sensor="sentinel2_l1c") as opened:
        pictures = enhanced_pictures(opened, result, BANDS, ["B5", "B11"], [0.05, 0.05])
        (folder / "page.html").write_text(scene_report(SIDECAR, pictures, opened.grid))
    assert "private" not in (folder / "page.html").read_text()
    return folder / "page.html"


def data_of(page: Path) -> dict:
    text = page.read_text().partition('id="enhanced-data">')[2].partition("</script>")[0]
    return json.loads(text)


def test_numbers_are_those_of_both_files(page: Path) -> None:
    data = data_of(page)
    samples, truth = data["samples"], dict(zip(("before", "after"), numbers(), strict=True))
    shape = len(samples["rows"]), len(samples["columns"]), 3
    assert samples["names"] == BANDS and shape[0] > 40
    step = (samples["high"] - samples["low"]) / 65534
    for name, values in truth.items():
        stored = np.frombuffer(base64.b64decode(samples[name]), "<u2").reshape(shape)
        wanted = values[:, samples["rows"]][:, :, samples["columns"]].transpose(1, 2, 0) * 1e-4
        known = wanted > 0
        assert (stored[~known] == 65535).all() and not known.all()
        np.testing.assert_allclose(samples["low"] + stored[known] * step, wanted[known], atol=step)


def test_what_changed_most_comes_first_and_strips_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = numbers()
    scene = write_scene(tmp_path / "scene.tif", before, BANDS, nodata=0)
    result = write_scene(tmp_path / "result.tif", (after * 1e-4).astype(np.float32), BANDS)
    drawn = []
    for strip in (256, 64):
        monkeypatch.setattr(enhanced_scenes, "_STRIP", strip)
        with open_scene(scene, sensor="sentinel2_l1c") as opened:
            drawn.append(enhanced_pictures(opened, result, BANDS, ["B5", "B11"], [0.05, 0.05]))
    whole, parts = drawn
    assert (whole.before, whole.after, whole.difference) == (parts.before, parts.after, parts.difference)
    first = whole.chips[0].chip
    assert 64 <= first.row < 128 and 128 <= first.column < 192
    assert whole.largest == "1" and len(whole.chips) < 12  # blocks that are as they were are left out


def test_numbers_that_are_all_alike_or_unknown_are_packed() -> None:
    unknown = np.full((1, 1, 2), np.nan)
    packed = Samples([0], [0], ["a", "b"], unknown, np.full((1, 1, 2), 3.0)).packed()
    assert packed["low"] == packed["high"] == 3.0


@pytest.fixture(autouse=True)
def closed_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "browser" in request.fixturenames:
        for context in request.getfixturevalue("browser").contexts:
            context.close()


def test_a_place_shows_its_numbers_and_the_swipe_divides(browser: Browser, page: Path) -> None:
    seen = visit(browser, page)
    view = seen.page
    view.set_viewport_size({"width": 1366, "height": 900})
    view.wait_for_function("() => [...document.images].every((image) => image.complete)")
    canvas = view.locator(".map-stage canvas")
    size = canvas.evaluate("(each) => [each.clientWidth, each.clientHeight]")
    zoom = min(size[0] / WIDTH, size[1] / HEIGHT)
    row, column = 90, 150
    at: Position = {"x": size[0] / 2 + (column - WIDTH / 2) * zoom, "y": size[1] / 2 + (row - HEIGHT / 2) * zoom}
    canvas.click(position=at)
    rows = view.locator("#enhanced-numbers tr")
    assert rows.count() == 3 and "row" in view.locator("#enhanced-place").inner_text()
    before, after = (float(rows.nth(1).locator("td").nth(which).inner_text()) for which in (0, 1))
    assert after - before == pytest.approx(0.05, abs=2e-4)
    assert view.locator("#enhanced-curve polyline").count() == 2
    pictures = []
    for place in ("0", "50", "100"):
        view.locator("#map-swipe").fill(place)
        view.wait_for_timeout(150)
        pictures.append(canvas.evaluate("(each) => each.toDataURL()"))
    assert len(set(pictures)) == 3
    view.locator(".chips .go").first.click()
    assert "row" in view.locator("#enhanced-place").inner_text()
    assert seen.complaints == [] and [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []


def test_without_scripts_the_pictures_stand_side_by_side(browser: Browser, page: Path) -> None:
    view = visit(browser, page, scripts=False).page
    assert view.locator(".map-static svg").count() == 3 and not view.locator(".map-view").is_visible()
