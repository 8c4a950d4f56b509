"""widget: what a page to play with is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from docs.site.palette import themed

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Widget:
    """One page to play with.

    name            of its page, `play/NAME.html`
    title           the page's heading
    note            the note that it belongs to ("ops/boxes")
    text_markdown   what to try and what to see
    html            the elements that the script fills
    script_file     JavaScript without imports, which runs after the html and the data
    data            returns what the script needs, as JSON; the page holds it in the element `NAME-data`
    """

    name: str
    title: str
    note: str
    text_markdown: str
    html: str
    script_file: Path
    data: Callable[[], dict]


def widget(name: str, title: str, note: str, text_markdown: str, data: Callable[[], dict]) -> Widget:
    """The widget of NAME.html and NAME.js beside this file, with the style and the few functions that all share."""
    style, kit, body = ((_FOLDER / file).read_text(encoding="utf-8") for file in ("play.css", "kit.js", f"{name}.html"))
    html = (f"<style>{themed('.play')}{style}</style>\n<script>{kit}</script>\n"
            f'<div class="play" id="{name}">\n{body}<noscript><p>This needs JavaScript.</p></noscript>\n</div>\n')
    return Widget(name, title, note, text_markdown, html, _FOLDER / f"{name}.js", data)
