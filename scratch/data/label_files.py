"""label_files: which text file has a picture's objects, and which lines are in it?

    images/train/a.jpg  ─▶ labels/train/a.txt     YOLO's order of folders: "labels" for the last "images"; in any case,
    train/images/a.jpg  ─▶ train/labels/a.txt     and in any of Unicode's forms
    obj/a.jpg           ─▶ obj/a.txt              beside it
    my_images/a.jpg     ─▶ labels/a.txt           where no picture has a text file in YOLO's order: two folders whose
    train/img/a.jpg     ─▶ train/annotations/…    files have the same names, if the text files hold boxes as YOLO's

Proven in tests/data/test_layout_yolo.py and test_label_files.py.
Read after layout_yolo.py: lines_of → labels_of → folders_called_otherwise
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Iterable, Iterator, Mapping, Sequence

from scratch.data.listing import Listing, doubts, key, split_of, text_lines, text_of
from scratch.data.sources import Report
from scratch.data.values import is_yolo

MOST_LABELS = 2**26  # bytes of a text file
LOOKED_AT = 20       # text files that are not empty, to know whether they are YOLO's
# Folders of what a detector found.
_PREDICTED = re.compile(r"(?<![a-z])(pred(s|icted|ictions?)?|detect(ed|ions?)?|infer(ence|red)?|results?|runs)(?![a-z])")
MOST_BESIDE = 100    # folders that differ in one part: with more, it is not that part which tells them apart
WANTED = ("a class, then x y width height or the corners of a polygon, x y x y x y …, all of them shares of the "
          "picture from 0 to 1")
NAMES = (".names", "classes.txt", "_darknet.labels", "labels.txt")  # files of the classes' names


def lines_of(file: Path, label: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not blank, and its words."""
    try:
        if file.stat().st_size > MOST_LABELS:
            raise OSError(f"it has {file.stat().st_size:,} bytes")
        text = text_of(file.read_bytes())
    except (OSError, UnicodeError) as error:
        report("malformed entry", label, f"it cannot be read ({error}), wanted a line for each object: {WANTED}")
        return
    for line, words in enumerate(text.splitlines(), start=1):
        if words.strip():
            yield line, words.split()


def labels_of(listing: Listing, pictures: Sequence[str], elsewhere: Mapping[str, str]) -> dict[str, str]:
    """The text file of each picture, below the folder; "" for none. `elsewhere` is `folders_called_otherwise`'s answer."""
    exact = {os.path.splitext(path)[0]: path for path in listing.files(".txt") if not is_names(path)}
    near: dict[str, str] = {}  # made where a picture has no text file of exactly its name
    found = {}
    for picture in pictures:
        stem = os.path.splitext(os.path.normpath(picture).replace("\\", "/"))[0]
        parts = stem.split("/")
        places = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
        stems = ["/".join((*parts[:i], "labels", *parts[i + 1:])) for i in reversed(places)] + [stem]
        if (folder := os.path.dirname(picture)) in elsewhere:
            stems.append(f"{elsewhere[folder]}/{parts[-1]}".lstrip("/"))
        found[picture] = next((exact[stem] for stem in stems if stem in exact), "")
        if not found[picture]:
            near = near or {key(path): path for path in exact.values()}
            found[picture] = next((near[key(stem + ".txt")] for stem in stems if key(stem + ".txt") in near), "")
    return found


def folders_called_otherwise(listing: Listing) -> dict[str, str]:
    """Folder of pictures → the folder of their text files, where the two are not called as YOLO calls them.

    my_images/a.jpg + labels/a.txt, train/images/a.jpg + train/annotations/a.txt, train/a.jpg + labels/train/a.txt: at
    least half of the text files have the name of a picture, and some hold boxes as YOLO's do. Left out is what a detector
    found, as far as its folder's name tells, and what may mean several folders.
    """
    pictures = _of_folders(listing.pictures)
    texts = _of_folders(path for path in listing.files(".txt") if not is_names(path))
    beside = _Beside(pictures)
    candidates: dict[str, list[str]] = defaultdict(list)  # folder of pictures → folders of text files
    for folder, files in texts.items():
        mine = {other: shared for other in beside.of(folder) if (shared := files.keys() & pictures[other].keys())}
        if sum(map(len, mine.values())) > len(set().union(*mine.values())):  # of one name in several: the originals
            least = min(map(doubts, mine))
            mine = {other: shared for other, shared in mine.items() if doubts(other) == least}
        named = set().union(*mine.values())
        if (named and len(named) == sum(map(len, mine.values())) and 2 * len(named) >= len(files)
                and _has_boxes(listing.root, files.values())):
            for other in mine:
                if not any(map(_PREDICTED.search, {part.lower() for part in set(_parts(folder)) - set(_parts(other))})):
                    candidates[other].append(folder)
    found = {}
    for folder, of_it in candidates.items():
        exactly = [other for other in of_it if "labels" in _parts(other.lower())]
        called = next((its for its in (of_it, exactly, [other for other in of_it if "label" in other.lower()])
                       if len(its) == 1), [])
        if not called:
            return {}  # it may be either: rather none of them than a part of the set
        found[folder] = called[0]
    return found


def _of_folders(paths: Iterable[str]) -> dict[str, dict[str, str]]:
    """Folder → what its files are called, without their endings → their paths."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in paths:
        folder, base = os.path.split(path)
        found[folder][key(base)] = path
    return found


def _has_boxes(root: Path, texts: Iterable[str]) -> bool:
    """Has one of the first text files that are not empty a line as YOLO's?"""
    written = ([words for _, words in lines_of(root / text, text, lambda *_, **__: None)] for text in texts)
    return any(any(map(is_yolo, lines)) for lines in islice(filter(None, written), LOOKED_AT))


class _Beside:
    """Folders whose paths differ from a folder's in one part, which one has and the other lacks, or has of the same
    split."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._without: dict[tuple[int, tuple[str, ...]], list[str]] = defaultdict(list)  # place, the other parts
        self._all = {_parts(folder): folder for folder in folders}
        for parts, folder in self._all.items():
            for i in range(len(parts)):
                self._without[i, parts[:i] + parts[i + 1:]].append(folder)

    def of(self, folder: str) -> list[str]:
        parts, found = _parts(folder), []
        for i, part in enumerate(parts):
            rest = parts[:i] + parts[i + 1:]
            found += [other for other in self._near(i, rest) if split_of(_parts(other)[i]) == split_of(part)]
            found += [self._all[rest]] if rest in self._all and not split_of(part) else []
        for i in range(len(parts) + 1):
            found += [other for other in self._near(i, parts) if not split_of(_parts(other)[i])]
        return [other for other in dict.fromkeys(found) if other != folder]

    def _near(self, place: int, others: tuple[str, ...]) -> list[str]:
        near = self._without.get((place, others), [])
        return near if len(near) <= MOST_BESIDE else []


def _parts(folder: str) -> tuple[str, ...]:
    return tuple(part for part in folder.split("/") if part)


def names_in(file: Path) -> list[str]:
    """The names in a file of the classes' names, one a line; the last is not blank."""
    lines = [line.strip() for line in text_lines(file)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def is_names(path: str) -> bool:
    """Is it a file of the classes' names, or another that Roboflow puts beside pictures?"""
    return os.path.basename(path).lower() in (*NAMES, "_classes.txt", "_annotations.txt")
