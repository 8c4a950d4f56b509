"""coco: which images are there, and what is on each of them?

    ROOT/ train2017/ val2017/          or  ROOT/ train/ val/ [test/]              images
          annotations/instances_train2017.json …       instances_train.json …    "images" "annotations" "categories"

    category ids, with gaps   1  2 … 11  13 … 90
    labels, without           0  1 … 10  11 … 79        a label is a category's place in the order of the ids

One reader, `read_annotations`, serves training and check-data: it turns the JSON into arrays (860,000 boxes of COCO
would be gigabytes as dicts, once in every worker) and writes down every problem that it meets; `problems.KINDS` says
which are refused. What remains is clean: every box has an area and lies within its image to 0.01 pixels.

Format: Lin et al. 2014 (arXiv 1405.0312), cocodataset.org/#format-data; boxes are x, y, width, height in pixels.
Proven in tests/data/test_coco.py. Read: find_splits → Classes → read_annotations → CocoDetection
"""

from __future__ import annotations

import difflib
import json
import math
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Collection, Iterable, Optional

import numpy as np
import torch
from torch import Tensor

from scratch.config import DataConfig
from scratch.data.file_names import find_files
from scratch.data.images import Broken, Reduced, read_reduced
from scratch.data.mosaic import Picture, compose
from scratch.data.problems import Problem, count, refuse
from scratch.data.shapes import shapes_dataset
from scratch.data.transforms import Augmentation
from scratch.ops.boxes import box_xywh_to_xyxy
from scratch.printable import printable

# Annotators' tools round; a box that leaves its image by less than this many pixels has not left it.
TOLERANCE = 0.01
# Decoding is the dearest part of a sample. A process keeps the pictures of a split whose pixels need no more than this.
KEPT_BYTES = 256 * 2**20
SPLITS = ("train", "val", "test")


# -- where the files are -------------------------------------------------------------------------------------------


def find_splits(config: DataConfig, need: Iterable[str] = ()) -> dict[str, tuple[Path, Path]]:
    """Split name ("train", "val", "test") → (folder of images, annotation file), for every split that is there.

    `data = "shapes"` is generated first if need be. Explicit paths come in pairs; a pair replaces that split, and
    beside explicit paths "shapes" is not added. Raises ValueError for half a pair and FileNotFoundError, with all that
    was looked for, when there is no split at all or when an explicit one or one of `need` is missing.
    """
    explicit: dict[str, tuple[Path, Path]] = {}
    for split, images, file in (("train", config.train_images, config.train_annotations),
                                ("val", config.val_images, config.val_annotations)):
        if (images is None) != (file is None):
            raise ValueError(f"got {split}_images = {images} and {split}_annotations = {file}, wanted both or "
                             "neither")
        if images is not None and file is not None:
            explicit[split] = (Path(images), Path(file))

    looked_for = [path for pair in explicit.values() for path in pair]
    candidates = {split: [pair] for split, pair in explicit.items()}
    if config.data != "shapes" or not explicit:
        root = Path(config.data)
        if config.data == "shapes":
            root = shapes_dataset(Path("data"), config.shapes_train, config.shapes_val)
        for split in SPLITS:
            layouts = [(root / name, root / "annotations" / f"instances_{name}.json")
                       for name in (f"{split}2017", split)]
            candidates.setdefault(split, layouts)
            looked_for += [path for pair in layouts for path in pair if split not in explicit]

    found = {split: pair for split, pairs in candidates.items() for pair in reversed(pairs)
             if pair[0].is_dir() and pair[1].is_file()}
    missing = [split for split in {**explicit, **dict.fromkeys(need)} if split not in found]
    if missing or not found:
        wanted = " and ".join(f"the split {split!r}" for split in missing) or "any split"
        raise FileNotFoundError(
            f"data = {config.data!r} does not hold {wanted}. A split is a folder of images and an annotation file; "
            "looked for\n"
            + "\n".join(f"  {path}  ({'found' if path.exists() else 'not there'})" for path in looked_for)
            + "\nName a COCO-format folder with --data, or give the four explicit paths.")
    return found


