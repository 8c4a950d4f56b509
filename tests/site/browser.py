"""browser: opens a page in Chromium without a window; no request of it may leave the machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def executable() -> Optional[str]:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright. Skips the test where playwright or Chromium is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if executable() is None:
        pytest.skip(f"there is no Chromium (looked for {', '.join(NAMES)})")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, html: str, width: int = 1100, errors: Optional[list[str]] = None) -> Iterator[Any]:
    """A page that shows `html`. What it reports as an error, or requests from elsewhere, goes to `errors`, or fails."""
    found: list[str] = [] if errors is None else errors
    context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=width < 500)
    page = context.new_page()
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: found.append(f"request of {request.url[:80]}")
            if not request.url.startswith(("data:", "about:", "file:")) else None)
    try:
        page.set_content(html)
        yield page
        assert errors is not None or not found, found
    finally:
        context.close()
