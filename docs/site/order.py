"""order: the reading order (docs/reading_order.md) as data. Which note comes before which, and under which heading?

    ## Spine       1. [`ops/linear`](../scratch/ops/linear.py): A linear layer …       numbered without a gap
    ## Branches
    ### heading    * [`ops/fast/rows`](../scratch/ops/fast/rows.py): A plan …          name of a file: without .py

Whatever reads the page reads it here: the site, and the tests that hold notes and exercises to the order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

SPINE, BRANCHES = "Spine", "Branches"
_ENTRY = re.compile(r"^(?P<mark>\d+\.|\*) \[`(?P<name>[\w/.]+)`\]\(\.\./scratch/(?P<path>[\w/.]+)\): (?P<about>\S.*)$")


class Entry(NamedTuple):
    """One note of the list. name: "ops/linear". about: its sentence. heading: of its part of the list."""

    name: str
    about: str
    heading: str


def reading_order(root: Path) -> list[Entry]:
    """All entries of the project's list, spine first. Raises what `parsed` raises."""
    return parsed((root / "docs" / "reading_order.md").read_text(encoding="utf-8"))


def parsed(page: str) -> list[Entry]:
    """All entries of a page, spine first; what stands above its two lists is prose.

    Raises ValueError for a line of the lists that is no entry, a name that is not its path's, and a wrong number.
    """
    entries: list[Entry] = []
    part = heading = ""
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("## "):
            part = heading = line.removeprefix("## ")
            if part not in (SPINE, BRANCHES):
                raise ValueError(f"line {number} is {line!r}, wanted ## {SPINE} or ## {BRANCHES}")
        elif line.startswith("### "):
            heading = line.removeprefix("### ")
        elif part and line:
            entries.append(_entry(line, number, heading, len(entries) + 1 if part == SPINE else None))
    return entries


def _entry(line: str, number: int, heading: str, place: int | None) -> Entry:
    """The entry of line `number`; `place` is its number on the spine, None in the branches."""
    found = _ENTRY.match(line)
    if not found:
        raise ValueError(f"line {number} is no entry: {line}")
    if found["path"] not in (found["name"], f"{found['name']}.py"):
        raise ValueError(f"line {number} calls {found['path']} {found['name']}")
    wanted = "*" if place is None else f"{place}."
    if found["mark"] != wanted:
        raise ValueError(f"line {number} has the mark {found['mark']}, wanted {wanted}")
    return Entry(found["name"], found["about"], heading)


def spine(order: list[Entry]) -> list[Entry]:
    return [entry for entry in order if entry.heading == SPINE]


def branches(order: list[Entry]) -> dict[str, list[Entry]]:
    """heading → its entries, in the order of the page."""
    found: dict[str, list[Entry]] = {}
    for entry in order:
        if entry.heading != SPINE:
            found.setdefault(entry.heading, []).append(entry)
    return found
