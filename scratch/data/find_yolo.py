"""find_yolo: which pictures of a folder in YOLO's layout are of which split, and what are its classes called?

    data.yaml                    path: /home/ann/set    train: images/train    val: [images/val]    names: {0: cat}
    lists                        train: train.txt, or train.txt and obj.names beside obj_train_data/ (Darknet, CVAT)
    the folders' names           images/train/ + labels/train/,  train/images/ + train/labels/,  valid/…
    none of them                 images/ + labels/: a set without a split

Paths in data.yaml are often those of the machine where it was written, or begin with ../, as Roboflow's do. So the
longest end of each is taken that is there, and none leads out of the folder. Names come from the YAML file, or from
classes.txt or obj.names; without any, classes are called by their numbers. YAML is read by PyYAML's safe loader, which
builds no objects. Proven in tests/data/test_layout_yolo.py. Read after layout_yolo.py: find_yolo
"""

from __future__ import annotations

import os
from typing import Any, Iterator, Optional, Sequence

import yaml

from scratch.data.layout_yolo import NAMES, Yolo, is_names, labels_of, lines_of
from scratch.data.listing import PICTURES, Listing, split_of, split_of_path
from scratch.data.problems import brief
from scratch.data.values import whole

MOST_YAML = 2**22  # bytes
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def find_yolo(listing: Listing) -> Optional[tuple[dict[str, Yolo], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no YOLO layout.

    Raises ValueError for a data.yaml that cannot be read, beside label files.
    """
    text_files = [path for path in listing.files(".txt") if not is_names(path)]
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
    told = told or _by_lists(listing)
    by_folder: dict[str, list[str]] = {}
    for picture in every:
        by_folder.setdefault(split_of_path(picture) or "all", []).append(picture)
    told = (by_folder if not told else by_folder | told if "all" not in told else told)
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
    for path in (path for ending in NAMES for path in listing.files(".txt", ".names", ".labels")
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
        for _, words in lines_of(listing.root / path, path, lambda *_, **__: None):
            if len(words) >= 5 and (k := whole(words[0])) is not None and 0 <= k < 10_000:
                yield k
