"""A browser for pages."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.pipelines.report.browser import chromium


@pytest.fixture(scope="module")  # a browser left open has an event loop running, which others must not meet
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started