# -- what the annotations say --------------------------------------------------------------------------------------


class UnknownClass(ValueError):
    """A person asked for a class that the data does not have, or for one twice; nothing is wrong with the data."""


@dataclass(frozen=True)
class Classes:
    """The classes behind the labels: label k is category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, names: str) -> "Classes":
        """Those named in "person,car", in that order. Raises UnknownClass for one that is unknown or named twice."""
        wanted = [name.strip() for name in names.split(",")]
        for name in wanted:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=3) or self.names[:20]
                raise UnknownClass(f"got {name!r} among the classes, which the data does not have; did you mean "
                                   f"{' or '.join(near)}? Wanted names out of its {len(self)}, with commas between "
                                   "them")
            if wanted.count(name) > 1:
                raise UnknownClass(f"got {name!r} among the classes {wanted.count(name)} times, wanted each name once")
        places = [self.names.index(name) for name in wanted]
        return Classes(tuple(self.ids[k] for k in places), tuple(wanted))

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain values, for a checkpoint."""
        return {"ids": list(self.ids), "names": list(self.names)}

    @staticmethod
    def from_dict(values: dict[str, list[Any]]) -> "Classes":
        return Classes(tuple(values["ids"]), tuple(values["names"]))


@dataclass
class Annotations:
    """An annotation file as arrays; images in the order of their ids, boxes in the order of their images.

    The boxes of image i are the rows `offsets[i]:offsets[i+1]`.
    """

    classes: Classes
    image_ids: np.ndarray   # (n,) int64
    file_names: np.ndarray  # (n,) str: one block of memory, which forked workers share without copying
    sizes: np.ndarray       # (n,2) int64: width, height
    offsets: np.ndarray     # (n+1,) int64
    boxes_xywh: np.ndarray  # (M,4) float64, pixels
    labels: np.ndarray      # (M,) int64
    areas: np.ndarray       # (M,) float64, pixels
    crowd: np.ndarray       # (M,) bool
    problems: list[Problem] = field(repr=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    def without(self, image_ids: Collection[int]) -> "Annotations":
        """All but these images and their boxes."""
        if not image_ids:
            return self
        keep = ~np.isin(self.image_ids, list(image_ids))                            # (n,)
        boxes = np.repeat(keep, np.diff(self.offsets))                              # (M,)
        offsets = np.concatenate(([0], np.cumsum(np.diff(self.offsets)[keep])))
        return replace(self, image_ids=self.image_ids[keep], file_names=self.file_names[keep], sizes=self.sizes[keep],
                       offsets=offsets, boxes_xywh=self.boxes_xywh[boxes], labels=self.labels[boxes],
                       areas=self.areas[boxes], crowd=self.crowd[boxes])


def read_annotations(path: Path, classes: Optional[Classes] = None, limit: Optional[int] = None,
                     only: Optional[str] = None) -> Annotations:
    """Read and clean a COCO annotation file, and write down every problem in it; refuses nothing by itself.

    classes   the classes that the labels count (of the training split, or of a checkpoint); None takes the file's own
    limit     only the first N images, in the order of their ids
    only      labels count these of the file's classes (as for `Classes.only`); boxes of its others are left out, and no
              problem. Beside `classes`, which were chosen before, it only says that others may be left out
    Raises FileNotFoundError, or ValueError for a file that is not the JSON of a COCO data set or lacks a class.
    """
    path = Path(path)
    document = _load_json(path)
    problems: list[Problem] = []

    def report(kind: str, what: str, detail: str) -> None:
        problems.append(Problem(kind, f"{path.name}, {what}", detail))

    own = _read_categories(document["categories"], report)
    for id, name in zip(own.ids, own.names):
        known = dict(zip(classes.ids, classes.names)).get(id, name) if classes else name
        if known != name:
            report("category renamed", f"category {id}",
                   f"{name!r} here, {known!r} in the classes that the labels count")
    classes = classes or (own.only(only) if only is not None else own)
    left_out = set(own.ids) - set(classes.ids) if only is not None else set()
    label_of = {id: label for label, id in enumerate(classes.ids)}

    images = _read_images(document["images"], report)
    row_of = {id: row for row, (id, *_) in enumerate(images)}
    used = images[:limit]

    rows: list[tuple[int, int, float, bool]] = []
    boxes: list[tuple[float, float, float, float]] = []
    seen_ids: set[int] = set()
    for place, entry in enumerate(document["annotations"]):
        if not isinstance(entry, dict):
            report("malformed entry", f"annotation number {place}", f"got {entry!r}, wanted an object")
            continue
        id = entry.get("id")
        what = f"annotation number {place}" if id is None else f"annotation {id}"
        if isinstance(id, int):
            if id in seen_ids:
                report("duplicate annotation id", what, f"again as number {place} of the file")
            seen_ids.add(id)
        row = row_of.get(_whole(entry.get("image_id")))
        category = _whole(entry.get("category_id"))
        label = label_of.get(category)
        if row is None:
            report("unknown image id", what, f"image_id {entry.get('image_id')!r} is no image of the file")
        elif row < len(used) and category not in left_out:
            what = f"{what} of {used[row][1]}"
            if label is None:
                report("unknown category id", what,
                       f"category_id {entry.get('category_id')!r} is none of the {len(classes)} classes")
                continue
            kind, detail, box = _judge_box(entry.get("bbox"), used[row][2], used[row][3])
            if kind:
                report(kind, what, detail)
            if box is None:
                continue
            crowd = bool(entry.get("iscrowd", 0))
            if crowd:
                report("crowd box", what, classes.names[label])
            area = _number(entry.get("area"))
            rows.append((row, label, area if area > 0 else box[2] * box[3], crowd))  # NaN > 0 is False
            boxes.append(box)

    table = np.array(rows, dtype=[("row", "i8"), ("label", "i8"), ("area", "f8"), ("crowd", "?")])
    order = np.argsort(table["row"], kind="stable")
    table = table[order]
    for row in np.flatnonzero(np.bincount(table["row"][~table["crowd"]], minlength=len(used)) == 0):
        report("image without boxes", used[row][1], f"image {used[row][0]}")
    if not used:
        report("no images", "images", f"{len(images)} usable images in the file, limit {limit}")
    return Annotations(
        classes=classes,
        image_ids=np.array([image[0] for image in used], dtype=np.int64),
        file_names=np.array([image[1] for image in used], dtype=str),
        sizes=np.array([image[2:] for image in used], dtype=np.int64).reshape(-1, 2),
        offsets=np.searchsorted(table["row"], np.arange(len(used) + 1)),
        boxes_xywh=np.array(boxes, dtype=np.float64).reshape(-1, 4)[order],
        labels=table["label"].copy(), areas=table["area"].copy(), crowd=table["crowd"].copy(),
        problems=problems)


def _load_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file {path}")
    try:
        document = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}; "
                         "was it cut short? Fetch or export it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: byte {error.start} cannot be decoded; wanted COCO's JSON") from error
    for name in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(name), list):
            raise ValueError(f"{path} is JSON, but has no list {name!r} at its top; wanted COCO's instances format")
    return document


