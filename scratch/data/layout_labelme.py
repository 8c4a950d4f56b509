"""layout_labelme: one JSON file for each picture (LabelMe, AnyLabeling).

    a.jpg         a.json                               pictures and files side by side, or in two folders
    train/a.jpg   train/a.json   val/b.jpg …           the splits are folders

    {"imagePath": "a.jpg", "imageWidth": 500, "imageHeight": 375, "imageData": "…" or null,
     "shapes": [{"label": "dog", "shape_type": "rectangle", "points": [[107, 209], [7, 9]], "group_id": null}, …]}

    rectangle, polygon         the box around the points, x y w h = min x, min y, max x − min x, max y − min y
    mask                       the same, and 1 more each way: its second point is the last pixel of the mask
    circle                     its centre and a point of its edge, at a distance r: x − r, y − r, 2r, 2r
    point, line, linestrip     no box: left out, and reported; but around a linestrip whose ends nearly meet

Coordinates are edges in pixels from 0. Shapes with one label and one group_id are parts of one object: the box around
all of them. Classes are numbered from 1 in the order of their names, over all splits.
The format: github.com/wkentaro/labelme. Proven in tests/data/test_layout_labelme.py.
Which file is of which split, find_labelme.py finds out. Read: Labelme → _content → _box
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

from scratch.data.listing import Listing, key
from scratch.data.objects import is_closed, numbers
from scratch.data.per_picture import Pictures, tell_of_unlabelled
from scratch.data.problems import brief
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.values import number
from scratch.printable import counted

MOST_JSON = 2**27  # bytes of one file: the picture itself may stand in it
_WITHOUT_BOX = ("point", "points", "line", "linestrip")
_WANTED = ("a label, points [[x, y], …] in numbers (two corners of a rectangle, a circle's centre and a point of its "
           "edge, three or more of a polygon)")


class _Content(NamedTuple):
    """What is kept of a file: a box for each object instead of the polygons.

    said      the picture's name in it
    objects   place of the first shape, label and box of each
    outlines  how many of its shapes are no rectangles
    problems  kind, where, and what was found there
    """

    said: str
    width: Any
    height: Any
    objects: list[tuple[int, str, list[float]]]
    outlines: int
    problems: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Labelme(Source):
    """One split: its JSON files below the folder; `every` are those of all splits, which share their classes."""

    listing: Listing
    split: str
    files: tuple[str, ...]
    every: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"LabelMe {self.split}" if self.split != "all" else "LabelMe"

    def __str__(self) -> str:
        return f"{self.listing.root} ({self.name})"

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        mine, among = set(self.files), Pictures(self.listing)
        names: set[str] = set()
        labelled: dict[str, bool] = {}
        contents: list[tuple[str, str, _Content]] = []
        problems: list[tuple[str, str, str]] = []  # reported below: `choose` is asked about the pictures first
        for file in self.every:
            try:
                content = _content(self.listing.root / file, file)
            except ValueError as error:
                problems += [("malformed entry", file, str(error))] if file in mine else []
                continue
            if content is None:
                problems += [("other JSON file", file, 'it has no list "shapes"')] if file in mine else []
                continue
            picture = among.of_file(file, content.said)
            labelled.setdefault(picture, file in mine)
            names |= {label for _, label, _ in content.objects}
            contents += [(picture, file, content)] if file in mine else []
        chosen = set(choose([picture for picture, _, _ in contents]))
        for kind, file, detail in problems:
            if choose([among.of_broken(file)]):  # in one part alone
                report(kind, file, detail)
        names_of_files = {key(os.path.basename(file)) for file in self.every}
        tell_of_unlabelled(self.listing, labelled, names_of_files, "JSON file", report, choose)
        categories = {name: id for id, name in enumerate(sorted(names), start=1)}
        images, annotations = [], []
        wanted = sorted((entry for entry in contents if entry[0] in chosen), key=lambda entry: entry[:2])
        for id, (picture, file, content) in enumerate(wanted[:limit], start=1):
            images.append({"id": id, "file_name": picture, "width": content.width, "height": content.height})
            annotations += [{"id": f"{file}, shape {place}", "image_id": id, "category_id": categories[label],
                             "bbox": box} for place, label, box in content.objects]
            if content.outlines:
                report("outline of an object", file, counted(content.outlines, "shape"), times=content.outlines)
            for problem in content.problems:
                report(*problem)
        return {"images": images, "annotations": annotations,
                "categories": [{"id": id, "name": name} for name, id in categories.items()]}


def _content(path: Path, file: str) -> Optional[_Content]:
    """What a file says; None for one without shapes. Raises ValueError for one that cannot be read."""
    content = parse(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return None
    said = content.get("imagePath")
    said = said if isinstance(said, str) and said.strip() else os.path.splitext(os.path.basename(file))[0]
    objects: dict[object, tuple[int, str, list[float]]] = {}  # of each group, or of each place without one
    problems: list[tuple[str, str, str]] = []
    outlines = 0
    for place, shape in enumerate(content["shapes"], start=1):
        label, where = _label(shape), f"{file}, shape {place}"
        if label and _kind(shape) in _WITHOUT_BOX and not _is_outline(shape):
            problems.append(("shape without a box", where, f"got a {brief(shape['shape_type'])}"))
            continue
        box = _box(shape) if label else None
        if not label or box is None:
            points = brief(shape.get("points") if isinstance(shape, dict) else shape)
            problems.append(("malformed entry", where, f"got the label {brief(label)} and the points {points}, "
                                                       f"wanted {_WANTED}"))
            continue
        outlines += _kind(shape) != "rectangle"
        group = shape.get("group_id")
        of = place if group is None else (label, repr(group))
        if of in objects:
            place, _, (x, y, w, h) = objects[of]
            left, top = min(x, box[0]), min(y, box[1])
            box = [left, top, max(x + w, box[0] + box[2]) - left, max(y + h, box[1] + box[3]) - top]
        objects[of] = place, label, box
    return _Content(said, content.get("imageWidth"), content.get("imageHeight"), list(objects.values()), outlines,
                    problems)


def _box(shape: dict[str, Any]) -> Optional[list[float]]:
    """x, y, width, height in pixels; None where a point is not two finite numbers, or there are too few points."""
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    xs, ys = ([number(point[axis]) for point in points] for axis in (0, 1))
    kind = _kind(shape)
    if not all(v is not None and math.isfinite(v) for v in xs + ys) or len(points) < (3 if kind == "polygon" else 2):
        return None
    if kind == "circle":
        r = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return [xs[0] - r, ys[0] - r, 2 * r, 2 * r]
    more = 1 if kind == "mask" else 0
    return [min(xs), min(ys), max(xs) - min(xs) + more, max(ys) - min(ys) + more]


def _is_outline(shape: dict[str, Any]) -> bool:
    """Is it a line whose ends nearly meet?"""
    box = _box(shape) if _kind(shape) == "linestrip" else None
    return box is not None and is_closed(*(numbers(axis) for axis in zip(*shape["points"])))


def _kind(shape: dict[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # old files have no type


def _label(shape: Any) -> Optional[str]:
    """The class of a shape, a number as its text; None where there is none."""
    label = shape.get("label") if isinstance(shape, dict) else None
    return str(label).strip() or None if isinstance(label, (str, int, float)) and type(label) is not bool else None


def parse(file: Path) -> Any:
    """What a JSON file holds, without the picture. Raises ValueError for one that cannot be read as JSON."""
    try:
        if (size := file.stat().st_size) > MOST_JSON:
            raise OSError(f"it has {size:,} bytes")
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if isinstance(content, dict):
        content.pop("imageData", None)  # megabytes, which would stay in memory
    return content
