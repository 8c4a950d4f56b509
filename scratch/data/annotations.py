"""annotations: how is a COCO annotation file read, and what is reported about its errors?

    JSON, YOLO, XML ─▶ sources.py ─▶ categories, images, annotations ─▶ each entry judged ─▶ Annotations, and Problems

One reader, `read_annotations`, serves training and check-data: it turns the JSON into arrays (860,000 boxes of COCO
would be gigabytes as dicts, once in every worker) and writes down every problem that it meets; `problems.KINDS` says
which are refused. What remains is clean: every box has an area and lies within its image to 0.01 pixels. Boxes with
which nothing is wrong are found all at once, column by column (rows.py), and the others are judged one by one. What is
no such file, annotation_file says; which number a text means, values; what all boxes together look like, evidence.

Format: Lin et al. 2014 (arXiv 1405.0312), cocodataset.org/#format-data; boxes are x, y, width, height in pixels.
Proven in tests/data/test_coco.py, test_wrong_types.py. Read: Annotations → read_annotations → _sound, _judge_box
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Collection, Iterable, Iterator, NamedTuple, Optional

import numpy as np

from scratch.data.classes import Classes
from scratch.data.evidence import judge
from scratch.data.file_names import find_files
from scratch.data.images import opened, upright_size
from scratch.data.problems import LISTED, Notes, Problem, brief
from scratch.data.rows import LONGEST_NAME, NO_AREA, NO_ID, Entries, Images
from scratch.data.sources import Annotated, read_source
from scratch.data.values import number, whole, yes
from scratch.printable import abridged, counted, printable

# Annotators' tools round; a box that leaves its image by less than this many pixels has not left it.
TOLERANCE = 0.01
# COCO counts an object in one of three sizes; one whose area is beyond the largest counts in none, nor in all.
LARGEST_AREA = 1e10


@dataclass
class Annotations:
    """An annotation file as arrays; images in the order of their ids, boxes in the order of their images.

    The boxes of image i are the rows `offsets[i]:offsets[i+1]`.
    """

    classes: Classes
    image_ids: np.ndarray   # (n,) int64
    file_names: np.ndarray  # (n,) str: one block of memory, which forked workers share without copying
    sizes: np.ndarray       # (n,2) int64: width, height
    offsets: np.ndarray     # (n+1,) int64
    boxes_xywh: np.ndarray  # (M,4) float64, pixels
    labels: np.ndarray      # (M,) int64
    areas: np.ndarray       # (M,) float64, pixels
    crowd: np.ndarray       # (M,) bool
    problems: list[Problem] = field(repr=False)
    # What the file says, for the checks (evidence.py): boxes (M',4) with their images' rows (M',), before any was
    # clipped or dropped for lying outside; and how many annotations of these images and classes there are.
    written: tuple[np.ndarray, np.ndarray] = field(repr=False)
    listed: int

    def __len__(self) -> int:
        return len(self.image_ids)

    def without(self, image_ids: Collection[int]) -> "Annotations":
        """All but these images and their boxes."""
        if not image_ids:
            return self
        keep = ~np.isin(self.image_ids, list(image_ids))                            # (n,)
        boxes = np.repeat(keep, np.diff(self.offsets))                              # (M,)
        offsets = np.concatenate(([0], np.cumsum(np.diff(self.offsets)[keep])))
        return replace(self, image_ids=self.image_ids[keep], file_names=self.file_names[keep], sizes=self.sizes[keep],
                       offsets=offsets, boxes_xywh=self.boxes_xywh[boxes], labels=self.labels[boxes],
                       areas=self.areas[boxes], crowd=self.crowd[boxes])


def read_annotations(path: Annotated, classes: Optional[Classes] = None, limit: Optional[int] = None,
                     only: Optional[str] = None, folder: Optional[Path] = None, as_is: bool = False,
                     most: Optional[int] = LISTED, remember: bool = True) -> Annotations:
    """Read and clean a COCO annotation file, and write down every problem in it; refuses nothing by itself.

    path      the file, or what stands for it in another layout (sources.py)
    classes   the classes that the labels count (of the training split, or of a checkpoint); None takes the file's own
    limit     only the first N images, in the order of their ids
    only      some of the file's classes (as for `Classes.only`); boxes of its others are left out, and no problem.
              Without `classes`, labels count these; beside them, it chooses among those
    folder    the images' folder, for sizes that the file does not tell; None: such an image is a malformed entry
    as_is     boxes that look like another form altogether are told, but not refused (see evidence)
    most      this number of problems of a kind are kept one by one; None: all
    remember  what is read of a large file is kept for the next time, and recalled (pieces.py)
    Raises FileNotFoundError, or ValueError for a file that is not the JSON of a COCO data set or lacks a class.
    """
    path = Path(path) if isinstance(path, str) else path
    notes = Notes(most)

    def report(kind: str, what: str | Callable[[], str], detail: str, *values: Any, times: int = 1) -> None:
        notes.add(kind, lambda: f"{path.name}, {what if isinstance(what, str) else what()}", detail, *values,
                  times=times)

    document = read_source(path, report, limit, remember)
    own, odd_categories = _read_categories(document["categories"], report, classes is None)
    classes, wanted = _chosen(own, classes, only, report)
    label_of = {id: label for label, id in enumerate(classes.ids) if id in wanted.ids}
    own_ids = set(own.ids)
    left_out = own_ids - set(wanted.ids) if only is not None else set()

    ids, names, sizes, unusable = _read_images(Images.of(document["images"]), report)           # (N,), (N,), (N,2)
    used, names, sizes = ids[:limit], names[:limit], sizes[:limit]                              # (n,), (n,), (n,2)
    sizes, unsized = _read_sizes(used, names, sizes, folder, report)

    entries = Entries.of(document["annotations"])
    again = _again(entries)
    sound, left = _sound(entries, again, ids, sizes, label_of, left_out, unsized)
    rows: list[tuple[int, int, int, float, bool]] = []
    boxes: list[tuple[float, float, float, float]] = []
    written: list[tuple[float, float, float, float]] = []  # those of `boxes`, before they were clipped
    outside: list[tuple[int, tuple[float, float, float, float]]] = []
    stray: dict[int, tuple[_Annotation, int]] = {}  # category that no label counts → the first of its boxes, how many
    unlisted: dict[Any, tuple[_Annotation, int]] = {}  # category that the file does not list → the same
    listed = len(sound.place)
    for place, entry in left:
        if not isinstance(entry, dict):
            report("malformed entry", f"annotation number {place}", "got {}, wanted an object", entry)
            continue
        what = _Annotation(place, entry)
        if place in again:
            report("duplicate annotation id", what, "again as number {} of the file", place)
        image_id = entry.get("image_id")
        row = _row_of(whole(image_id), ids)
        category = whole(entry.get("category_id"))
        if row is None:
            if _key(image_id) not in unusable:  # of those it is said what is wrong with the image
                report("unknown image id", what, "image_id {} is no image of the file" if "image_id" in entry else
                       "it has no image_id", *([image_id] if "image_id" in entry else []))
            continue
        if row >= len(used) or category in left_out or row in unsized:
            continue
        what.file, (width, height) = str(names[row]), sizes[row].tolist()
        label = label_of.get(category)
        if label is None:
            if category in own_ids:
                first, number_of = stray.get(category, (what, 0))
                stray[category] = (first, number_of + 1)
            elif own_ids and _key(entry.get("category_id")) not in odd_categories:  # else it is said what is wrong
                key = "category_id" in entry, _key(entry.get("category_id"))
                first, number_of = unlisted.get(key, (what, 0))
                unlisted[key] = first, number_of + 1
            continue
        listed += 1
        kind, detail, box, raw = _judge_box(entry, width, height)
        crowd = yes(entry.get("iscrowd"))
        if crowd is None:
            report("malformed entry", what, "iscrowd is {}, wanted 0 or 1", entry["iscrowd"])
            continue
        if kind:
            report(kind, what, detail, entry.get("bbox"), width, height)
        if raw is not None and box is None:
            outside.append((row, raw))
        if box is None:
            continue
        if crowd:
            report("crowd box", what, "{}", classes.names[label])
        area = number(entry.get("area"))
        usable = area is not None and 0 < area <= LARGEST_AREA  # NaN > 0 is False
        rows.append((place, row, label, area if usable else box[2] * box[3], crowd))
        boxes.append(box)
        written.append(raw)

    for first, number_of in unlisted.values():
        boxes_of_it = counted(number_of, "box", "boxes")
        if "category_id" in first.entry:
            listed_there = counted(len(own.ids), "category", "categories")
            report("unknown category id", first, f"category_id {{}} is not among the file's {listed_there} "
                   f"({boxes_of_it}): is its list another set's, or too short?", first.entry["category_id"],
                   times=number_of)
        else:
            report("unknown category id", first, f"it has no category_id ({boxes_of_it})", times=number_of)
    name_of, id_of = dict(zip(own.ids, own.names)), dict(zip(classes.names, classes.ids))
    for category, (first, number_of) in stray.items():
        name = name_of[category]
        there = f", where {brief(name)} has the id {id_of[name]}" if name in id_of else ""
        report("unknown category id", first, f"category_id {category} is {brief(name)}, which is not in train: the "
               f"labels count its {counted(len(classes), 'class', 'classes')}{there} "
               f"({counted(number_of, 'box', 'boxes')})",
               times=number_of)
    judged = np.array(rows, dtype=[("place", "i8"), ("row", "i8"), ("label", "i8"), ("area", "f8"), ("crowd", "?")])
    found = _Boxes(*(np.concatenate((ours, judged[name])) for ours, name in zip(sound, judged.dtype.names)),
                   np.concatenate((sound.box, _four(boxes))))
    in_file = np.argsort(found.place, kind="stable")                                # (M,)
    as_written = np.concatenate((sound.box, _four(written)))[in_file]
    as_written = np.concatenate((as_written, _four(raw for _, raw in outside)))
    written_rows = np.concatenate((found.row[in_file], np.array([row for row, _ in outside], dtype=np.int64)))
    order = in_file[np.argsort(found.row[in_file], kind="stable")]
    found = _Boxes(*(column[order] for column in found))
    for row in np.flatnonzero(np.bincount(found.row[~found.crowd], minlength=len(used)) == 0):
        report("image without boxes", str(names[row]), f"image {used[row]}")
    if not len(used):
        report("no images", "images", f"{len(ids)} usable images in the file, limit {limit}")
    if seen := judge(as_written, sizes[written_rows]):
        row = written_rows[seen.example]
        example = ", ".join(f"{round(side, 3):g}" for side in as_written[seen.example].tolist())
        report("boxes in another form" if seen.certain and not as_is else "boxes perhaps in another form",
               f"{len(as_written):,} boxes", f"{seen.words}{'' if seen.words.endswith('?') else '.'} Such as "
               f"[{example}] in {abridged(str(names[row]))}, {sizes[row, 0]}×{sizes[row, 1]}")
    return Annotations(
        classes=classes, image_ids=used, file_names=names, sizes=sizes,
        offsets=np.searchsorted(found.row, np.arange(len(used) + 1)), boxes_xywh=found.box, labels=found.label,
        areas=found.area, crowd=found.crowd, problems=notes.problems(), written=(as_written, written_rows),
        listed=listed)


# -- the annotations with which nothing is wrong -------------------------------------------------------------------


class _Boxes(NamedTuple):
    """Boxes (M,4) xywh that are used; each with its place in the file and its image's row."""

    place: np.ndarray
    row: np.ndarray
    label: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    box: np.ndarray


