"""Every page in Chromium, on a phone and on a wide screen: no error, no request that leaves, nothing cut off; and axe,
which knows the rules of WCAG, on a page of every kind, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.site.browser import chromium
from tests.site.conftest import Site

PHONE, DESK = 360, 1400  # pixels
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
# A page of every kind; what is made of the widgets is added where it is there.
KINDS = ["index", "docs/glossary", "docs/reading_order", "docs/trace", "docs/questions", "docs/timeline", "docs/speed",
         "hyper_parameter_tuning_charts/index", "scratch/ops/attention", "scratch/ops/conv2d", "scratch/config",
         "scratch/ops/fast/index", "scratch/analysis/attention_page.html", "tests/ops/test_attention", "search"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@contextmanager
def page_of(browser: Any, width: int, theme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """A page without content, and a list to which its errors and its requests to elsewhere go."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page, found = context.new_page(), []
    page.on("pageerror", lambda error: found.append(f"{page.url}: {error}"))
    page.on("console", lambda message: found.append(f"{page.url}: {message.text}") if message.type == "error" else None)
    page.on("request", lambda request: found.append(f"{page.url} asks for {request.url}")
            if not request.url.startswith(("file:", "data:")) else None)
    try:
        yield page, found
    finally:
        context.close()


def test_every_page_opens_without_an_error_or_a_request_and_fits(site: Site, browser: Any) -> None:
    wide = []
    with page_of(browser, PHONE) as (page, found):
        for path in site.pages():
            page.set_viewport_size({"width": PHONE, "height": 900})
            page.goto(path.as_uri())
            for width in (PHONE, DESK):
                page.set_viewport_size({"width": width, "height": 900})
                if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                    wide.append(f"{path.relative_to(site.folder).as_posix()} at {width}")
    assert not found, found[:10]
    assert not wide, wide[:10]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_wrong(site: Site, browser: Any, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    kinds = KINDS + [path.relative_to(site.folder).with_suffix("").as_posix()
                     for path in sorted((site.folder / "play").glob("*.html"))]
    wrong = []
    with page_of(browser, DESK, theme) as (page, found):
        for kind in kinds:
            page.goto((site.folder / f"{kind}.html").as_uri())
            # preload: axe would fetch the style sheets again, which a page from a file may not.
            options = {"preload": False, "resultTypes": ["violations"]}
            for violation in axe.Axe().run(page, options=options).response["violations"]:
                nodes = [node["html"][:160] for node in violation["nodes"][:3]]
                wrong.append(f"{kind}: {violation['id']} ({violation['impact']}): {violation['help']}: {nodes}")
    assert not found and not wrong, "\n".join([*found, *wrong])


def test_a_letter_says_what_it_means_and_lights_up(site: Site, browser: Any) -> None:
    with page_of(browser, DESK) as (page, found):
        page.goto((site.folder / "scratch/ops/attention.html").as_uri())
        page.locator(".dim", has_text="S").first.hover()
        assert page.locator("#tip").inner_text() == "S: S = h·w: tokens"
        page.mouse.move(0, 0)
        assert page.locator("#tip").is_hidden()
        page.locator(".dim[tabindex]").first.focus()
        assert page.locator("#tip").is_visible()
        page.locator(".letter[data-letter=S]").click()
        lit = page.locator(".dim.lit").all_inner_texts()
        assert len(lit) > 5 and set(lit) == {"S"}
    assert not found, found


def test_search_finds_a_note(site: Site, browser: Any) -> None:
    with page_of(browser, DESK) as (page, _):
        page.goto((site.folder / "search.html").as_uri() + "?q=im2col")
        page.locator("#search-results li a").first.wait_for()
        targets = [link.get_attribute("href") for link in page.locator("#search-results li a").all()]
    assert any("scratch/ops/conv2d.html" in target for target in targets), targets


def test_on_paper_the_menu_is_gone_and_all_code_is_there(site: Site, browser: Any) -> None:
    with page_of(browser, 900) as (page, _):
        page.goto((site.folder / "scratch/ops/attention.html").as_uri())
        page.emulate_media(media="print")
        assert page.locator(".sidebar-drawer").is_hidden() and page.locator(".note-aside").is_hidden()
        assert page.locator("#attention_naive .row-code").first.is_visible()
