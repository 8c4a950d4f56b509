"""layout_table: one row for each object, in a table (.csv, .tsv).

    filename,width,height,class,xmin,ymin,xmax,ymax       TensorFlow's tutorials, Roboflow: train/_annotations.csv …
    image,xmin,ymin,xmax,ymax,label                       VoTT
    image_id,width,height,bbox,source                     "[x, y, width, height]", no class: one, called object
    label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height       makesense.ai
    cats/a.jpg,7,9,107,209,dog                            RetinaNet: no header, and b.jpg,,,,, for a picture that
                                                          shows nothing
    a.jpg 7,9,107,209,0 7,9,50,60,2                       Keras: a .txt, a line for each picture (layout_lines.py)
    an .xml or .json                                      CVAT, VIA, Create ML: layout_cvat.py …

The header says what the columns hold, whatever their order, case, and the signs between words. Coordinates are edges
in pixels from 0: box x, y, w, h = xmin, ymin, xmax − xmin, ymax − ymin. Corners the wrong way round are put in order,
unless they look like sizes (evidence.py). A number may have a decimal comma (233,5) where the delimiter is another
sign. Classes are numbered from 1 in the order of their names, over all tables. What two tables of one split say alike
is one object. Which table, or which of its rows, is of which split, find_table.py finds out.
Proven in tests/data/test_layout_table.py. Read: cells_of → columns_of → rows_of → Table
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from scratch.data import layout_createml, layout_cvat, layout_lines, layout_via
from scratch.data.evidence import sizes_as_corners
from scratch.data.listing import PICTURES, Listing, split_of, text_of
from scratch.data.objects import MALFORMED, ONE_CLASS, Object
from scratch.data.per_picture import Pictures, sizes_of, tell_of_unlabelled
from scratch.data.problems import brief
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.values import number, whole
from scratch.printable import counted

MOST_BYTES = 2**32
MOST_CELL = 2**31 - 1  # letters of one cell, which may hold a mask
_GAPS = ("", "nan", "none", "null", "[]")
_PICTURE = ("filename", "fname", "filepath", "file", "imagename", "imagepath", "imagefile", "imagefilename", "imageid",
            "image", "path", "imgname", "imgpath", "img", "frame", "picture")
_CLASS = ("classname", "labelname", "categoryname", "class", "label", "category", "name", "classid", "labelid",
          "categoryid", "objectname", "objectclass", "cls", "species", "object")  # names before numbers, and rare ones last
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"),
            ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"), ("x0", "y0", "x1", "y1"))
_SIDES = tuple((*start, *extent)
               for start in (("bboxx", "bboxy"), ("x", "y"), ("left", "top"), ("xmin", "ymin"), ("x1", "y1"))
               for extent in (("bboxwidth", "bboxheight"), ("bboxw", "bboxh"), ("w", "h"), ("width", "height")))
_LISTS = ("bbox", "box", "boundingbox")  # one column, "[x, y, width, height]"
_SIZES = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("width", "height"))
_SPLITS = ("split", "set", "subset")
# Without a header, by the number of columns: picture, class, the box's four, are they corners?
_NAMELESS = {6: (0, 5, (1, 2, 3, 4), True), 8: (5, 0, (1, 2, 3, 4), False)}  # RetinaNet; makesense.ai's older form
WANTED = ("wanted columns for the picture (filename, image …), the class (class, label …) and the box (xmin ymin xmax "
          "ymax, or x y width height, in pixels), or rows PATH,x1,y1,x2,y2,CLASS without a header")


class Columns(NamedTuple):
    """Which columns of a table hold what, counted from 0."""

    picture: int
    label: Optional[int]
    box: tuple[int, ...]
    """four columns, or one of a list"""
    corners: bool
    """left, top, right, bottom; else x, y, width, height"""
    size: Optional[tuple[int, ...]] = None
    split: Optional[int] = None
    header: bool = True


def decoded(content: bytes) -> str:
    """The text of a table. Raises ValueError for another encoding, as spreadsheets write it."""
    try:
        return text_of(content)
    except UnicodeError as error:
        raise ValueError(f"it cannot be read ({error}): save it as CSV UTF-8") from error


def delimiter_of(text: str) -> str:
    """The one that the first row has most often."""
    return max(",;\t", key=next((line for line in io.StringIO(text, newline="") if line.strip()), "").count)


def cells_of(text: str) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row begins that is not blank, and its cells. Raises ValueError for a quote left open."""
    csv.field_size_limit(MOST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"the row that begins in line {line} is not CSV: {error}") from error
        if cells is None:
            return
        if any(map(str.strip, cells)) and not (line == 1 and cells[0].startswith("sep=")):  # which Excel reads
            yield line, cells


