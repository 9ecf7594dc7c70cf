"""A headless Chromium for tests of pages, with what it says and asks for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.needs import missing

# WebGL without a graphics card; the page itself is put together without GL, as screenshots would wait for it.
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-compositing")


@dataclass
class Visit:
    """A page, everything but notes that its console said, and every address that it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; where there is none, its tests are skipped, or fail where a browser is required."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("browser", "no Chromium on this machine: install the package chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", *SOFTWARE_GL])
        yield browser
        browser.close()


def visit(browser: Browser, path: Path, *, scripts: bool = True) -> Visit:
    """Open a page as a user does who double-clicks the file."""
    context = browser.new_context(
        viewport={"width": 900, "height": 640},
        java_script_enabled=scripts,
        accept_downloads=True,
        reduced_motion="reduce",
    )
    context.set_default_timeout(60_000)
    seen = Visit(context.new_page())
    seen.page.on("console", lambda message: _note(seen.complaints, message))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.goto(path.as_uri())
    return seen


def _note(complaints: list[str], message: ConsoleMessage) -> None:
    if "GL Driver Message (OpenGL, Performance" not in message.text:  # screenshots read what WebGL has drawn
        complaints.append(f"{message.type}: {message.text}")
