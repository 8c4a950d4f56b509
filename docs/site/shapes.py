"""shapes: what the letters of a shape mean (the table of docs/map.md), and where a text uses them."""

from __future__ import annotations

import re
from pathlib import Path

_ROW = re.compile(r"\| `([^`]+)` \| ([^|]+?) (?=\|)")
_GROUP = re.compile(r"\(([^()]*)\)")
_WORDS = {"or", "and", "each", "ints", "bool", "float"}  # that may stand beside letters in a shape


def letters(root: Path) -> dict[str, str]:
    """letter → its meaning: {"S": "S = h·w: tokens", "H": "H, W: pixels", …}. Raises ValueError without the table."""
    page = (root / "docs" / "map.md").read_text(encoding="utf-8")
    table = page.partition("## Shapes")[2].partition("\n## ")[0]
    found = {}
    for cell, meaning in _ROW.findall(table):
        name, equals, formula = cell.partition(" = ")
        for letter in name.split():
            found[letter] = f"{', '.join(name.split())}{equals}{formula}: {meaning.replace('`', '')}"
    if not found:
        raise ValueError("docs/map.md has no table of letters under the heading \"Shapes\"; the site's legend needs it")
    return found


def uses(text: str, known: dict[str, str]) -> list[tuple[int, int]]:
    """(begin, end) of every letter of `known` that stands in a shape, such as each letter of "(B, N, Q or S, d)"."""
    if not known:
        return []
    letter = re.compile(rf"(?<![\w'])({'|'.join(map(re.escape, known))})(?![\w'’])")
    found = []
    for group in _GROUP.finditer(text):
        words = re.findall(r"[^\W\d_]+", group[1])
        if all(len(word) == 1 or word in _WORDS for word in words):
            found += [(group.start(1) + use.start(), group.start(1) + use.end()) for use in letter.finditer(group[1])]
    return found


def said_here(opening: str, known: dict[str, str]) -> dict[str, str]:
    """letter → what a note's opening itself says of it ("world_size"), where it says one thing: `W = world_size`."""
    found = {}
    for letter in known:
        said = re.search(rf"(?<![\w'·(∂]){re.escape(letter)} = ([^\W\d_][^\n,;()]*?)(?=\s{{2,}}|[,;.()]|\n|$)", opening)
        if said and len(said[1]) <= 40:
            found[letter] = said[1].strip()
    return found
