"""layout_via: one file for all pictures, as the VGG Image Annotator (VIA) 1 and 2 write it.

    train/via_region_data.json + its pictures beside it …      or a project (via_project.json), or the same as .csv

    {"a.jpg495616": {"filename": "a.jpg", "size": 495616, "regions": [
        {"shape_attributes": {"name": "rect", "x": 7, "y": 9, "width": 100, "height": 200},
         "region_attributes": {"class": "dog"}}, …]}, …}

    rect                       x, y, w, h
    polygon, circle, ellipse   the box around it, and around a polyline whose ends nearly meet
    point, polyline            no box: left out, and reported

Coordinates are edges in pixels from 0. The attributes of the regions have names of the annotator's choice: the class is
the one that is called class, label or category; else, of those that all regions with attributes have, or if there are
none, of all, the one called name or type, or the only one, or any of several that always say the same. Where a file
does not tell, all files of the set together may. Where none is used, all objects are of one class, called object. A
checkbox ({"dog": true}) is its one word.
The format: Dutta and Zisserman 2019, arXiv 1904.10699, and its version 2. Proven in tests/data/test_layout_shapes.py.
Read: class_attributes → objects_of → _box
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence, Union

from scratch.data.layout_labelme import parse
from scratch.data.listing import text_of
from scratch.data.objects import NO_BOX, ONE_CLASS, Object, around, ellipse, is_closed, numbers
from scratch.data.problems import brief

BEGINNING = 2**16  # bytes of a file, before all of it is read
MOST_CELL = 2**31 - 1  # letters of one cell: a polygon may have thousands of corners
_CLASS = ("class", "classname", "label", "labelname", "category", "categoryname")
_PERHAPS = ("name", "type", "object", "objectname", "objecttype")
_WITHOUT_BOX = ("point", "polyline", "line")
_COLUMNS = ("region_shape_attributes", "region_attributes")  # of the .csv
_WANTED = ('wanted shape_attributes such as {"name": "rect", "x": 7, "y": 9, "width": 100, "height": 200}, or a '
           "polygon of three points or more, a circle or an ellipse")


def is_via(file: Path) -> bool:
    """Is it a project or an export of VIA's? All of it is read only where it looks like it."""
    try:
        with open(file, "rb") as stream:
            beginning = stream.read(BEGINNING).decode("utf-8", errors="replace")
        if file.suffix.lower() == ".csv":
            return set(_COLUMNS) <= {cell.strip('\ufeff#" \r') for cell in beginning.partition("\n")[0].split(",")}
        if not any(f'"{word}"' in beginning for word in ("_via_img_metadata", "_via_settings", "regions")):
            return False
        entries = _entries(parse(file))
    except (OSError, ValueError):
        return False
    return any(isinstance(entry, dict) and {"filename", "regions"} <= entry.keys() for entry in entries)


def class_attributes(files: Sequence[Path]) -> dict[Path, Union[Optional[str], ValueError]]:
    """File → which attribute of its regions is the class; None where none is used, and an error where it is not clear.

    What one file alone does not say, all of them together may. What cannot be read is passed over: `objects_of` tells.
    """
    said: dict[Path, list[dict[str, str]]] = {file: [] for file in files}  # of each region that has any: name → word
    for file in files:
        with suppress(ValueError):
            regions = [region for entry in _read(file) for region in _regions(entry) or ()]
            words = [{name: _word(value) for name, value in _attributes(region).items()} for region in regions]
            said[file] = [kept for its in words if (kept := {name: word for name, word in its.items() if word})]
    of_all = _attribute([words for its in said.values() for words in its])
    alone = {file: _attribute(its) for file, its in said.items()}
    return {file: its if isinstance(its, str) else of_all for file, its in alone.items()}


def _attribute(said: Sequence[dict[str, str]]) -> Union[Optional[str], ValueError]:
    used = list(dict.fromkeys(name for words in said for name in words))
    plain = {name: "".join(filter(str.isalpha, name.lower())) for name in used}
    for name in _CLASS:
        if name in plain.values():
            return next(each for each in used if plain[each] == name)
    for names in ([name for name in used if all(name in words for words in said)], used):
        for name in _PERHAPS:
            if name in map(plain.get, names):
                return next(each for each in names if plain[each] == name)
        if names and len({tuple(words.get(name) for words in said) for name in names}) == 1:
            return names[0]
    return ValueError(f"its regions have the attributes {', '.join(map(brief, used[:6]))}: rename the one that holds "
                      "the class to class") if used else None


