"""The report of a map in a real browser: layers, places, points and fixes, and what is left without scripts."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Position
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geovision.datasets.labels import IGNORED, LabelRaster
from geovision.grids import Grid
from geovision.scenes import open_scene
from pipelines.report import map_pictures
from pipelines.report.map_areas import area_rows, fix_collections
from pipelines.report.map_pictures import distinct, ramp
from pipelines.report.verdicts import collect_reviews
from tests.geovision.rasters import write_scene
from tests.pipelines.report.browser import Visit, opened_again, visit, warns
from tests.pipelines.report.maps import (
    BANDS,
    CLASSES,
    COLOURS,
    GRID,
    HEIGHT,
    HOSTILE,
    WIDTH,
    Written,
    write_map,
    write_maps,
)
from tests.pipelines.report.pages import scripts_in, verdict_of

NAMES = [entry["name"] for entry in CLASSES]
KEYS = dict(zip(NAMES, "1234", strict=True)) | {"cannot tell": "0"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_pictures, "_LONGEST", 120)  # so that pictures are coarser than the map
        return write_map(tmp_path_factory.mktemp("map"))


@pytest.fixture(autouse=True)
def closed_pages(browser: Browser) -> Iterator[None]:
    yield
    for context in browser.contexts:
        context.close()


@pytest.fixture
def seen(browser: Browser, written: Written) -> Visit:
    seen = visit(browser, written.page)
    seen.page.set_viewport_size({"width": 1366, "height": 900})
    painted(seen.page)
    return seen


def painted(page: Page) -> None:
    """Wait until pictures are loaded, and what was asked for is drawn."""
    page.wait_for_function("() => [...document.images].every((image) => image.complete)")
    page.evaluate(
        "() => new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 80))"
    )


def colour(page: Page, column: float, row: float) -> map_pictures.Colour:
    """The colour of the canvas at a pixel of the whole map."""
    painted(page)
    red, green, blue = page.evaluate(
        """([column, row, width, height]) => {
                const canvas = document.querySelector(".map-stage canvas");
                const zoom = Math.min(canvas.width / width, canvas.height / height);
                const x = canvas.width / 2 + (column - width / 2) * zoom;
                const y = canvas.height / 2 + (row - height / 2) * zoom;
                return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
            }""",
        [column, row, WIDTH, HEIGHT],
    )
    return red, green, blue


def on_screen(page: Page, column: float, row: float) -> Position:
    """Where a pixel of the whole map is in the canvas."""
    box = page.locator(".map-stage canvas").bounding_box()
    assert box is not None
    zoom = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    return {"x": box["width"] / 2 + (column - WIDTH / 2) * zoom, "y": box["height"] / 2 + (row - HEIGHT / 2) * zoom}


def is_scene(rgb: map_pictures.Colour) -> bool:
    return rgb not in COLOURS and rgb[2] < 100


def test_the_page_is_one_file_without_names_that_asks_for_nothing(seen: Visit, written: Written):
    text = written.page.read_text(encoding="utf-8")
    assert len(text.encode()) < 8_000_000 and seen.complaints == []
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:"))] == [written.page.as_uri()]
    scripts_in(text)
    assert verdict_of(text) == json.loads(written.twin.read_text())["report"]
    for name in ("smith42", "scene.tif"):
        assert name not in text and name not in written.twin.read_text()
    assert HOSTILE not in text and seen.page.locator("img[src=x]").count() == 0
    assert seen.page.locator(".map-legend").get_by_text(HOSTILE).count() == 1


def test_without_scripts_pictures_legend_areas_and_places_are_there(browser: Browser, written: Written):
    page = visit(browser, written.page, scripts=False).page
    assert [page.locator(f"#map-{kind}").is_visible() for kind in ("scene", "classes", "confidence")] == [True] * 3
    assert page.locator(".map-view").is_hidden() and page.locator(".point-form").is_hidden()
    assert page.locator(".map-legend li").nth(1).inner_text().split("\n")[-1].strip().endswith("ha")
    latitude, longitude = map(float, page.locator("#doubtful code").first.inner_text().split(", "))
    assert (latitude, longitude) == pytest.approx((46.0343, 15.0407), abs=0.0002), "the worst place comes first"
    assert "2015-07-31" in page.inner_text(".facts") and "EPSG:32633" in page.inner_text("#provenance")
    assert page.locator("text.scale").first.text_content() == "1 km"


def test_layers_lie_on_one_another_and_flicker_in_place(seen: Visit):
    page = seen.page
    assert colour(page, 80, 150) == COLOURS[0] and colour(page, 240, 150) == COLOURS[1]
    assert COLOURS[1] != COLOURS[2] and colour(page, 400, 150) == COLOURS[2], "twins in colour can be told apart"
    page.keyboard.down(" ")
    assert is_scene(colour(page, 80, 150))
    page.keyboard.up(" ")
    assert colour(page, 80, 150) == COLOURS[0]
    page.locator("#map-swipe").fill("50")
    assert is_scene(colour(page, 80, 150)) and colour(page, 400, 150) == COLOURS[2]
    page.locator("#map-swipe").fill("0")
    page.keyboard.press("d")
    certain, doubtful = colour(page, 80, 150), colour(page, 315, 215)
    assert certain in ramp() and doubtful in ramp() and ramp().index(doubtful) < ramp().index(certain)
    page.keyboard.press("d")
    page.keyboard.press("1")
    assert colour(page, 80, 150) == COLOURS[0] and is_scene(colour(page, 400, 150))
    page.locator(".map-legend button").nth(2).click()
    assert is_scene(colour(page, 80, 150)) and colour(page, 400, 150) == COLOURS[2]
    page.keyboard.press("0")
    assert colour(page, 80, 150) == COLOURS[0]
    for _ in range(10):
        page.keyboard.press("[")
    assert is_scene(colour(page, 80, 150))


def test_under_the_pointer_are_coordinates_class_and_confidence(seen: Visit):
    seen.page.locator(".map-stage canvas").hover(position=on_screen(seen.page, 315.5, 215.5))
    text = seen.page.inner_text(".map-pointer")
    longitude, latitude = (part[0] for part in GRID.to_degrees(np.array([315.5]), np.array([215.5])))
    said = [float(part) for part in text.split(" · ")[0].split(", ")]
    assert said == pytest.approx([latitude, longitude], abs=1e-4)
    assert "(EPSG:32633)" in text and "row 215, column 315" in text and "soil" in text
    assert float(text.rpartition(" ")[2]) == pytest.approx(0.35, abs=0.02)
    seen.page.locator(".map-stage canvas").hover(position=on_screen(seen.page, WIDTH - 5, HEIGHT - 5))
    assert "no data" in seen.page.inner_text(".map-pointer")


def test_the_map_s_own_file_shows_single_pixels_and_another_is_refused(seen: Visit, written: Written, tmp_path: Path):
    page = seen.page
    assert colour(page, 241.5, 100.5) == COLOURS[1], "the picture is too coarse for it"
    other = tmp_path / "other.tif"
    write_scene(other, np.zeros((1, 4, 4), np.uint8))
    (tmp_path / "text.tif").write_text("no map")
    for wrong in (other, tmp_path / "text.tif"):
        page.locator("#map-file").set_input_files(wrong)
        page.wait_for_function("() => document.getElementById('map-file-state').textContent.startsWith('The file is')")
        assert colour(page, 241.5, 100.5) == COLOURS[1]
    page.locator("#map-file").set_input_files(written.map)
    page.get_by_text("at full resolution").wait_for()
    page.wait_for_timeout(300)
    assert colour(page, 241.5, 100.5) == COLOURS[0] and colour(page, 240.5, 100.5) == COLOURS[1]
    page.keyboard.press("1")
    assert colour(page, 241.5, 100.5) == COLOURS[0] and is_scene(colour(page, 240.5, 100.5))
    assert [said for said in seen.complaints if "getImageData" not in said] == []


def test_doubtful_places_are_shown_and_copied(seen: Visit):
    page = seen.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first = page.locator("#doubtful li").first
    first.locator(".copy").click()
    first.get_by_text("copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == first.locator("code").inner_text()
    first.locator(".go").click()
    painted(page)
    page.locator(".map-stage canvas").hover()
    assert page.inner_text(".map-pointer").split(" · ")[0][:6] == first.locator("code").inner_text()[:6]


def test_points_are_answered_by_one_key_each_and_become_areas(seen: Visit, written: Written, tmp_path: Path):
    page, points = seen.page, json.loads(written.twin.read_text())["points"]
    embedded = page.locator("#map-data").text_content() or ""
    assert len(points) == 60 and all("class" not in point for point in json.loads(embedded)["points"])
    page.keyboard.press("p")
    assert is_scene(colour(page, 80, 150)), "the map is hidden while points are answered"
    for number, point in enumerate(points):
        wrong = number % 10 == 0
        page.keyboard.press(KEYS["cannot tell" if number == 5 else NAMES[3] if wrong else point["class"]])
        if number == 1:
            page.keyboard.press("u")
            assert page.inner_text("#point-progress") == "1 of 60 answered"
            page.keyboard.press(KEYS[point["class"]])
    assert page.inner_text("#point-progress") == "60 of 60 answered" and warns(page)
    page.keyboard.press("Escape")
    assert colour(page, 80, 150) == COLOURS[0]
    page = opened_again(page, lambda again: again.inner_text("#point-progress").startswith("60"))
    page.locator("[name=reviewer]").fill("AB")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(tmp_path / download.value.suggested_filename)
    reviews = collect_reviews([written.page.parent, tmp_path])
    assert reviews.problems == [] and [row["state"] for row in reviews.rows] == ["open"], "no verdict was given"
    rows = {str(row["class"]): row for row in area_rows(reviews)}
    assert list(rows) == NAMES and rows["soil"]["reviewer"] == "AB"
    assert (rows["soil"]["answered"], rows["soil"]["cannot_tell"]) == (59, 1)
    assert 0 < float(rows["snow"]["area"] or 0) < 300 and rows["snow"]["mapped_area"] == 0
    assert float(rows["soil"]["accuracy"] or 0) == pytest.approx(0.9, abs=0.03)
    assert float(rows["soil"]["area_margin"] or 0) > 0
    assert sum(float(row["area"] or 0) for row in rows.values()) == pytest.approx((HEIGHT * WIDTH - 1600) / 100)


def test_fixes_are_polygons_that_a_training_takes_as_labels(seen: Visit, written: Written, tmp_path: Path):
    page, canvas = seen.page, seen.page.locator(".map-stage canvas")
    page.keyboard.press("m")
    page.select_option("#fix-class", "snow")
    corners = [(200, 60), (290, 60), (290, 140), (200, 140)]
    for column, row in [*corners, (10, 10)]:
        canvas.click(position=on_screen(page, column, row))
    canvas.press("Backspace")
    canvas.press("Enter")
    assert "snow, 4 corners" in page.inner_text("#fix-list")
    canvas.press("Escape")
    with page.expect_download() as download:
        page.click("#fix-save")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    with (
        open_scene(written.page.parent / "smith42_0.tif", sensor="sentinel2_l1c", wanted=BANDS) as scene,
        LabelRaster(path, scene, range(4), NAMES) as labels,
    ):
        burnt = labels.read(0, 0, HEIGHT, WIDTH)
    rows, columns = np.nonzero(burnt == 3)
    assert set(np.unique(burnt)) == {3, IGNORED}
    box = (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1)
    assert box == pytest.approx((200, 290, 60, 140), abs=1) and len(rows) == pytest.approx(90 * 80, rel=0.02)
    page.locator("#fix-list button").click()
    assert page.locator("#fix-list li").count() == 0 and page.locator("#fix-save").is_disabled()


def test_in_the_shell_of_a_folder_verdicts_answers_and_fixes_are_saved(browser: Browser, tmp_path: Path):
    written = write_maps(tmp_path / "maps", 3)
    page = visit(browser, tmp_path / "maps" / "index.html").page
    page.set_viewport_size({"width": 1366, "height": 900})
    page.get_by_label("name", exact=True).fill("AB")
    page.keyboard.press("Enter")
    frame = page.frame_locator("iframe.shown")
    frame.locator("body.in-shell").wait_for(state="attached")
    frame.locator("#point-start").click()
    frame.locator(".answers button").first.click()
    frame.get_by_text("1 of 60 answered").wait_for()
    frame.locator("#fix-draw").click()
    frame.locator(".map-stage canvas").scroll_into_view_if_needed()
    for x, y in ((100, 100), (200, 100), (200, 200)):
        frame.locator(".map-stage canvas").click(position={"x": x, "y": y})
    frame.locator(".map-stage canvas").press("Enter")
    frame.get_by_text("3 corners", exact=False).first.wait_for()
    page.locator("[data-key=a]").click()
    page.keyboard.press("w")
    page.keyboard.press("R")
    assert "3 judged" in page.inner_text(".progress") or "3 of 3 judged" in page.inner_text(".progress")
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(tmp_path / "maps" / "saved.json")
    reviews = collect_reviews([tmp_path / "maps"])
    assert [row["verdict"] for row in reviews.rows] == ["accept", "needs_work", "reject"]
    assert {row["note"] for row in area_rows(reviews)} != {""}, "one answered point is not enough"
    ((name, collection),) = fix_collections(reviews).items()
    assert name == "smith42_0" and len(collection["features"]) == 1 and len(written) == 3


def test_pages_of_noise_stay_below_eight_megabytes(tmp_path: Path, monkeypatch):
    generator = np.random.default_rng(0)
    pictures = [
        map_pictures.within(map_pictures._SCENE, lambda side: map_pictures.jpeg(noise(generator, side))),
        map_pictures.within(map_pictures._CLASSES, lambda side: classes_of_noise(generator, side), "image/png"),
        map_pictures._of_confidence(generator.random((1024, 1024))),
    ]
    chip = map_pictures.jpeg(noise(generator, map_pictures.CHIP))
    assert sum(map(len, pictures)) + 224 * len(chip) * 4 / 3 < 7_500_000


def noise(generator: np.random.Generator, side: int) -> np.ndarray:
    return generator.integers(0, 256, (side, side, 3), np.uint8)


def classes_of_noise(generator: np.random.Generator, side: int) -> bytes:
    numbers = generator.integers(0, 40, (side, side), np.uint8)
    return map_pictures.palette(numbers, distinct([(5, 5, 5)] * 40), 255)


def test_pixels_that_are_no_squares_on_the_ground_are_drawn_in_their_shape(browser: Browser, tmp_path: Path):
    grid = Grid(CRS.from_epsg(4326), from_origin(15, 60, 1e-4, 1e-4), HEIGHT, WIDTH)
    seen = visit(browser, write_map(tmp_path, grid=grid, points=12).page)
    painted(seen.page)
    assert grid.aspect == pytest.approx(2, rel=0.01)
    for selector, ratio in (("svg.drawing", HEIGHT / WIDTH), (".chips svg", 1)):
        _, _, width, height = map(float, seen.page.locator(selector).first.get_attribute("viewBox").split())  # type: ignore[union-attr]
        assert height / width == pytest.approx(ratio * grid.aspect, rel=0.01)
    there = """([column, row, aspect]) => {
        const canvas = document.querySelector(".map-stage canvas");
        const zoom = Math.min(canvas.width / 480, canvas.height / (320 * aspect));
        const at = [canvas.width / 2 + (column - 240) * zoom, canvas.height / 2 + (row - 160) * zoom * aspect];
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        return copy.getImageData(...at, 1, 1).data[3] > 0; }"""
    for column, row, inside in ((5, 5, True), (475, 315, True), (-8, 160, False), (488, 160, False)):
        assert seen.page.evaluate(there, [column, row, grid.aspect]) is inside, (column, row)
    seen.page.click("#point-start")
    shown = seen.page.locator("#point-panel svg.chip").get_attribute("viewBox")
    assert float((shown or "").split()[3]) == pytest.approx(64 * grid.aspect)
    assert seen.complaints == []
