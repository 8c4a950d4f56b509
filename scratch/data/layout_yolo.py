"""layout_yolo: one text file for each picture, a line for each object.

    data.yaml           names: [cat, dog]   (or {0: cat, 1: dog})     train: images/train     val: images/val
    images/train/a.jpg  ─▶ labels/train/a.txt      or  train/images/a.jpg ─▶ train/labels/a.txt   or beside it
                                0 0.5 0.25 0.1 0.2          class, centre x y, width height: shares of the picture
                                1 0.1 0.1 0.3 0.1 0.2 0.4   class, corners of a polygon x y x y x y: the box around it

    box x, y, w, h in pixels of a W×H picture = (cx − w/2)·W, (cy − h/2)·H, w·W, h·H

A picture whose text file is missing or empty shows no object. Class k is category k + 1, as in most tools' COCO files
of the same set. Shares need the picture's size, which its header tells, upright: only of the pictures that are used.
Which picture is of which split, and what the classes are called, find_yolo.py finds out.
The format: docs.ultralytics.com/datasets/detect. Proven in tests/data/test_layout_yolo.py.
Read: Yolo → _box → labels_of
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence

from scratch.data.listing import Listing, key, split_of, text_of
from scratch.data.per_picture import and_others, sizes_of
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.values import is_oriented, number, whole

MOST_LABELS = 2**26  # bytes of a text file
FARTHEST = 2.0       # a share of the picture beyond this is no share: pixels, say
_WANTED = ("a class, then x y width height or the corners of a polygon, x y x y x y …, all of them shares of the "
           "picture from 0 to 1")
NAMES = (".names", "classes.txt", "_darknet.labels", "labels.txt")  # files of the classes' names


@dataclass(frozen=True)
class Yolo(Source):
    """One split: its pictures, below the folder, with the text file of each ("" for none)."""

    listing: Listing
    split: str
    pictures: tuple[str, ...]
    classes: tuple[tuple[int, str], ...]
    keypoints: bool = False  # after its box, each line has an object's keypoints
    used: frozenset[str] = frozenset()  # the text files of all pictures, of any split

    @property
    def name(self) -> str:
        return f"YOLO {self.split}" if self.split != "all" else "YOLO"

    def __str__(self) -> str:
        return f"{self.listing.root} ({self.name})"

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        labels = labels_of(self.listing, self.pictures)
        chosen = set(choose(self.pictures))
        pictures = [picture for picture in self.pictures if picture in chosen][:limit]
        self._tell_of_lonely(labels, report, choose)
        root = self.listing.root
        images, annotations, known = [], [], dict(self.classes)
        for id, (picture, (width, height)) in enumerate(zip(pictures, sizes_of(root, pictures)), start=1):
            # A picture that cannot be read has no size to tell; it is refused, or left out, whatever stands here.
            images.append({"id": id, "file_name": picture, "width": width or 1, "height": height or 1})
            if not width or not (label := labels[picture]):
                continue
            for line, words in lines_of(root / label, label, report):
                where, k = f"{label}, line {line}", whole(words[0])
                box = _box(words, width, height, self.keypoints, where, report)
                if box is not None and k not in known:
                    report("unknown category id", where, f"class {k} is none of the {len(known)} classes "
                           f"({min(known)} to {max(known)})")
                elif box is not None:
                    annotations.append({"id": where, "image_id": id, "category_id": k + 1, "bbox": box})
        return {"images": images, "annotations": annotations,
                "categories": [{"id": k + 1, "name": name} for k, name in self.classes]}

    def _tell_of_lonely(self, labels: dict[str, str], report: Report, choose: Choose) -> None:
        """Say which text files beside those of this split's pictures belong to no picture, of any split."""
        folders = {os.path.dirname(label) for label in labels.values() if label}
        lonely = [path for path in self.listing.files(".txt")
                  if os.path.dirname(path) in folders and path not in self.used and not is_names(path)]
        lonely = sorted(choose([path for path in lonely if _is_of(path, self.split)]))
        if lonely:
            report("label file without a picture", lonely[0], f"it has no picture of its name{and_others(len(lonely))}",
                   times=len(lonely))


def _is_of(path: str, split: str) -> bool:
    return split == "all" or split_of(os.path.dirname(path)) in (split, None)


def lines_of(file: Path, label: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not blank, and its words."""
    try:
        if file.stat().st_size > MOST_LABELS:
            raise OSError(f"it has {file.stat().st_size:,} bytes")
        text = text_of(file.read_bytes())
    except (OSError, UnicodeError) as error:
        report("malformed entry", label, f"it cannot be read ({error}), wanted a line for each object: {_WANTED}")
        return
    for line, words in enumerate(text.splitlines(), start=1):
        if words.strip():
            yield line, words.split()


def _box(words: Sequence[str], width: int, height: int, keypoints: bool, where: str, report: Report
         ) -> Optional[list[float]]:
    """The box of a line in pixels, x, y, width, height; None, and a report, for a line that is none."""
    shares = [number(word) for word in words[1:5 if keypoints else None]]
    polygon = len(shares) >= 6 and len(shares) % 2 == 0
    if whole(words[0]) is None or None in shares or not (len(shares) == 4 or polygon):
        meant = ": are these DOTA's oriented boxes? Convert them first" if is_oriented(words) else ""
        report("malformed entry", where, "got {}, wanted " + _WANTED + meant, " ".join(words))
        return None
    if max(map(abs, shares)) > FARTHEST:
        report("malformed entry", where, "got {}, wanted " + _WANTED + ": are these pixels?", " ".join(words))
        return None
    if polygon:
        report("outline of an object", where, "a polygon")
        xs, ys = shares[0::2], shares[1::2]
        x, y, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    else:
        cx, cy, w, h = shares
        x, y = cx - w / 2, cy - h / 2
    return [x * width, y * height, w * width, h * height]


def labels_of(listing: Listing, pictures: Sequence[str]) -> dict[str, str]:
    """The text file of each picture, below the folder; "" for none."""
    exact = {os.path.splitext(path)[0]: path for path in listing.files(".txt") if not is_names(path)}
    near: dict[str, str] = {}  # made where a picture has no text file of exactly its name
    found = {}
    for picture in pictures:
        stem = os.path.splitext(os.path.normpath(picture).replace("\\", "/"))[0]
        parts = stem.split("/")
        places = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
        swapped = ["/".join((*parts[:i], "labels", *parts[i + 1:])) for i in reversed(places)] + [stem]
        found[picture] = next((exact[stem] for stem in swapped if stem in exact), "")
        if not found[picture]:
            near = near or {key(path): path for path in exact.values()}
            found[picture] = next((near[key(stem + ".txt")] for stem in swapped if key(stem + ".txt") in near), "")
    return found


def is_names(path: str) -> bool:
    return os.path.basename(path).lower() in NAMES
