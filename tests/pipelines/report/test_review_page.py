"""The report in a real browser: the viewer over both volumes, the verdict, and what is left without scripts."""

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser
from scipy.ndimage import binary_dilation

from medvision.findings.flags import scan_flags, structure_flags
from medvision.findings.statistics import structure_rows
from medvision.pictures.colours import contour_colours
from medvision.pictures.overlays import outline
from medvision.volumes.geometry import Grid
from pipelines.report import segmentation
from pipelines.report.training import training_content, training_report
from pipelines.report.verdicts import collect_reviews
from pipelines.report.viewer import viewer_program
from shared_backbones.card import ClassEntry
from tests.medvision.phantoms import make_affine
from tests.needs import missing
from tests.pipelines.report.browser import Visit, opened_again, visit, warns

SHAPE = (40, 44, 36)
LEFT = '<script>window.harmed = 1<!-- "left"'
FRONT = "front <img src=x onerror='window.harmed = 2'>"
CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "background"},
    {"id": 3, "name": LEFT, "color": [255, 0, 255]},
    {"id": 7, "name": FRONT, "color": [0, 255, 0]},
    {"id": 8, "name": "absent", "color": [0, 0, 255]},
    {"id": 9, "name": "twin", "color": [0, 255, 1]},
]
MAGENTA, GREEN = 0, 1
REPORT = {"id": "case-0a1b2c3d-00112233", "sha256": "00112233" * 8}


def phantom() -> tuple[np.ndarray, np.ndarray, Grid]:
    """A block, brighter on the right, with a ball on the left, and one to the right, in front, above; stored as LPI.

    A part of the second ball is a structure of its own, one shade apart.
    """
    grid = Grid.from_affine(SHAPE, make_affine("LPI", (2, 2, 2.5), origin=(40, 45, 44)))
    x, y, z = np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], np.indices(SHAPE)) + grid.affine[:3, 3, None, None, None]
    labels = np.zeros(SHAPE, np.uint8)
    labels[(x + 20) ** 2 + y**2 + z**2 < 9**2] = 3
    labels[(x - 15) ** 2 + (y - 20) ** 2 + (z - 15) ** 2 < 9**2] = 7
    labels[(labels == 7) & (x > 18)] = 9
    image = np.where(x > 0, 150, 100).astype(np.float32)
    image[:3, :3, :3] = 0
    return image, labels, grid


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if viewer_program() is None:
        missing("browser", "the viewer was not built: run make viewer")
    image, labels, grid = phantom()
    rows = structure_rows(labels, image, grid.affine, CLASSES, {3: 0.9, 7: 0.8, 8: None, 9: 0.7})
    sidecar = {
        "case": "case-0a1b2c3d", "report": REPORT, "structures": rows,
        "flags": [*scan_flags(image, grid, "T1-weighted MRI"), *structure_flags(rows)],
        "input": {"modality": "T1-weighted MRI"},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "_LONGEST_SIDE", 60)
        html = segmentation.segmentation_report(sidecar, {"classes": CLASSES}, image, labels, grid)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(report: Path, browser: Browser) -> Visit:
    """The page with its viewer open, and nothing of the scan too dark to be seen."""
    seen = visit(browser, report)
    assert not seen.page.is_visible("#viewer-panel"), "the viewer was loaded before it was asked for"
    seen.page.click("#open-viewer")
    seen.page.locator("[data-part=structure]", has_text=re.compile(".")).wait_for()
    seen.page.select_option("[data-part=window]", "2")  # the full range
    return seen


def told(seen: Visit) -> tuple[dict[str, float], float, str]:
    """What the read-out says: mm towards R, A and S, value, structure."""
    position, value, structure = (
        seen.page.inner_text(f"[data-part={part}]") for part in ("position", "value", "structure")
    )
    signs = {"R": ("R", 1), "L": ("R", -1), "A": ("A", 1), "P": ("A", -1), "S": ("S", 1), "I": ("S", -1)}
    found = {signs[letter][0]: signs[letter][1] * float(mm) for letter, mm in re.findall(r"([A-Z]) ([\d.]+)", position)}
    return found, float(value), structure


