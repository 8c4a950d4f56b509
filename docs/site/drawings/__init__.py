"""drawings: pictures that code draws, shown on the page of a note after its opening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """One picture of a note.

    name: unique among all drawings, for the anchor (`attention-weights`). title: the caption. alt: what the picture
    shows, in a sentence, for readers who do not see it. draw: returns the text of an SVG element.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[], str]


# note, as in the reading order ("ops/attention") → its pictures, in the order of the page
DRAWINGS: dict[str, list[Drawing]] = {}