def _read_categories(entries: list[Any], report: Any) -> Classes:
    names: dict[int, str] = {}
    for place, entry in enumerate(entries):
        id = _whole(entry.get("id")) if isinstance(entry, dict) else None
        if id is None or not isinstance(entry.get("name"), str):
            report("malformed entry", f"category number {place}", f"got {entry!r}, wanted an object with id and name")
        elif id in names:
            report("duplicate category id", f"category {id}", f"{names[id]!r} and {entry['name']!r}")
        else:
            names[id] = entry["name"]
    if not names:
        report("no categories", "categories", f"{len(entries)} entries in the file, none of them usable")
    ids = tuple(sorted(names))
    return Classes(ids, tuple(names[id] for id in ids))


def _read_images(entries: list[Any], report: Any) -> list[tuple[int, str, int, int]]:
    """(id, file name, width, height) in the order of the ids."""
    images: dict[int, tuple[int, str, int, int]] = {}
    for place, entry in enumerate(entries):
        values = entry if isinstance(entry, dict) else {}
        id, name, width, height = (_whole(values.get("id")), values.get("file_name"),
                                   _whole(values.get("width")), _whole(values.get("height")))
        if id is None or not isinstance(name, str) or not name or not width or not height or min(width, height) < 1:
            report("malformed entry", f"image number {place}",
                   f"got {entry!r}, wanted an object with a whole number as id, file_name, width and height in pixels")
        elif id in images:
            report("duplicate image id", f"image {id}", f"{images[id][1]} and {name}")
        else:
            images[id] = (id, name, width, height)
    return [images[id] for id in sorted(images)]