def _sound(entries: Entries, again: Collection[int], ids: np.ndarray, sizes: np.ndarray, label_of: dict[int, int],
           left_out: Collection[int], unsized: Collection[int]) -> tuple[_Boxes, Iterator[tuple[int, Any]]]:
    """The annotations of which there is nothing to tell, and (place, entry) of those to be judged one by one.

    Neither has those that nobody asked for: of other classes (`left_out`), or of images beyond the limit.
    """
    c, places = entries.columns, entries.places                                     # (m,) each
    row = _place_among(c["image_id"], ids)                                          # (m,) -1: no image of the file
    known = sorted(label_of)
    label = np.array([*(label_of[id] for id in known), -1])[_place_among(c["category_id"], np.array(known, np.int64))]
    passed = row >= len(sizes)
    for values, unwanted in ((c["category_id"], left_out), (row, unsized)):
        passed |= (row >= 0) & np.isin(values, list(unwanted)) if unwanted else False
    sound = (row >= 0) & (label >= 0) & ~passed & ~c["iscrowd"]
    twice = np.isin(places, list(again)) if again else np.zeros(len(places), dtype=bool)
    for side, (start, length) in enumerate((("x", "w"), ("y", "h"))):
        limit = sizes[:, side][np.where(sound, row, 0)] if len(sizes) else np.zeros(len(row))
        sound &= _within(c[start], c[length], limit)
    there = (c["area"] > 0) & (c["area"] <= LARGEST_AREA) & (c["written"] & NO_AREA == 0)
    mine = sound & ~twice
    boxes = _Boxes(places[mine], row[mine], label[mine], np.where(there, c["area"], c["w"] * c["h"])[mine],
                   c["iscrowd"][mine], np.column_stack([c[name][mine] for name in ("x", "y", "w", "h")]))
    left = np.flatnonzero(~sound & ~passed | twice)

    def one_by_one() -> Iterator[tuple[int, Any]]:
        rows = [*zip(places[left].tolist(), left.tolist()), *((place, -1) for place in entries.others)]
        for place, row in sorted(rows):
            yield place, entries.others[place] if row < 0 else entries.entry(row)

    return boxes, one_by_one()


