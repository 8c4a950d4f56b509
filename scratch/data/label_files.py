"""label_files: which text file has a picture's objects, and which lines are in it?

    images/train/a.jpg  ─▶ labels/train/a.txt     YOLO's order of folders: "labels" for the last "images"; in any case,
    train/images/a.jpg  ─▶ train/labels/a.txt     and in any of Unicode's forms
    obj/a.jpg           ─▶ obj/a.txt              beside it
    my_images/a.jpg     ─▶ labels/a.txt           two folders of other names, if the files in them are called alike, and
    train/img/a.jpg     ─▶ train/annotations/…    hold boxes as YOLO's do

Proven in tests/data/test_layout_yolo.py and test_layouts.py. Read after layout_yolo.py: lines_of → labels_of
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Collection, Iterator, Sequence

from scratch.data.listing import Listing, doubts, key, split_of, text_of
from scratch.data.sources import Report
from scratch.data.values import is_yolo

MOST_LABELS = 2**26  # bytes of a text file
LOOKED_AT = 20       # text files, to know whether they are YOLO's
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
    lacking = [picture for picture in pictures if not found[picture]]
    folders = set(map(os.path.dirname, lacking)) - {os.path.dirname(picture) for picture in pictures if found[picture]}
    others = _called_otherwise(listing, list(exact.values()), folders) if folders else {}
    for picture in lacking:
        folder, base = os.path.split(picture)
        if folder in others:
            found[picture] = near.get(key(os.path.join(others[folder], base)), "")
    return found


def _called_otherwise(listing: Listing, texts: Sequence[str], folders: Collection[str]) -> dict[str, str]:
    """Of these folders of pictures, those whose text files are in a folder that YOLO calls otherwise, and that folder.

    my_images/a.jpg + labels/a.txt, train/images/a.jpg + train/annotations/a.txt, train/a.jpg + labels/train/a.txt: at
    least half of the text files have the name of a picture, and some hold boxes as YOLO's do.
    """
    pictures, labels = _stems(listing.pictures), _stems(texts)
    found: dict[str, str] = {}
    for of_texts, stems in labels.items():
        if of_texts in pictures or of_texts.lower() in {_swapped(folder) for folder in pictures}:
            continue  # beside their pictures, or where YOLO has them
        near = [folder for folder in sorted(folders & pictures.keys()) if _beside(of_texts, folder)
                and 2 * len(stems & pictures[folder]) >= len(stems)]
        near = [folder for folder in near if doubts(folder) == min(map(doubts, near))]
        some = [text for text in texts if os.path.dirname(text) == of_texts][:LOOKED_AT]
        if len(near) == 1 and near[0] not in found and any(
                is_yolo(words) for text in some
                for _, words in lines_of(listing.root / text, text, lambda *_, **__: None)):
            found[near[0]] = of_texts
    return found


def _stems(paths: Sequence[str]) -> dict[str, set[str]]:
    """Folder → what its files are called, without their endings."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, base = os.path.split(path)
        found[folder].add(key(base))
    return found


def _swapped(folder: str) -> str:
    """Where YOLO has the text files of a folder of pictures: "labels" for its last "images"."""
    head, images, tail = f"/{folder.lower()}/".rpartition("/images/")
    return f"{head}/labels/{tail}".strip("/") if images else folder.lower()


def _beside(one: str, other: str) -> bool:
    """Do the paths of two folders differ in one part, which one has and the other lacks, or has of the same split?"""
    short, long = sorted(([part for part in folder.split("/") if part] for folder in (one, other)), key=len)
    if len(short) == len(long):
        pairs = [pair for pair in zip(short, long) if pair[0] != pair[1]]
        return len(pairs) == 1 and split_of(pairs[0][0]) == split_of(pairs[0][1])
    return any(long[:i] + long[i + 1:] == short and not split_of(part) for i, part in enumerate(long))


def is_names(path: str) -> bool:
    return os.path.basename(path).lower() in NAMES
