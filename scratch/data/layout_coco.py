"""layout_coco: where are the COCO files of a folder, and in which folders are their pictures?

    classic       train2017/ val2017/ (or train/ val/ test/)   annotations/instances_train2017.json …
    Roboflow      train/ valid/ test/, pictures beside          train/_annotations.coco.json …
    CVAT          images/default/ (or images/Train/ …)          annotations/instances_default.json (…_Train.json)
    Label Studio  images/                                       result.json
    FiftyOne      data/                                         labels.json

All but the classic one are found by looking: a JSON file that names pictures, and the folder in which these pictures
are. Its name, or its folder's, says of which split it is. Only its beginning and its end are read for that.
Proven in tests/data/test_layout_coco.py. Read: classic → coco_files
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from scratch.data.file_names import find_files
from scratch.data.listing import PICTURES, Listing, alike, doubts, folder_of_set, split_of, split_of_path
from scratch.data.split import SPLITS

MOST_FILES = 30    # JSON files that are looked at
PIECE = 2**20      # bytes of each, at either end
MOST_NAMES = 50    # pictures that are looked for
MOST_FOLDERS = 300
ROBOFLOW = "_annotations.coco.json"

_SCORE = re.compile(r'"(?:score|confidence)"\s*:\s*([\d.eE+-]+)')
_NAME = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
# COCO's own files that hold no boxes, or the same ones again.
_OTHER_FILES = re.compile(r"^(captions|person_keypoints|image_info|panoptic|stuff)_", re.IGNORECASE)


def classic(root: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Split → where its folder of pictures and its annotation file would be: the first of them counts that is there."""
    return {split: [(root / name, root / "annotations" / f"instances_{name}.json") for name in (split, f"{split}2017")]
            for split in SPLITS}


@dataclass(frozen=True)
class Found:
    """The COCO files of a folder: split, or "all" → (folder of its pictures, file); and those without a picture."""

    pairs: dict[str, tuple[Path, Path]]
    more: tuple[Path, ...] = ()        # others of the same split, which are not read
    lonely: tuple[Path, ...] = ()      # files whose pictures are nowhere


def coco_files(listing: Listing) -> Found:
    """Every JSON file below a folder that names pictures which are there, too; none where it holds several sets."""
    pairs: dict[str, tuple[Path, Path]] = {}
    more, lonely, several = [], [], False
    set_of: dict[str, str] = {}  # split → the folder of the set that it was found in
    files = list(listing.files(".json"))
    candidates = [path for path in files if not _OTHER_FILES.match(os.path.basename(path))]
    of_folder = Counter(map(os.path.dirname, candidates))  # where there are many, each may be of one picture
    candidates.sort(key=lambda path: ("instances" not in path.lower() and not path.endswith(ROBOFLOW),
                                      of_folder[os.path.dirname(path)] > MOST_FILES))
    looked = [(path, *_names_and_scores(listing.root / path)) for path in candidates[:MOST_FILES]]
    if not any(names for _, names, _ in looked):  # keypoints have boxes, too
        looked = [(path, *_names_and_scores(listing.root / path)) for path in files if "person_keypoints" in path]
    truth = any(names and not scored for _, names, scored in looked)
    for path, names, scored in looked:
        if not names:
            continue
        if truth and scored:  # what a detector found
            more.append(listing.root / path)
            continue
        folder = _folder_of(path, names, listing)
        file = listing.root / path
        if folder is None:
            lonely.append(file)
            continue
        split = _split(path) or split_of(os.path.basename(folder)) or "all"
        of = _set_of(path, folder)
        if split in pairs:
            more.append(file)
            several |= not (_holds(of, set_of[split]) or _holds(set_of[split], of))
        pairs.setdefault(split, (listing.root / folder, file))
        set_of.setdefault(split, of)
    if several:
        return Found({}, lonely=tuple(lonely))
    if "train" in pairs or "val" in pairs and "all" not in pairs:
        more += [pairs.pop("all")[1]] if "all" in pairs else []
    elif "all" in pairs:
        pairs = {"all": pairs["all"], **{split: pairs[split] for split in pairs if split != "all"}}
    return Found(pairs, tuple(more), tuple(lonely))


def where_they_are(file: Path, listing: Listing) -> str:
    """Of a file whose pictures are nowhere: what is there instead, in words."""
    names, _ = _names_and_scores(file)  # some of them: how many there are is not known
    problem = next(iter(find_files(listing.root, names).missing.values()), None)
    if problem is None or not problem.detail.startswith("none of the ") or not listing.pictures:
        return "none of them is in this folder: put them beside it"
    return re.sub(r"^none of the [\d,]+ pictures", "none of the pictures", problem.detail)


