"""The review shell: from a key to the next report's picture, and how long a shell of 500 scans takes to open.

Seconds of the clock in Chromium without a graphics card; nothing is asserted but that the pictures came.
"""

import statistics
import time
from pathlib import Path

from playwright.sync_api import Page

from tests.pipelines.report.batches import write_batch
from tests.pipelines.report.browser import chromium, visit


def shown(page: Page) -> str:
    """Which report is shown, once its first picture is painted."""
    frame = page.locator("iframe.shown")
    frame.content_frame.locator(".slices svg").first.wait_for()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return frame.get_attribute("src") or ""


def test_a_key_and_a_large_shell(tmp_path: Path) -> None:
    write_batch(tmp_path / "sixty", 60)
    write_batch(tmp_path / "many", 500)
    with chromium() as browser:
        opened = []
        for _ in range(3):
            start = time.perf_counter()
            page = visit(browser, tmp_path / "many/index.html").page
            shown(page)
            opened.append(time.perf_counter() - start)
        page = visit(browser, tmp_path / "sixty/index.html").page
        page.get_by_label("name", exact=True).fill("AB")
        page.keyboard.press("Enter")
        before, keys = shown(page), []
        for _ in range(30):
            start = time.perf_counter()
            page.keyboard.press("a")
            page.wait_for_function(
                "(before) => document.querySelector('iframe.shown').getAttribute('src') !== before", arg=before
            )
            before = shown(page)
            keys.append(time.perf_counter() - start)
    print(f"\nshell of 500 scans, to its first picture: {statistics.median(opened):.2f} s")
    print(f"key to the next report's picture: median {statistics.median(keys):.2f} s, longest {max(keys):.2f} s")
