"""layout_cvat: one XML file for all pictures, as "CVAT for images 1.1" writes it.

    annotations.xml + images/a.jpg …

    <annotations> <version>1.1
       <image id="0" name="a.jpg" subset="Train" width="500" height="375">
          <box label="dog" xtl="7" ytl="9" xbr="107" ybr="209" rotation="30">
          <polygon label="dog" points="7,9;107,9;50,209">  <ellipse cx cy rx ry>  <mask left top width height>

    box                        x, y, w, h = xtl, ytl, xbr − xtl, ybr − ytl; turned by `rotation` degrees: around it
    polygon, ellipse, mask,    the box around it, and around a polyline whose ends nearly meet
    cuboid (its eight corners)
    points, polyline,          no box: left out, and reported
    skeleton

Coordinates are edges in pixels from 0. A subset called after a split (Train, Validation) is that split; of pictures
with one name, the one in the folder of its subset is meant. CVAT for video has tracks, and does not say which file a
frame is: it is not read.
The format: docs.cvat.ai, "CVAT for image". Proven in tests/data/test_layout_shapes.py. Read: objects_of → _box
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Iterator, Optional
from xml.etree import ElementTree

from scratch.data.layout_voc import parse
from scratch.data.listing import split_of
from scratch.data.objects import MALFORMED, NO_BOX, Object, around, ellipse, is_closed, numbers, turned
from scratch.data.problems import brief
from scratch.data.values import whole

BEGINNING = 2**12  # bytes of an XML file, to know what it is
_BEGINS = re.compile(r"(\ufeff)?\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)?<annotations>\s*<version>", re.DOTALL)
_WITH_BOX = ("box", "polygon", "ellipse", "mask", "cuboid")
_WITHOUT_BOX = ("points", "polyline", "skeleton")
_WANTED = ("wanted a label and a box (xtl ytl xbr ybr), polygon or cuboid, ellipse (cx cy rx ry) or mask (left top "
           "width height) in numbers")


def is_cvat(file: Path) -> bool:
    """Is it XML of CVAT's, for images or for video?"""
    try:
        with open(file, "rb") as stream:
            return _BEGINS.match(stream.read(BEGINNING).decode("utf-8", errors="replace")) is not None
    except OSError:
        return False


def objects_of(file: Path) -> Iterator[Object]:
    """What each shape is, in order. Raises ValueError for a file that cannot be read, or is CVAT's for video."""
    root = parse(file)
    if root.find("image") is None and root.find("track") is not None:
        raise ValueError("it is CVAT's format for video, which does not say which file a frame is: export the task as "
                         "COCO 1.0, or as CVAT for images")
    for place, image in enumerate(root.iterfind("image"), start=1):
        picture, where = image.get("name", "").strip(), f"image {place}"
        if not picture:
            yield Object(where, "", wrong="its name is empty, wanted that of a picture")
            continue
        where += f" ({picture})"
        if subset := image.get("subset", "").strip():  # pictures of two subsets may have one name
            picture = f"{subset}/{picture}"
        width, height = whole(image.get("width")), whole(image.get("height"))
        size = (width, height) if width and height else None
        split = split_of(subset) or "all"
        yield Object(where, picture, size=size, split=split)
        shapes = [shape for shape in image if shape.tag in (*_WITH_BOX, *_WITHOUT_BOX)]
        for number_of, shape in enumerate(shapes, start=1):
            place_of, label, box = f"{where}, shape {number_of}", shape.get("label", "").strip(), _box(shape)
            if label and box is None and shape.tag in _WITHOUT_BOX:
                yield Object(place_of, picture, label, None, size, split, wrong=f"got {shape.tag}", kind=NO_BOX)
            elif not label or box is None:
                wrong = f"got the label {brief(label)} and {shape.tag} {brief(dict(shape.attrib))}, {_WANTED}"
                yield Object(place_of, picture, label, None, size, split, wrong=wrong, kind=MALFORMED)
            else:
                yield Object(place_of, picture, label, box, size, split,
                             outline=shape.tag != "box" or bool(_angle(shape)))


def _box(shape: ElementTree.Element) -> Optional[list[float]]:
    """x, y, width, height in pixels; None where its numbers are none."""
    def read(*names: str) -> Optional[list[float]]:
        return numbers([shape.get(name, "") for name in names])
    angle = _angle(shape)
    if angle is None:
        return None
    if shape.tag == "box":
        corners = read("xtl", "ytl", "xbr", "ybr")
        return corners and turned([corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]], angle)
    if shape.tag == "ellipse":
        sides = read("cx", "cy", "rx", "ry")
        return sides and ellipse(*sides, angle)
    if shape.tag == "mask":
        return read("left", "top", "width", "height")
    if shape.tag == "cuboid":
        corners = [name for name in shape.attrib if re.fullmatch(r"[xy][tb][lr][12]", name)]
        values = read(*corners)
        pairs = list(zip(corners, values or ()))
        xs, ys = ([value for name, value in pairs if name[0] == axis] for axis in "xy")
        return around(xs, ys) if xs and ys else None
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    values = numbers([value for point in points for value in point])
    if shape.tag not in ("polygon", "polyline") or not values or len(points) < 3 or {*map(len, points)} != {2}:
        return None
    xs, ys = values[::2], values[1::2]
    return around(xs, ys) if shape.tag == "polygon" or is_closed(xs, ys) else None


def _angle(shape: ElementTree.Element) -> Optional[float]:
    """In radians; 0 where none is given, None where it is no number."""
    degrees = numbers([shape.get("rotation", "0")])
    return degrees and math.radians(degrees[0])
