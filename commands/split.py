"""split: write down which pictures of a set are to learn from and which to judge by.

    DIR/split.json   {"train": [file names], "val": [file names], "rule": {"val": 0.2, "test": 0.0}}

Every command with --data DIR reads it (scratch/data/split.py). Run again, it keeps what stands there and adds pictures
that are new, so the file may be changed by hand. Proven in tests/test_split_command.py.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional, Sequence

import tyro

from scratch.config import DataConfig
from scratch.data.coco import find_layout
from scratch.data.file_names import find_files
from scratch.data.near_duplicates import scenes
from scratch.data.sources import Source
from scratch.data.split import FILE, Division, copied
from scratch.printable import command, counted, printable
from scratch.ranges import Range, refuse_senseless
from scratch.whole_file import write_text


@dataclass(frozen=True)
class SplitArguments:
    """Divide a data set that has no split, by a hash of its file names or by scenes, and write it down in its folder."""

    folder: tyro.conf.Positional[Path]
    """a folder of any layout that --data takes"""
    val: Annotated[Optional[float], tyro.conf.arg(metavar="SHARE")] = None
    """the share of the pictures to judge by; None: 0.2, or as it was written down before"""
    test: Annotated[Optional[float], tyro.conf.arg(metavar="SHARE")] = None
    """the share that is looked at in the end alone; None: 0, or as it was written down before"""
    scenes: bool = False
    """keep pictures that look alike in one split: frames of a film, shots of one scene. Every picture is decoded"""

    def __post_init__(self) -> None:
        refuse_senseless(self, val=Range(0, 0.9, "low", "a share of the pictures, more than 0 and at most 0.9"),
                         test=Range(0, 0.9, words="a share of the pictures, 0 to 0.9"))
        if (self.val or 0) + (self.test or 0) > 0.9:
            raise ValueError(f"got --val {self.val} and --test {self.test}, wanted at least 0.1 of the pictures to "
                             "learn from")


def split(arguments: SplitArguments) -> None:
    """Write DIR/split.json, and say how many pictures each split has."""
    layout = find_layout(DataConfig(data=str(arguments.folder)))
    if layout.undivided is None or layout.division is None:
        raise ValueError(f"{printable(arguments.folder)} has a split already ({', '.join(layout.splits)}; it was "
                         f"recognised as {layout.name}): there is nothing to divide. To divide it anew, put all pictures and "
                         "their annotations into one folder")
    before = layout.division
    division = Division(before.val if arguments.val is None else arguments.val,
                        before.test if arguments.test is None else arguments.test, before.written)
    folder, source = layout.undivided
    names = names_of(source)
    of: list[int] = []
    unseen = 0
    if arguments.scenes:
        of, unseen = scenes([folder / path for path in find_files(folder, names).paths], list(map(copied, names)))
    sizes = Counter(of)
    found = division.together(names, of) if sizes else division.of(names)
    parts = {part: [name for name in names if found[name] == part] for part in division.splits}
    if empty := [part for part, its in parts.items() if not its]:
        anew = f", or remove {printable(layout.root / FILE)} to divide anew" if before.written else ""
        if len(sizes) == 1:
            raise ValueError(f"all of the {len(names):,} pictures are one scene, so none would be in "
                             f"{' and '.join(empty)}: divide them without --scenes, or write {FILE} by hand")
        largest = f", {max(sizes.values()):,} of which are one scene," if sizes else ""
        if not sizes and (originals := len(set(map(copied, names)))) < len(names):
            largest = f", copies of {originals:,} that stay together,"
        raise ValueError(f"none of the {len(names):,} pictures{largest} would be in {' and '.join(empty)}: ask for "
                         f"another share{anew}")
    lines = [f"{json.dumps(part)}: [\n" + ",\n".join(map(_quoted, its)) + "\n]" for part, its in parts.items()]
    rule = json.dumps({"val": division.val, "test": division.test})
    write_text(layout.root / FILE, "{\n" + ",\n".join([*lines, f'"rule": {rule}']) + "\n}\n",
               advice="let the folder be written to, or copy the set to a place where it can be")
    print(layout.line().partition("; it has no split")[0])
    new = sum(name not in before.written for name in names)
    kept = f" ({len(names) - new:,} as before, {new:,} new)" if before.written else ""
    print(f"{', '.join(f'{len(its):,} {part}' for part, its in parts.items())}{kept}: written to "
          f"{printable(layout.root / FILE)}")
    if sizes:
        print(f"{counted(len(sizes), 'scene')}: {sum(size for size in sizes.values() if size > 1):,} of the pictures "
              "look like another one, or are copies of one")
        if len(set(zip(of, map(found.get, names)))) > len(sizes):
            print("note: scenes are in two splits, as their pictures stood before: remove "
                  f"{printable(layout.root / FILE)} to divide anew")
        if unseen:
            print(f"note: {counted(unseen, 'picture')} could not be compared (unreadable, or of one shade): each is a "
                  "scene")
    if before.written and (arguments.val, arguments.test) != (None, None):
        print("note: the shares count for new pictures; those that stood there stay where they were")
    if gone := len(before.written.keys() - set(names)):
        print(f"note: {gone:,} names that stood there are no pictures of the set any more, and are left out")
    print(f"Next: {command('python', 'detr_scratch.py', 'check-data', arguments.folder)}")


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=printable(name) != name)


def names_of(source: Source) -> list[str]:
    """The file names of all pictures of a source, in its order."""
    asked: list[Sequence[str]] = []

    def none_of(names: Sequence[str]) -> Sequence[str]:
        asked.append(names)
        return ()
    source.read(lambda *_, **__: None, none_of, None)
    return list(asked[0])  # the pictures; what it asks about after them is no part of the set
