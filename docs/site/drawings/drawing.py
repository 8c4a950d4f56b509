"""drawing: what a picture of a note is, and the canvas on which code draws it.

    a painter draws rectangles, lines and text on a Canvas ─▶ one <svg> element, as text

An SVG keeps its text as text, grows with the page, and takes the page's colours (palette.py), so that one drawing
serves light and dark. Units are pixels of a drawing 360 wide, the width of a phone: text of 11 or
more can be read there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from docs.site.palette import themed

WIDTH = 360


@dataclass(frozen=True)
class Drawing:
    """One picture of a note.

    name    unique among all drawings, for the anchor ("attention-weights")
    title   the caption
    alt     what the picture shows, in a sentence, for readers who do not see it
    draw    returns the text of an SVG element
    """

    name: str
    title: str
    alt: str
    draw: Callable[[], str]


class Canvas:
    """A drawing that is being made: every method adds one element. Colours are names of palette.py, or "none"."""

    def __init__(self, name: str, height: float, width: float = WIDTH) -> None:
        self.name, self.width, self.height = name, width, height
        self.parts: list[str] = []
        self._arrows: set[str] = set()

    def rect(self, x: float, y: float, width: float, height: float, fill: str = "none", stroke: str = "none",
             opacity: float = 1.0, radius: float = 0.0, thick: float = 1.0, dash: str = "") -> None:
        """`opacity` is that of the filling alone: 0.2 makes a pale field under a full outline."""
        self.parts.append(f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
                          f'{_style(fill, stroke, opacity, thick, dash)}{_if("rx", radius)}/>')

    def circle(self, x: float, y: float, radius: float, fill: str = "none", stroke: str = "none",
               opacity: float = 1.0, thick: float = 1.0) -> None:
        self.parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"'
                          f'{_style(fill, stroke, opacity, thick, "")}/>')

    def line(self, points: Iterable[tuple[float, float]], colour: str = "ink", thick: float = 1.2, dash: str = "",
             arrow: bool = False) -> None:
        """A line through the points (x, y); with `arrow`, a head at the last."""
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        head = f' marker-end="url(#{self.name}-{colour})"' if arrow else ""
        if arrow:
            self._arrows.add(colour)
        self.parts.append(f'<polyline points="{path}"{_style("none", colour, 1.0, thick, dash)}{head}/>')

    def text(self, x: float, y: float, words: str, size: float = 12, anchor: str = "middle", colour: str = "ink",
             bold: bool = False, turn: float = 0.0) -> None:
        """Words whose baseline is at y; `anchor` says which part of them is at x: start, middle or end."""
        turned = f' transform="rotate({_n(turn)} {_n(x)} {_n(y)})"' if turn else ""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}"{weight} '
                          f'style="fill:var(--{colour})"{turned}>{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, words: Sequence[str], colour: str = "blue",
            size: float = 12, bold: bool = False) -> None:
        """A rounded field with one line of words under another in its middle."""
        self.rect(x, y, width, height, colour, colour, 0.13, 5)
        top = y + height / 2 - (len(words) - 1) * size * 0.6 + size * 0.35
        for i, line in enumerate(words):
            self.text(x + width / 2, top + i * size * 1.2, line, size, bold=bold and i == 0)

    def grid(self, x: float, y: float, cell: float, rows: Sequence[Sequence[str]], size: float = 12,
             fill: Callable[[int, int], tuple[str, float]] = lambda i, j: ("none", 1.0), high: float = 0.0) -> None:
        """A table of cells `cell` wide (and `high` high) with text; `fill` gives the colour and opacity of (i, j)."""
        high = high or cell
        for i, row in enumerate(rows):
            for j, words in enumerate(row):
                colour, opacity = fill(i, j)
                self.rect(x + j * cell, y + i * high, cell, high, colour, "line", opacity)
                if words:
                    self.text(x + (j + 0.5) * cell, y + (i + 0.5) * high + size * 0.35, words, size)

    def svg(self, title: str, alt: str) -> str:
        """The element, with its title and description for readers who do not see it."""
        identity = f"drawing-{self.name}"
        heads = "".join(
            f'<marker id="{self.name}-{colour}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse" markerUnits="userSpaceOnUse"><path d="M0 0.5L8 4L0 7.5Z" '
            f'style="fill:var(--{colour})"/></marker>' for colour in sorted(self._arrows))
        return (f'<svg xmlns="http://www.w3.org/2000/svg" id="{identity}" class="drawing" role="img" '
                f'viewBox="0 0 {_n(self.width)} {_n(self.height)}" aria-labelledby="{identity}-title {identity}-desc" '
                f'style="display:block;width:100%;max-width:{_n(1.6 * self.width)}px;height:auto;margin:0 auto;'
                f'font-family:var(--font-stack, system-ui, sans-serif)">'
                f'<title id="{identity}-title">{escape(title)}</title><desc id="{identity}-desc">{escape(alt)}</desc>'
                f'<style>{themed("#" + identity)}</style><defs>{heads}</defs>{"".join(self.parts)}</svg>')


def drawing(name: str, title: str, alt: str, height: float, paint: Callable[[Canvas], None]) -> Drawing:
    """A Drawing whose `draw` has `paint` draw on a canvas of the usual width."""
    def draw() -> str:
        canvas = Canvas(name, height)
        paint(canvas)
        return canvas.svg(title, alt)

    return Drawing(name, title, alt, draw)


def shown(number: float, digits: int = 2) -> str:
    """A number as a reader wants it: a fixed count of digits, and a true minus sign."""
    text = f"{number:.{digits}f}"
    return (text[1:] if float(text) == 0 and text[0] == "-" else text).replace("-", "−")


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _if(name: str, number: float) -> str:
    return f' {name}="{_n(number)}"' if number else ""


def _style(fill: str, stroke: str, opacity: float, thick: float, dash: str) -> str:
    parts = ["fill:none" if fill == "none" else f"fill:var(--{fill})"]
    if fill != "none" and opacity < 1:
        parts.append(f"fill-opacity:{_n(opacity)}")
    if stroke != "none":
        parts += [f"stroke:var(--{stroke})", f"stroke-width:{_n(thick)}", "stroke-linejoin:round"]
        parts += [f"stroke-dasharray:{dash}"] if dash else []
    return f' style="{";".join(parts)}"'
