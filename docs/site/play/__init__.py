"""play: pages to play with. Each has a small script; its numbers are computed by the project when the site is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Widget:
    """One page to play with.

    name: of its page, `play/NAME.html`. title: the page's heading. note: the note that it belongs to ("ops/boxes").
    text_markdown: what to try and what to see. html: the elements that the script fills. script_file: JavaScript
    without imports. data: returns what the script needs, as JSON; the page holds it in the element `NAME-data`.
    """

    name: str
    title: str
    note: str
    text_markdown: str
    html: str
    script_file: Path
    data: Callable[[], dict]


WIDGETS: list[Widget] = []
