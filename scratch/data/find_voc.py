"""find_voc: which XML files of a folder in Pascal VOC's layout are of which split?

    ImageSets/Main/train.txt val.txt test.txt    lists of names, as VOC has them (and CVAT: default.txt, "a name")
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

from scratch.data.layout_voc import Voc, parse
from scratch.data.listing import Listing, key, split_of, split_of_path

_LIST = re.compile(r"(train|val|valid|validation|test|trainval|default)", re.IGNORECASE)


def find_voc(listing: Listing) -> Optional[tuple[dict[str, Voc], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no such layout."""
    files = [file for file in listing.files(".xml") if not file.startswith("ImageSets/")]
    if not files or not listing.pictures or not any(map(_is_annotation, (listing.root / file for file in files[:5]))):
        return None
    folder = os.path.dirname(next((file for file in files if split_of_path(file) == "train"), files[0]))
    where = f"{folder}/*.xml" if folder else "*.xml"
    lists = _lists(listing)
    if len(lists) > 1:
        return None  # several sets, each in a folder of its own
    if lists and (found := _by_lists(listing, lists[0], files)):
        return found, f"{where}, {os.path.dirname(next(iter(lists[0].values())))}/*.txt"
    of_split: dict[str, list[str]] = defaultdict(list)
    for file in files:
        of_split[split_of_path(file) or "all"].append(file)
    if "train" in of_split:
        of_split.pop("all", None)
    every = tuple(file for members in of_split.values() for file in members)
    return {split: Voc(listing, split, tuple(members), every) for split, members in of_split.items()}, where


def _is_annotation(file: Path) -> bool:
    try:
        return parse(file).tag == "annotation"
    except ValueError:
        return True  # which of its faults, the reader says


def _lists(listing: Listing) -> list[dict[str, str]]:
    """For each folder ImageSets/Main: what its lists are called, in small letters → their paths.

    Lists of one class (cat_train.txt) are none of a split; those of other tasks are in other folders.
    """
    found = []
    for folder, names in listing.names.items():
        if folder.lower().split("/")[-2:] == ["imagesets", "main"]:
            lists = {os.path.splitext(name)[0].lower(): f"{folder}/{name}" for name in names
                     if name.lower().endswith(".txt") and _LIST.fullmatch(os.path.splitext(name)[0])}
            found += [lists] if lists else []
    return found


def _by_lists(listing: Listing, lists: dict[str, str], files: Iterable[str]) -> dict[str, Voc]:
    of_stem = {key(os.path.basename(file)): file for file in files}
    of_path = {key(file.partition("/")[2]): file for file in files}
    members: dict[str, tuple[list[str], list[str]]] = {}
    for stem, path in lists.items():
        there, missing = [], []
        for name in _names_in(listing.root / path):
            for form in (name, re.sub(r"\s+-?[01]$", "", name)):
                file = of_path.get(key(f"{form}.xml")) or of_stem.get(key(os.path.basename(f"{form}.xml"))) or \
                    of_stem.get(key(os.path.basename(form)))
                if file:
                    there.append(file)
                    break
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


def _names_in(file: Path) -> Iterator[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if name := line.strip().strip('"').replace("\\", "/"):
            yield name
