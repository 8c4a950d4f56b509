"""order: the reading order (docs/reading_order.md) as data. Which note comes before which, and under which heading?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_ENTRY = re.compile(r"^(?:\d+\.|\*) \[`(?P<name>[\w/.]+)`\]\([^)]*\): (?P<about>.+)$")


class Entry(NamedTuple):
    """One note of the list. name: "ops/linear". about: its sentence. heading: of its part of the list."""

    name: str
    about: str
    heading: str


def reading_order(root: Path) -> list[Entry]:
    """All entries of the list, spine first. A line of another form is prose and is left out."""
    entries, heading = [], ""
    for line in (root / "docs" / "reading_order.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(("## ", "### ")):
            heading = line.lstrip("# ")
        elif found := _ENTRY.match(line):
            entries.append(Entry(found["name"], found["about"], heading))
    return entries


def spine(order: list[Entry]) -> list[Entry]:
    return [entry for entry in order if entry.heading == "Spine"]


def branches(order: list[Entry]) -> dict[str, list[Entry]]:
    """heading → its entries, in the order of the page."""
    found: dict[str, list[Entry]] = {}
    for entry in order:
        if entry.heading != "Spine":
            found.setdefault(entry.heading, []).append(entry)
    return found
