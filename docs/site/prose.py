"""prose: docstrings and comments as HTML. Paragraphs flow; what is indented (formulas, pictures) keeps its lines.

In a paragraph: `code`, *emphasis*, names of functions and files (links to their pages), arXiv numbers, torch.nn's own
names, and the letters of shapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from html import escape
from typing import NamedTuple

from docs.site import shapes

# A line of a docstring that is indented by this much keeps its place.
KEPT = 2
# Paragraphs whose later lines are indented only to look good.
_CONTINUES = re.compile(r"(Read\b|Sources?\b|\d+\. |[-*] )")
# Lines that begin a paragraph of their own, without a blank line before them.
_BEGINS = re.compile(
    r"(\d+\.|[-*]) |(Read(:| after\b)|Same as\b|Same sizes as\b|Sources?:|Costs?:|Proven in\b|Departures?\b)")
_PIECES = re.compile(
    r"(?P<code>`[^`\n]+(?:\n[^`\n]+)?`)"
    r"|(?<![\w*])\*(?P<strong>[^\s*][^*\n]*(?:\n[^*\n]+)?)\*(?![\w*])"
    r"|(?P<arxiv>arXiv[: ]\s*(?P<number>\d{4}\.\d{4,5}))"
    r"|(?P<torch>torch\.nn\.(?:functional\.[a-z]\w*|[A-Z]\w*))"
    r"|(?P<web>https?://[^\s)>\]]+[^\s)>\].,;:])"
    r"|(?P<file>(?<![\w/.])(?:\w+/)*\w+\.(?:py|md|html)\b|(?<![\w/.])(?:\w+/)+\w+(?![\w/.(]))"
    r"|(?P<name>(?<![\w.'])[A-Za-z_]\w*(?:\.\w+)*(?![\w']))")


class Words(NamedTuple):
    """What a page knows about the words of its prose.

    name: a name as a file writes it → address or None. file: a path as a text writes it → address or None.
    letters: the letters of shapes.
    """

    name: Callable[[str], str | None]
    file: Callable[[str], str | None]
    letters: dict[str, str]


def link(address: str, inner: str) -> str:
    return f'<a href="{escape(address)}">{inner}</a>'


def marked(text: str, letters: dict[str, str]) -> str:
    """Escaped text, in which each letter of a shape can be pointed at."""
    done, at = [], 0
    for begin, end in shapes.uses(text, letters):
        done += [escape(text[at:begin], quote=False), dim(text[begin:end])]
        at = end
    return "".join([*done, escape(text[at:], quote=False)])


def dim(letter: str) -> str:
    return f'<span class="dim">{letter}</span>'


def _is_a_name(text: str) -> bool:
    """Plain words are no names: a name is written with _, a dot, a digit, or capitals inside."""
    return bool(re.search(r"_|\.|\d|[a-z][A-Z]", text))


def inline(text: str, words: Words) -> str:
    """One paragraph, or one line that keeps its place."""
    done, at = [], 0
    for piece in _PIECES.finditer(text):
        new = _piece(piece, words)
        if new is not None:
            done += [marked(text[at:piece.start()], words.letters), new]
            at = piece.end()
    return "".join([*done, marked(text[at:], words.letters)])


def _piece(piece: re.Match[str], words: Words) -> str | None:
    """A special piece as HTML, or None for plain text."""
    if piece["code"]:
        code = " ".join(piece["code"][1:-1].split())
        address = words.name(code.removesuffix("()")) or words.file(code)
        return f"<code>{link(address, escape(code)) if address else marked(code, words.letters)}</code>"
    if piece["strong"]:
        return f"<em>{inline(piece['strong'], words)}</em>"
    if piece["arxiv"]:
        return link(f"https://arxiv.org/abs/{piece['number']}", escape(piece["arxiv"]))
    if piece["torch"]:
        return link(f"https://docs.pytorch.org/docs/stable/generated/{piece['torch']}.html", escape(piece["torch"]))
    if piece["web"]:
        return link(piece["web"], escape(piece["web"]))
    if piece["file"]:
        address = words.file(piece["file"])
        return link(address, escape(piece["file"])) if address else None
    address = words.name(piece["name"]) if _is_a_name(piece["name"]) else None
    return link(address, escape(piece["name"])) if address else None


def blocks(text: str) -> Iterable[tuple[str, list[str]]]:
    """("words" | "kept", lines): the paragraphs of a docstring, and what keeps its place, in order."""
    kind, lines, blank = "words", [], 0
    for line in text.expandtabs().splitlines():
        if not line.strip():
            blank += 1
            continue
        indented = len(line) - len(line.lstrip()) >= KEPT
        if kind == "words" and lines and not blank and indented and _CONTINUES.match(lines[0]):
            lines.append(line)
            continue
        now = "kept" if indented else "words"
        starts_item = now == "words" and _BEGINS.match(line)
        if lines and (now != kind or (now == "words" and (blank or starts_item))):
            yield kind, lines
            lines = []
        if lines:
            lines += [""] * blank
        lines.append(line)
        kind, blank = now, 0
    if lines:
        yield kind, lines


def _without_margin(lines: list[str]) -> str:
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:].rstrip() for line in lines)


def docstring(text: str, words: Words) -> str:
    """A docstring's paragraphs and kept lines."""
    done = []
    for kind, lines in blocks(text):
        if kind == "words":
            done.append(f"<p>{inline(chr(10).join(line.strip() for line in lines), words)}</p>")
        else:
            done.append(f'<pre class="kept" tabindex="0">{inline(_without_margin(lines), words)}</pre>')
    return "\n".join(done)


def comment(text: str, words: Words) -> str:
    """A comment on lines of its own. A line of dashes around a word ("── the source ──") is a heading."""
    title = re.fullmatch(r"[─\-=# ]*[─=\-]{2,}\s*(.*?)\s*[─=\-]{2,}[─\-=# ]*", text)
    if title:
        return f'<p class="banner">{inline(title[1], words)}</p>' if title[1] else ""
    return docstring(text, words)
