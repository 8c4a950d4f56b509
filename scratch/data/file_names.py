r"""file_names: which file of a folder does a data set mean, if the name in it differs a little?

    in the annotations              in the folder
    0001.jpg                        0001.jpg                exactly: nothing else is looked at
    images\0001.JPG                 0001.jpg                the one file whose path ends alike, once / stands for \, and
    data/caf%C3%A9 1.jpg            café 1.jpg              capitals, URL and Unicode forms, spaces do not count
    0001                            0001.jpg                … and a missing ending, jpg for jpeg, tif for tiff
    8d1f0c2a-1.jpg                  0001.jpg                … and Label Studio's prefix, zeros in front of a number
    a_b.jpg                         a b.jpg                 … and an underscore, which it puts for a space
    cam1/7.jpg, cam2/7.jpg          7.jpg                   two names for one file: neither
    7.jpg                           a/7.jpg, b/7.jpg        two files for one name: neither
    7.jpg                           images/7.jpg, masks/…   … but not the mask of a picture
    ../../etc/passwd, /etc/passwd                           never: what lies outside the folder is not even looked for

A file name comes from somebody else's file, so every candidate comes from a listing of the folder that the user named,
and none from the name. Links in that folder are the user's own: an exact name may lead through them.
Proven in tests/data/test_file_names.py. Read: find_files → _Folder (what is there) → _differences (what is told)
"""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Callable, Optional, Sequence
from urllib.parse import unquote

from scratch.data.problems import Problem
from scratch.printable import abridged, printable

# With more files below a folder, only exact names are found: such a folder hardly holds images alone.
MOST_FILES = 2_000_000
# What a file is called without its ending may be left out, or be the other of two spellings of one format.
_ENDINGS = {".jpg": ".jpg", ".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tif": ".tif", ".tiff": ".tif",
            **{same: same for same in (".png", ".bmp", ".webp", ".gif", ".jp2", ".avif", ".ppm", ".pgm", ".tga")}}


@dataclass(frozen=True)
class Found:
    """For each name the path below the folder, "" where there is none; why there is none; and what is to be told."""

    paths: list[str]
    missing: dict[int, Problem]
    told: list[Problem]


def find_files(folder: Path, names: Sequence[str], source: Optional[str] = None) -> Found:
    """The files that `names` mean in `folder`; with `source`, the file of these names, it is told how they differ."""
    there = _Folder(Path(folder))
    paths = list(names) if there.holds(names) else [there.exact(name) for name in names]
    unknown = [i for i, path in enumerate(paths) if not path]
    if not unknown:
        return Found(paths, {}, [])
    near = {i: there.near(names[i]) for i in unknown}
    # Of two names for one file, one at least is wrong; names that are equal are one name.
    claims: dict[str, set[str]] = defaultdict(set)
    for i, path in enumerate(paths):
        for claimed in [path] if path else near[i][:1] if len(near[i]) == 1 else []:
            claims[claimed].add(names[i])
    missing, how = {}, defaultdict(list)
    for i in unknown:
        if len(near[i]) == 1 and len(claims[near[i][0]]) == 1:
            paths[i] = near[i][0]
            if source is not None:
                how[_differences(names[i], paths[i])].append(i)
        else:
            missing[i] = _missing(there, names[i], near[i])
    told = [_told(reason, [names[i] for i in places], paths[places[0]], len(names), source or "")
            for reason, places in how.items()]
    if len(missing) == len(names) > 3 and all(problem.kind == "missing image" for problem in missing.values()):
        nothing = _wrong_folder(there, names[0], len(names))  # one line for the lot
        missing = {i: nothing for i in missing}
    return Found(paths, missing, told)


