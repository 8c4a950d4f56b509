"""ranges: which values of a setting are valid?

    a field of a dataclass ── its type ──▶ a text for a number, True for a count: refused
                           ── its Range ─▶ −1, NaN, ∞, 10²⁰: refused

The same words for a flag, for a value that a checkpoint holds, and for a call from Python; what is refused costs
nothing but the line that says so. Proven, for every number of every command, in tests/test_ranges.py.
Read: Range → refuse_senseless → refuse_other_kinds
"""

from __future__ import annotations

import math
import os
import reprlib
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints


class Range(NamedTuple):
    """The numbers that a setting may be: from `low` to `high`, without the end that is open; `words` for a person."""

    low: float
    high: float
    open_end: Literal["", "low", "high"] = ""
    words: str = ""

    def holds(self, value: float) -> bool:
        inside = self.low <= value <= self.high  # NaN is not
        return inside and value != {"low": self.low, "high": self.high}.get(self.open_end)

    def __str__(self) -> str:
        least = f"more than {_short(self.low)}" if self.open_end == "low" else f"{_short(self.low)} or more"
        most = f"less than {_short(self.high)}" if self.open_end == "high" else f"{_short(self.high)} at most"
        return self.words or f"{least}, and {most}"


_BRIEF = reprlib.Repr()  # of a value from a file: lists in lists have texts that never end
_BRIEF.maxstring = _BRIEF.maxother = 200

COUNT = Range(1, 10**12)  # of steps, images, epochs: more than any run can have
QUERIES, LAYERS, BATCH, PROCESSES = Range(1, 10_000), Range(1, 100), Range(1, 65_536), Range(0, 256)
SHARE, MINUTES = Range(0, 1), Range(0, 10**7, "low")
DETECTIONS, MEGAPIXELS = Range(1, 10_000), Range(0, 10**6, "low")


def refuse_senseless(part: object, **ranges: Range) -> None:
    """Raise ValueError for a number of the dataclass `part` that no run can mean; None is one that is not given.

    ranges    for each field that holds a number, what it may be
    """
    for name, allowed in ranges.items():
        value = getattr(part, name)
        _refuse_other_kind(part, name)
        if value is not None and not allowed.holds(value):
            _refuse(part, name, str(allowed))


def refuse_other_kinds(part: object) -> None:
    """Raise ValueError for a field of the dataclass `part` whose value is not of its type: a text for a number, say."""
    for name in kinds(type(part)):
        _refuse_other_kind(part, name)


class Kind(NamedTuple):
    """What a field holds: which types, which choices (none: any), None too?, in words; and how its flag is called."""

    types: tuple[type, ...]
    choices: tuple[Any, ...]
    optional: bool
    words: str
    flag: str


@lru_cache(maxsize=None)
def kinds(part: type) -> dict[str, Kind]:
    """The fields of a dataclass that hold plain values: numbers, switches, texts, one of a few words."""
    plain = {int: ((int,), "a whole number"), float: ((int, float), "a number"), bool: ((bool,), "True or False"),
             str: ((str, os.PathLike), "a text")}
    found = {}
    for name, hint in get_type_hints(part, include_extras=True).items():
        extras = getattr(hint, "__metadata__", ())  # of Annotated: tyro's other name for the flag
        flag = next((extra.name for extra in extras if getattr(extra, "name", None)), name).replace("_", "-")
        hint = get_args(hint)[0] if extras else hint
        options = get_args(hint) if get_origin(hint) is Union else (hint,)
        optional, kind = type(None) in options, options[0]
        if get_origin(kind) is Literal:
            choices = get_args(kind)
            found[name] = Kind((str,), choices, optional, f"one of {', '.join(choices)}", flag)
        elif kind in plain:
            types, words = plain[kind]
            found[name] = Kind(types, (), optional, words, flag)
    return found


def _refuse_other_kind(part: object, name: str) -> None:
    kind, value = kinds(type(part))[name], getattr(part, name)
    if value is None and kind.optional:
        return
    right = isinstance(value, kind.types) and (bool in kind.types or not isinstance(value, bool))
    if not right or kind.choices and value not in kind.choices:
        _refuse(part, name, kind.words + (", or None" if kind.optional else ""))


def _refuse(part: object, name: str, wanted: str) -> None:
    value, kind = getattr(part, name), kinds(type(part))[name]
    if isinstance(value, int) and abs(value) >= 10**40:  # too long to read, and Python refuses to write long ones
        got = f"a number of about {math.floor(value.bit_length() * math.log10(2)) + 1} digits"
    else:
        got = f"{value:.12g}" if isinstance(value, float) and float in kind.types else _BRIEF.repr(value)
    raise ValueError(f"got {name} = {got if len(got) <= 80 else f'{got[:80]}…'}, wanted {wanted} (--{kind.flag})")


def _short(limit: float) -> str:
    """1, 65,536, 10^12"""
    power = len(str(limit)) - 1
    if not isinstance(limit, int) or abs(limit) < 10**6:
        return f"{limit:,}"
    return f"10^{power}" if limit == 10**power else f"{limit:,}"
