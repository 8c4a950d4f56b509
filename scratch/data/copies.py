"""copies: which pictures are in two splits, so that a score on one of them tells how well they are remembered?

    files of equal length and end ─▶ SHA-256 of the content ─▶ the same picture
    small grey pictures           ─▶ near_duplicates        ─▶ a picture that looks like it

Data leakage between splits is told where a tenth of a split, and five of its pictures, have a copy in train.
Proven in tests/data/test_check.py and test_near_duplicates.py. Read: Pictures → copies
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from scratch.config import DataConfig
from scratch.data.layouts import Layout
from scratch.data.looks import Looks
from scratch.data.near_duplicates import near_duplicates
from scratch.data.problems import Notes, Problem
from scratch.data.sources import Part
from scratch.data.split import FILE
from scratch.printable import command, counted, printable

FEW, MANY = 5, 0.1  # leakage is told from so many copies on, and from this share of a split on


class Pictures(NamedTuple):
    """The pictures of a split: their paths below a folder, row by row, and what was seen on them."""

    split: str
    folder: Path
    paths: list[str]
    looks: Looks

    def rows(self) -> np.ndarray:
        """Those that there are, each file once, in the order of the annotations."""
        first = dict(zip(reversed(self.paths), range(len(self.paths) - 1, -1, -1)))
        there = np.zeros(len(self.paths), dtype=bool)
        there[list(first.values())] = True
        return np.flatnonzero(there & (self.looks.stamps[:, 0] >= 0))


def copies(pictures: list[Pictures], config: DataConfig, most: Optional[int], layout: Layout, decode: bool
           ) -> list[Problem]:
    """All copies across splits; with `decode`, also those within one, and pictures that look alike.

    most    so many of those that look alike are kept one by one (None: all)
    """
    same, in_train = _same(pictures, within=decode)
    similar, more = _similar(pictures, config, most) if decode and len(pictures) > 1 else ([], Counter())
    return same + _leakage(pictures, in_train + more, layout) + similar


def _same(pictures: list[Pictures], within: bool) -> tuple[list[Problem], Counter[str]]:
    """Files of one content in two splits, or `within` one too; and how many of each split are in train as well.

    Only files of equal length and end are read for this.
    """
    rows = [its.rows() for its in pictures]
    if not pictures or not within and len(pictures) == 1:
        return [], Counter()
    lengths = np.concatenate([its.looks.stamps[mine, 0] for its, mine in zip(pictures, rows)])      # (N,)
    ends = np.concatenate([its.looks.ends[mine] for its, mine in zip(pictures, rows)])
    of = np.repeat(np.arange(len(pictures)), [len(mine) for mine in rows])                          # (N,) its split
    row = np.concatenate(rows)
    order = np.lexsort((of, ends, lengths))
    begins = np.flatnonzero(np.r_[True, (np.diff(lengths[order]) != 0) | (np.diff(ends[order]) != 0)][:len(order)])
    number = np.diff(np.r_[begins, len(order)])
    several = of[order[begins + number - 1]] != of[order[begins]] if not within else number > 1    # in order, so
    alike = np.sort(order[np.repeat(several, number)])

    by_content: dict[bytes, list[tuple[str, Path]]] = defaultdict(list)
    content_of: dict[tuple[int, int], bytes] = {}  # of a file that has several names
    for k in alike.tolist():
        its = pictures[of[k]]
        path = its.folder / its.paths[row[k]]
        try:
            found = os.stat(path)
            identity = (found.st_dev, found.st_ino)
            if identity not in content_of or not found.st_ino:
                content_of[identity] = hashlib.sha256(path.read_bytes()).digest()
            by_content[content_of[identity]].append((its.split, path))
        except OSError:  # it has gone meanwhile, or may not be read, and that is told already
            continue
    found = [Problem("same picture twice" if split == files[0][0] else "same image in two splits",
                     printable(files[0][1]), f"equals {printable(path)} of {split}")
             for files in by_content.values() for split, path in files[1:] if within or split != files[0][0]]
    return found, Counter(split for files in by_content.values() if "train" in dict(files) for split, _ in files
                          if split != "train")


def _similar(pictures: list[Pictures], config: DataConfig, most: Optional[int]) -> tuple[list[Problem], Counter[str]]:
    """Pictures that look nearly like one of another split; and how many of each split look like one of train."""
    of_split = {its.split: [its.folder / its.paths[row] for row in its.rows().tolist()] for its in pictures}
    notes, like = Notes(most), Counter[str]()
    for path, split, other, its_split, alike in near_duplicates(of_split, config):
        like[split] += its_split == "train"
        notes.add("similar image in two splits", printable(path),
                  f"of {split}, looks like {printable(other)} of {its_split} (a correlation of {alike:.2f})")
    return notes.problems(), like


def _leakage(pictures: list[Pictures], in_train: Counter[str], layout: Layout) -> list[Problem]:
    """The splits of which much is in train as well: `in_train` pictures of each."""
    found = []
    for its in pictures:
        number, of = in_train[its.split], len(its.rows())
        if number >= max(FEW, MANY * of):
            detail = f"{number:,} of its {counted(of, 'picture')} look like one of train"
            if isinstance(layout.splits[its.split][1], Part) and layout.division is not None:
                mend = command("python", "detr_scratch.py", "split", layout.root, "--scenes")
                detail += f"; {f'remove {FILE}, then ' if layout.division.written else ''}{mend} mends that"
            elif its.folder == pictures[0].folder and set(its.paths) == set(pictures[0].paths):
                detail += "; they are the very same files: name other pictures for it, or none, to have them divided"
            else:
                detail += "; the split came with the data: to divide anew, put all of it into one folder without a split"
            found.append(Problem("leakage between splits", its.split, detail))
    return found