def _judge_box(bbox: Any, width: int, height: int) -> tuple[str, str, Optional[tuple[float, float, float, float]]]:
    """(problem or "", detail, the box that remains or None) of an xywh box in an image of this size."""
    if not isinstance(bbox, (list, tuple)) or len(bbox) != 4:
        return "malformed entry", f"bbox is {bbox!r}, wanted [x, y, width, height]", None
    x, y, w, h = map(_number, bbox)
    if not all(map(math.isfinite, (x, y, w, h))):
        return "NaN box", f"bbox is {bbox}", None
    if w <= 0 or h <= 0:
        return "zero-size box", f"bbox is {bbox}", None
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x0 >= x1 or y0 >= y1:
        return "box outside the image", f"bbox is {bbox}, the image {width}×{height}", None
    if max(x0 - x, y0 - y, x + w - x1, y + h - y1) > TOLERANCE:
        return "box out of range", f"bbox is {bbox}, the image {width}×{height}", (x0, y0, x1 - x0, y1 - y0)
    return "", "", (x, y, w, h)


def _whole(value: Any) -> Optional[int]:
    """The whole number that JSON wrote as 7 or 7.0; None for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63 and value == int(value):
        return int(value)  # anything larger, infinity and NaN too, fits no array of ids
    return None


def _number(value: Any) -> float:
    """A float; NaN for what is no number, or for a whole one beyond all floats."""
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def _paths_of(folder: Path, names: np.ndarray) -> np.ndarray:
    """The files of `folder` that the names mean, "" for none."""
    paths = find_files(folder, names.tolist()).paths
    return names if paths == names.tolist() else np.array(paths, dtype=str)  # mostly no second copy in memory


# -- what a batch is made from -------------------------------------------------------------------------------------


class CocoDetection:
    """The images of one split with their boxes, transformed: dataset[(epoch, index)] → (image, target).

    images        the folder that the file names start from
    annotations   the annotation file
    transform     draws how an image is shown, and with how many others
    classes       as for `read_annotations`: pass the training split's (`.classes`) to every other split
    limit         only the first N images, in the order of their ids
    only          as for `read_annotations`: some of the classes
    left_out      ids of images to do without (check_dataset tells them)
    reading       its `sixteen_bit` and `max_megapixels` say how pictures are read
    seed          with epoch and index, all that the transform's randomness depends on: a sample is the same in
                  whichever worker it is made, and after a resume

    `cleaning` counts, by kind, what the annotations made it cope with. Raises ValueError that lists what is refused.
    """

    def __init__(self, images: Path, annotations: Path, transform: Augmentation, classes: Optional[Classes] = None,
                 limit: Optional[int] = None, seed: int = 0, only: Optional[str] = None,
                 left_out: Collection[int] = (), reading: DataConfig = DataConfig()) -> None:
        self.images, self.transform, self.seed, self.reading = Path(images), transform, seed, reading
        self.annotations = read_annotations(annotations, classes, limit, only)
        refuse(self.annotations.problems)
        self.cleaning = count(self.annotations.problems)
        self.annotations.problems.clear()  # a worker has no use for them
        self.annotations = self.annotations.without(left_out)
        self._files = _paths_of(self.images, self.annotations.file_names)
        self.classes = self.annotations.classes
        self._keeps = self._all_bytes() <= KEPT_BYTES
        self._kept: dict[int, Reduced] = {}

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Any]]:
        """The image uint8 (3,h,w) and its target, as Batch describes it. Crowd boxes are left out.

        Where several pictures make one sample, `image_id` and `orig_size` are those of the one that was asked for.
        """
        epoch, index = key
        rng = random.Random(f"{self.seed} {epoch} {index}")
        first = self._read(index)
        pixels, boxes_cxcywh, labels = compose(
            self.transform, first, lambda: self._read(rng.randrange(len(self))), rng)   # (3,h,w), (M',4), (M',)
        return pixels, {"labels": labels, "boxes": boxes_cxcywh, "image_id": int(self.annotations.image_ids[index]),
                        "orig_size": (first[0].height, first[0].width), "size": tuple(pixels.shape[1:])}

    def _read(self, index: int) -> Picture:
        """The image, its boxes (M,4) xyxy in pixels and their labels (M,), as annotated."""
        a = self.annotations
        mine = np.arange(a.offsets[index], a.offsets[index + 1])
        mine = mine[~a.crowd[mine]]                                                 # (M,)
        image = self._kept.get(index)
        if image is None:
            width, height = a.sizes[index].tolist()
            try:
                image = read_reduced(self.file_of(index), (width, height), self.transform.reduction(height, width),
                                     self.reading)
            except Broken as error:
                raise Broken(f"{error}; mend it, or do without such pictures: --leave-out-broken") from error
            if self._keeps:
                self._kept[index] = image
        boxes_xyxy = box_xywh_to_xyxy(torch.from_numpy(a.boxes_xywh[mine]))         # (M,4)
        return image, boxes_xyxy, torch.from_numpy(a.labels[mine])

    def file_of(self, index: int) -> Path:
        """The file of an image. Raises FileNotFoundError where `images` holds none that its name can mean."""
        if name := str(self._files[index]):
            return self.images / name
        raise FileNotFoundError(f"there is no picture {printable(self.annotations.file_names[index])} in "
                                f"{printable(self.images)}")

    def _all_bytes(self) -> int:
        """What all pictures of the split need once they are decoded, reduced if they are JPEGs."""
        total = 0
        for name, (width, height) in zip(self._files.tolist(), self.annotations.sizes.tolist()):
            by = self.transform.reduction(height, width) if name.lower().endswith((".jpg", ".jpeg")) else 1
            total += 4 * -(-width // by) * -(-height // by)  # 4: Pillow adds an unused byte to each pixel's three
        return total

    def ground_truth(self) -> dict[str, Any]:
        """The COCO dict that evaluation compares with: these images, clean boxes, crowds too, the data's category ids.

        Annotations are numbered afresh from 1, which heals duplicate ids.
        """
        a = self.annotations
        image_of = np.repeat(a.image_ids, np.diff(a.offsets)).tolist()
        columns = (image_of, a.labels.tolist(), a.boxes_xywh.tolist(), a.areas.tolist(), a.crowd.tolist())
        return {
            "images": [{"id": id, "file_name": name, "width": width, "height": height} for id, name, (width, height)
                       in zip(a.image_ids.tolist(), a.file_names.tolist(), a.sizes.tolist())],
            "categories": [{"id": id, "name": name} for id, name in zip(self.classes.ids, self.classes.names)],
            "annotations": [{"id": id, "image_id": image, "category_id": self.classes.ids[label], "bbox": box,
                             "area": area, "iscrowd": int(crowd)}
                            for id, (image, label, box, area, crowd) in enumerate(zip(*columns), start=1)],
        }
