"""layout_table: one row for each object, in a table (.csv).

    filename,width,height,class,xmin,ymin,xmax,ymax       TensorFlow's tutorials, Roboflow: train/_annotations.csv …
    image,xmin,ymin,xmax,ymax,label                       VoTT
    image_id,width,height,bbox,source                     "[x, y, width, height]", no class: one, called object
    label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height       makesense.ai
    cats/a.jpg,7,9,107,209,dog                            RetinaNet: no names of columns, and b.jpg,,,,, for a picture
                                                          that shows nothing

The names of the columns tell what they hold, whatever their order, case, and the signs between words. Coordinates are
edges in pixels from 0: box x, y, w, h = xmin, ymin, xmax − xmin, ymax − ymin. The split is in the table's name or its
folder's (train_labels.csv, valid/_annotations.csv). Classes are numbered from 1 in the order of their names, over all
tables. Proven in tests/data/test_layout_table.py.
Read: columns_of → rows_of → Table → find_tables
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

from scratch.data.listing import PICTURES, Listing, by_folder, key, split_of, text_of
from scratch.data.per_picture import Pictures, sizes_of, tell_of_unlabelled
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.values import number, whole

MOST_TABLES = 20   # that are looked at
BEGINNING = 2**16  # bytes of each, to know what it is
MOST_BYTES = 2**32
ONE_CLASS = "object"
_GAPS = ("", "nan", "none", "null", "[]")
_PICTURE = ("filename", "filepath", "file", "imagename", "imagepath", "imagefile", "imagefilename", "imageid", "image",
            "path", "imgname", "imgpath", "img", "frame", "picture")
_CLASS = ("class", "classname", "label", "labelname", "category", "categoryname", "name", "classid", "labelid",
          "categoryid")
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"),
            ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"), ("x0", "y0", "x1", "y1"))
_SIDES = tuple((*start, *extent)
               for start in (("bboxx", "bboxy"), ("x", "y"), ("left", "top"), ("xmin", "ymin"), ("x1", "y1"))
               for extent in (("bboxwidth", "bboxheight"), ("bboxw", "bboxh"), ("w", "h"), ("width", "height")))
_LISTS = ("bbox", "box", "boundingbox")  # one column, "[x, y, width, height]"
_SIZES = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("width", "height"))
# Without names of columns, by their number: picture, class, and the box's four, as corners or as sides.
_NAMELESS = {6: (0, 5, (1, 2, 3, 4), True), 8: (5, 0, (1, 2, 3, 4), False)}  # RetinaNet; makesense.ai as it was
WANTED = ("wanted columns for the picture (filename, image …), the class (class, label …) and the box (xmin ymin xmax "
          "ymax, or x y width height, in pixels), or rows PATH,x1,y1,x2,y2,CLASS without names of columns")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, counted from 0."""

    picture: int
    label: Optional[int]
    box: tuple[int, ...]
    """four columns, or one of a list"""
    corners: bool
    """left, top, right, bottom; else x, y, width, height"""
    size: Optional[tuple[int, int]] = None
    named: bool = True
    """does the first row hold the columns' names?"""


@dataclass(frozen=True)
class Row:
    """One row: its line, what it calls its picture, the class, and the box x, y, width, height; or why it is none."""

    line: int
    picture: str
    label: str
    box: Optional[list[float]]
    size: Optional[tuple[int, int]]
    wrong: str = ""


def columns_of(cells: Sequence[str]) -> Optional[Columns]:
    """What the first row of a table says of its columns; None if it is no table of boxes."""
    at: dict[str, int] = {}
    for place, cell in enumerate(cells):
        at.setdefault(re.sub(r"[^a-z0-9]", "", cell.lower()), place)

    def first(*groups: Sequence[str]) -> Optional[tuple[int, ...]]:
        return next((tuple(at[name] for name in names) for names in groups if all(name in at for name in names)), None)
    picture, label, size = first(*zip(_PICTURE)), first(*zip(_CLASS)), first(*_SIZES)
    corners = first(*_CORNERS)
    box = corners or first(*_SIDES) or first(*zip(_LISTS))
    if picture and box:
        size = None if size and set(size) & set(box) else size
        return Columns(picture[0], label[0] if label else None, box, corners is not None, size)
    if len(cells) in _NAMELESS:
        place, label_at, box, are_corners = _NAMELESS[len(cells)]
        numbers = [cells[column].strip() for column in box]
        is_picture = os.path.splitext(cells[place].strip().lower())[1] in PICTURES
        if is_picture and (not any(numbers) or None not in map(number, numbers)):
            return Columns(place, label_at, box, are_corners, (6, 7) if place == 5 else None, named=False)
    return None


