"""layout_yolo: one text file for each picture, a line for each object.

    data.yaml           names: [cat, dog]   (or {0: cat, 1: dog})     train: images/train     val: images/val
    images/train/a.jpg  ─▶ labels/train/a.txt      or  train/images/a.jpg ─▶ train/labels/a.txt   or beside it
                                0 0.5 0.25 0.1 0.2          class, centre x y, width height: shares of the picture
                                1 0.1 0.1 0.3 0.1 0.2 0.4   class, corners of a polygon x y x y x y: the box around it

    box x, y, w, h in pixels of a W×H picture = (cx − w/2)·W, (cy − h/2)·H, w·W, h·H

A picture whose text file is missing or empty shows no object. Paths in data.yaml are often those of another machine, so
the longest end of each that is there is taken; without them, the folders' names say which split is which. Class k is
category k. Shares need the picture's size, which its header tells, upright: only of the pictures that are used.
The format: docs.ultralytics.com/datasets/detect. Proven in tests/data/test_layout_yolo.py.
Read: find_yolo → Yolo.read → _box
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import yaml

from scratch.data.file_names import find_files
from scratch.data.images import image_size
from scratch.data.listing import PICTURES, Listing, key, split_of, split_of_path
from scratch.data.problems import brief
from scratch.data.sources import Choose, Document, Report, Source
from scratch.data.values import number, whole

MOST_YAML = 2**22    # bytes
MOST_LABELS = 2**26  # bytes of a text file
FARTHEST = 2.0       # a share of the picture beyond this is no share: pixels, say
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_WANTED = ("a class, then x y width height or the corners of a polygon, x y x y x y …, all of them shares of the picture "
           "from 0 to 1")
_NAMES = (".names", "classes.txt", "_darknet.labels", "labels.txt")


@dataclass(frozen=True)
class Yolo(Source):
    """One split: its pictures, below the folder, with the text file of each ("" for none)."""

    listing: Listing
    split: str
    pictures: tuple[str, ...]
    classes: tuple[tuple[int, str], ...]
    keypoints: bool = False  # after its box, each line has an object's keypoints

    @property
    def name(self) -> str:
        return f"YOLO {self.split}" if self.split != "all" else "YOLO"

    def __str__(self) -> str:
        return f"{self.listing.root} ({self.name})"

    def read(self, report: Report, choose: Choose, limit: Optional[int]) -> Document:
        labels = labels_of(self.listing, self.pictures)
        chosen = set(choose(self.pictures))
        pictures = [picture for picture in self.pictures if picture in chosen][:limit]
        self._tell_of_lonely(labels, report, choose)
        root = self.listing.root
        files = find_files(root, pictures).paths

        def size_of(file: str) -> tuple[int, int]:
            try:
                return image_size(root / file)
            except Exception:  # told by the check of the pictures, which looks at every one
                return 0, 0
        with ThreadPoolExecutor(8) as pool:  # waiting for a disk frees the GIL
            sizes = list(pool.map(size_of, files))
        images, annotations = [], []
        for id, (picture, (width, height)) in enumerate(zip(pictures, sizes), start=1):
            # A picture that cannot be read has no size to tell; it is refused, or left out, whatever stands here.
            images.append({"id": id, "file_name": picture, "width": width or 1, "height": height or 1})
            if not width or not (label := labels[picture]):
                continue
            for line, words in _lines(root / label, label, report):
                box = _box(words, width, height, self.keypoints, f"{label}, line {line}", report)
                if box is not None:
                    annotations.append({"id": f"{label}, line {line}", "image_id": id, "category_id": words[0],
                                        "bbox": box})
        return {"images": images, "annotations": annotations,
                "categories": [{"id": id, "name": name} for id, name in self.classes]}

    def _tell_of_lonely(self, labels: dict[str, str], report: Report, choose: Choose) -> None:
        """Say which text files beside those of this split's pictures belong to no picture."""
        folders = {os.path.dirname(label) for label in labels.values() if label}
        used = set(labels.values())
        lonely = [path for path in self.listing.files(".txt")
                  if os.path.dirname(path) in folders and path not in used and not _is_names(path)]
        lonely = sorted(choose([path for path in lonely if _is_of(path, self.split)]))
        if lonely:
            report("label file without a picture", lonely[0], f"{len(lonely):,} text files have no picture of their "
                   "name", times=len(lonely))


