"""layout_hint: a folder in which no split was found: which layout does it have, and which flags read it?

    ROOT/train/_annotations.coco.json   Roboflow      ROOT/annotations/instances_Train.json + images/Train   CVAT
    ROOT/labels.json + data/            FiftyOne      ROOT/data.yaml + labels/*.txt                          YOLO
    ROOT/result.json + images/          Label Studio  ROOT/JPEGImages/ + Annotations/*.xml                   Pascal VOC

Any annotation file of COCO's kind is paired with the folder in which its first picture is; both names go into the flags
--train-images, --train-annotations, --val-images, --val-annotations. Nothing is read here but names, and the beginnings
of JSON files. Proven in tests/data/test_layout_hint.py. Read: layout_hint → _pairs
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Iterator, Optional

from scratch.printable import abridged, command

DEEPEST = 3          # folders below ROOT
MOST_ENTRIES = 5000  # looked at, of all folders together
MOST_FILES = 20      # of JSON
BEGINNING = 2**20    # bytes of each

_FIRST_NAME = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_SPLITS = ("train", "val", "test")  # "valid" and "validation" begin alike


def layout_hint(root: Path) -> str:
    """A few lines that end with a line break, or nothing where there is nothing to say."""
    if not os.path.exists(root):
        near = [path.name for path in _children(root.parent) if path.name.lower() == root.name.lower()]
        meant = f"; did you mean {abridged(root.parent / near[0])}?" if near else "."
        return f"There is no {abridged(root)}{meant}\n"
    if not os.path.isdir(root):
        what = {".zip": "unpack it, and name the folder",
                ".json": "give it as --train-annotations, its pictures' folder as --train-images",
                }.get(root.suffix.lower(), "wanted a folder")
        return f"{abridged(root)} is a file: {what}.\n"
    folders, files = _walk(root)
    pairs = _pairs(folders, files)
    flags = {split: _flags(split, pairs[split]) for split in ("train", "val") if split in pairs}
    if len(flags) == 2:
        whose = "Roboflow's" if pairs["train"][1].name.startswith("_annotations") else "another"
        return f"It looks like {whose} layout of COCO's format; these flags read it:\n  {flags['train']} \\\n" \
               f"  {flags['val']}\n"
    if flags:
        (split, words), = flags.items()
        other = "val" if split == "train" else "train"
        return f"These flags read what looks like its split {split!r}:\n  {words}\n" \
               f"and --{other}-images, --{other}-annotations the other one, which was not found.\n"
    if "all" in pairs:
        images, file = pairs["all"]
        return f"It looks like one annotation file without a split: {abridged(file)}, with its pictures in " \
               f"{abridged(images)}. Divide its images into two files, one to learn from and one to evaluate on, and " \
               "name them:\n  " \
               + command("--train-images", images, "--train-annotations", "TRAIN.json", "--val-images", images,
                         "--val-annotations", "VAL.json") + "\n"
    return _other_formats(root, folders, files)


def flags_for(root: Path, split: str) -> Optional[str]:
    """The flags that read this split of a folder whose other splits were found; None if it is not there."""
    pair = _pairs(*_walk(root)).get(split) if split in ("train", "val") and os.path.isdir(root) else None
    return _flags(split, pair) if pair else None


def _flags(split: str, pair: tuple[Path, Path]) -> str:
    return command(f"--{split}-images", pair[0], f"--{split}-annotations", pair[1])


def _other_formats(root: Path, folders: list[Path], files: list[Path]) -> str:
    endings = {path.suffix.lower() for path in files}
    names = {path.name.lower() for path in (*folders, *files)}
    labels = [path for path in files if path.suffix.lower() == ".txt" and "label" in path.parent.as_posix().lower()]
    convert = "convert it to COCO's format first"
    if labels or endings & {".yaml", ".yml"} and {"labels", "images", "train"} & names:
        return f"It looks like YOLO's layout (a .txt for each picture): {convert}.\n"
    if ".xml" in endings:
        return f"It looks like Pascal VOC's layout (an .xml for each picture): {convert}.\n"
    if endings & {".tfrecord", ".record", ".parquet", ".arrow", ".csv"}:
        kind = sorted(endings & {".tfrecord", ".record", ".parquet", ".arrow", ".csv"})[0]
        return f"It holds {kind} files, not COCO's JSON: {convert}.\n"
    below = [path for path in folders if path.parent == root and os.path.isdir(path / "annotations")]
    if below:
        return f"Did you mean {abridged(below[0])}?\n"
    if ".zip" in endings:
        return "It holds a zip archive: unpack it.\n"
    if endings & {".jpg", ".jpeg", ".png"}:
        return "It holds pictures, and no annotation file.\n"
    return "" if files or folders else f"{abridged(root)} is empty.\n"


def _children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry, _ in zip(entries, range(MOST_ENTRIES)))
    except OSError:
        return []


def _walk(root: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files below `root`, the nearest first, as far as the limits go; links are not followed."""
    folders, files, level = [], [], [root]
    for _ in range(DEEPEST):
        below: list[Path] = []
        for path in (child for folder in level for child in _children(folder)):
            if len(folders) + len(files) >= MOST_ENTRIES:
                return folders, files
            if os.path.isdir(path):  # unlike Path's, it answers where it may not look
                folders.append(path)
                below += [] if os.path.islink(path) else [path]
            elif os.path.isfile(path):
                files.append(path)
        level = below
    return folders, files


def _pairs(folders: list[Path], files: list[Path]) -> dict[str, tuple[Path, Path]]:
    """Split ("train", "val", "test", or "all" for a file that names none) → (folder of its pictures, file)."""
    found: dict[str, tuple[Path, Path]] = {}
    for file in [path for path in files if path.suffix.lower() == ".json"][:MOST_FILES]:
        name = _first_picture(file)
        images = name and next((folder for folder in _likely(file, folders) if os.path.isfile(folder / name)), None)
        if not images:
            continue
        split = _split_of(file.stem) or _split_of(file.parent.name) or _split_of(images.name) or "all"
        found.setdefault(split, (images, file))
    return found


def _likely(file: Path, folders: list[Path]) -> Iterator[Path]:
    """First the folders of the same split as the file, and the file's own."""
    split = _split_of(file.stem) or _split_of(file.parent.name)
    around = [file.parent, *folders, file.parent.parent]
    return iter(sorted(around, key=lambda folder: _split_of(folder.name) != split))


def _split_of(name: str) -> Optional[str]:
    return next((split for split in _SPLITS if split in name.lower()), None)


def _first_picture(file: Path) -> Optional[str]:
    """The first file_name in the beginning of a JSON file that is an object (predict writes lists of file names)."""
    try:
        with open(file, "rb") as stream:
            text = stream.read(BEGINNING).decode("utf-8", errors="replace")
        first = _FIRST_NAME.search(text) if text.lstrip("\ufeff \t\r\n").startswith("{") else None
        name = json.loads(first[1]) if first else None
    except (OSError, ValueError):
        return None
    if not isinstance(name, str) or "\0" in name or os.path.isabs(name) or ".." in Path(name).parts:
        return None  # what lies outside a folder is not even looked for
    return name