def rows_of(file: Path) -> Iterator[Row]:
    """The rows of a table. Raises ValueError for a file that cannot be read, or is no table of boxes."""
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise OSError(f"it has {size:,} bytes")
        text = text_of(file.read_bytes())
    except (OSError, UnicodeError) as error:
        raise ValueError(f"it cannot be read ({error}), {WANTED}") from error
    table = _table(text)
    columns = None
    while True:
        try:
            cells = next(table, None)
        except csv.Error as error:
            raise ValueError(f"line {table.line_num}: {error}, {WANTED}") from error
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            if (columns := columns_of(cells)) is None:
                raise ValueError(f"its first row is {','.join(cells)[:80]}, {WANTED}")
            if columns.named:
                continue
        yield _row(cells, columns, table.line_num)


def _table(text: str) -> Iterator[list[str]]:
    """A reader of the rows: the sign between two columns is the one that the first row has most often."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count), skipinitialspace=True)


def _row(cells: Sequence[str], columns: Columns, line: int) -> Row:
    def cell(column: int) -> str:
        return cells[column].strip() if column < len(cells) else ""
    picture = cell(columns.picture)
    label = ONE_CLASS if columns.label is None else cell(columns.label)
    size = tuple(whole(cell(column)) for column in columns.size) if columns.size else None
    size = size if size and None not in size else None
    values = [cell(column) for column in columns.box]
    if len(values) == 1:
        values = [value for value in re.split(r"[,;\s]+", values[0].strip("[](){} ")) if value] or [""]
    if all(value.lower() in _GAPS for value in values):
        return Row(line, picture, label, None, size, "" if picture else "it names no picture")
    numbers = [number(value) for value in values]
    if not picture or not label or len(numbers) != 4 or None in numbers:
        return Row(line, picture, label, None, size, "wanted the name of a picture, a class and four numbers")
    x, y, width, height = numbers
    if columns.corners:
        width, height = width - x, height - y
    return Row(line, picture, label, [x, y, width, height], size)


@dataclass(frozen=True)
class Table(Source):
    """One split: its table below the folder; `every` are those of all splits, which share their classes."""

    listing: Listing
    split: str
    file: str
    every: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.file

    def __str__(self) -> str:
        return str(self.listing.root / self.file)

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        names: set[str] = set()
        for file in self.every:
            if file != self.file:
                try:
                    names |= {row.label for row in rows_of(self.listing.root / file) if row.box}
                except ValueError:
                    continue  # told where it is read for its own split
        try:
            rows = list(rows_of(self.listing.root / self.file))
        except ValueError as error:
            if choose([self.file]):  # told in one part alone
                report("malformed entry", self.file, "{}", str(error))
            rows = []
        names |= {row.label for row in rows if row.box}
        of_picture: dict[str, list[Row]] = defaultdict(list)
        nameless = [row for row in rows if not row.picture]
        for row in rows:
            if row.picture:
                of_picture[self._picture(row.picture)].append(row)
        chosen = set(choose(list(of_picture)))
        for row in nameless:
            if choose([f"{self.file}, line {row.line}"]):
                report("malformed entry", f"line {row.line}", "{}", row.wrong)
        self._tell_of_unlabelled(set(of_picture), report, choose)
        categories = {name: id for id, name in enumerate(sorted(names), start=1)}
        pictures = sorted(picture for picture in of_picture if picture in chosen)[:limit]
        sizes = self._sizes(pictures, of_picture)
        images, annotations = [], []
        for id, picture in enumerate(pictures, start=1):
            width, height = sizes[picture]
            images.append({"id": id, "file_name": picture, "width": width or None, "height": height or None})
            for row in of_picture[picture]:
                if row.wrong:
                    report("malformed entry", f"line {row.line}", "{}: of {}", row.wrong, picture)
                elif row.box:
                    annotations.append({"id": f"line {row.line}", "image_id": id, "bbox": row.box,
                                        "category_id": categories[row.label]})
        return {"images": images, "annotations": annotations,
                "categories": [{"id": id, "name": name} for name, id in categories.items()]}

    def _picture(self, said: str) -> str:
        """The path below the folder of the picture that a row names; the name itself if there is none."""
        if said not in self._known:
            clean = said.replace("\\", "/").removeprefix("file://")
            beside = os.path.normpath(os.path.join(os.path.dirname(self.file), clean)).replace("\\", "/")
            below = self.listing.below(clean)
            self._known[said] = (beside if beside in self._there else below if below in self._there else
                                 self._among.named(clean, os.path.dirname(below or self.file), clean) or said)
        return self._known[said]

    @cached_property
    def _known(self) -> dict[str, str]:
        return {}

    @cached_property
    def _there(self) -> frozenset[str]:
        return frozenset(self.listing.pictures)

    @cached_property
    def _among(self) -> Pictures:
        return Pictures(self.listing)

    def _sizes(self, pictures: Sequence[str], of_picture: Mapping[str, Sequence[Row]]) -> dict[str, tuple[int, int]]:
        """Width and height of each picture, as its rows tell, or else its header."""
        told = {picture: next((row.size for row in of_picture[picture] if row.size), None) for picture in pictures}
        asked = [picture for picture, size in told.items() if not size or not all(size)]
        return {**told, **dict(zip(asked, sizes_of(self.listing.root, asked)))}

    def _tell_of_unlabelled(self, labelled: set[str], report: Report, choose: Choose) -> None:
        names = {key(os.path.basename(picture)) for picture in labelled}
        for file in self.every:
            if file != self.file:
                try:
                    names |= {key(row.picture.replace("\\", "/").rpartition("/")[2])
                              for row in rows_of(self.listing.root / file)}
                except ValueError:
                    continue
        tell_of_unlabelled(self.listing, labelled, names, "row", report, choose)


def find_tables(listing: Listing) -> Optional[tuple[dict[str, Table], str]]:
    """Split, or "all" → its table, and in words where they were found; None if this is no such layout."""
    if not listing.pictures:
        return None
    files = [file for file in listing.files(".csv", ".tsv")][:MOST_TABLES]
    files = [file for file in files if is_table(listing.root / file)]
    if not files:
        return None
    by_name: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_name[split_of(os.path.splitext(os.path.basename(file))[0]) or next(iter(by_folder([file])[0]))].append(file)
    if "train" in by_name or "val" in by_name:
        by_name.pop("all", None)
    if any(len(set(map(os.path.dirname, members))) > 1 for members in by_name.values()):
        return None  # several sets, each in a folder of its own
    found = {split: members[0] for split, members in by_name.items()}
    more = [file for file in files if file not in found.values()]
    where = ", ".join(found.values()) + (f"; not read: {', '.join(more)}" if more else "")
    return {split: Table(listing, split, file, tuple(found.values())) for split, file in found.items()}, where


def is_table(file: Path) -> bool:
    """Does the beginning of a file look like a table of boxes?"""
    try:
        with open(file, "rb") as stream:
            beginning = stream.read(BEGINNING)
        text = text_of(beginning[:len(beginning) // 2 * 2]) if beginning[:1] in b"\xff\xfe" else text_of(
            beginning.rpartition(b"\n")[0] or beginning)
        cells = next((cells for cells in _table(text) if any(cell.strip() for cell in cells)), None)
    except (OSError, UnicodeError, csv.Error):
        return False
    return cells is not None and columns_of(cells) is not None
