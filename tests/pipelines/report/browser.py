"""A headless Chromium for tests of pages, with what it says and asks for."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.needs import missing

# WebGL without a graphics card; the page itself is put together without GL, as screenshots would wait for it.
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-compositing")
# Keys pressed while a frame's own process starts or ends are at times never answered, and Playwright waits for ever.
# The other features are of Playwright's own list, which this replaces; pictures and navigations depend on them.
FRAMES_IN_PROCESS = (
    "--disable-features=IsolateSandboxedIframes,AvoidUnnecessaryBeforeUnloadCheckSync,CDPScreenshotNewSurface,"
    "HttpsUpgrades,PaintHolding,ThirdPartyStoragePartitioning"
)


@dataclass
class Visit:
    """A page, everything but notes that consoles said, and every address asked for, also by tabs opened after it."""

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
        arguments = ["--no-sandbox", FRAMES_IN_PROCESS, *SOFTWARE_GL]
        browser = driver.chromium.launch(executable_path=program, args=arguments)
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
    context.on("console", lambda message: _note(seen.complaints, message))
    context.on("weberror", lambda problem: seen.complaints.append(str(problem.error)))
    context.on("request", lambda request: seen.requests.append(request.url))
    seen.page.goto(path.as_uri())
    return seen


def warns(page: Page) -> bool:
    """Whether a reader who leaves is asked first; the browser's own question is not waited for."""
    return page.evaluate("!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))")


def opened_again(page: Page, holds: Callable[[Page], bool]) -> Page:
    """The page in another tab, when that holds there: what a page keeps takes a moment to reach others."""
    again = page.context.new_page()
    end = time.monotonic() + 60
    again.goto(page.url)
    while not holds(again) and time.monotonic() < end:
        again.goto(page.url)
    page.close()
    return again


def _note(complaints: list[str], message: ConsoleMessage) -> None:
    if "GL Driver Message (OpenGL, Performance" not in message.text:  # screenshots read what WebGL has drawn
        complaints.append(f"{message.type}: {message.text}")