def _within(start: np.ndarray, length: np.ndarray, side: np.ndarray) -> np.ndarray:
    """(m,) bool: does what begins here lie within its image in this direction, as `_judge_box` judges it?"""
    end = start + length
    low, high = np.maximum(start, 0.0), np.minimum(end, side)
    return (length > 0) & (low < high) & (low - start <= TOLERANCE) & (end - high <= TOLERANCE)


def _again(entries: Entries) -> Collection[int]:
    """The places of annotations that have the id of an earlier one."""
    c = entries.columns
    others = [(place, id) for place, entry in entries.others.items()
              if isinstance(entry, dict) and (id := whole(entry.get("id"))) is not None]
    numbered = c["written"] & NO_ID == 0
    places = np.concatenate((entries.places[numbered], np.array([place for place, _ in others], dtype=np.int64)))
    ids = np.concatenate((c["id"][numbered], np.array([id for _, id in others], dtype=np.int64)))
    order = np.argsort(places, kind="stable")
    _, first = np.unique(ids[order], return_index=True)
    return set(np.delete(places[order], first).tolist())


def _place_among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each value is among these, which are in order; -1 for one that is not."""
    if not len(known):
        return np.full(len(values), -1)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[place] == values, place, -1)


def _row_of(id: Optional[int], ids: np.ndarray) -> Optional[int]:
    row = len(ids) if id is None else bisect_left(ids, id)
    return row if row < len(ids) and ids[row] == id else None


def _four(boxes: Iterable[tuple[float, ...]]) -> np.ndarray:
    return np.array(list(boxes), dtype=np.float64).reshape(-1, 4)


# -- all others ----------------------------------------------------------------------------------------------------


@dataclass
class _Annotation:
    """How an annotation is called in a report; in words where somebody asks for them."""

    place: int
    entry: dict[str, Any]
    file: str = ""

    def __call__(self) -> str:
        id = self.entry.get("id")
        called = f"annotation number {self.place}" if id is None else f"annotation {brief(id)}"
        return f"{called} of {abridged(self.file)}" if self.file else called


def _read_categories(entries: list[Any], report: Any, decisive: bool) -> tuple[Classes, set[Any]]:
    """The file's own classes, and the ids of those that are malformed.

    Whether they are well named is told where they are `decisive` for the labels.
    """
    names: dict[int, str] = {}
    unusable: set[Any] = set()
    for place, entry in enumerate(entries):
        id = whole(entry.get("id")) if isinstance(entry, dict) else None
        if id is None:
            report("malformed entry", f"category number {place}", "got {}, wanted an object with a whole number as id, "
                   "and a name", entry)
            unusable.add(_key(entry.get("id")) if isinstance(entry, dict) else None)
        elif (name := _name(entry.get("name"))) is None:
            report("malformed entry", f"category number {place}", "category {} has the name {}, wanted a text", id,
                   entry.get("name"))
            unusable.add(id)
        elif id in names and names[id] == name:
            report("entry given twice", f"category {id}", "{}", name)
        elif id in names:
            report("duplicate category id", f"category {id}", "{} and {}", names[id], name)
        else:
            names[id] = name
    if not names:
        report("no categories", "categories", f"{len(entries)} entries in the file, none of them usable")
    ids = tuple(sorted(names))
    if decisive:
        _look_at_names({id: names[id] for id in ids}, report)
    return Classes(ids, tuple(names[id] for id in ids)), unusable


def _name(value: Any) -> Optional[str]:
    """A class's name as text; a number is taken as its text, and anything else is none."""
    if type(value) in (int, float):
        return str(value)
    return value if isinstance(value, str) else None