def picture(seen: Visit) -> np.ndarray:
    """The canvas as it is on the screen, (H, W, 3), without the bar of keys, which may lie over it."""
    seen.page.locator(".bar").evaluate("bar => { bar.style.visibility = 'hidden'; }")
    shot = seen.page.locator("canvas").screenshot()
    seen.page.locator(".bar").evaluate("bar => { bar.style.visibility = ''; }")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)[4:-4, 4:-4]  # without the page's edge


def panels(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The axial panel, which is below the coronal one with nothing beside it, and the coronal one."""
    bright = pixels.max(axis=2) > 40
    rows = np.flatnonzero(bright.mean(axis=1) > 0.1)
    gap = rows[1:][np.diff(rows) > 1]
    assert len(gap) == 1, "expected two rows of panels"
    lower = pixels[gap[0] : rows[-1] + 1]
    columns = np.flatnonzero((lower.max(axis=2) > 40).mean(axis=0) > 0.5)
    return lower[:, columns[0] : columns[-1] + 1], pixels[rows[0] : gap[0], columns[0] : columns[-1] + 1]


def share_of(pixels: np.ndarray, colour: int) -> tuple[float, float, float]:
    """How much of a panel has a colour, and the middle of it from left and from top, as shares of the panel."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    other = green if colour == MAGENTA else np.maximum(red, blue)
    main = np.minimum(red, blue) if colour == MAGENTA else green
    rows, columns = np.nonzero(main - other > 80)
    if not len(rows):
        return 0.0, 0.5, 0.5
    return len(rows) / red.size, columns.mean() / red.shape[1], rows.mean() / red.shape[0]


def labels_in(pixels: np.ndarray) -> np.ndarray:
    """Numbers of the labels (H, W) that a picture shows in their own colours, and nothing else."""
    shades = contour_colours(CLASSES)
    return np.select([(pixels == shades[number]).all(axis=2) for number in (3, 7, 9)], [1, 2, 3])


def go(seen: Visit, name: str) -> None:
    seen.page.get_by_role("button", name=name, exact=True).and_(seen.page.locator(".structures button")).click()


def test_both_volumes_are_drawn_and_the_patients_left_is_on_the_right(opened: Visit):
    opened.page.select_option("[data-part=style]", "filled")
    opened.page.locator("[data-part=opacity]").fill("100")
    go(opened, LEFT)
    axial, coronal = panels(picture(opened))
    for panel in (axial, coronal):
        area, across, _ = share_of(panel, MAGENTA)
        assert 0.02 < area < 0.1
        assert across == pytest.approx(0.5 + 20 / 80, abs=0.04)  # 20 mm to the left in a block of 80 mm
    height, width = axial.shape[:2]
    greys = [axial[height // 8, int(width * place)] for place in (0.25, 0.75)]
    assert greys[0].mean() > greys[1].mean() + 50, "the scan lies mirrored to its labels"
    go(opened, FRONT)
    axial, coronal = panels(picture(opened))
    area, across, down = share_of(axial, GREEN)
    assert area > 0.02 and across < 0.4 and down < 0.4  # to the right, in front
    assert share_of(coronal, GREEN)[2] < 0.4  # above


def test_contours_leave_the_inside_free_and_labels_can_be_hidden(opened: Visit):
    go(opened, LEFT)
    opened.page.select_option("[data-part=style]", "filled")
    filled = share_of(panels(picture(opened))[0], MAGENTA)[0]
    opened.page.select_option("[data-part=style]", "contours")
    contours = share_of(panels(picture(opened))[0], MAGENTA)[0]
    assert 0.02 * filled < contours < 0.3 * filled
    box = opened.page.get_by_label(f"show {LEFT}")
    box.uncheck()
    assert share_of(panels(picture(opened))[0], MAGENTA)[0] == 0
    assert told(opened)[2] == LEFT, "what is hidden is still named"
    box.check()
    assert share_of(panels(picture(opened))[0], MAGENTA)[0] == pytest.approx(contours)
    opened.page.select_option("[data-part=style]", "none")
    assert share_of(panels(picture(opened))[0], MAGENTA)[0] == 0
    opened.page.select_option("[data-part=style]", "contours")


COUNT_FILLS = """() => {
    window.fills = 0;
    for (const name of ["texImage3D", "texSubImage3D", "texStorage3D", "copyTexSubImage3D"]) {
        const real = WebGL2RenderingContext.prototype[name];
        WebGL2RenderingContext.prototype[name] = function (...values) {
            window.fills += 1;
            return real.apply(this, values);
        };
    }
}"""


def test_hiding_labels_fills_no_texture_of_a_volume_again(opened: Visit):
    page = opened.page
    go(opened, LEFT)
    page.evaluate(COUNT_FILLS)
    area = share_of(panels(picture(opened))[0], MAGENTA)[0]
    page.select_option("[data-part=style]", "none")
    page.select_option("[data-part=style]", "contours")
    page.get_by_label("all structures").uncheck()
    assert share_of(panels(picture(opened))[0], MAGENTA)[0] == 0
    page.get_by_label(f"show {LEFT}").check()
    assert share_of(panels(picture(opened))[0], MAGENTA)[0] == pytest.approx(area)
    page.get_by_label("all structures").check()
    assert page.evaluate("window.fills") == 0
    page.select_option("[data-part=window]", "0")
    assert page.evaluate("window.fills") > 0, "a window fills textures, and the counter counts"
    page.select_option("[data-part=window]", "2")


def test_one_plane_can_be_large_and_the_crosshair_hidden(opened: Visit):
    page = opened.page
    go(opened, LEFT)
    page.select_option("[data-part=style]", "none")

    def orange() -> int:
        pixels = picture(opened)
        return int(((pixels[..., 0] > 150) & (pixels[..., 2] < 90)).sum())

    assert orange() > 50
    page.locator("[data-part=crosshair]").uncheck()
    assert orange() == 0
    page.locator("[data-part=crosshair]").check()
    page.select_option("[data-part=style]", "filled")
    alike = picture(opened)
    page.select_option("[data-part=layout]", "axial")
    large = picture(opened)
    area = [int((np.minimum(pixels[..., 0], pixels[..., 2]) - pixels[..., 1] > 80).sum()) for pixels in (alike, large)]
    assert not np.array_equal(alike, large) and area[1] != area[0]
    page.select_option("[data-part=layout]", "equal")
    page.select_option("[data-part=style]", "contours")


def test_the_reference_is_a_layer_of_the_viewer(browser: Browser, tmp_path: Path):
    if viewer_program() is None:
        missing("browser", "the viewer was not built: run make viewer")
    image, labels, grid = phantom()
    reference = np.where(labels == 3, 0, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "_LONGEST_SIDE", 60)
        html = segmentation.segmentation_report(
            {"case": "case-0a1b2c3d", "report": REPORT}, {"classes": CLASSES}, image, labels, grid, reference=reference,
            reference_name="earlier result", certainty=np.where(labels == 3, 0, 255).astype(np.uint8),
        )  # fmt: skip
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    seen = visit(browser, tmp_path / "report.html")
    seen.page.click("#open-viewer")
    seen.page.locator("[data-part=structure]", has_text=re.compile(".")).wait_for()
    seen.page.select_option("[data-part=window]", "2")
    seen.page.select_option("[data-part=style]", "filled")
    seen.page.locator("[data-part=opacity]").fill("100")
    go(seen, LEFT)
    assert seen.page.locator("[data-part=layer] option").all_inner_texts() == [
        "result", "earlier result", "difference", "doubt: yellow to red",
    ]  # fmt: skip
    areas = {}
    for layer in ("result", "reference", "difference", "doubt"):
        seen.page.select_option("[data-part=layer]", layer)
        pixels = picture(seen)
        red = (pixels[..., 0] > 200) & (abs(pixels[..., 1] - 84) < 20) & (abs(pixels[..., 2] - 69) < 20)
        areas[layer] = (share_of(panels(pixels)[0], MAGENTA)[0] > 0.01, red.sum() > 500)
        doubtful = (pixels[..., 0] > 150) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)
        if layer == "difference":  # the doubt lies under labels: those are switched off
            seen.page.select_option("[data-part=style]", "none")
        areas[layer] += (doubtful.sum() > 500,)
    assert areas == {
        "result": (True, False, False), "reference": (False, False, False), "difference": (False, True, False),
        "doubt": (False, False, True),
    }  # fmt: skip
    assert seen.complaints == []


@pytest.mark.parametrize(
    ("name", "key", "labels"), [(LEFT, "PageDown", {1}), (FRONT, "PageUp", {2, 3})], ids=["left", "front and twin"]
)
def test_contours_are_the_border_of_every_label_in_the_plane(opened: Visit, name: str, key: str, labels: set[int]):
    """Also near the pole of a ball, where a contour of the surface in space would fill the slice."""
    page = opened.page
    page.locator("[data-part=opacity]").fill("100")
    go(opened, name)
    page.locator("canvas").focus()
    for _ in range(3):
        page.keyboard.press(key)
    page.select_option("[data-part=style]", "filled")
    pixels = picture(opened)
    page.select_option("[data-part=style]", "contours")
    filled, lines = labels_in(pixels), labels_in(picture(opened))
    height, width = filled.shape
    for plane in (filled[: height // 2, : width // 2], filled[: height // 2, width // 2 :], filled[height // 2 :]):
        assert (plane > 0).sum() > 100, "a plane without labels proves nothing"
    assert set(np.unique(filled).tolist()) == {0} | labels
    crosshair = np.asarray(binary_dilation((pixels[..., 0] > 150) & (pixels[..., 2] < 90), np.ones((3, 3))), bool)
    expected = np.where(outline(filled), filled, 0)
    wrong = (lines != expected) & ~crosshair
    assert not (wrong & (expected > 0)).any(), "a contour has a gap"
    assert wrong.sum() < 0.05 * (expected > 0).sum(), "where a voxel's edge meets a pixel's centre, it may be two wide"


def test_a_structure_is_gone_to_from_the_list_and_from_the_tables(opened: Visit):
    for start, name, place, value in (
        (".structures", LEFT, (-20, 0, 0), 100),
        ("#volumes", FRONT, (15, 20, 15), 150),
        ("#checks", "absent", None, None),
    ):
        button = opened.page.locator(f"{start} button", has_text=name)
        if place is None:
            assert button.count() == 0, "there is nowhere to go"
            continue
        button.click()
        found, shown, structure = told(opened)
        assert structure == name
        assert list(found.values()) == pytest.approx(place, abs=2)
        assert shown == pytest.approx(value, abs=1)


def test_keys_move_the_crosshair_by_voxels(opened: Visit):
    go(opened, LEFT)
    opened.page.locator("canvas").focus()
    before = told(opened)[0]
    for key, axis, step in (
        ("ArrowLeft", "R", 2), ("ArrowUp", "A", 2), ("PageUp", "S", 2.5), ("ArrowRight", "R", -2),
        ("ArrowDown", "A", -2), ("PageDown", "S", -2.5), ("Shift+ArrowLeft", "R", 10),
    ):  # fmt: skip
        opened.page.keyboard.press(key)
        after = told(opened)[0]
        assert after == pytest.approx(before | {axis: before[axis] + step}, abs=0.11), key
        before = after


def test_a_verdict_is_saved_as_a_file(opened: Visit, tmp_path: Path):
    page = opened.page
    page.get_by_label("needs work").check()
    page.get_by_label("Comment").fill('  "front" leaks </script> – 脳\nsecond line ')
    page.get_by_label("Your name").fill("AB")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the verdict").click()
    assert download.value.suggested_filename == f"{REPORT['id']}_review.json"
    download.value.save_as(tmp_path / "v.json")
    verdict = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert abs((datetime.now(UTC) - datetime.fromisoformat(verdict.pop("created"))).total_seconds()) < 600
    assert 0 < verdict.pop("seconds") < 6000
    assert verdict == {
        "schema_version": 2,
        "cause": "",
        "structures": {},
        "marks": [],
        "case": "case-0a1b2c3d",
        "report": REPORT,
        "verdict": "needs_work",
        "comment": '"front" leaks </script> – 脳\nsecond line',
        "reviewer": "AB",
    }


def test_keys_judge_and_nothing_is_lost_on_reload(browser: Browser, report: Path, tmp_path: Path):
    page = visit(browser, report).page
    page.keyboard.press("w")
    page.get_by_label("Comment").fill("leaks, says Ward; a r u are letters here")
    page.get_by_label("Your name").fill("AB")
    page.locator(".judge").first.click()
    page.locator(".judge").first.click()
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    page.locator("svg.drawing").first.click()
    page.keyboard.type("here")
    page.keyboard.press("Enter")
    assert warns(page), "leaving without saving is warned of"
    page = opened_again(page, lambda again: again.locator(".mark").count() == 1)
    assert page.get_by_label("needs work").is_checked()
    assert page.get_by_label("Comment").input_value() == "leaks, says Ward; a r u are letters here"
    assert page.get_by_label("Your name").input_value() == "AB"
    assert page.locator(".judge").first.inner_text() == "fix" and page.locator(".mark text").text_content() == "here"
    page.keyboard.press("R")
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(tmp_path / "v.json")
    verdict = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert (verdict["verdict"], verdict["cause"], list(verdict["structures"].values())) == ("reject", "scan", ["fix"])
    (mark,) = verdict["marks"]
    letter, distance, _ = mark["position"].split()
    axis = ["sagittal", "coronal", "axial"].index(mark["plane"])
    sign = 1 if letter in "RAS" else -1
    assert mark["word"] == "here" and mark["mm"][axis] == pytest.approx(sign * float(distance), abs=0.1)
    (row,) = collect_reviews([tmp_path]).rows
    assert (row["cause"], row["state"]) == ("scan", "orphan") and str(row["marks"]).endswith(": here")
    assert not warns(page), "what is saved needs no warning"
    page = opened_again(page, lambda again: again.get_by_label("reject").is_checked())
    assert not warns(page) and page.get_by_label("reject").is_checked()
    page.keyboard.press("u")
    assert not page.get_by_label("reject").is_checked()


def test_keys_switch_what_lies_over_the_pictures(browser: Browser, report: Path):
    page = visit(browser, report).page
    layer = page.locator(".layer.result").first
    seen = "layer => getComputedStyle(layer).visibility"
    page.keyboard.down(" ")
    assert layer.evaluate(seen) == "hidden"
    page.keyboard.up(" ")
    assert layer.evaluate(seen) == "visible"
    page.keyboard.press("2")
    codes = page.locator(".judged li[data-code]").evaluate_all("items => items.map(item => item.dataset.code)")
    shown = page.locator(".layer path[visibility=inherit]").evaluate_all("all => all.map(line => line.dataset.code)")
    assert set(shown) == {codes[1]}
    page.keyboard.press("0")
    assert page.locator(".layer path[visibility=hidden]").count() == 0
    page.keyboard.press("f")
    assert page.locator("#show-fill").is_checked()
    page.keyboard.press("[")
    assert layer.evaluate("layer => getComputedStyle(layer).opacity") == "0.9"


def write_training_report(folder: Path) -> Path:
    recipe = {"name": LEFT, "domain": "geovision", "data": {}, "model": {}, "train": {}, "seed": 1}
    card = {"architecture": "unet", "weights_sha256": "ab" * 32}
    content = training_content(recipe, card, folder / "absent", {"figures": {"accuracy": 0.5}, "tables": []})
    (folder / "report.html").write_text(training_report(content), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "report.html"


def test_a_training_report_takes_a_verdict_that_finds_it(browser: Browser, tmp_path: Path):
    seen = visit(browser, write_training_report(tmp_path))
    assert seen.page.is_hidden(".framed")
    keys = [button.get_attribute("data-key") for button in seen.page.locator(".bar button").all()]
    assert keys == ["a", "w", "r", "u", "c", "e", "?"], "a model is no scan: there is none to be bad, and no viewer"
    seen.page.keyboard.press("R")
    assert not seen.page.get_by_label("reject").is_checked()
    seen.page.get_by_label("reject").check()
    seen.page.get_by_role("button", name="Save the verdict").click()
    assert "short name" in seen.page.inner_text("#verdict-state"), "a reader is named"
    seen.page.get_by_label("Your name").fill("AB")
    with seen.page.expect_download() as download:
        seen.page.get_by_role("button", name="Save the verdict").click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    (row,) = collect_reviews([tmp_path]).rows
    assert (row["case"], row["kind"], row["state"], row["verdict"]) == (
        "model-abababab", "training", "reviewed", "reject",
    )  # fmt: skip
    assert seen.complaints == [] and seen.page.evaluate("window.harmed") is None
    assert [address for address in seen.requests if not address.startswith("blob:")] == [
        (tmp_path / "report.html").as_uri()
    ]


def test_in_mlflows_frame_the_page_is_complete_and_says_that_it_saves_nothing(browser: Browser, tmp_path: Path):
    html = write_training_report(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "mlflow.html").write_text("<!DOCTYPE html><title>MLflow</title>", encoding="utf-8")
    seen = visit(browser, tmp_path / "mlflow.html")
    seen.page.evaluate(  # as its ShowArtifactHtmlView does
        """html => {
            const frame = document.createElement("iframe");
            frame.setAttribute("sandbox", "allow-scripts");
            frame.src = URL.createObjectURL(new Blob([html], { type: "text/html" }));
            document.body.append(frame);
        }""",
        html,
    )
    frame = seen.page.frame_locator("iframe")
    frame.get_by_text("download the report and open the file").wait_for()
    assert frame.locator("form.verdict").is_hidden() and frame.get_by_text("Accuracy").first.is_visible()
    colour = frame.locator("h2").first.evaluate("title => getComputedStyle(title).fontFamily")
    assert "serif" not in colour.replace("sans-serif", "") and seen.complaints == []


def test_the_page_is_silent_asks_for_nothing_and_hostile_names_are_inert(opened: Visit, report: Path):
    assert [address for address in opened.requests if not address.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert opened.complaints == []
    assert opened.page.evaluate("window.harmed") is None
    assert opened.page.locator("#volumes th", has_text=LEFT).inner_text() == LEFT


def test_a_foreign_script_and_a_request_are_refused(browser: Browser, report: Path):
    seen = visit(browser, report)
    seen.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.harmed = 3";
        document.head.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.harmed = 4'>");
    }""")
    assert seen.page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"
    assert seen.page.evaluate("window.harmed") is None
    assert len([line for line in seen.complaints if "Content Security Policy" in line]) >= 3


def test_the_page_is_complete_without_scripts_and_on_paper(browser: Browser, report: Path):
    seen = visit(browser, report, scripts=False)
    page = seen.page
    for hidden in ("#open-viewer", "#viewer-panel", "form.verdict", ".bar", ".box", ".judge"):
        assert not page.is_visible(hidden), hidden
    assert "needs JavaScript" in page.inner_text("#viewer") and REPORT["id"] in page.inner_text("#verdict")
    pictures = page.locator("svg.drawing")
    assert pictures.count() == 18
    assert all(pictures.nth(number).is_visible() for number in (0, 17))
    assert LEFT in page.inner_text("#volumes")
    assert seen.complaints == [] and seen.requests == [report.as_uri()]
    page.emulate_media(media="print")
    assert not page.is_visible("#viewer") and not page.is_visible("form.verdict") and not page.is_visible(".bar")
    assert "☐ needs work" in page.inner_text(".box") and page.is_visible(".box"), "an empty box for a verdict by hand"
    assert "case-0a1b2c3d" in page.inner_text(".notice"), "the case is on every sheet"
    assert pictures.nth(0).is_visible() and page.is_visible("#volumes table")