class _Folder:
    """What is in a folder: listed once for exact names, walked through once if some are not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, set[str]] = {}

    def exact(self, name: str) -> str:
        """The path below the folder that `name` says by itself, if that is there; else ""."""
        path = self.inside(name)
        if path is None:
            return ""
        parent, base = os.path.split(path)
        if parent not in self._listed:
            self._listed[parent] = self._listing(parent)
        return path if base in self._listed[parent] else ""

    def holds(self, names: Sequence[str]) -> bool:
        """Are all of them names of files in the folder itself? A quick look at hundreds of thousands."""
        if "" not in self._listed:
            self._listed[""] = self._listing("")
        return self._listed[""].issuperset(names)

    def inside(self, name: str) -> Optional[str]:
        """`name` as a path below the folder, "." and ".." taken out; None if it leads out of it. Nothing is touched."""
        if "\0" in name:
            return None
        if os.path.basename(name) == name and name not in ("", os.curdir, os.pardir):  # most names, 100,000 times
            return name
        for root in self._roots:
            path, below = os.path.normpath(os.path.join(root, name)), os.path.join(root, "")
            if path.startswith(below) and path != below:
                return path[len(below):]
        return None

    def near(self, name: str) -> list[str]:
        """The files whose paths have most parts at their ends in common with `name`: none, the one, or several."""
        wanted = _parts(name)
        if not wanted:
            return []
        candidates = self._by_stem.get(_stem(wanted[-1]), [])
        best: dict[int, list[str]] = defaultdict(list)
        for path in candidates:
            parts = _parts(path)
            if not _ending(wanted[-1]) or _ending(parts[-1]) == _ending(wanted[-1]):
                best[_alike(parts, wanted)].append(path)
        found = best[max(best)] if best else []
        if len(found) > 1:  # 1.JPG is 1.jpg rather than 01.jpg is, and train_images/1.jpg rather than train_masks/1.jpg
            found = [path for path in found if _usual(path) == _usual(name)] or found
            folders = [os.path.dirname(path) for path in found]
            masks = {folder.replace("images", "masks") for folder in folders if "images" in folder}
            found = [path for path, folder in zip(found, folders) if folder not in masks]
        return found

    def other_ending(self, name: str) -> Optional[str]:
        """A file that is called like `name` but for its format."""
        parts = _parts(name)
        found = self._by_stem.get(_stem(parts[-1]), []) if parts else []
        return found[0] if found else None

    @cached_property
    def _roots(self) -> tuple[str, str]:
        return os.path.abspath(self.folder), os.path.realpath(self.folder)

    @cached_property
    def files(self) -> list[str]:
        """All files below the folder that could be pictures by their ending; a link to a folder is not gone into."""
        found: list[str] = []
        for parent, folders, names in os.walk(self.folder):
            folders.sort()
            below = os.path.relpath(parent, self.folder)
            found += [os.path.normpath(os.path.join(below, name)) for name in sorted(names)
                      if _ending(name.casefold().strip())]
            if len(found) > MOST_FILES:
                return []
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.files:
            parts = _parts(path)
            if parts:
                found[_stem(parts[-1])].append(path)
        return found

    def _listing(self, parent: str) -> set[str]:
        try:
            return set(os.listdir(self.folder / parent))
        except (OSError, ValueError):  # not there, no folder, or no name that a folder can have
            return set()


# -- what does not count -------------------------------------------------------------------------------------------


def _without_query(name: str) -> str:
    """A URL without its question; Label Studio's /data/local-files/?d=PATH as the path."""
    name = re.sub(r"^(.*)\?d=", r"\1", name)
    return re.sub(r"[?#].*$", "", name) if re.match(r"\w+://", name) else name


def _percent_decoded(name: str) -> str:
    """Decoded until nothing changes: some tools encode what was encoded."""
    for _ in range(3):
        try:
            name, before = unquote(name, errors="strict"), name
        except (UnicodeError, ValueError):
            return name
        if name == before:
            return name
    return name


def _in_each_part(form: Callable[[str], str]) -> Callable[[str], str]:
    return lambda name: "/".join(form(part) for part in name.split("/"))


# Applied in this order, to the name and to the file's path alike.
_USUAL: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("with / for \\", lambda name: name.replace("\\", "/")),
    ("without the address in front", _without_query),
    ("decoded from their URL form", _percent_decoded),
    ("decoded from their HTML form", html.unescape),
    ("in another Unicode form", lambda name: unicodedata.normalize("NFKC", name)),
    ("without invisible signs", lambda name: re.sub("[\ufeff\u200b-\u200f\u00ad]", "", name)),
    ("in other capitals", str.casefold),
    ("without regard to spaces", _in_each_part(lambda part: " ".join(part.split()))),
)
_RARE: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("with a space for +", lambda name: name.replace("+", " ")),
    ("without Label Studio's prefix", _in_each_part(lambda part: re.sub(r"^[0-9a-f]{8}-(?=.)", "", part))),
    ("with _ for a space", lambda name: name.replace(" ", "_")),
    ("with other zeros in front of numbers", lambda name: re.sub(r"(?<!\d)0+(?=\d)", "", name)),
)
_FORMS = _USUAL + _RARE