def _look_at_names(names: dict[int, str], report: Any) -> None:
    alike: dict[str, list[int]] = defaultdict(list)
    for id, name in names.items():
        alike[name.strip().casefold()].append(id)
        why = ("is blank" if not name.strip() else "holds signs that cannot be shown" if printable(name) != name else
               f"has {len(name)} letters" if len(name) > 100 else
               "has blanks around it" if name != name.strip() else "")
        if why:
            report("odd class name", f"category {id}", "{} " + why, name)
    for ids in alike.values():
        if len(ids) > 1:
            report("classes alike", f"categories {', '.join(map(str, ids[:6]))}{' …' if len(ids) > 6 else ''}",
                   f"{len(ids)} classes are called " + ", ".join(dict.fromkeys(brief(names[id]) for id in ids[:6])))


def _chosen(own: Classes, classes: Optional[Classes], only: Optional[str], report: Any) -> tuple[Classes, Classes]:
    """The classes that the labels count, and those of them whose boxes are wanted."""
    known = dict(zip(classes.ids, classes.names)) if classes else {}
    for id, name in zip(own.ids, own.names):
        if known.get(id, name) != name:
            report("category renamed", f"category {id}", "{} here, {} in the classes that the labels count", name,
                   known[id])
    if classes is None:
        chosen = own.only(only) if only is not None else own
        return chosen, chosen
    return classes, classes.only(only) if only is not None else classes