def columns_of(cells: Sequence[str]) -> Optional[Columns]:
    """What the first row of a table says of its columns; None if it is no table of boxes."""
    at: dict[str, int] = {}
    for place, cell in enumerate(cells):
        at.setdefault(re.sub(r"[^a-z0-9]", "", cell.lower()), place)

    def first(*groups: Sequence[str]) -> Optional[tuple[int, ...]]:
        return next((tuple(at[name] for name in names) for names in groups if all(name in at for name in names)), None)
    picture, (label,), (split,) = first(*zip(_PICTURE)), *(first(*zip(names)) or (None,) for names in (_CLASS, _SPLITS))
    size, corners, sides = first(*_SIZES), first(*_CORNERS), first(*_SIDES)
    if sides and sides[2:] == size and sides[2] < sides[0]:  # filename, width, height, class, x, y: the picture's size,
        sides = None                                         # and a point
    box = corners or sides or first(*zip(_LISTS))
    if picture and box:
        size = None if size and set(size) & set(box) else size
        return Columns(picture[0], label, box, corners is not None, size, split)
    if len(cells) in _NAMELESS:
        place, label, box, are_corners = _NAMELESS[len(cells)]
        numbers = [cells[column].strip().replace(",", ".") for column in box]
        is_picture = os.path.splitext(cells[place].strip().lower())[1] in PICTURES
        if is_picture and (not any(numbers) or None not in map(number, numbers)):
            return Columns(place, label, box, are_corners, (6, 7) if place == 5 else None, header=False)
    return None


def rows_of(file: Path, classes: Sequence[str] = (), form: str = "table", attribute: Optional[str] = None
            ) -> Iterator[Object]:
    """The rows of a table. Raises ValueError for a file that cannot be read, or is no table of boxes.

    classes  the names of the classes 0, 1 …, for a text file of lines (layout_lines.py), which has their numbers
    form     "table", "CVAT", "VIA" or "Create ML"; of VIA's regions, `attribute` is the class
    """
    if form != "table":
        yield from (layout_via.objects_of(file, attribute) if form == "VIA" else
                    layout_cvat.objects_of(file) if form == "CVAT" else layout_createml.objects_of(file))
        return
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise OSError(f"it has {size:,} bytes")
        text = decoded(file.read_bytes())
    except OSError as error:
        raise ValueError(f"it cannot be read ({error})") from error
    if file.suffix.lower() == ".txt":
        yield from layout_lines.objects_of(text, classes)
        return
    columns, decimal = None, "." if delimiter_of(text) == "," else ","  # decimal comma, as spreadsheets write it
    for line, cells in cells_of(text):
        if columns is None:
            if (columns := columns_of(cells)) is None:
                raise ValueError(f"its first row is {','.join(cells)[:80]}, {WANTED}")
            names = [cell.strip() if columns.header else f"column {k}" for k, cell in enumerate(cells, start=1)]
            if columns.header:
                continue
        yield _row(cells, columns, names, f"line {line}", decimal)


