"""find_yolo: which pictures of a folder in YOLO's layout are of which split, and what are its classes called?

    data.yaml                    path: /home/ann/set    train: images/train    val: [images/val]    names: {0: cat}
    lists                        train: train.txt, or train.txt and obj.names beside obj_train_data/ (Darknet, CVAT)
    the folders' names           images/train/ + labels/train/,  train/images/ + train/labels/,  valid/…
    none of them                 images/ + labels/: a set without a split

Paths in data.yaml are often those of the machine where it was written, or begin with ../, as Roboflow's do. So the
longest end of each is taken that is there, and none leads out of the folder; what a list names is found by its name,
too (file_names.py). Names come from the YAML file, or from classes.txt or obj.names; without any, classes are called by
their numbers. YAML is read by PyYAML's safe loader, which builds no objects; here each value stays the text that it is
(a class "no" is not False), and a part that is written once and repeated by its name is refused, since a few lines can
so mean more than any memory holds.
Proven in tests/data/test_layout_yolo.py. Read after layout_yolo.py: find_yolo
"""

from __future__ import annotations

import os
import re
from itertools import chain, islice
from pathlib import Path
from typing import Any, Collection, Iterator, Optional, Sequence

import yaml

from scratch.data.find_voc import is_annotation
from scratch.data.label_files import NAMES, folders_called_otherwise, is_names, labels_of, lines_of, names_in
from scratch.data.layout_yolo import Yolo
from scratch.data.listing import PICTURES, Listing, by_folder, split_of, split_of_path, text_lines
from scratch.data.problems import brief
from scratch.data.values import is_oriented, whole
from scratch.printable import abridged, counted

