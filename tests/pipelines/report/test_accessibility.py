"""Pages as axe judges them, on a phone in light colours and a screen in dark ones; and what paper has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.pipelines.report.batches import write_batch
from tests.pipelines.report.browser import visit
from tests.pipelines.report.maps import write_map
from tests.pipelines.report.test_agreement import measure, write_verdicts
from tests.pipelines.report.test_gallery import write_gallery
from tests.pipelines.report.test_review_page import write_training_report


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_batch(folder / "batch", 3)
    write_training_report(folder)
    write_gallery(folder / "gallery.html")
    write_map(folder / "map", points=12).page.rename(folder / "map.html")
    (folder / "judged").mkdir()
    measure(write_verdicts(folder / "judged"))
    return folder


@pytest.fixture(autouse=True)
def closed_pages(browser: Browser) -> Iterator[None]:
    yield
    for context in browser.contexts:
        context.close()


def serious(page: Page) -> list[str]:
    """What axe calls serious or critical, with the places that it is about."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1366, "dark")])
@pytest.mark.parametrize(
    "name",
    ["batch/index.html", "batch/reports/case-00000000.html", "report.html", "gallery.html", "map.html",
     "judged/agreement.html"],
)  # fmt: skip
def test_axe_has_nothing_serious_to_say(browser: Browser, pages: Path, name: str, width: int, scheme: str):
    page = visit(browser, pages / name).page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert serious(page) == []


@pytest.mark.parametrize(
    ("name", "shown", "hidden"),
    [
        ("gallery.html", ".cutouts img", ".bar, .choices, .glow, [data-layer]"),
        ("map.html", ".map-static, .map-legend, .chips svg", ".bar, .map-view, .map-tools, .point-form"),
        ("judged/agreement.html", ".dispute h3, .dispute dd, table", ".bar, textarea"),
    ],
)
def test_paper_has_what_is_read_and_no_controls(browser: Browser, pages: Path, name: str, shown: str, hidden: str):
    page = visit(browser, pages / name).page
    page.emulate_media(media="print")
    for selector in shown.split(", "):
        assert page.locator(selector).first.is_visible(), selector
    for selector in hidden.split(", "):
        assert page.locator(selector).count() and not any(each.is_visible() for each in page.locator(selector).all())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing runs over the sheet's side"
    assert page.is_visible(".notice.paper") or page.is_visible(".notice"), "each sheet says what it is of"


def test_a_page_that_is_hard_to_read_would_be_called_so(browser: Browser, pages: Path):
    page = visit(browser, pages / "batch/reports/case-00000000.html").page
    page.evaluate("Object.assign(document.querySelector('h1').style, { color: '#aaa', backgroundColor: '#bbb' })")
    assert any("color-contrast" in line for line in serious(page))
