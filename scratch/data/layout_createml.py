"""layout_createml: one JSON file for all pictures, as Apple's Create ML reads it, and Roboflow and others write it.

    train/_annotations.createml.json + its pictures beside it …

    [{"image": "a.jpg", "annotations": [
        {"label": "dog", "coordinates": {"x": 57, "y": 109, "width": 100, "height": 200}}]},
     {"image": "b.jpg", "annotations": []}]                              nothing is on this one

x and y are the box's centre, in pixels: box x, y, w, h = x − width/2, y − height/2, width, height.
The format: developer.apple.com, "Building an object detector data source". Proven in tests/data/test_layout_shapes.py.
Read: objects_of
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator, Optional

from scratch.data.layout_labelme import parse
from scratch.data.objects import Object, numbers
from scratch.data.problems import brief

BEGINNING = 2**16  # bytes of a JSON file, before all of it is read
_PICTURE = ("image", "imagefilename", "filename")
_OBJECTS = ("annotations", "annotation")
_BEGINS = re.compile(r"\ufeff?\s*\[\s*\{")
_WANTED = ('wanted {"label": "dog", "coordinates": {"x": 57, "y": 109, "width": 100, "height": 200}}, x and y of the '
           "centre in pixels")


def is_createml(file: Path) -> bool:
    """Is it a list of pictures with labels and coordinates? All of it is read only where it looks like it."""
    try:
        with open(file, "rb") as stream:
            beginning = stream.read(BEGINNING).decode("utf-8", errors="replace")
        if not _BEGINS.match(beginning) or not any(f'"{word}"' in beginning for word in _OBJECTS):
            return False
        entries = parse(file)
    except (OSError, ValueError):
        return False
    found = [_named(entry, _OBJECTS) for entry in entries if isinstance(entry, dict) and _named(entry, _PICTURE)]
    objects = [each for its in found if isinstance(its, list) for each in its]
    return any(isinstance(each, dict) and {"label", "coordinates"} <= each.keys() for each in objects)


def objects_of(file: Path) -> Iterator[Object]:
    """Each object, in order; of each picture first that it is there. Raises ValueError for a file that is not JSON."""
    for place, entry in enumerate(parse(file), start=1):
        where, picture = f"image {place}", _named(entry, _PICTURE) if isinstance(entry, dict) else None
        objects = _named(entry, _OBJECTS) if isinstance(entry, dict) else None
        if not isinstance(picture, str) or not picture.strip() or not isinstance(objects, list):
            yield Object(where, "", wrong=f'got {brief(entry)}, wanted {{"image": "a.jpg", "annotations": [ … ]}}')
            continue
        where += f" ({picture})"
        yield Object(where, picture)
        for number_of, each in enumerate(objects, start=1):
            label = each.get("label") if isinstance(each, dict) else None
            label = str(label).strip() if isinstance(label, (str, int)) and label is not True else ""
            box = _box(each.get("coordinates")) if isinstance(each, dict) else None
            wrong = "" if label and box else f"got {brief(each)}, {_WANTED}"
            yield Object(f"{where}, object {number_of}", picture, label, box if not wrong else None, wrong=wrong)


def _box(coordinates: Any) -> Optional[list[float]]:
    """x, y, width, height in pixels, from the upper left corner; None where its numbers are none."""
    said = coordinates if isinstance(coordinates, dict) else {}
    values = numbers([said.get(side) for side in ("x", "y", "width", "height")])
    if values is None:
        return None
    x, y, width, height = values
    return [x - width / 2, y - height / 2, width, height]


def _named(entry: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((entry[name] for name in names if name in entry), None)