MOST_YAML = 2**22      # bytes
MOST_FILES = 20        # YAML files that are looked at
MOST_CLASSES = 10_000  # without names
_LIST = re.compile(r"train(ing)?|val(id(ate|ation)?)?|test(ing)?|dev")  # without its ending
_NOTHING = ("", "~", "null", "Null", "NULL")  # in YAML
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def find_yolo(listing: Listing) -> Optional[tuple[dict[str, Yolo], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no YOLO layout.

    Raises ValueError for a data.yaml that cannot be read, beside label files.
    """
    text_files = [path for path in listing.files(".txt") if not is_names(path)]
    if not text_files or not listing.pictures:
        return None
    labels, elsewhere = labels_of(listing, listing.pictures, {}), {}
    if not any(labels.values()) and not any(is_annotation(listing.root / file)
                                            for file in islice(listing.files(".xml"), 5)):  # else these are Pascal VOC's
        elsewhere = folders_called_otherwise(listing)
        labels = labels_of(listing, listing.pictures, elsewhere)
    labelled = {picture for picture, label in labels.items() if label}
    # A picture without a text file counts where others of its folder have one.
    folders = {os.path.dirname(picture) for picture in labelled}
    every = [picture for picture in listing.pictures if os.path.dirname(picture) in folders]
    file, settings = _settings(listing, bool(labelled))
    own = os.path.dirname(file)
    if own and any(picture.startswith(f"{own}/") for picture in listing.pictures):
        if any(text.startswith(f"{own}/") for text in text_files):
            return None  # the set, or one of several, is in a folder below
        if not any(picture.startswith(f"{own}/") for picture in labelled):
            file, settings = "", {}  # it tells of other pictures: a clone of a detector's code, say
    base = settings.get("path") if isinstance(settings.get("path"), str) else ""
    told = {split: found for split, keys in _KEYS.items()
            if (found := _pictures_at(settings, keys, base, listing, labelled)) is not None}
    if _is_one(told, settings):
        test = {"test": told["test"]} if set(told.get("test", told["train"])) != set(told["train"]) else {}
        told = {"all": told["train"], **test}
    told = told or _by_lists(listing)
    of_folder, left_out = by_folder(every)
    left_out = [] if told else left_out
    placed = {picture for pictures in told.values() for picture in pictures}
    if "all" not in told:  # a folder may hold a split that data.yaml does not name
        told = {split: left for split, its in of_folder.items() if split not in told
                if (left := [picture for picture in its if picture not in placed])} | told
    if "train" in told:
        told.pop("all", None)
    if not told or not (labelled or file):
        return None
    classes = _classes(settings, file, listing, text_files, {os.path.dirname(label) for label in labels.values()})
    sources = {split: Yolo(listing, split, tuple(dict.fromkeys(pictures)), classes, "kpt_shape" in settings,
                           frozenset(labels.values()), elsewhere)
               for split, pictures in told.items() if pictures}
    where = file or _where(labels, sources)
    where += "".join(f"; its {split}, {abridged(str(_value(settings, _KEYS[split])))}, is not there"
                     for split in ("train", "val") if split not in sources and _value(settings, _KEYS[split])
                     and _pictures_at(settings, _KEYS[split], base, listing, labelled) is None)
    if not left_out:
        used = {picture for source in sources.values() for picture in source.pictures}
        if not used <= labels.keys():  # under other paths, in a list
            texts = {text for source in sources.values() for text in source.labels().values()}
            used = {picture for picture in labelled if labels[picture] in texts}
        left_out = list(labelled - used)
    if left_out:
        folders = sorted({f"{os.path.dirname(picture) or '.'}/" for picture in left_out})
        where += f"; not read: {counted(len(left_out), 'picture')} of {', '.join(folders[:2])}"
        where += " …" if folders[2:] else ""
    return (sources, where) if sources else None


def _is_one(told: dict[str, list[str]], settings: dict[str, Any]) -> bool:
    """Do train and val, which data.yaml has in two folders, lead to the same pictures? Then these were put together."""
    paths = [os.path.normpath(str(_value(settings, _KEYS[split]))) for split in ("train", "val")]
    return paths[0] != paths[1] and bool(told.get("train")) and set(told["train"]) == set(told.get("val", ()))


def _where(labels: dict[str, str], sources: dict[str, Yolo]) -> str:
    """In words, where pictures and text files are: "images/train/, labels/train/*.txt"."""
    pictures = sources.get("train", next(iter(sources.values()))).pictures
    picture = next((picture for picture in chain(pictures, labels) if labels.get(picture)), "")
    folder, of_label = (os.path.dirname(path) for path in (picture, labels.get(picture, "")))
    more = len({os.path.dirname(path) for path in pictures if labels.get(path)}) - 1
    also = f" and {more:,} more folder{'s' if more > 1 else ''}" if more > 0 else ""
    return f"{folder or '.'}/, {of_label or '.'}/*.txt{also}"


def _settings(listing: Listing, labelled: bool) -> tuple[str, dict[str, Any]]:
    """The YAML file that names splits or classes, and what it says; "" and nothing if there is none.

    Of several, the nearest to the top counts, and data.yaml before others.
    """
    files = list(listing.files(".yaml", ".yml"))
    files.sort(key=lambda path: (path.count("/"), not os.path.basename(path).lower().startswith("data"), path))
    at_top = sum("/" not in path for path in files)
    for path in files[:MOST_FILES]:
        try:
            file = listing.root / path
            if file.stat().st_size > MOST_YAML:
                continue
            content = yaml.load(file.read_bytes(), _Texts)
        except Exception as error:  # where a value does not fit the tag before it, PyYAML raises anything
            if labelled and at_top == 1 and "/" not in path:
                raise ValueError(f"{file} cannot be read as YAML: {' '.join(str(error).split())[:200]}; "
                                 "correct it, or remove it: then the folders' names tell the splits") from error
            continue
        if isinstance(content, dict) and content.keys() & {"names", "train"}:
            return path, content
    return "", {}


class _Texts(yaml.SafeLoader):
    """Every value as the text that stands there; no part of the file means another one."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a part by a name (*…), which is not read: write the part out")
        return super().compose_node(parent, index)


def _value(settings: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((settings[key] for key in keys if settings.get(key)), None)


def _pictures_at(settings: dict[str, Any], keys: Sequence[str], base: str, listing: Listing,
                 labelled: Collection[str]) -> Optional[list[str]]:
    """The pictures of the folders, or lists, that stand behind one of these keys; None if none of them is there."""
    value = _value(settings, keys)
    pictures, there = [], False
    for path in value if isinstance(value, list) else [value]:
        place = _place(listing, f"{base}/{path}", labelled) if isinstance(path, str) else None
        if place is None:
            continue
        if place in listing.names:
            found = [p for p in listing.pictures if not place or p.startswith(f"{place}/")]
        else:
            found = _listed(listing, place)
        pictures += found
        there = there or bool(found)
    return pictures if there else None


def _place(listing: Listing, path: str, labelled: Collection[str]) -> Optional[str]:
    """The end of a path that is there; for "train/images", of which there is "images", "train" if that has the labels."""
    path = path.replace("\\", "/").rstrip("/")
    place, around = listing.below(path), listing.below(os.path.dirname(path))
    if (place not in listing.names or not around or place.startswith(f"{around}/")
            or len({split_of_path(f"{its}/") for its in (path, around)}) > 1):
        return place
    there, others = (any(picture.startswith(f"{its}/") for picture in labelled) for its in (place, around))
    return around if others and not there else place


def _listed(listing: Listing, file: str) -> list[str]:
    """The pictures that a text file lists, one path a line; a path that is nowhere stays as it is written."""
    paths = [line.strip() for line in text_lines(listing.root / file) if line.strip()]
    return [listing.below(path) or path for path in paths if os.path.splitext(path)[1].lower() in PICTURES]


def _by_lists(listing: Listing) -> dict[str, list[str]]:
    """Darknet's train.txt, valid.txt …: lists of pictures beside the folder of pictures and text files."""
    found: dict[str, list[str]] = {}
    for path in listing.files(".txt"):
        stem = os.path.splitext(os.path.basename(path))[0].lower()
        if path.count("/") <= 1 and _LIST.fullmatch(stem) and (paths := _listed(listing, path)):
            found.setdefault(str(split_of(stem)), paths)
    return found


# -- classes -------------------------------------------------------------------------------------------------------


def _classes(settings: dict[str, Any], file: str, listing: Listing, text_files: Sequence[str],
             folders: Collection[str]) -> tuple[tuple[int, str], ...]:
    """(number, name) of each class. Raises ValueError for names that are none."""
    names = settings.get("names") if settings.get("names") not in _NOTHING else None
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    if isinstance(numbered, dict) and numbered and all(whole(key) is not None and isinstance(name, str)
                                                       for key, name in numbered.items()):
        return tuple(sorted((whole(key), name) for key, name in numbered.items()))
    if names:
        raise ValueError(f"{listing.root / file} has the names {brief(names)}, wanted a list of the classes' names, or "
                         "their numbers with their names")
    if lists := _lists_of_names(listing, folders):
        return tuple(enumerate(_of_one_order(lists, listing.root)))
    number_of = whole(settings.get("nc")) or 1 + max(_numbers_used(listing, text_files), default=0)
    return tuple((k, str(k)) for k in range(min(max(1, number_of), MOST_CLASSES)))


def _lists_of_names(listing: Listing, folders: Collection[str]) -> dict[str, list[str]]:
    """The first file of classes' names, and those called alike in the `folders` of label files; and their lines."""
    found: dict[str, list[str]] = {}
    for path in (path for ending in NAMES for path in listing.files(".txt", ".names", ".labels")
                 if path.lower().endswith(ending)):
        lines = names_in(listing.root / path)
        folder, base = os.path.split(path)
        if lines and (not found or base == os.path.basename(next(iter(found))) and folder in folders):
            found[path] = lines
    return found


def _of_one_order(lists: dict[str, list[str]], root: Path) -> list[str]:
    """The longest list, where the others are its beginning, as LabelImg writes one in each folder.

    Raises ValueError for lists of another order: a number would mean another class in each folder.
    """
    longest = max(lists, key=lambda path: len(lists[path]))
    for path, lines in lists.items():
        if lines != lists[longest][:len(lines)]:
            raise ValueError(f"{root / path} has the classes {brief(lines)}, and {longest} {brief(lists[longest])}: "
                             "wanted one order, since label files hold their numbers; bring the label files of one folder into "
                             "the other's order, or convert each folder by itself")
    return lists[longest]


def _numbers_used(listing: Listing, text_files: Sequence[str]) -> Iterator[int]:
    for path in text_files:
        for _, words in lines_of(listing.root / path, path, lambda *_, **__: None):
            if len(words) >= 5 and not is_oriented(words) and (k := whole(words[0])) is not None and 0 <= k < MOST_CLASSES:
                yield k