def _parts(name: str, but: str = "") -> list[str]:
    """The parts of a path in a form in which nearly equal ones are equal; `but`: without this one of the steps."""
    for words, form in _FORMS:
        name = name if words == but else form(name)
    return [part for part in name.split("/") if part not in ("", ".", "..")]


def _usual(name: str) -> str:
    """The last part of a path, without its ending, in the usual forms alone."""
    for _, form in _USUAL:
        name = form(name)
    return _stem(name.rpartition("/")[2])


def _ending(base: str) -> str:
    return _ENDINGS.get(os.path.splitext(base)[1].casefold(), "")


def _stem(base: str) -> str:
    """Without its ending, and without the same ending once more (0001.jpg.jpg)."""
    if not _ending(base):
        return base
    stem = os.path.splitext(base)[0]
    return os.path.splitext(stem)[0] if _ending(stem) == _ending(base) else stem


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts at the ends of two paths are the same; the last but for its ending."""
    if _stem(one[-1]) != _stem(other[-1]):
        return 0
    count = 1
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


# -- what is told --------------------------------------------------------------------------------------------------


def _differences(name: str, path: str) -> str:
    """How `name` has to be changed to be the path of the file: "with / for \\, without the folder in front"."""
    ours, theirs = _parts(name), _parts(path)
    alike, same_ending = _alike(ours, theirs), ours[-1] == theirs[-1]

    def without(words: str) -> bool:
        """Are they as much alike without this step?"""
        one, other = _parts(name, words), _parts(path, words)
        return bool(one) and (one[-alike:] == other[-alike:] if same_ending else _alike(one, other) == alike)

    found = [words for words, _ in _FORMS if not without(words)]
    if not same_ending:
        found.append("with another ending")
    if alike == len(theirs) < len(ours):
        found.append("without the folder in front")
    elif alike == len(ours) < len(theirs):
        found.append("in a folder below")
    elif alike < len(ours):
        found.append("in another folder")
    return ", ".join(found) or "below the folder"


def _told(reason: str, names: list[str], path: str, total: int, source: str) -> Problem:
    many = f"all {total:,}" if len(names) == total else f"{len(names):,} of the {total:,}"
    count = f"{many} file names are" if total > 1 else "the file name is"
    return Problem("file name that nearly matches", printable(source),
                   f"{count} found {reason}: {abridged(names[0])} is taken to mean {abridged(path)}",
                   len(names))


def _missing(there: _Folder, name: str, near: list[str]) -> Problem:
    where = printable(there.folder / name)
    outside = there.inside(name) is None
    if len(near) > 1:
        detail = f"no such file; {len(near)} are called nearly so ({', '.join(map(abridged, near[:3]))}): which one?"
    elif near:
        detail = f"no such file; {abridged(near[0])} is called nearly so, but other names say that, too"
    elif outside:
        return Problem("file name outside its folder", abridged(name),
                       f"it is no path below the folder of images, {printable(there.folder)}, and nothing is looked "
                       "for elsewhere")
    else:
        other = there.other_ending(name)
        detail = "no such file" + (f"; {abridged(other)} is there, of another format" if other else "")
    return Problem("missing image", where, detail)


def _wrong_folder(there: _Folder, name: str, count: int) -> Problem:
    near = there.near(name)
    if len(set(map(os.path.dirname, near))) > 1:
        return Problem("missing image", printable(there.folder),
                       f"none of the {count:,} pictures is found for certain: {abridged(name)} may be {abridged(near[0])} "
                       f"or {abridged(near[1])}: take the folder that is not meant out of this one", count)
    if other := there.other_ending(name):
        return Problem("missing image", printable(there.folder),
                       f"none of the {count:,} pictures is in this folder, but files of their names in another format "
                       f"are: the annotations name {abridged(name)}, and {abridged(other)} is there. If the pictures "
                       "were converted, change the names in the annotations", count)
    files = there.files
    holds = f"it holds {len(files):,} pictures, such as {abridged(files[0])}" if files else "it holds no pictures"
    return Problem("missing image", printable(there.folder),
                   f"none of the {count:,} pictures is in this folder, nor one of nearly such a name; {holds}, and the "
                   f"annotations name {abridged(name)}: are these annotations of these images?", count)
