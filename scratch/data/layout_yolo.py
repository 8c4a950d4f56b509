"""layout_yolo: one text file for each picture, a line for each object.

    data.yaml           names: [cat, dog]   (or {0: cat, 1: dog})     train: images/train     val: images/val
    images/train/a.jpg  ─▶ labels/train/a.txt      or  train/images/a.jpg ─▶ train/labels/a.txt   or beside it
                                0 0.5 0.25 0.1 0.2          class, centre x y, width height: shares of the picture
                                1 0.1 0.1 0.3 0.1 0.2 0.4   class, corners of a polygon x y x y x y: the box around it

    box x, y, w, h in pixels of a W×H picture = (cx − w/2)·W, (cy − h/2)·H, w·W, h·H

A picture whose text file is missing or empty shows no object. Class k is category k + 1, as in most tools' COCO files
of the same set. Shares need the picture's size, which its header tells, upright: only of the pictures that are used.
Which text file is a picture's, label_files.py finds out; which picture is of which split, and what the classes are
called, find_yolo.py.
The format: docs.ultralytics.com/datasets/detect. Proven in tests/data/test_layout_yolo.py.
Read: Yolo → _box
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Mapping, Optional, Sequence

from scratch.data.file_names import find_files
from scratch.data.label_files import WANTED, is_names, labels_of, lines_of
from scratch.data.listing import Listing, split_of
from scratch.data.per_picture import and_others, sizes_of
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.values import is_oriented, number, whole
from scratch.printable import counted

FARTHEST = 2.0  # a share of the picture beyond this is no share: pixels, say


@dataclass(frozen=True)
class Yolo(Source):
    """One split: its pictures, below the folder, with the text file of each ("" for none)."""

    listing: Listing
    split: str
    pictures: tuple[str, ...]
    classes: tuple[tuple[int, str], ...]
    keypoints: bool = False  # after its box, each line has an object's keypoints
    used: frozenset[str] = frozenset()  # the text files of all pictures, of any split
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # folder of pictures → of their text files (label_files)

    @property
    def name(self) -> str:
        return f"YOLO {self.split}" if self.split != "all" else "YOLO"

    def __str__(self) -> str:
        return f"{self.listing.root} ({self.name})"

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        labels = self.labels()
        chosen = set(choose(self.pictures))
        pictures = [picture for picture in self.pictures if picture in chosen][:limit]
        self._tell_of_lonely(labels, report, choose)
        root = self.listing.root
        images, annotations, bare, known = [], [], [], dict(self.classes)
        nameless: dict[int, tuple[str, int]] = {}  # class without a name → the first of its lines, how many
        for id, (picture, (width, height)) in enumerate(zip(pictures, sizes_of(root, pictures)), start=1):
            # A picture that cannot be read has no size to tell; it is refused, or left out, whatever stands here.
            images.append({"id": id, "file_name": picture, "width": width or 1, "height": height or 1})
            if not width or not (label := labels[picture]):
                bare += [picture] if width else []
                continue
            for line, words in lines_of(root / label, label, report):
                where, k = f"{label}, line {line}", whole(words[0])
                box = _box(words, width, height, self.keypoints, where, report)
                if box is not None and k not in known:
                    first, times = nameless.get(k, (where, 0))
                    nameless[k] = first, times + 1
                elif box is not None:
                    annotations.append({"id": where, "image_id": id, "category_id": k + 1, "bbox": box})
        names = dict.fromkeys((min(known), max(known))) if known else ()
        range_of = " to ".join(f"{k} {known[k]}" for k in names)
        for k, (first, times) in sorted(nameless.items()):
            report("unknown category id", first, f"class {k} is not among the {counted(len(known), 'name')} of classes "
                   f"({range_of}), in {counted(times, 'line')}: is the list of names another set's, or too short?",
                   times=times)
        if bare:
            report("picture without a label file", bare[0], f"it has no .txt{and_others(len(bare))}", times=len(bare))
        return {"images": images, "annotations": annotations,
                "categories": [{"id": k + 1, "name": name} for k, name in self.classes]}

    def labels(self) -> dict[str, str]:
        """The text file of each picture; of one that a list has under another path, that beside the file it means."""
        there = frozenset(self.listing.pictures)
        moved = [picture for picture in self.pictures if picture not in there]
        meant = dict(zip(moved, find_files(self.listing.root, moved).paths)) if moved else {}
        paths = [meant.get(picture, "").replace(os.sep, "/") or picture for picture in self.pictures]
        labels = labels_of(self.listing, paths, self.elsewhere)
        return {picture: labels[path] for picture, path in zip(self.pictures, paths)}

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


def _box(words: Sequence[str], width: int, height: int, keypoints: bool, where: str, report: Report
         ) -> Optional[list[float]]:
    """The box of a line in pixels, x, y, width, height; None, and a report, for a line that is none."""
    shares = [number(word) for word in words[1:5 if keypoints else None]]
    polygon = len(shares) >= 6 and len(shares) % 2 == 0
    if whole(words[0]) is None or None in shares or not (len(shares) == 4 or polygon):
        meant = ": are these DOTA's oriented boxes? Convert them first" if is_oriented(words) else ""
        report("malformed entry", where, "got {}, wanted " + WANTED + meant, " ".join(words))
        return None
    if max(map(abs, shares)) > FARTHEST:
        report("malformed entry", where, "got {}, wanted " + WANTED + ": are these pixels?", " ".join(words))
        return None
    if polygon:
        report("outline of an object", where, "a polygon")
        xs, ys = shares[0::2], shares[1::2]
        x, y, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    else:
        cx, cy, w, h = shares
        x, y = cx - w / 2, cy - h / 2
    return [x * width, y * height, w * width, h * height]
