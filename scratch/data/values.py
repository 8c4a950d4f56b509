"""values: which number did the writer of a JSON file mean, and what is a line of a text file?

    whole     7  7.0  "7"  " 7.0 "            7         true  7.5  "7b"  null  NaN  10²⁰   None: no whole number
    number    1.5  "1.5"  "1e3"               a float   true  "1,5"  "nan"  []  {}         None: no number
                                                        null  10⁴⁰⁰                        NaN: a gap
    yes       1  "1"  true  "true"  1.0       True      2  "yes"  []  NaN                  None: neither
              0  "0"  false "False" 0.0 null "" False

Exporters write numbers as text, whole ones as 7.0, and no as "0", which Python takes for true. One table for every
field, so that an id means the same in every field. Proven in tests/data/test_values.py.
"""

from __future__ import annotations

import math
import re
from typing import Any, Optional, Sequence

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}(\.0*)?")  # float() and int() would also read 1_000, ٣ and "infinity"
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def whole(value: Any) -> Optional[int]:
    """The whole number that was written as 7, 7.0 or "7"; None for anything else, and for what fits no array."""
    if type(value) is int:
        return value if -2**63 <= value < 2**63 else None
    if type(value) is float:
        return whole(int(value)) if value.is_integer() else None  # neither infinity nor NaN is
    if isinstance(value, str) and len(value) < 100 and _WHOLE.fullmatch(value.strip()):
        return whole(int(value.strip().partition(".")[0]))
    return None


def number(value: Any) -> Optional[float]:
    """A number, written as one or as text; NaN where there is a gap; None for what is no number."""
    if type(value) is float:
        return value
    if value is None:  # what pandas writes for NaN
        return math.nan
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:  # beyond all floats
            return math.nan
    if isinstance(value, str) and len(value) < 100 and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return None


def yes(value: Any) -> Optional[bool]:
    """Truth, written as a truth value, as 0 or 1, or as either in text; no where there is none; None for the rest."""
    if value is None or value is False or value is True:
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    return {0.0: False, 1.0: True}.get(number(value))


def is_yolo(words: Sequence[str]) -> bool:
    """Is a line a class and a box in shares of a picture, with keypoints perhaps, or a polygon's corners, as YOLO's?"""
    shares = [number(word) for word in words[1:]]
    more = len(shares) - 4
    if more < 0 or whole(words[0]) is None or None in shares or min(shares) < 0:
        return False
    box = max(shares[:4]) <= 1 and min(shares[2:4]) > 0
    return box and (more % 2 == 0 or more % 3 == 0) or more > 0 and more % 2 == 0 and max(shares) <= 1


def is_oriented(words: Sequence[str]) -> bool:
    """Is a line four corners in pixels and a class, as DOTA writes oriented boxes: x1 y1 x2 y2 x3 y3 x4 y4 plane 0?"""
    return len(words) >= 9 and None not in map(number, words[:8]) and number(words[8]) is None
