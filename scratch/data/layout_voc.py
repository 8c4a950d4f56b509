"""layout_voc: one XML file for each picture (Pascal VOC).

    JPEGImages/a.jpg   Annotations/a.xml   ImageSets/Main/train.txt val.txt …     the names of each split's pictures
    images/a.jpg       annotations/a.xml                                          no split
    train/a.jpg        train/a.xml                                                Roboflow's form

    <annotation> <size> <width>500 <height>375
       <object> <name>dog  <difficult>1  <bndbox> <xmin>8 <ymin>10 <xmax>107 <ymax>209

    box x, y, w, h = xmin − 1, ymin − 1, xmax − xmin + 1, ymax − ymin + 1     (7, 9, 100, 200)

VOC counts pixels from 1, and xmax is the last pixel of the object. A set with a coordinate below 1 cannot be counted
so: then x, y = xmin, ymin and w, h = xmax − xmin, ymax − ymin. A box whose corners are one point is a click of a
tool's user, and has no size. Difficult objects become crowds: they are not learnt, and what is found there does not
count. Classes are numbered from 1 in the order of their names, over all splits. An XML file that declares a document
type is refused: only such a declaration can define entities that expand without limit.
The format: Everingham et al. 2010, IJCV 88, and the VOC2012 development kit. Proven in tests/data/test_layout_voc.py.
Read: parse → Voc
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from xml.etree import ElementTree

from scratch.data.listing import Listing, key
from scratch.data.per_picture import Pictures, tell_of_unlabelled
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.values import number, yes

MOST_XML = 2**26  # bytes
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NOTHING_SAID = ("unspecified", "unknown", "none", "null")  # of difficult: makesense.ai writes the first


class _NoDocumentType(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: Optional[str], system: Optional[str]) -> None:
        raise ValueError("it declares a document type (<!DOCTYPE …>), which no annotation needs, and which may hold "
                         "entities that grow without bound: remove the declaration")


def parse(file: Path) -> ElementTree.Element:
    """The root of an XML file. Raises ValueError for one that is not well-formed, or declares a document type."""
    try:
        if (size := file.stat().st_size) > MOST_XML:
            raise ValueError(f"it has {size:,} bytes")
        return ElementTree.fromstring(file.read_bytes(), ElementTree.XMLParser(target=_NoDocumentType()))
    except (ElementTree.ParseError, LookupError) as error:  # the latter: of an encoding that is not known
        raise ValueError(f"it is not well-formed XML ({error})") from error
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from error


@dataclass(frozen=True)
class Voc(Source):
    """One split: its XML files below the folder; `every` are those of all splits, which share their classes."""

    listing: Listing
    split: str
    files: tuple[str, ...]
    every: tuple[str, ...]
    missing: tuple[str, ...] = ()  # names in the split's list that have no XML file, or several
    listed: bool = False  # do lists say which pictures belong to the set?

    @property
    def name(self) -> str:
        return f"Pascal VOC {self.split}" if self.split != "all" else "Pascal VOC"

    def __str__(self) -> str:
        return f"{self.listing.root} ({self.name})"

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        for name in self.missing:
            report("malformed entry", f"list of {self.split}", "{} stands in it, and has no XML file of its own", name)
        roots: dict[str, ElementTree.Element] = {}
        mine, names, from_one = set(self.files), set(), True
        troubles: list[tuple[str, ...]] = []  # told below: `choose` is asked about the pictures first
        for file in self.every:
            try:
                root = parse(self.listing.root / file)
            except ValueError as error:
                if file in mine:
                    troubles.append(("malformed entry", file, str(error)))
                continue
            if root.tag != "annotation":  # what geographic tools keep beside a picture, say
                if file in mine:
                    troubles.append(("other XML file", file, "its root is <{}>, not <annotation>", root.tag))
                continue
            names |= {name for found in root.iterfind("object") if (name := _text(found, "name"))}
            from_one = from_one and not _below_one(root)
            if file in mine:
                roots[file] = root
        among = Pictures(self.listing)
        pictures = {file: among.of_file(file, _text(root, "filename") or os.path.splitext(os.path.basename(file))[0])
                    for file, root in roots.items()}
        chosen = set(choose(list(pictures.values())))
        for kind, file, *told in troubles:
            if choose([among.of_broken(file)]):  # told in one part alone
                report(kind, file, *told)
        if not self.listed:
            names_of_files = {key(os.path.basename(file)) for file in self.every}
            mine_labelled = dict.fromkeys(pictures.values(), True)
            tell_of_unlabelled(self.listing, mine_labelled, names_of_files, "XML file", report, choose)
        if not from_one and chosen:
            report("coordinates from 0", min(chosen), "taken as the edges of the boxes, in pixels from 0")
        categories = {name: id for id, name in enumerate(sorted(names), start=1)}
        images, annotations = [], []
        wanted = sorted((picture, file) for file, picture in pictures.items() if picture in chosen)
        for id, (picture, file) in enumerate(wanted[:limit], start=1):
            size = roots[file].find("size")
            width, height = (_text(size, side) if size is not None else None for side in ("width", "height"))
            images.append({"id": id, "file_name": picture, "width": width, "height": height})
            for place, found in enumerate(roots[file].iterfind("object"), start=1):
                where = f"{file}, object {place}"
                name, said = _text(found, "name"), _text(found, "difficult")
                difficult = yes(None if said and said.lower() in _NOTHING_SAID else said)
                box = _box(found, from_one)
                if not name or difficult is None or box is None:
                    report("malformed entry", where, "got the name {}, the box {} and difficult {}; wanted a name, a "
                           "bndbox of xmin, ymin, xmax and ymax in numbers, and 0, 1 or nothing", name,
                           [found.findtext(f"bndbox/{side}") for side in _SIDES], found.findtext("difficult"))
                    continue
                annotations.append({"id": where, "image_id": id, "category_id": categories[name], "bbox": box,
                                    "iscrowd": difficult})
        return {"images": images, "annotations": annotations,
                "categories": [{"id": id, "name": name} for name, id in categories.items()]}


def _text(element: ElementTree.Element, tag: str) -> Optional[str]:
    text = (element.findtext(tag) or "").strip()
    return text or None


def _sides(found: ElementTree.Element) -> list[Optional[float]]:
    """xmin, ymin, xmax and ymax; None for what is no number."""
    bndbox = found.find("bndbox")
    return [None if bndbox is None or not (text := _text(bndbox, side)) else number(text) for side in _SIDES]


def _below_one(root: ElementTree.Element) -> bool:
    return any(side is not None and side < 1 for found in root.iterfind("object") for side in _sides(found)[:2])


def _box(found: ElementTree.Element, from_one: bool) -> Optional[list[float]]:
    """x, y, width, height in pixels; None for a bndbox that is none."""
    xmin, ymin, xmax, ymax = sides = _sides(found)
    if None in sides:
        return None
    if not from_one:
        return [xmin, ymin, xmax - xmin, ymax - ymin]
    more = 0 if xmin == xmax and ymin == ymax else 1
    # Corners that are the wrong way round stay so: their width is negative, and that is told.
    return [xmin - 1, ymin - 1, xmax - xmin + (more if xmax >= xmin else 0),
            ymax - ymin + (more if ymax >= ymin else 0)]
