"""layouts: which layout does a folder have, and where are its splits?

    COCO                annotations/instances_train2017.json + train2017/ …        (as it is published)
    Roboflow COCO       train/_annotations.coco.json + its pictures beside it …
    COCO files          annotations/instances_Train.json + images/Train/ …          CVAT
    one COCO file       result.json, labels.json, instances_default.json + pictures   Label Studio, FiftyOne, CVAT
    YOLO                data.yaml, images/train/a.jpg + labels/train/a.txt …
    Pascal VOC          JPEGImages/a.jpg + Annotations/a.xml, ImageSets/Main/train.txt …
    LabelMe             a.jpg + a.json, a file for each picture
    table               labels.csv, train/_annotations.csv (or .tsv): a row for each object; or train.txt, a line for
                        each picture: a.jpg 7,9,107,209,0
    CVAT                annotations.xml + images/ (CVAT for images)
    VIA                 via_project.json, train/via_region_data.json …
    Create ML           train/_annotations.createml.json + its pictures beside it …

    folder ─▶ recognise ─▶ Layout: split ─▶ (folder of pictures, COCO file or Source) ─▶ annotations.py, coco.py

The first layout counts that has pictures to learn from. A set that has none to judge by is divided (split.py), but for
COCO's own layout, where a missing split is a mistake. Where nothing is recognised at the top, and there is one folder
below in which something is, that is taken. Many a set has a table, or an annotation tool's own files from which it was
made, beside it: the last five count only where no other layout is recognised, in the folder or below it, and of them
the first; or if they have a training split, and YOLO's files are a test set.
Proven in tests/data/test_layouts.py. Read: Layout → recognise
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

from scratch.data.find_labelme import find_labelme
from scratch.data.find_table import find_createml, find_cvat, find_tables, find_via
from scratch.data.find_voc import find_voc
from scratch.data.find_yolo import find_yolo
from scratch.data.layout_coco import ROBOFLOW, Found, classic, coco_files, where_they_are
from scratch.data.layout_hint import layout_hint
from scratch.data.listing import Listing, list_folder
from scratch.data.sources import Annotated, CocoFile, Part, Source
from scratch.data.split import SPLITS, Division, read_division
from scratch.printable import abridged, command, printable

Pair = tuple[Path, Annotated]
Finders = tuple[tuple[str, Callable[[Listing], Any]], ...]

# Beside COCO's, in the order in which they count.
_FIRST: Finders = (("YOLO", find_yolo), ("Pascal VOC", find_voc))
_LAST: Finders = (("LabelMe", find_labelme), ("table", find_tables), ("CVAT", find_cvat), ("VIA", find_via),
                  ("Create ML", find_createml))
_OF_TOOLS = ("CVAT", "VIA", "Create ML")

LOOKED_FOR = (
    ("COCO", "train2017/ or train/, and annotations/instances_train2017.json or instances_train.json"),
    ("Roboflow COCO", "train/_annotations.coco.json, pictures beside it"),
    ("one COCO file", "a .json file that names its pictures (annotations.json, result.json, labels.json …)"),
    ("YOLO", "a .txt file for each picture: images/ and labels/, data.yaml"),
    ("Pascal VOC", "an .xml file for each picture: JPEGImages/ or images/, Annotations/"),
    ("LabelMe", "a .json file for each picture, with its shapes"),
    ("table", "a .csv or .tsv file, a row for each object: filename, class, xmin, ymin, xmax, ymax; or a .txt file, a "
              "line for each picture: PATH x1,y1,x2,y2,CLASS …"),
    ("CVAT", "annotations.xml, as CVAT for images has it"),
    ("VIA", "a .json or .csv file of the VGG Image Annotator's, or its project"),
    ("Create ML", "a .json file with a list of pictures: train/_annotations.createml.json"))


@dataclass(frozen=True)
class Layout:
    """What a folder was recognised as.

    splits     "train", "val", "test" → the folder that file names start from, and where the annotations are
    detail     in words, what it was recognised by
    division   how a set without a split was divided; None if it has one
    undivided  what was divided: the folder, and the source
    """

    name: str
    root: Path
    splits: dict[str, Pair]
    detail: str = ""
    division: Optional[Division] = None
    undivided: Optional[tuple[Path, Source]] = None

    def line(self) -> str:
        """What was recognised, in one line."""
        said = f"layout: {self.name}" + (f" ({abridged(self.detail)})" if self.detail else "")
        said += f" in {printable(self.root)}"
        if self.division is None:
            return f"{said}: {', '.join(self.splits)}"
        keep = "" if self.division.written else (
            f" ({command('python', 'detr_scratch.py', 'split', self.root)} writes that down)")
        return f"{said}; it has no split to judge by: {self.division.words()}{keep}"


def recognise(root: Path) -> Optional[Layout]:
    """The layout of a folder; None if it has none that is known.

    Raises ValueError for a file that describes a set (data.yaml, split.json) and cannot be understood.
    """
    root = Path(root)
    published = _classic(root)
    if published and {"train", "val"} <= published.splits.keys():
        return published  # without a look at its 118,000 files
    if not os.path.isdir(root):
        return None
    found = _sets(root, published)
    return found[0] if len(found) == 1 else None


def _sets(root: Path, published: Optional[Layout], deep: int = 3) -> list[Layout]:
    """The layout of a folder; if it has none itself, those of the folders in it, and of those in them."""
    listing = list_folder(root)
    own = _recognised(listing, published)
    if own and (own.name != "YOLO" or own.splits.keys() != {"test"}):
        return [own]
    last = _first_of(_LAST, listing, [])
    if own:  # text files of a test set may lie beside a table of training pictures
        return [last if last and _to_learn_from(last) else own]
    folders = [root / name for name in sorted(listing.names) if name and "/" not in name][:20] if deep else []
    below = [layout for folder in folders for layout in _sets(folder, _classic(folder), deep - 1)]
    own_files = [layout for layout in below if layout.name in _OF_TOOLS]
    if len(own_files) < len(below) or last and last.name not in _OF_TOOLS:
        below = [layout for layout in below if layout not in own_files]
    return [last] if last and all(layout.name == last.name for layout in below) else below


def _recognised(listing: Listing, published: Optional[Layout]) -> Optional[Layout]:
    """COCO's, YOLO's or Pascal VOC's layout of one folder."""
    root, candidates = listing.root, [published] if published else []
    coco = coco_files(listing)
    if coco.pairs:
        candidates.append(_of_coco(root, coco, published))
    if candidates and _to_learn_from(candidates[-1]):
        return candidates[-1]
    return _first_of(_FIRST, listing, candidates)


