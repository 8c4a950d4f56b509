"""layout_lines: one text file for all pictures, a line for each picture.

    train.txt                 data/a 1.jpg 10,20,110,220,0 30,40,80,90,2     the picture, then x1,y1,x2,y2,CLASS of each
    train/_annotations.txt    b.jpg                                          object; nothing is on this one
    _classes.txt              cat                                            the name of class 0, then of class 1 …

So YOLO's versions for Keras and some for PyTorch want it, and Roboflow writes it for them. Corners are edges in pixels
from 0. Each object becomes a row of a table, which layout_table.py reads. Proven in tests/data/test_layout_table.py.
Read: objects_of → is_lines
"""

from __future__ import annotations

import os
import re
from typing import Iterator, Sequence

from scratch.data.label_files import names_in
from scratch.data.listing import PICTURES, Listing
from scratch.data.objects import Object
from scratch.data.problems import brief
from scratch.data.values import number, whole

NAMES = ("classes.txt", ".names")  # how files of the classes' names end; train_labels.txt may be a file of lines
WANTED = "wanted PATH x1,y1,x2,y2,CLASS x1,y1,x2,y2,CLASS …"
_WORD = re.compile(r"\S+")


def is_lines(beginning: str) -> bool:
    """Is a text that begins so such a file? Its first line names a picture, and one line has boxes."""
    lines = [line.strip() for line in beginning.splitlines() if line.strip()]
    return bool(lines) and _is_picture(_parts(lines[0])[0]) and any(
        not each.wrong and each.box for line in lines for each in _objects(0, line, ()))


def objects_of(text: str, names: Sequence[str]) -> Iterator[Object]:
    """What each line holds, in order; `names` are those of the classes 0, 1 …, or none."""
    for place, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield from _objects(place, line.strip(), names)


def _objects(place: int, line: str, names: Sequence[str]) -> Iterator[Object]:
    (picture, boxes), where = _parts(line), f"line {place}"
    if not _is_picture(picture):
        yield Object(where, "", wrong=f"got {brief(line)}, {WANTED}")
    elif not boxes:
        yield Object(where, picture)
    for box in boxes if _is_picture(picture) else []:
        *corners, label = box.split(",")
        numbers, k = [number(corner) for corner in corners], whole(label)
        wrong = (f"got {brief(box)}, wanted x1,y1,x2,y2,CLASS" if None in numbers or k is None or k < 0 else
                 f"class {k} is none of the {len(names)} classes (0 to {len(names) - 1})" if names and k >= len(names)
                 else "")
        yield (Object(where, picture, wrong=wrong) if wrong else
               Object(where, picture, names[k] if names else str(k), numbers, corners=True))


def _parts(line: str) -> tuple[str, list[str]]:
    """The path, which may hold spaces, and the boxes after it."""
    words = list(_WORD.finditer(line))
    first = len(words)
    while first > 1 and words[first - 1][0].count(",") == 4:
        first -= 1
    return line[:words[first - 1].end()], [word[0] for word in words[first:]]


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in PICTURES


def names_for(listing: Listing, file: str) -> list[str]:
    """The names of the classes, a line each of a file in the same folder, else of one elsewhere; none if they differ."""
    found = [path for path in listing.files(".txt", ".names") if path.lower().endswith(NAMES)]
    beside = [path for path in found if os.path.dirname(path) == os.path.dirname(file)] or found
    lists = {tuple(names_in(listing.root / path)) for path in beside}
    return list(lists.pop()) if len(lists) == 1 else []
