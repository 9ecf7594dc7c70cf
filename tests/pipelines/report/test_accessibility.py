"""Pages as axe judges them: nothing serious or critical, on a phone in light colours and a screen in dark ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.pipelines.report.batches import write_batch
from tests.pipelines.report.browser import visit
from tests.pipelines.report.test_review_page import write_training_report


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_batch(folder / "batch", 3)
    write_training_report(folder)
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
@pytest.mark.parametrize("name", ["batch/index.html", "batch/reports/case-00000000.html", "report.html"])
def test_axe_has_nothing_serious_to_say(browser: Browser, pages: Path, name: str, width: int, scheme: str):
    page = visit(browser, pages / name).page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert serious(page) == []


def test_a_page_that_is_hard_to_read_would_be_called_so(browser: Browser, pages: Path):
    page = visit(browser, pages / "batch/reports/case-00000000.html").page
    page.evaluate("Object.assign(document.querySelector('h1').style, { color: '#aaa', backgroundColor: '#bbb' })")
    assert any("color-contrast" in line for line in serious(page))
