"""objects: one object on a picture, as a file says it that is about many pictures.

    a row of a table · a box in a line of text · a shape of CVAT's, VIA's or Create ML's      ─▶ Object
    a polygon, an ellipse, a box that is turned by an angle                                   ─▶ the box around it

Read by layout_table.py, layout_lines.py, layout_cvat.py, layout_via.py and layout_createml.py; layout_table.py makes a
set of them. Proven in tests/data/test_layout_shapes.py. Read: Object → around, is_closed, ellipse, turned
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, Sequence

from scratch.data.values import number

ONE_CLASS = "object"  # where a file names no class
MALFORMED, NO_BOX = "malformed entry", "shape without a box"


class Object(NamedTuple):
    """One object, or a picture that shows nothing.

    where    "line 7", "image 3 (a.jpg), shape 2"
    picture  what the file calls its picture
    box      x, y, width, height, or the `corners` as written (left, top, right, bottom); None for a picture that
             shows nothing, and where something is wrong
    outline  is there a shape of which the box is only what lies around it?
    wrong    what is wrong, which is then of the `kind` (a key of problems.KINDS); with a box: it has no label, which is
             no matter where there is but one class
    """

    where: str
    picture: str
    label: str = ""
    box: Optional[list[float]] = None
    size: Optional[tuple[int, ...]] = None
    split: str = "all"
    corners: bool = False
    outline: bool = False
    wrong: str = ""
    kind: str = MALFORMED


def numbers(values: Sequence[object]) -> Optional[list[float]]:
    """Finite numbers; None where one is none."""
    found = [number(value) for value in values]
    return None if any(value is None or not math.isfinite(value) for value in found) else found


def around(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """The box x, y, width, height around points."""
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def is_closed(xs: Sequence[float], ys: Sequence[float]) -> bool:
    """Do the ends of a line of three points or more nearly meet, to a sixth of the diagonal of the box around it?

    Then it is an outline, which many draw so.
    """
    w, h = around(xs, ys)[2:] if xs else (0, 0)
    return len(xs) >= 3 and math.hypot(xs[-1] - xs[0], ys[-1] - ys[0]) <= math.hypot(w, h) / 6


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> list[float]:
    """The box around an ellipse with these half axes, turned by an angle in radians.

    Its points are c + rx cos t · (cos a, sin a) + ry sin t · (−sin a, cos a), which reach √((rx cos a)² + (ry sin a)²)
    to the right.
    """
    w = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    h = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return [cx - w, cy - h, 2 * w, 2 * h]


def turned(box: Sequence[float], angle: float) -> list[float]:
    """The box around a box x, y, width, height that is turned about its centre by an angle in radians."""
    x, y, w, h = box
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    width, height = w * cos + h * sin, w * sin + h * cos
    return [x + (w - width) / 2, y + (h - height) / 2, width, height]