def _read_images(entries: Images, report: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, set[Any]]:
    """Ids (N,) in their order, file names (N,), sizes (N,2), 0 for one that is not told; and the ids of the others."""
    c = entries.columns
    ids = c["id"]
    if not entries.others and len(np.unique(ids)) == len(ids):
        sizes = np.column_stack((c["width"], c["height"]))
        if (ids[1:] > ids[:-1]).all():  # no second copy in memory
            return ids, c["file_name"], sizes, set()
        order = np.argsort(ids)
        return ids[order], c["file_name"][order], sizes[order], set()
    images, unusable = _judge_images(entries, report)
    names = np.array([image[1] for image in images], dtype=str)
    return (np.array([image[0] for image in images], dtype=np.int64), names,
            np.array([image[2:] for image in images], dtype=np.int64).reshape(-1, 2), unusable)


def _judge_images(entries: Images, report: Any) -> tuple[list[tuple[int, str, int, int]], set[Any]]:
    """(id, file name, width, height) in the order of the ids, 0 for a size that is not told; and the ids of others."""
    images: dict[int, tuple[int, str, int, int]] = {}
    unusable: set[Any] = set()
    for place, entry in enumerate(entries):
        values = entry if isinstance(entry, dict) else {}
        id, name = whole(values.get("id")), values.get("file_name")
        width, height = (whole(values.get(side)) or 0 for side in ("width", "height"))
        if id is None or not isinstance(name, str) or not name:
            if isinstance(name, str) and name and "id" in values:
                report("malformed entry", f"image number {place}, {abridged(name)}", "got the id {}, wanted a whole "
                       "number of at most 18 digits: number the images from 1, and the image_id of their annotations "
                       "alike", values["id"])
            else:
                report("malformed entry", f"image number {place}", "got {}, wanted an object with a whole number as "
                       "id, and a file_name", entry)
            unusable.add(_key(values.get("id")))
        elif len(name) > LONGEST_NAME:
            report("malformed entry", f"image {id}", f"its file_name has {len(name):,} letters ({{}}), wanted at most "
                   f"{LONGEST_NAME:,}", name)
            unusable.add(_key(id))
        elif "\0" in name:
            report("malformed entry", f"image {id}", "file_name is {}, and no file's name holds a NUL", name)
            unusable.add(_key(id))
        elif images.get(id, (None,))[1:] == (name, *_size(width, height)):
            report("entry given twice", f"image {id}", "{}", name)
        elif id in images:
            report("duplicate image id", f"image {id}", f"{abridged(images[id][1])} and {abridged(name)}")
        else:
            images[id] = (id, name, *_size(width, height))
    return [images[id] for id in sorted(images)], unusable