def _set_of(file: str, folder: str) -> str:
    """The innermost folder that holds a file and its pictures, and is not that of one split."""
    return folder_of_set("/".join(os.path.commonprefix([file.split("/")[:-1], folder.split("/")])))


def _holds(outer: str, inner: str) -> bool:
    return not outer or f"{inner}/".startswith(f"{outer}/")


def _split(path: str) -> Optional[str]:
    folder, base = os.path.split(path)
    return split_of(os.path.splitext(base)[0]) or split_of(os.path.basename(folder))


def _names_and_scores(file: Path) -> tuple[list[str], bool]:
    """Some of the file names in a COCO file; and has it scores that differ, as what a detector found?"""
    text = _both_ends(file)
    return _some_names(text), len(set(_SCORE.findall(text))) > 1


def _both_ends(file: Path) -> str:
    """The text at both ends of a JSON file that is an object; what `predict` writes is a list, and counts as empty."""
    try:
        with open(file, "rb") as stream:
            beginning = stream.read(PIECE)
            stream.seek(max(stream.tell(), stream.seek(0, os.SEEK_END) - PIECE))
            end = stream.read()
    except OSError:
        return ""
    text = beginning.decode("utf-8", errors="replace")
    if beginning[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = beginning[:len(beginning) // 2 * 2].decode("utf-16", errors="replace")
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return ""
    return text + "\n" + end.decode("utf-8", errors="replace")


def _some_names(text: str) -> list[str]:
    """Some of the file names in it."""
    names: dict[str, None] = {}
    for match in _NAME.finditer(text):
        try:
            name = json.loads(match[1])
        except ValueError:
            continue
        if name and "\0" not in name and os.path.splitext(name)[1].lower().split("?")[0] in (*PICTURES, ""):
            names[name] = None
    # Some of all, without a period: neighbours are often in one folder, and so is each third of three cameras.
    return sorted(names, key=lambda name: zlib.crc32(name.encode("utf-8", "replace")))[:MOST_NAMES]


def _folder_of(file: str, names: Sequence[str], listing: Listing) -> Optional[str]:
    """The folder from which these names lead to pictures; if none does exactly, one in which they nearly do."""
    inside = [name for name in names if not os.path.isabs(name) and ".." not in Path(name).parts]
    likely = _likely(file, listing)
    for rank, folder in likely:  # what lies outside a folder is not even looked for
        if there := _number_there(folder, inside, listing):
            if there < len(names):
                return _around(folder, there, names, listing)
            for _, other in (its for its in likely if its[0] == rank and its[1] > folder):
                if _number_there(other, inside, listing) == there:
                    raise ValueError(f"the pictures of {listing.root / file} are in {folder or '.'}/ and in {other}/: take "
                                     "the folder that is not meant out of it, or give the four explicit paths")
            return folder
    same = [folder for _, folder in likely if _split(file) and split_of_path(f"{folder}/") == _split(file)]
    for folder in dict.fromkeys([*same[:3], os.path.dirname(file), "images", "data", ""]):
        if folder in listing.names and any(find_files(listing.root / folder, list(names)).paths):
            return folder
    return None


def _around(folder: str, there: int, names: Sequence[str], listing: Listing) -> str:
    """A folder in which `there` of the pictures are, or one around it if more are below that, each one time."""
    best, outer = folder, folder
    while outer:
        outer = os.path.dirname(outer)
        if (more := sum(map(bool, find_files(listing.root / outer, list(names)).paths))) > there:
            best, there = outer, more
    return best


def _number_there(folder: str, names: Sequence[str], listing: Listing) -> int:
    return sum(os.path.isfile(os.path.join(listing.root, folder, name)) for name in names)


def _likely(file: str, listing: Listing) -> list[tuple[tuple[int, ...], str]]:
    """(rank, folder): those of the file's own split first, then its own, the most alike, those that are not called as what
    is made of pictures, the nearest, and those that are called as folders of pictures."""
    split, own = _split(file), os.path.dirname(file)
    ranked = (((split_of_path(f"{folder}/") != split if split else False, folder != own, -alike(folder, own),
                doubts(folder)[0], folder.count("/") + bool(folder), doubts(folder)[1]), folder)
              for folder in listing.names)
    return sorted(ranked)[:MOST_FOLDERS]
