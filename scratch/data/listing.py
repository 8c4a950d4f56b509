"""listing: which files does a folder hold, and the folders below it?

    ROOT/data.yaml                 names[""] = ["data.yaml"]
    ROOT/images/train/a.jpg        names["images/train"] = ["a.jpg"], names["images"] = []

Walked through once, before it is known what layout it has. Hidden files are left out, and what archives of a Mac add
(__MACOSX), and what is no file, as a pipe, which would never end. A link to a folder is followed: it is the user's
own, and none leads round in a circle.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Collection, Iterator, Optional, Sequence

MOST_ENTRIES = 5_000_000  # with more, it is no data set that this project could hold in memory
DEEPEST = 8               # folders below ROOT
PICTURES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2",
                      ".avif", ".ppm", ".pgm", ".tga"))
# A folder or a file that is called so holds one split: "valid", "instances_Train", "val2017"; not "latest", "strain".
_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:id|idate|idation|ing)?(?![a-z])")

_USUAL = ("images", "image", "imgs", "img", "pictures", "photos", "jpegimages", "data", "rgb")  # folders of pictures,
_DERIVED = re.compile(r"(?<![a-z])(annotated|depth|drawn|labels?|masks?|overlays?|seg(mentation)?s?|thumb(nail)?s?|vis)"
                      r"(?![a-z])")  # and of what is made of pictures


def split_of(name: str) -> Optional[str]:
    """The split that a name is about: "train", "val" or "test"; None for a name about none of them."""
    found = {match[1] for match in _SPLIT.finditer(name.lower())}
    return found.pop() if len(found) == 1 else "val" if name.lower() == "dev" else None


def split_of_path(path: str) -> Optional[str]:
    """The split that the folders of a path name, the innermost first."""
    folders = path.split("/")[:-1]
    return next((split for folder in reversed(folders) if (split := split_of(folder))), None)


def folder_of_set(folder: str) -> str:
    """The innermost folder around a folder, or itself, that is not the folder of one split."""
    while folder and split_of(os.path.basename(folder)):
        folder = os.path.dirname(folder)
    return folder


def by_folder(paths: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Split, or "all" → those of the paths that its folders hold; and those that are of none beside train and val.

    A folder "train station" beside others is no split: without val, all that is not test is one set.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[split_of_path(path) or "all"].append(path)
    if "all" in found and {"train", "val"} <= found.keys():
        return found, found.pop("all")
    if "all" in found and "train" in found:
        test = set(found.get("test", ()))
        found = {"all": [path for path in paths if path not in test], **({"test": found["test"]} if test else {})}
    return found, []


def with_train(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """As `by_folder` found it, but where there is val and no train, what is of no split is there to learn from."""
    if "train" in found or not {"all", "val"} <= found.keys():
        return found
    return {"train" if split == "all" else split: paths for split, paths in found.items()}


@lru_cache(2**16)
def alike(one: str, other: str) -> int:
    """How many folders two folders' paths have in common, at their beginnings and at their ends.

    "train/labels" is nearer to "train/images" than to "val/images".
    """
    ours, theirs = one.split("/"), other.split("/")
    return sum(len(os.path.commonprefix(pair)) for pair in ((ours, theirs), (ours[::-1], theirs[::-1]))) if one else 0


@lru_cache(2**16)
def doubts(folder: str) -> tuple[bool, bool]:
    """Of folders with pictures of the same names, the one with the least doubts is meant: images/train, not
    annotated/train."""
    parts = folder.lower().split("/")
    return any(map(_DERIVED.search, parts)), not any(part in _USUAL for part in parts)


def key(path: str) -> str:
    """A path without its ending, in a form that is the same for a picture and its text file."""
    return folded(os.path.splitext(path)[0])


def folded(name: str) -> str:
    """A name in a form that does not depend on capitals, or on how accents are stored."""
    return unicodedata.normalize("NFC", name).casefold()


def text_of(content: bytes) -> str:
    """UTF-8, or UTF-16 with its mark, as PowerShell writes. Raises UnicodeError for others."""
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def text_lines(file: Path) -> list[str]:
    """The lines of a list of names; none of a file that cannot be read, and "�" for what is no text."""
    try:
        content = file.read_bytes()
        return text_of(content).splitlines()
    except UnicodeError:
        return content.decode("utf-8-sig", errors="replace").splitlines()
    except OSError:
        return []


@dataclass(frozen=True)
class Listing:
    """The files below `root`: folder → the names of its files, in order. Paths are below `root`, with /."""

    root: Path
    names: dict[str, list[str]]

    def files(self, *endings: str) -> Iterator[str]:
        """The paths of all files with these endings, the nearest folders first."""
        for folder in sorted(self.names, key=lambda folder: (folder.count("/") + bool(folder), folder)):
            for name in self.names[folder]:
                if os.path.splitext(name)[1].lower() in endings:
                    yield f"{folder}/{name}" if folder else name

    @cached_property
    def pictures(self) -> list[str]:
        return list(self.files(*PICTURES))

    def without(self, folders: Collection[str]) -> Listing:
        """As if these folders were not there."""
        return Listing(self.root, {folder: names for folder, names in self.names.items()
                                   if not any(f"{folder}/".startswith(f"{left_out}/") for left_out in folders)})

    def below(self, path: str) -> Optional[str]:
        """The longest end of a path from somebody else's file that is a folder or a file here: never outside.

        "/home/ann/set/images/train" and "../images/train" mean images/train, if that is there.
        """
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            if end in self.names or end in self._files:
                return end
        return "" if not parts else None

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(f"{folder}/{name}" if folder else name for folder, names in self.names.items()
                         for name in names)

    def words(self) -> str:
        """What is there, in a few words: "12 .jpg, 1 .zip, folders a, b"."""
        endings = Counter(os.path.splitext(name)[1].lower() or "without ending" for names in self.names.values()
                          for name in names)
        kinds = ", ".join(f"{number:,} {ending}" for ending, number in endings.most_common(6))
        below = sorted({folder.split("/")[0] for folder in self.names if folder})
        folders = f"folders {', '.join(below[:8])}{' …' if len(below) > 8 else ''}" if below else ""
        return ", ".join(filter(None, (kinds, folders))) or "nothing"


def list_folder(root: Path) -> Listing:
    """Everything below a folder, as far as the limits go; what may not be looked at is left out."""
    names: dict[str, list[str]] = {"": []}
    level, seen, entries = [""], {_identity(str(root))}, 0
    for _ in range(DEEPEST):
        following = []
        for folder in level:
            names[folder] = []
            try:
                scanned = os.scandir(os.path.join(root, folder))
            except OSError:
                continue
            with scanned:
                for entry in scanned:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    entries += 1
                    try:
                        is_folder = entry.is_dir()
                        if not (is_folder or entry.is_file()) and os.path.exists(entry.path):
                            continue
                    except OSError:
                        continue
                    if not is_folder:
                        names[folder].append(entry.name)
                    elif (identity := _identity(entry.path)) not in seen:
                        seen.add(identity)
                        following.append(f"{folder}/{entry.name}" if folder else entry.name)
            names[folder].sort()
            if entries > MOST_ENTRIES:
                return Listing(Path(root), names)
        level = sorted(following)
    return Listing(Path(root), names)


def _identity(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return path
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)