def _size(width: int, height: int) -> tuple[int, int]:
    return (width, height) if min(width, height) > 0 else (0, 0)


def _read_sizes(ids: np.ndarray, names: np.ndarray, sizes: np.ndarray, folder: Optional[Path], report: Any
                ) -> tuple[np.ndarray, set[int]]:
    """The sizes (n,2) with those that only the files tell, upright; and the rows of those that have none to tell."""
    rows = np.flatnonzero(sizes[:, 0] <= 0).tolist()
    if not rows:
        return sizes, set()
    sizes, unsized = sizes.copy(), set()
    called = [str(names[row]) for row in rows]
    files = find_files(folder, called).paths if folder is not None else []
    for place, (row, name) in enumerate(zip(rows, called)):
        id = ids[row]
        if folder is not None and not files[place]:  # the check of the pictures tells of a missing one
            unsized.add(row)
            sizes[row] = 1, 1
            continue
        try:
            if folder is None:
                raise ValueError("wanted a whole number of pixels for each")
            with opened(folder / files[place]) as (image, _):
                size = upright_size(image)
        except Exception as error:  # damaged headers make decoders raise anything
            unsized.add(row)
            report("malformed entry", f"image {id}, {abridged(name)}", "it has no usable width and height, and its "
                   f"file does not tell them: {error if folder is None else type(error).__name__}")
        else:
            sizes[row] = size
            report("size taken from the picture", f"image {id}, {abridged(name)}", f"{size[0]}×{size[1]}")
    return sizes, unsized


def _key(id: Any) -> Any:
    """What stands for an id of any kind in a set."""
    return id if isinstance(id, (int, float, str)) and whole(id) is None else whole(id)


_Box = tuple[float, float, float, float]


def _judge_box(entry: dict[str, Any], width: int, height: int) -> tuple[str, str, Optional[_Box], Optional[_Box]]:
    """(problem or "", detail, the box that remains or None, as it was written or None) in an image of this size.

    The detail takes bbox, width and height.
    """
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        if bbox is None and entry.get("segmentation"):
            return ("malformed entry", "it has a segmentation and no bbox, wanted [x, y, width, height] around it",
                    None, None)
        return "malformed entry", "bbox is {}, wanted [x, y, width, height]", None, None
    x, y, w, h = map(number, bbox)
    if x is None or y is None or w is None or h is None:
        return "malformed entry", "bbox is {}, wanted four numbers: x, y, width, height", None, None
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(w) and math.isfinite(h)):
        return "NaN box", "bbox is {}", None, None
    if w < 0 or h < 0:
        return "negative-size box", "bbox is {}: its width or height is negative", None, None
    if w == 0 or h == 0:
        return "zero-size box", "bbox is {}", None, None
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x0 >= x1 or y0 >= y1:
        return "box outside the image", "bbox is {}, the image {}×{}", None, (x, y, w, h)
    if max(x0 - x, y0 - y, x + w - x1, y + h - y1) > TOLERANCE:
        return "box out of range", "bbox is {}, the image {}×{}", (x0, y0, x1 - x0, y1 - y0), (x, y, w, h)
    return "", "", (x, y, w, h), (x, y, w, h)
