"""What was given in the shell of a batch outlives the browser."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.needs import missing
from tests.pipelines.report.batches import write_batch


def test_a_browser_that_ends_without_notice_loses_nothing(tmp_path: Path):
    batch = tmp_path / "results"
    write_batch(batch, 6)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("browser", "no Chromium on this machine: install the package chromium")
    with sync_playwright() as driver:
        for visits in range(2):
            context = driver.chromium.launch_persistent_context(
                tmp_path / "profile", executable_path=program, args=["--no-sandbox"]
            )
            page = context.new_page()
            page.goto((batch / "index.html").as_uri())
            if visits:
                assert (
                    "3 of 6 judged" in page.inner_text(".progress")
                    and page.get_by_label("name", exact=True).input_value() == "AB"
                )
            else:
                page.get_by_label("name", exact=True).fill("AB")
                page.keyboard.press("Enter")
                for key in "awr":
                    page.keyboard.press(key)
                page.wait_for_timeout(8000)  # Chromium writes within five seconds
            context.close()