def _first_of(finders: Finders, listing: Listing, candidates: list[Layout]) -> Optional[Layout]:
    """The first layout with pictures to learn from; if there is none, the first, beginning with `candidates`."""
    root = listing.root
    for name, find in finders:
        if found := find(listing):
            sources, where = found
            candidates.append(_layout(name, root, {split: (root, source) for split, source in sources.items()}, where))
            if _to_learn_from(candidates[-1]):
                return candidates[-1]
    return candidates[0] if candidates else None


def _to_learn_from(layout: Layout) -> bool:
    return "train" in layout.splits


def _classic(root: Path) -> Optional[Layout]:
    splits = {split: pair for split, pairs in classic(root).items() for pair in pairs
              if pair[0].is_dir() and pair[1].is_file()}
    return Layout("COCO", root, splits, "annotations/instances_*.json") if splits else None


def _of_coco(root: Path, coco: Found, published: Optional[Layout]) -> Layout:
    pairs = {split: coco.pairs[split] for split in (*SPLITS, "all") if split in coco.pairs}
    detail = ", ".join(_below(root, file) for _, file in pairs.values())
    if coco.more:
        detail += f"; not read: {', '.join(_below(root, file) for file in coco.more)}"
    if published:  # its splits as they are; others that are found beside them only where both are there then
        more = {split: pair for split, pair in pairs.items() if split in ("train", "val")} | published.splits
        return replace(published, splits=_in_order(more)) if {"train", "val"} <= more.keys() else published
    roboflow = all(file.name == ROBOFLOW for _, file in pairs.values())
    name = "Roboflow COCO" if roboflow else "one COCO file" if len(pairs) == 1 else "COCO files"
    beside = tuple(file for _, file in pairs.values()) if roboflow else ()
    return _layout(name, root, {split: (folder, CocoFile(file, beside)) for split, (folder, file) in pairs.items()},
                   detail)


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _layout(name: str, root: Path, sources: dict[str, tuple[Path, Source]], detail: str) -> Layout:
    """With a split as the set has it, or divided."""
    whole = sources.get("all") or (None if "val" in sources else sources.get("train"))
    if whole is None or {"train", "val"} <= sources.keys():
        splits = {split: (folder, _plain(source)) for split, (folder, source) in sources.items() if split != "all"}
        return Layout(name, root, _in_order(splits), detail)
    folder, source = whole
    source = source if isinstance(source, CocoFile) else replace(source, split="all")
    division = read_division(root)
    parts: dict[str, Pair] = {split: (folder, Part(source, split, division)) for split in division.splits}
    parts |= {split: pair for split, pair in sources.items() if split == "test"}
    return Layout(name, root, _in_order(parts), detail, division, (folder, source))


def _plain(source: Source) -> Annotated:
    """A whole COCO file is a path, as in COCO's own layout."""
    return source.path if isinstance(source, CocoFile) and not source.beside else source


def _in_order(splits: dict[str, Pair]) -> dict[str, Pair]:
    return {split: splits[split] for split in SPLITS if split in splits}


def not_recognised(root: Path) -> str:
    """Which layouts were looked for in a folder, and what is there instead; ends with a line break."""
    wide = max(len(name) for name, _ in LOOKED_FOR)
    lines = "".join(f"  {name:<{wide}}  {words}\n" for name, words in LOOKED_FOR)
    listing = list_folder(root)
    lonely = coco_files(listing).lonely
    there = f"There: {printable(listing.words())}.\n"
    if below := _sets(root, _classic(root)):
        there += f"Did you mean {' or '.join(abridged(layout.root) for layout in below)}?\n"
    elif lonely:
        there += f"{abridged(lonely[0])} names pictures, but {where_they_are(lonely[0], listing)}.\n".replace("?.", "?")
    else:
        there += layout_hint(root)
    return f"Looked for\n{lines}{there}"