def objects_of(file: Path, attribute: Optional[str] = None) -> Iterator[Object]:
    """Each region, in order; of each picture first that it is there. Raises ValueError for what cannot be read.

    attribute   the one that is the class, as `class_attributes` found it; without, all are of one class
    """
    for place, entry in enumerate(_read(file), start=1):
        where, regions = f"image {place}", _regions(entry)
        picture = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(picture, str) or not picture.strip() or regions is None:
            yield Object(where, "", wrong=f'got {brief(entry)}, wanted {{"filename": "a.jpg", "regions": [ … ]}}')
            continue
        where += f" ({picture})"
        yield Object(where, picture)
        for number_of, region in enumerate(regions, start=1):
            yield _object(f"{where}, region {number_of}", picture, region, attribute)


def _object(where: str, picture: str, region: Any, attribute: Optional[str]) -> Object:
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    kind = shape.get("name") if isinstance(shape, dict) else None
    box = _box(kind, shape) if isinstance(shape, dict) else None
    if box is None and kind in _WITHOUT_BOX:
        return Object(where, picture, wrong=f"got a {kind}", kind=NO_BOX)
    if box is None:
        return Object(where, picture, wrong=f"got {brief(shape)}, {_WANTED}")
    said = _attributes(region).get(attribute)
    label = ONE_CLASS if attribute is None else _word(said)
    if not label:
        name = brief(attribute)
        got = f"its attribute {name} is {brief(said)}" if said else f"it has no attribute {name}"
        wrong = f"{got}, wanted the name of one class: write it there, or remove the region"
        return Object(where, picture, "", None if said else box, outline=kind != "rect", wrong=wrong)
    return Object(where, picture, label, box, outline=kind != "rect")


def _read(file: Path) -> list[Any]:
    return _of_table(file) if file.suffix.lower() == ".csv" else _entries(parse(file))


def _entries(document: Any) -> list[Any]:
    """What is said of each picture."""
    if isinstance(document, dict) and isinstance(document.get("_via_img_metadata"), dict):
        document = document["_via_img_metadata"]
    return list(document.values()) if isinstance(document, dict) else []


def _of_table(file: Path) -> list[Any]:
    """The same of a .csv, in which each region has a row, and its two dicts are cells. Raises ValueError, in words."""
    csv.field_size_limit(MOST_CELL)
    try:
        reader = csv.DictReader(io.StringIO(text_of(file.read_bytes()), newline=""), strict=True)
        reader.fieldnames = [name.strip("# ") for name in reader.fieldnames or ()]  # "#filename" in version 1
        rows = list(reader)
    except UnicodeError as error:
        raise ValueError(f"it cannot be read ({error}): save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        raise ValueError(f"it cannot be read ({error})") from error
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        entry = found.setdefault(row.get("filename"), {"filename": row.get("filename"), "regions": []})
        shape, attributes = (_json(row.get(column)) for column in _COLUMNS)
        if shape != {} or (row.get("region_count") or "0").strip() != "0":  # else a picture without regions
            entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return list(found.values())


def _json(cell: Optional[str]) -> Any:
    """None for a cell that is not there."""
    try:
        return None if cell is None else json.loads(cell or "{}")
    except (ValueError, RecursionError):
        return cell


def _regions(entry: Any) -> Optional[list[Any]]:
    """Version 1 has a dict of them, version 2 a list; None for neither."""
    regions = entry.get("regions") if isinstance(entry, dict) else None
    return list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else None


def _attributes(region: Any) -> dict[str, Any]:
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _word(value: Any) -> str:
    """The text of an attribute; of a checkbox, the one word that is true; nothing for anything else."""
    if isinstance(value, dict):
        words = [word for word, is_true in value.items() if is_true]
        value = words[0] if len(words) == 1 else ""
    return str(value).strip() if isinstance(value, (str, int, float)) and type(value) is not bool else ""


def _box(kind: Any, shape: dict[str, Any]) -> Optional[list[float]]:
    """x, y, width, height in pixels; None where its numbers are none, or it is of another kind."""
    def read(*names: str) -> Optional[list[float]]:
        return numbers([shape.get(name) for name in names])
    if kind == "rect":
        return read("x", "y", "width", "height")
    if kind == "circle":
        sides = read("cx", "cy", "r")
        return sides and ellipse(sides[0], sides[1], sides[2], sides[2])
    if kind == "ellipse":
        sides = read("cx", "cy", "rx", "ry")
        angle = numbers([shape.get("theta", 0)])
        return ellipse(*sides, angle[0]) if sides and angle else None
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if kind not in ("polygon", "polyline") or not isinstance(xs, list) or not isinstance(ys, list):
        return None
    xs, ys = numbers(xs), numbers(ys)
    if not xs or not ys or not len(xs) == len(ys) >= 3 or kind == "polyline" and not is_closed(xs, ys):
        return None
    return around(xs, ys)
