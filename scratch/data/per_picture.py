"""per_picture: which picture does an annotation file, or a row of a table, belong to?

    Annotations/a.xml   ─▶ JPEGImages/a.jpg       the picture of the same name, whatever its ending;
    train/7.json        ─▶ train/7.jpg            of several (valid/7.jpg) the one in the same folder, else the one
                                                  in the folder that is most alike; of copies, any
    a row's "f.1"       ─▶ f.1.jpg, not f.jpg     only the ending of a picture is cut off

Used by the layouts that name their pictures (layout_voc.py, layout_labelme.py, layout_table.py). Letters' case and
Unicode's forms do not count. Proven in tests/data/test_layouts.py, test_layout_table.py and test_layout_voc.py.
Read: Pictures → sizes_of → tell_of_unlabelled
"""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Collection, Mapping, Optional, Sequence

from scratch.data.file_names import find_files
from scratch.data.images import image_size
from scratch.data.listing import PICTURES, Listing, alike, doubts, folded, key
from scratch.data.sources import Choose, Report

MOST_COPIES = 4  # of one picture in several folders, which are compared


class Pictures:
    """The pictures of a folder, found by their names."""

    def __init__(self, listing: Listing) -> None:
        self._listing, self._there = listing, frozenset(listing.pictures)
        self._of_name: dict[str, list[str]] = defaultdict(list)
        self._of_place: dict[tuple[str, str], list[str]] = defaultdict(list)
        for picture in listing.pictures:
            folder, base = os.path.split(picture)
            self._of_name[key(base)].append(picture)
            self._of_place[folder, key(base)].append(picture)
        self._of_row: dict[tuple[str, str], str] = {}

    def named(self, name: str, folder: str, ending: str = "") -> Optional[str]:
        """The path of the one picture that is called `name`, with its ending or without; None for none, or for several
        that are not copies, byte for byte.

        Of several, the one in `folder`, else those in the folders most like it; of these, the one called `ending`.
        """
        stems = [folded(name), *([key(name)] if os.path.splitext(name)[1].lower() in PICTURES else [])]
        for stem in stems:
            if near := self._of_place.get((folder, stem)) or self._nearest(folder, self._of_name.get(stem, [])):
                near = [picture for picture in near if os.path.basename(picture) == ending] or near
                return near[0] if len(near) == 1 or self._same(near) else None
        return None

    def of_file(self, file: str, said: str) -> str:
        """The picture of an annotation file: that of its name, else that of the name in it, else this name."""
        folder, base = os.path.split(file)
        name = said.replace("\\", "/").rpartition("/")[2]
        return self.named(os.path.splitext(base)[0], folder, name) or self.named(name, folder, name) or said

    def of_broken(self, file: str) -> str:
        """The picture of an annotation file's name, whose split the file shares; the file itself if there is none."""
        folder, base = os.path.split(file)
        return self.named(os.path.splitext(base)[0], folder) or file

    def of_row(self, table: str, said: str) -> str:
        """The picture that a row of a table names: from the table's folder, else by the end of its path, else by its
        name alone; the name itself if there is none."""
        folder = os.path.dirname(table)
        if (folder, said) not in self._of_row:
            path = said.replace("\\", "/").removeprefix("file://")
            beside = os.path.normpath(os.path.join(folder, path)).replace("\\", "/")
            below, name = self._listing.below(path), os.path.basename(path)
            self._of_row[folder, said] = (beside if beside in self._there else below if below in self._there else
                                          self.named(name, os.path.dirname(beside), name) or said)
        return self._of_row[folder, said]

    def _same(self, pictures: list[str]) -> bool:
        """Are they copies of one picture, byte for byte?"""
        first, *others = (self._listing.root / picture for picture in pictures[:MOST_COPIES])
        try:
            return len(pictures) <= MOST_COPIES and all(filecmp.cmp(first, other, shallow=False) for other in others)
        except OSError:
            return False

    @staticmethod
    def _nearest(folder: str, pictures: list[str]) -> list[str]:
        if len(pictures) < 2:
            return pictures
        how = [(-alike(folder, its), *doubts(its)) for its in map(os.path.dirname, pictures)]
        least = min(how)
        return [picture for picture, much in zip(pictures, how) if much == least]


def sizes_of(root: Path, pictures: Sequence[str]) -> list[tuple[int, int]]:
    """Width and height of each picture, upright, as its header tells; 0, 0 for one that cannot be read."""
    def size_of(file: str) -> tuple[int, int]:
        try:
            return image_size(root / file)
        except Exception:  # the check of the pictures looks at every one, and reports it
            return 0, 0
    with ThreadPoolExecutor(8) as pool:  # waiting for a disk frees the GIL
        return list(pool.map(size_of, find_files(root, pictures).paths))


def tell_of_unlabelled(listing: Listing, labelled: Mapping[str, bool], names: Collection[str], lacking: str,
                       report: Report, choose: Choose) -> None:
    """Report the pictures without annotations in any split, beside those that have some.

    labelled  the annotated pictures of all splits → are they of this one? A folder belongs to the split of the first
    names     of pictures that count as annotated wherever they are, as `key` gives them
    """
    mine: dict[str, bool] = {}
    for picture, is_mine in labelled.items():
        mine.setdefault(os.path.dirname(picture), is_mine)
    bare = [picture for picture in listing.pictures
            if mine.get(os.path.dirname(picture)) and picture not in labelled
            and key(os.path.basename(picture)) not in names]
    if bare := sorted(choose(bare)):
        report("picture without annotations", bare[0], f"it has no {lacking}{and_others(len(bare))}", times=len(bare))


def and_others(number: int) -> str:
    """The end of a line about the first of so many pictures or files."""
    return "" if number < 2 else f"; the same is true of {number - 1:,} other{'s' if number > 2 else ''}"
