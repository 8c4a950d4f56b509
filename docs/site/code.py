"""code: lines of Python as HTML, coloured by Pygments, with links on names, and marks on the letters of shapes."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from pygments.lexers.python import PythonLexer
from pygments.token import STANDARD_TYPES, Comment, Name, Token, _TokenType

from docs.site import shapes
from docs.site.prose import dim


class Link(NamedTuple):
    """An address on columns begin … end of a line (end excluded)."""

    line: int
    begin: int
    end: int
    address: str


def _css(kind: _TokenType) -> str:
    while kind not in STANDARD_TYPES:
        kind = kind.parent or Token
    return STANDARD_TYPES[kind]


class _Run(NamedTuple):
    """Characters begin … end of one line that look alike."""

    begin: int
    end: int
    css: str
    kind: _TokenType


def _runs(source: str) -> list[list[_Run]]:
    lines: list[list[_Run]] = [[]]
    column = 0
    for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source):
        for i, piece in enumerate(text.split("\n")):
            if i:
                lines.append([])
                column = 0
            if piece:
                lines[-1].append(_Run(column, column + len(piece), _css(kind), kind))
                column += len(piece)
    return lines


def _letters(line: str, runs: list[_Run], letters: dict[str, str]) -> list[tuple[int, int]]:
    """Where a line names a letter of a shape: in a comment's shape, or as a variable of one capital letter."""
    found = []
    for run in runs:
        text = line[run.begin:run.end]
        if run.kind in Comment:
            found += [(run.begin + begin, run.begin + end) for begin, end in shapes.uses(text, letters)]
        elif run.kind in Name and text in letters and text.isupper():
            found.append((run.begin, run.end))
    return found


def html_lines(source: str, links: list[Link], letters: dict[str, str]) -> list[str]:
    """Each line of the source as HTML (the first is number 1, at index 0)."""
    by_line: dict[int, list[Link]] = {}
    for link in links:
        by_line.setdefault(link.line, []).append(link)
    text, done = source.splitlines(), []
    for number, (line, runs) in enumerate(zip(text, _runs(source)), 1):
        here = by_line.get(number, [])
        dims = [place for place in _letters(line, runs, letters)
                if not any(link.begin <= place[0] < link.end for link in here)]
        done.append(_line(line, runs, here, dims))
    return done


def _line(line: str, runs: list[_Run], links: list[Link], dims: list[tuple[int, int]]) -> str:
    cuts = sorted({0, len(line), *(edge for run in runs for edge in run[:2]),
                   *(edge for link in links for edge in (link.begin, link.end)),
                   *(edge for pair in dims for edge in pair)})
    done, open_link = [], None
    for begin, end in zip(cuts, cuts[1:]):
        css = next((run.css for run in runs if run.begin <= begin < run.end), "")
        inner = dim(line[begin:end]) if (begin, end) in dims else escape(line[begin:end], quote=False)
        inner = f'<span class="{css}">{inner}</span>' if css and inner.strip() else inner
        link = next((link for link in links if link.begin <= begin < link.end), None)
        if link is not open_link:
            done.append(("</a>" if open_link else "") + (f'<a href="{escape(link.address)}">' if link else ""))
            open_link = link
        done.append(inner)
    return "".join(done) + ("</a>" if open_link else "")
