"""classes: what are the categories of a data set called, and which numbers does the network count them by?

    category ids, with gaps   1  2 … 11  13 … 90
    labels, without           0  1 … 10  11 … 79        a label is a category's place in the order of the ids

The names travel in every checkpoint. Some of them can be chosen by name ("person,car"); a comma in a name is written
\\, and one of two classes of a name is 'cat (7)', with its id. Proven in tests/data/test_some_classes.py.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Sequence

from scratch.data.problems import brief
from scratch.printable import abridged


class UnknownClass(ValueError):
    """A person asked for a class that the data does not have, or for one twice; nothing is wrong with the data."""


@dataclass(frozen=True)
class Classes:
    """The classes behind the labels: label k is category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def told_apart(self) -> tuple[str, ...]:
        """The names, each with its id where two classes share one: "cat (3)", "cat (7)"."""
        number = Counter(self.names)
        return tuple(name if number[name] == 1 else f"{name} ({id})" for id, name in zip(self.ids, self.names))

    def only(self, names: str) -> "Classes":
        """Those named in "person,car", in that order; a comma in a name is written as "cup\\, mug".

        Raises UnknownClass for one that is unknown, ambiguous or named twice.
        """
        wanted = divided(names)
        if names in self.names and not all(map(self._places, wanted)):
            wanted = [names]  # one name alone, with a comma in it
        return self.named(wanted)

    def named(self, wanted: Sequence[str]) -> "Classes":
        """As `only`, for names that nothing separates."""
        called = self.told_apart()
        chosen: list[int] = []
        for name in wanted:
            places = self._places(name)
            if len(places) > 1:
                raise UnknownClass(f"got {brief(name)} among the classes, which {len(places)} classes are called; "
                                   f"wanted {' or '.join(brief(called[k]) for k in places)}")
            if not places:
                near = difflib.get_close_matches(name.strip(), [n for n in called if len(n) < 100], n=3) or called[:20]
                comma = " (a comma in a name is written as \\,)" if any("," in n for n in called) else ""
                meant = " or ".join(abridged(n, 80).replace(",", "\\,") for n in near)
                raise UnknownClass(f"got {brief(name.strip())} among the classes, which the data does not have; did "
                                   f"you mean {meant}? Wanted names out of its {len(self)}, with commas between them"
                                   f"{comma}")
            chosen += places
        for k in chosen:
            if chosen.count(k) > 1:
                raise UnknownClass(f"got {brief(called[k])} among the classes {chosen.count(k)} times, wanted each "
                                   "name once")
        return Classes(tuple(self.ids[k] for k in chosen), tuple(self.names[k] for k in chosen))

    def _places(self, name: str) -> list[int]:
        """Which classes `name` means: one that is called just so, else one that is but for blanks around it."""
        for called in (self.told_apart(), self.names):
            for means in (lambda n: n == name, lambda n: n == name.strip(), lambda n: n.strip() == name.strip() != ""):
                if places := [k for k, n in enumerate(called) if means(n)]:
                    return places
        return []

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain values, for a checkpoint."""
        return {"ids": list(self.ids), "names": list(self.names)}

    @staticmethod
    def from_dict(values: dict[str, list[Any]]) -> "Classes":
        return Classes(tuple(values["ids"]), tuple(values["names"]))


def divided(names: str) -> list[str]:
    """ "a,b\\, c" → "a" and "b, c": a backslash takes the comma, or the backslash, after it as it is."""
    parts, letters = [""], iter(names)
    for letter in letters:
        if letter == ",":
            parts.append("")
        elif letter == "\\":
            following = next(letters, "")
            parts[-1] += following if following in (",", "\\") else letter + following
        else:
            parts[-1] += letter
    return parts
