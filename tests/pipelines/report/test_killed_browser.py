"""What was given in the shell of a batch outlives a browser that is killed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.needs import missing
from tests.pipelines.report.batches import write_batch


@contextmanager
def killed_in_the_end(program: str, profile: Path, address: str) -> Iterator[Page]:
    """A page in a Chromium of its own, which is killed afterwards."""
    command = [program, "--headless", "--no-sandbox", f"--user-data-dir={profile}", "--remote-debugging-port=0"]
    process = subprocess.Popen([*command, "about:blank"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        endpoint = next(match[1] for line in process.stderr if (match := re.search(r"listening on (ws://\S+)", line)))
        with sync_playwright() as driver:
            page = driver.chromium.connect_over_cdp(endpoint).contexts[0].new_page()
            page.set_default_timeout(120_000)
            page.goto(address)
            yield page
            process.kill()
    finally:
        process.kill()
        process.wait()


def test_a_killed_browser_loses_nothing(tmp_path: Path):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("browser", "no Chromium on this machine: install the package chromium")
    write_batch(tmp_path / "results", 6)
    address = (tmp_path / "results" / "index.html").as_uri()
    with killed_in_the_end(program, tmp_path / "profile", address) as page:
        page.get_by_label("name", exact=True).fill("AB")
        for key in ("Enter", "a", "w", "r"):
            page.keyboard.press(key)
        assert "3 of 6 judged" in page.inner_text(".progress")
        page.wait_for_timeout(8000)  # Chromium writes within five seconds
    with killed_in_the_end(program, tmp_path / "profile", address) as page:
        assert "3 of 6 judged" in page.inner_text(".progress")
        assert page.get_by_label("name", exact=True).input_value() == "AB"