def _row(cells: Sequence[str], columns: Columns, names: Sequence[str], where: str, decimal: str) -> Object:
    def cell(column: int) -> str:
        return cells[column].strip() if column < len(cells) else ""
    picture = cell(columns.picture)
    label = ONE_CLASS if columns.label is None else cell(columns.label)
    split = "all" if columns.split is None else split_of(cell(columns.split)) or "all"
    size = tuple(whole(cell(column)) for column in columns.size) if columns.size else None
    size = size if size and None not in size else None
    values = [cell(column) for column in columns.box]
    if len(values) == 1:
        values = [value for value in re.split(r"[,;\s]+", values[0].strip("[](){} ")) if value] or [""]
    else:
        values = [value.replace(decimal, ".") for value in values]
    cut_short = len(cells) <= max(*columns.box, columns.picture, columns.label or 0)
    too_many = any(map(str.strip, cells[len(names):]))
    alone = not any(other.strip() for column, other in enumerate(cells) if column != columns.picture)
    if picture and all(value.lower() in _GAPS for value in values) and (alone or not cut_short):
        return Object(where, picture, label, None, size, split)
    numbers = [number(value) for value in values]

    def told(column: int, wanted: str) -> str:
        return f"{names[column]} is {brief(cell(column)) if cell(column) else 'empty'}, wanted {wanted}"
    no_list = len(columns.box) == 1 and (len(numbers) != 4 or None in numbers)
    wrong = (f"it ends after {len(cells)} of {len(names)} cells" if cut_short else
             f"it has {len(cells)} cells, wanted {len(names)}: quote a text with the delimiter in it" if too_many else
             told(columns.picture, "the name of a picture") if not picture else
             told(columns.label, "the name of a class") if columns.label is not None and not label else
             told(columns.box[0], "four numbers") if no_list else
             told(columns.box[numbers.index(None)], "a number") if None in numbers else "")
    return Object(where, picture, label, None if wrong else numbers, size, split, columns.corners, wrong=wrong)


def _in_order(corners: Sequence[float]) -> list[float]:
    """x, y, width, height of a box between two opposite corners, whichever they are."""
    (left, right), (top, bottom) = sorted(corners[::2]), sorted(corners[1::2])
    return [left, top, right - left, bottom - top]


