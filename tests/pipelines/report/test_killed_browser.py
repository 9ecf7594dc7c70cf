"""What was given in the shell of a batch outlives a browser that is killed."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.needs import missing
from tests.pipelines.report.batches import write_batch
from tests.pipelines.report.browser import FRAMES_IN_PROCESS


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "not within two minutes"
        time.sleep(0.1)


def is_written(profile: Path, word: str) -> bool:
    """Whether a word is in what a browser keeps on disk of pages' storage."""
    logs = [path.read_bytes() for path in (profile / "Default" / "Local Storage" / "leveldb").glob("*.log")]
    return any(word.encode(coding) in log for log in logs for coding in ("latin-1", "utf-16-le"))


@contextmanager
def killed_in_the_end(program: str, profile: Path, address: str) -> Iterator[Page]:
    """A page in a Chromium of its own, which is killed afterwards."""
    told = profile / "DevToolsActivePort"
    told.unlink(missing_ok=True)
    command = [program, "--headless", "--no-sandbox", FRAMES_IN_PROCESS, f"--user-data-dir={profile}"]
    process = subprocess.Popen([*command, "--remote-debugging-port=0", "about:blank"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: told.exists() and len(told.read_text().splitlines()) == 2)
        port, path = told.read_text().splitlines()
        with sync_playwright() as driver:
            browser = driver.chromium.connect_over_cdp(f"ws://127.0.0.1:{port}{path}", timeout=120_000)
            page = browser.contexts[0].new_page()
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
        until(lambda: is_written(tmp_path / "profile", "reject"))  # Chromium collects changes for some seconds
    with killed_in_the_end(program, tmp_path / "profile", address) as page:
        assert "3 of 6 judged" in page.inner_text(".progress")
        assert page.get_by_label("name", exact=True).input_value() == "AB"