def _is_of(path: str, split: str) -> bool:
    return split == "all" or split_of(os.path.dirname(path)) in (split, None)


def _lines(file: Path, label: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not blank, and its words."""
    try:
        if file.stat().st_size > MOST_LABELS:
            raise OSError(f"it has {file.stat().st_size:,} bytes")
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        report("malformed entry", label, "it cannot be read ({}), wanted a line for each object: " + _WANTED,
               str(error))
        return
    for line, words in enumerate(text.splitlines(), start=1):
        if words.strip():
            yield line, words.split()


def _box(words: Sequence[str], width: int, height: int, keypoints: bool, where: str, report: Report
         ) -> Optional[list[float]]:
    """The box of a line in pixels, x, y, width, height; None, and a report, for a line that is none."""
    shares = [number(word) for word in words[1:5 if keypoints else None]]
    polygon = len(shares) >= 6 and len(shares) % 2 == 0
    if whole(words[0]) is None or None in shares or not (len(shares) == 4 or polygon):
        report("malformed entry", where, "got {}, wanted " + _WANTED, " ".join(words))
        return None
    if max(map(abs, shares)) > FARTHEST:
        report("malformed entry", where, "got {}, wanted " + _WANTED + ": are these pixels?", " ".join(words))
        return None
    if polygon:
        xs, ys = shares[0::2], shares[1::2]
        x, y, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    else:
        cx, cy, w, h = shares
        x, y = cx - w / 2, cy - h / 2
    return [x * width, y * height, w * width, h * height]


# -- where things are ----------------------------------------------------------------------------------------------


def find_yolo(listing: Listing) -> Optional[tuple[dict[str, Yolo], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no YOLO layout.

    Raises ValueError for a data.yaml that cannot be read, beside label files.
    """
    text_files = [path for path in listing.files(".txt") if not _is_names(path)]
    if not text_files or not listing.pictures:
        return None
    labels = labels_of(listing, listing.pictures)
    labelled = {picture for picture, label in labels.items() if label}
    # A picture without a text file counts where others of its folder have one.
    folders = {os.path.dirname(picture) for picture in labelled}
    every = [picture for picture in listing.pictures if os.path.dirname(picture) in folders]
    file, settings = _settings(listing, bool(labelled))
    if not file and any(path.count("/") == 1 for path in listing.files(".yaml", ".yml")):
        return None  # a folder of sets: each has its own file
    base = settings.get("path") if isinstance(settings.get("path"), str) else ""
    told = {split: found for split, keys in _KEYS.items()
            if (found := _pictures_at(settings, keys, base, listing)) is not None}
    if not told:
        told = _by_lists(listing)
    if not told and labelled:
        for picture in every:
            told.setdefault(split_of_path(picture) or "all", []).append(picture)
    if "train" in told:
        told.pop("all", None)
    if not told or not (labelled or file):
        return None
    classes = _classes(settings, file, listing, text_files)
    sources = {split: Yolo(listing, split, tuple(dict.fromkeys(pictures)), classes, "kpt_shape" in settings)
               for split, pictures in told.items() if pictures}
    return (sources, file or _where(labels, sources)) if sources else None


def _where(labels: dict[str, str], sources: dict[str, Yolo]) -> str:
    """In words, where pictures and text files are: "images/train/, labels/train/*.txt"."""
    pictures = sources.get("train", next(iter(sources.values()))).pictures
    picture = next((picture for picture in pictures if labels.get(picture)), "")
    folder, of_label = (os.path.dirname(path) for path in (picture, labels.get(picture, "")))
    return f"{folder or '.'}/, {of_label or '.'}/*.txt"


def labels_of(listing: Listing, pictures: Sequence[str]) -> dict[str, str]:
    """The text file of each picture, below the folder; "" for none."""
    exact = {os.path.splitext(path)[0]: path for path in listing.files(".txt") if not _is_names(path)}
    alike = {key(path): path for path in exact.values()}
    found = {}
    for picture in pictures:
        stem = os.path.splitext(os.path.normpath(picture).replace("\\", "/"))[0]
        parts = stem.split("/")
        places = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
        swapped = ["/".join((*parts[:i], "labels", *parts[i + 1:])) for i in reversed(places)] + [stem]
        found[picture] = (next((exact[stem] for stem in swapped if stem in exact), "")
                          or next((alike[key(stem + ".txt")] for stem in swapped if key(stem + ".txt") in alike), ""))
    return found


def _is_names(path: str) -> bool:
    return os.path.basename(path).lower() in _NAMES


def _settings(listing: Listing, labelled: bool) -> tuple[str, dict[str, Any]]:
    """The YAML file at the top that names splits or classes, and what it says; "" and nothing if there is none."""
    files = [name for name in listing.names[""] if name.lower().endswith((".yaml", ".yml"))]
    files.sort(key=lambda name: (not name.lower().startswith(("data", "dataset")), name))
    for name in files:
        try:
            file = listing.root / name
            if file.stat().st_size > MOST_YAML:
                continue
            content = yaml.safe_load(file.read_bytes())
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            if labelled and len(files) == 1:
                raise ValueError(f"{listing.root / name} cannot be read as YAML: {' '.join(str(error).split())[:200]}; "
                                 "correct it, or remove it: then the folders' names tell the splits") from error
            continue
        if isinstance(content, dict) and content.keys() & {"names", *(key for keys in _KEYS.values() for key in keys)}:
            return name, content
    return "", {}


def _pictures_at(settings: dict[str, Any], keys: Sequence[str], base: str, listing: Listing) -> Optional[list[str]]:
    """The pictures of the folders, or lists, that stand behind one of these keys; None if none of them is there."""
    value = next((settings[key] for key in keys if settings.get(key)), None)
    pictures, there = [], False
    for path in value if isinstance(value, list) else [value]:
        place = listing.below(f"{base}/{path}") if isinstance(path, str) else None
        if place is None:
            continue
        if place in listing.names:
            found = [p for p in listing.pictures if not place or p.startswith(f"{place}/")]
            if not found and place.split("/")[-1].lower() == "labels":  # a slip that is met
                continue
        else:
            found = _listed(listing, place)
        pictures += found
        there = there or bool(found)
    return pictures if there else None


def _listed(listing: Listing, file: str) -> list[str]:
    """The pictures that a text file lists, one path a line; a path that is nowhere stays as it is written."""
    try:
        lines = (listing.root / file).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return []
    paths = [line.strip() for line in lines if line.strip()]
    return [listing.below(path) or path for path in paths if os.path.splitext(path)[1].lower() in PICTURES]


def _by_lists(listing: Listing) -> dict[str, list[str]]:
    """Darknet's train.txt, valid.txt …: lists of pictures beside the folder of pictures and text files."""
    found: dict[str, list[str]] = {}
    for path in listing.files(".txt"):
        stem = os.path.splitext(os.path.basename(path))[0].lower()
        if path.count("/") <= 1 and stem in ("train", "val", "valid", "test") and (paths := _listed(listing, path)):
            found.setdefault(split_of(stem) or "all", paths)
    return found


# -- classes -------------------------------------------------------------------------------------------------------


def _classes(settings: dict[str, Any], file: str, listing: Listing, text_files: Sequence[str]
             ) -> tuple[tuple[int, str], ...]:
    """(number, name) of each class. Raises ValueError for names that are none."""
    names = settings.get("names")
    if isinstance(names, dict) and names and all(whole(key) is not None for key in names):
        return tuple(sorted((whole(key), str(name)) for key, name in names.items()))
    if isinstance(names, list) and names:
        return tuple(enumerate(map(str, names)))
    if names:
        raise ValueError(f"{listing.root / file} has the names {brief(names)}, wanted a list of the classes' names, or "
                         "their numbers with their names")
    for path in (path for ending in _NAMES for path in listing.files(".txt", ".names", ".labels")
                 if path.lower().endswith(ending)):
        try:
            lines = (listing.root / path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        except OSError:
            continue
        while lines and not lines[-1].strip():
            lines.pop()
        if lines:
            return tuple(enumerate(line.strip() for line in lines))
    number_of = whole(settings.get("nc")) or 1 + max(_numbers_used(listing, text_files), default=0)
    return tuple((k, str(k)) for k in range(min(number_of, 10_000)))


def _numbers_used(listing: Listing, text_files: Sequence[str]) -> Iterator[int]:
    for path in text_files:
        for _, words in _lines(listing.root / path, path, lambda *_, **__: None):
            if len(words) >= 5 and (k := whole(words[0])) is not None and 0 <= k < 10_000:
                yield k