@dataclass(frozen=True)
class Table(Source):
    """One split: its tables below the folder, or the rows of the tables of all splits that say `only` in a column.

    every  the tables of all splits, which share their classes
    form   "table", or whose files these are: "CVAT", "VIA", "Create ML"
    used   what the rows of all splits say in that column; rows that say something else are left out
    """

    listing: Listing
    split: str
    files: tuple[str, ...]
    every: tuple[str, ...]
    only: str = ""
    used: tuple[str, ...] = ()
    form: str = "table"

    @property
    def name(self) -> str:
        return f"{self.form} {self.split}" if self.split != "all" else self.form

    def __str__(self) -> str:
        return f"{self.listing.root} ({self.name})"

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        mine, among = set(self.files), Pictures(self.listing)
        names: set[str] = set()
        labelled: dict[str, bool] = {}
        left_out: list[str] = []
        of_picture: dict[str, list[tuple[str, Object]]] = defaultdict(list)
        problems: list[tuple[str, str]] = []  # reported below: `choose` is asked about the pictures first
        paths = [self.listing.root / file for file in self.every]
        attributes = layout_via.class_attributes(paths) if self.form == "VIA" else {}
        for file in self.every:
            try:
                if isinstance(attribute := attributes.get(self.listing.root / file), ValueError):
                    raise attribute
                classes = layout_lines.names_for(self.listing, file) if file.lower().endswith(".txt") else ()
                for row in rows_of(self.listing.root / file, classes, self.form, attribute):
                    is_mine = file in mine and (not self.only or row.split == self.only)
                    if not row.picture:
                        problems += [(f"{file}, {row.where}", row.wrong)] if is_mine else []
                        continue
                    picture = among.of_row(file, row.picture)
                    if self.used and row.split not in self.used:
                        left_out.append(picture)
                        continue
                    labelled.setdefault(picture, is_mine)
                    if row.box and row.label:
                        names.add(row.label)
                    if is_mine:
                        of_picture[picture].append((file, row))
            except ValueError as error:
                problems += [(file, str(error))] if file in mine else []
        chosen = set(choose(list(of_picture)))
        misnamed = self._misnamed(of_picture)
        for where, detail in [*problems, *misnamed.items()]:
            if choose([where]):  # in one part alone
                report("malformed entry", where, detail)
        for picture in left_out:
            labelled.setdefault(picture, False)
        tell_of_unlabelled(self.listing, labelled, (), "row" if self.form == "table" else "entry", report, choose)
        categories = {name: id for id, name in enumerate(sorted(names), start=1)}
        pictures = sorted(picture for picture in of_picture if picture in chosen)[:limit]
        sizes = self._sizes(pictures, of_picture)
        images, annotations = [], []
        for id, picture in enumerate(pictures, start=1):
            width, height = sizes[picture]
            rows = [row for _, row in of_picture[picture]]
            known = [row for row in rows if row.box and (row.label or len(names) == 1)]
            if known or not any(row.wrong and row.kind == MALFORMED for row in rows):  # else what it shows is not known
                images.append({"id": id, "file_name": picture, "width": width or None, "height": height or None})
            outlines: Counter[str] = Counter()
            given: dict[tuple[str, tuple[float, ...]], str] = {}  # an object → the file that has it first
            for file, row in of_picture[picture]:
                where, box = f"{file}, {row.where}", row.box
                if box and (first := given.setdefault((row.label, tuple(box)), file)) != file:
                    report("entry given twice", where, "as in {}", first)  # a project and its export, say
                    continue
                if row.wrong and box and len(names) == 1:
                    (label,) = names
                    report("object without a class", where, "taken as {}", label)
                    row = row._replace(label=label)
                elif row.wrong:
                    report(row.kind, where, row.wrong)
                    continue
                if row.outline:
                    outlines[f"{file}, {row.where.rpartition(', ')[0]}"] += 1
                if not box:
                    continue
                if row.corners and file not in misnamed:
                    if box[2] < box[0] or box[3] < box[1]:
                        report("corners the wrong way round", where, "got {:g}, {:g}, {:g}, {:g}".format(*box))
                    box = _in_order(box)
                annotations.append({"id": where, "image_id": id, "bbox": box, "category_id": categories[row.label]})
            if self.form != "table" and len(both := dict.fromkeys(given.values())) > 1:
                report("annotated in two files", picture, "{}, and others in {}", *list(both)[:2])
            for where, number_of in outlines.items():
                report("outline of an object", where, counted(number_of, "shape"), times=number_of)
        return {"images": images, "annotations": annotations,
                "categories": [{"id": id, "name": name} for name, id in categories.items()]}

    def _misnamed(self, of_picture: Mapping[str, Sequence[tuple[str, Object]]]) -> dict[str, str]:
        """The tables whose corners look like x, y, width, height, and why."""
        corners: dict[str, list[tuple[str, list[float]]]] = defaultdict(list)
        for picture, rows in of_picture.items():
            for file, row in rows:
                if row.corners and row.box:
                    corners[file].append((picture, row.box))
        found = {}
        for file, boxes in corners.items():
            if any(box[2] < box[0] or box[3] < box[1] for _, box in boxes):  # else no picture need be opened
                sizes = self._sizes(list({picture for picture, _ in boxes}), of_picture)
                found[file] = sizes_as_corners(np.array([box for _, box in boxes]),
                                               np.array([sizes[picture] for picture, _ in boxes]))
        return {file: words for file, words in found.items() if words}

    def _sizes(self, pictures: Sequence[str], of_picture: Mapping[str, Sequence[tuple[str, Object]]]
               ) -> dict[str, tuple[int, ...]]:
        """Width and height of each picture, as its rows say, or else its header."""
        said = {picture: next((row.size for _, row in of_picture[picture] if row.size), ()) for picture in pictures}
        asked = [picture for picture, size in said.items() if not all(size) or not size]
        return {**said, **dict(zip(asked, sizes_of(self.listing.root, asked)))}
