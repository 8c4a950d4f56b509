"""layout_labelme: one JSON file for each picture (LabelMe, AnyLabeling).

    a.jpg         a.json                               pictures and files side by side, or in two folders
    train/a.jpg   train/a.json   val/b.jpg …           the splits are folders

    {"imagePath": "a.jpg", "imageWidth": 500, "imageHeight": 375, "imageData": "…" or null,
     "shapes": [{"label": "dog", "shape_type": "rectangle", "points": [[107, 209], [7, 9]], "group_id": null}, …]}

    rectangle, polygon, mask   the box around the points, x y w h = min x, min y, max x − min x, max y − min y
    circle                     its centre and a point of its edge, at a distance r: x − r, y − r, 2r, 2r
    point, line, linestrip     no box: left out, and told

Coordinates are edges in pixels from 0. Shapes with one label and one group_id are parts of one object: the box around
all of them. Classes are numbered from 1 in the order of their names, over all splits.
The format: github.com/wkentaro/labelme. Proven in tests/data/test_layout_labelme.py.
Read: find_labelme → Labelme → _box
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from scratch.data.listing import Listing, by_folder, key
from scratch.data.per_picture import Pictures, tell_of_unlabelled
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.split import FILE
from scratch.data.values import number

MOST_JSON = 2**27  # bytes of one file: the picture itself may stand in it
LOOKED_AT = 5      # files, to know what they are
_WITHOUT_BOX = ("point", "points", "line", "linestrip")
_WANTED = ("a label, points [[x, y], …] in numbers (two corners of a rectangle, a circle's centre and a point of its "
           "edge, three or more of a polygon)")


def find_labelme(listing: Listing) -> Optional[tuple[dict[str, Labelme], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no such layout."""
    files = [file for file in listing.files(".json") if file != FILE]
    if not listing.pictures or not any(_is_labelme(listing.root / file) for file in files[:LOOKED_AT]):
        return None
    of_split, left_out = by_folder(files)
    folder = os.path.dirname((of_split.get("train") or files)[0])
    where = f"{folder}/*.json" if folder else "*.json"
    where += f"; not read: {', '.join(left_out[:2])}{' …' if left_out[2:] else ''}" if left_out else ""
    every = tuple(file for members in of_split.values() for file in members)
    return {split: Labelme(listing, split, tuple(members), every) for split, members in of_split.items()}, where


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
        mine, names = set(self.files), set()
        contents: dict[str, dict[str, Any]] = {}
        troubles: list[tuple[str, ...]] = []  # told below: `choose` is asked about the pictures first
        for file in self.every:
            try:
                content = _parse(self.listing.root / file)
            except ValueError as error:
                troubles += [("malformed entry", file, "{}", str(error))] if file in mine else []
                continue
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                troubles += [("other JSON file", file, "it has no list \"shapes\"")] if file in mine else []
                continue
            names |= {label for shape in content["shapes"] if (label := _label(shape)) and not _without_box(shape)}
            if file in mine:
                contents[file] = content
        among = Pictures(self.listing)
        pictures = {file: among.of_file(file, _said(file, content)) for file, content in contents.items()}
        chosen = set(choose(list(pictures.values())))
        for kind, file, *told in troubles:
            if choose([file]):  # told in one part alone
                report(kind, file, *told)
        tell_of_unlabelled(self.listing, set(pictures.values()), {key(os.path.basename(file)) for file in self.every},
                           "JSON file", report, choose)
        categories = {name: id for id, name in enumerate(sorted(names), start=1)}
        images, annotations = [], []
        wanted = sorted((picture, file) for file, picture in pictures.items() if picture in chosen)
        for id, (picture, file) in enumerate(wanted[:limit], start=1):
            content = contents[file]
            images.append({"id": id, "file_name": picture, "width": content.get("imageWidth"),
                           "height": content.get("imageHeight")})
            for place, label, box in _objects(file, content["shapes"], report):
                annotations.append({"id": f"{file}, shape {place}", "image_id": id, "category_id": categories[label],
                                    "bbox": box})
        return {"images": images, "annotations": annotations,
                "categories": [{"id": id, "name": name} for name, id in categories.items()]}


def _objects(file: str, shapes: list[Any], report: Report) -> list[tuple[int, str, list[float]]]:
    """Place of the first shape, label and box of each object: the box around the shapes of one label and group."""
    found: dict[object, tuple[int, str, list[float]]] = {}
    for place, shape in enumerate(shapes, start=1):
        label, where = _label(shape), f"{file}, shape {place}"
        if label and _without_box(shape):
            report("shape without a box", where, "got a {}", shape["shape_type"])
            continue
        box = _box(shape) if label else None
        if not label or box is None:
            report("malformed entry", where, "got the label {} and the points {}, wanted " + _WANTED, label,
                   shape.get("points") if isinstance(shape, dict) else shape)
            continue
        group = shape.get("group_id")
        of = place if group is None else (label, repr(group))
        if of in found:
            place, _, (x, y, w, h) = found[of]
            left, top = min(x, box[0]), min(y, box[1])
            box = [left, top, max(x + w, box[0] + box[2]) - left, max(y + h, box[1] + box[3]) - top]
        found[of] = place, label, box
    return list(found.values())


def _box(shape: dict[str, Any]) -> Optional[list[float]]:
    """x, y, width, height in pixels; None for a shape whose points are none, or too few."""
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    xs, ys = ([number(point[axis]) for point in points] for axis in (0, 1))
    kind = _kind(shape)
    if None in xs + ys or len(points) < (3 if kind == "polygon" else 2):
        return None
    if kind == "circle":
        r = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return [xs[0] - r, ys[0] - r, 2 * r, 2 * r]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _kind(shape: dict[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # which old files do not tell


def _without_box(shape: dict[str, Any]) -> bool:
    return _kind(shape) in _WITHOUT_BOX


def _label(shape: Any) -> Optional[str]:
    label = shape.get("label") if isinstance(shape, dict) else None
    return label.strip() or None if isinstance(label, str) else None


def _said(file: str, content: dict[str, Any]) -> str:
    """The picture's name in the file; else the file's own."""
    said = content.get("imagePath")
    return said if isinstance(said, str) and said.strip() else os.path.splitext(os.path.basename(file))[0]


def _parse(file: Path) -> Any:
    """What a JSON file holds, without the picture. Raises ValueError for one that cannot be read, or is none."""
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


def _is_labelme(file: Path) -> bool:
    try:
        content = _parse(file)
    except ValueError:
        return False
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content
