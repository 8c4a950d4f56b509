"""find_voc: which XML files of a folder in Pascal VOC's layout are of which split?

    ImageSets/Main/train.txt val.txt test.txt    lists of names, as VOC has them (and CVAT: default.txt, "a name")
    ImageSets/train.txt, or train.txt            the same (and PaddleDetection: images/a.jpg annotations/a.xml)
    train/ valid/ test/                          folders, as Roboflow has them
    none of them                                 a set without a split

Without train.txt, trainval.txt without val is what there is to learn from. A list none of whose names has an XML file
is no split: VOC2012's test.txt names pictures whose annotations were never published.
Proven in tests/data/test_layout_voc.py. Read after layout_voc.py: find_voc
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Iterable, Iterator, Optional

from scratch.data.layout_cvat import is_cvat
from scratch.data.layout_voc import Voc, parse
from scratch.data.listing import Listing, by_folder, key, split_of, split_of_path, text_lines
from scratch.printable import counted

_LIST = re.compile(r"(train|val|valid|validate|validation|dev|test|trainval|default)", re.IGNORECASE)


def find_voc(listing: Listing) -> Optional[tuple[dict[str, Voc], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no such layout."""
    files = [file for file in listing.files(".xml") if not file.startswith("ImageSets/")]
    if not files or not listing.pictures or not any(map(is_annotation, (listing.root / file for file in files[:5]))):
        return None
    folder = os.path.dirname(next((file for file in files if split_of_path(file) == "train"), files[0]))
    where = f"{folder}/*.xml" if folder else "*.xml"
    lists = _lists(listing)
    if len(lists) > 1 and "" not in lists:
        return None  # several sets, each in a folder of its own
    if len(lists) > 1:  # a set that has others, copies of it perhaps, in folders below
        return find_voc(listing.without([home for home in lists if home]))
    for of_set in lists.values():
        if found := _by_lists(listing, of_set, files):
            where += f", {next(iter(of_set.values())).rpartition('/')[0] or '.'}/*.txt"
            if unlisted := set(files) - {file for voc in found.values() for file in voc.every}:
                where += f"; not read: {counted(len(unlisted), '.xml file')} that they do not name"
            return found, where
    of_split, left_out = by_folder(files)
    where += f"; not read: {', '.join(left_out[:2])}{' …' if left_out[2:] else ''}" if left_out else ""
    every = tuple(file for members in of_split.values() for file in members)
    return {split: Voc(listing, split, tuple(members), every) for split, members in of_split.items()}, where


def is_annotation(file: Path) -> bool:
    """Is this an XML file of Pascal VOC's, or one that should be?"""
    try:
        return parse(file).tag == "annotation"
    except ValueError:
        return not is_cvat(file)  # which of its faults, the reader says


def _lists(listing: Listing) -> dict[str, dict[str, str]]:
    """For the folder of each ImageSets/Main: what its lists are called, in small letters → their paths.

    Where there is none, of ImageSets, or of the top. Lists of one class (cat_train.txt) are none of a split; those of
    other tasks are in other folders.
    """
    for end in (["imagesets", "main"], ["imagesets"], [""]):
        found = {}
        for folder, names in listing.names.items():
            if folder.lower().split("/")[-len(end):] == end:
                lists = {os.path.splitext(name)[0].lower(): f"{folder}/{name}".lstrip("/") for name in names
                         if name.lower().endswith(".txt") and _LIST.fullmatch(os.path.splitext(name)[0])}
                if lists:
                    found["/".join(folder.split("/")[:-len(end)])] = lists
        if found:
            return found
    return {}


def _by_lists(listing: Listing, lists: dict[str, str], files: Iterable[str]) -> dict[str, Voc]:
    of_end: dict[str, set[str]] = defaultdict(set)  # each end of a path → the files whose paths end so
    for file in files:
        parts = key(file).split("/")
        for start in range(len(parts)):
            of_end["/".join(parts[start:])].add(file)
    members: dict[str, tuple[list[str], list[str]]] = {}
    for stem, path in lists.items():
        there, missing = [], []
        for name in _names_in(listing.root / path):
            found = next((files for form in _forms(name) if (files := of_end.get(form))), set())
            if len(found) == 1:
                there += found
            else:
                missing.append(name)
        if there:  # VOC2012's test.txt names pictures whose annotations were never published
            members[stem] = there, missing
    named: dict[str, tuple[list[str], list[str]]] = {}
    for stem, found in members.items():
        if split := split_of(stem):
            named.setdefault(split, found)
    if "train" not in named and (whole_list := members.get("trainval") or members.get("default")):
        val = set(named.get("val", ((), ()))[0])
        named["train" if val else "all"] = [file for file in whole_list[0] if file not in val], whole_list[1]
    every = tuple(dict.fromkeys(file for there, _ in named.values() for file in there))
    return {split: Voc(listing, split, tuple(dict.fromkeys(there)), every, tuple(missing), True)
            for split, (there, missing) in named.items()}


def _forms(name: str) -> Iterator[str]:
    """What a line of a list may mean: ends of an XML file's path, the longest first, without its ending."""
    last = name.split()[-1]
    for path in (f"{name}.xml", re.sub(r"\s+-?[01]$", ".xml", name), *([last] if last.endswith(".xml") else []), name):
        parts = key(path).split("/")
        for start in range(len(parts)):
            yield "/".join(parts[start:])


def _names_in(file: Path) -> Iterator[str]:
    for line in text_lines(file):
        if name := line.strip().strip('"').strip().replace("\\", "/"):
            yield name
