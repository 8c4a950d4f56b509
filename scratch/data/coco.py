"""coco: which images are there, and what is on each of them?

    ROOT/ train2017/ val2017/          or  ROOT/ train/ val/ [test/]              images
          annotations/instances_train2017.json …       instances_train.json …    "images" "annotations" "categories"

`find_splits` finds them, or the same in another layout (layouts.py); annotations.py reads what the file says,
classes.py what its categories are called. Proven in tests/data/test_coco.py, test_augmentation.py.
Read: find_splits → CocoDetection
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Collection, Iterable, Optional

import numpy as np
import torch
from torch import Tensor

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.classes import Classes
from scratch.data.file_names import find_files
from scratch.data.images import Broken, Reduced, read_reduced
from scratch.data.layout_coco import classic
from scratch.data.layout_hint import layout_hint
from scratch.data.layouts import Layout, not_recognised, recognise
from scratch.data.mosaic import Picture, compose
from scratch.data.problems import count, refuse
from scratch.data.shapes import shapes_dataset
from scratch.data.sources import Annotated
from scratch.data.split import SPLITS
from scratch.data.transforms import Augmentation
from scratch.ops.boxes import box_xywh_to_xyxy
from scratch.printable import printable

# Decoding is the most expensive part of a sample. A worker keeps the pictures of a split if their pixels need no more
# than this; where there are fewer than four, they share what four would have.
KEPT_BYTES = 256 * 2**20


# -- where the files are -------------------------------------------------------------------------------------------


def find_splits(config: DataConfig, need: Iterable[str] = ()) -> dict[str, tuple[Path, Annotated]]:
    """Split name ("train", "val", "test") → (folder of images, annotation file or source), for every split there is.

    `data = "shapes"` is generated first if need be. Explicit paths come in pairs; a pair replaces that split, and
    beside explicit paths "shapes" is not added. Raises ValueError for half a pair and FileNotFoundError, with all that
    was looked for, when there is no split at all or when an explicit one or one of `need` is missing.
    """
    return find_layout(config, need).splits


def find_layout(config: DataConfig, need: Iterable[str] = ()) -> Layout:
    """As `find_splits`, with the layout that was recognised; its name is "" for explicit paths and for shapes."""
    explicit: dict[str, tuple[Path, Path]] = {}
    for split, images, file in (("train", config.train_images, config.train_annotations),
                                ("val", config.val_images, config.val_annotations)):
        if (images is None) != (file is None):
            raise ValueError(f"got {split}_images = {images} and {split}_annotations = {file}, wanted both or "
                             "neither")
        if images is not None and file is not None:
            explicit[split] = (Path(images), Path(file))

    shapes = config.data == "shapes"
    layout: Optional[Layout] = None
    root = Path(config.data)
    if not shapes and not explicit and not root.is_dir():
        raise FileNotFoundError(
            layout_hint(root) + "Name the folder of a data set (--data DIR), or give the four explicit paths "
            "(--train-images, --train-annotations, --val-images, --val-annotations).")
    if not shapes or not explicit:
        root = shapes_dataset(Path("data"), config.shapes_train, config.shapes_val) if shapes else root
        layout = recognise(root)
    in_folder = layout.splits if layout else {}
    found = {split: pair for split, pair in explicit.items() if pair[0].is_dir() and pair[1].is_file()}
    found |= {split: pair for split, pair in in_folder.items() if split not in explicit}
    missing = [split for split in {**explicit, **dict.fromkeys(need)} if split not in found]
    if missing or not found:
        wanted = " and ".join(f"the split {split!r}" for split in missing) or "any split"
        raise FileNotFoundError(
            f"data = {config.data!r} does not hold {wanted}. " + _looked_for(explicit, root, layout, shapes)
            + "Name a folder of one of these layouts (--data DIR), or give the four explicit paths.")
    found = {split: found[split] for split in SPLITS if split in found}
    if layout is None or explicit or shapes:
        return Layout("", root, found)
    return replace(layout, splits=found)


def _looked_for(explicit: dict[str, tuple[Path, Path]], root: Path, layout: Optional[Layout], shapes: bool) -> str:
    if not explicit and (layout is None or layout.name != "COCO"):
        if layout is not None:
            return f"It was recognised as {layout.line()}.\n"
        return not_recognised(root)
    pairs = list(explicit.values())
    if not shapes:
        pairs += [pair for split, pairs in classic(root).items() if split not in explicit for pair in reversed(pairs)]
    return ("A split is a folder of images and an annotation file; looked for\n" + "".join(
        f"  {path}  ({_there(path, kind)})\n" for pair in pairs for path, kind in zip(pair, _PAIR)))


def missing_split(config: DataConfig, layout: Layout, split: str) -> str:
    """Where a split was looked for, beside others that were found."""
    flags = f", or --{split}-images and --{split}-annotations" if split in ("train", "val") else ""
    if layout.name not in ("", "COCO"):
        return (f"{config.data!r} was recognised as {layout.name}, with {' and '.join(layout.splits)} alone; wanted a "
                f"folder, or a list, that is called {split}{flags}")
    other = [f"; {printable(path)} is there, but it is {kind}" for pair in classic(Path(config.data))[split]
             for path, wanted in zip(pair, _PAIR) if (kind := _kind(path)) not in ("", wanted)]
    return (f"{config.data!r} has no {split}2017 or {split} with annotations/instances_{split}2017.json or "
            f"instances_{split}.json{''.join(other)}{flags}")


_PAIR = ("a folder", "a file")  # of images, of annotations


def _kind(path: Path) -> str:
    """What has this name; "" for nothing."""
    return "a folder" if path.is_dir() else "a file" if path.is_file() else "a device or a pipe" if path.exists() else ""


def _there(path: Path, wanted: str) -> str:
    kind = _kind(path)
    return "not there" if not kind else "found" if kind == wanted else f"found, but it is {kind}"


def _paths_of(folder: Path, names: np.ndarray) -> np.ndarray:
    """The files of `folder` that the names mean, "" for none."""
    paths = find_files(folder, names.tolist()).paths
    return names if paths == names.tolist() else np.array(paths, dtype=str)  # mostly no second copy in memory


# -- what a batch is made from -------------------------------------------------------------------------------------


def most_kept(workers: int) -> int:
    """The bytes of pictures that each of so many workers keeps; 0: the one process that loads without any."""
    return max(KEPT_BYTES, 4 * KEPT_BYTES // max(1, workers))


class CocoDetection:
    """The images of one split with their boxes, transformed: dataset[(epoch, index)] → (image, target).

    images        the folder that the file names start from
    annotations   the annotation file, or what stands for it in another layout (sources.py)
    transform     draws how an image is shown, and with how many others
    classes       as for `read_annotations`: pass the training split's (`.classes`) to every other split
    limit         only the first N images, in the order of their ids
    only, as_is   as for `read_annotations`: some of the classes; boxes that look like another form
    left_out      ids of images to do without (check_dataset tells them)
    reading       its `sixteen_bit` and `max_megapixels` say how pictures are read, `remember` how annotations are
    seed          with epoch and index, all that the transform's randomness depends on: a sample is the same in
                  whichever worker it is made, and after a resume

    `cleaning` counts, by kind, what the annotations made it cope with. Raises ValueError that lists what is refused.
    """

    def __init__(self, images: Path, annotations: Annotated, transform: Augmentation, classes: Optional[Classes] = None,
                 limit: Optional[int] = None, seed: int = 0, only: Optional[str] = None, as_is: bool = False,
                 left_out: Collection[int] = (), reading: DataConfig = DataConfig()) -> None:
        self.images, self.transform, self.seed, self.reading = Path(images), transform, seed, reading
        self.annotations = read_annotations(annotations, classes, limit, only, self.images, as_is,
                                            remember=reading.remember)
        refuse(self.annotations.problems)
        self.cleaning = count(self.annotations.problems)
        self.annotations.problems.clear()  # a worker has no use for them
        self.annotations.written = (np.empty((0, 4)), np.empty(0, dtype=np.int64))
        self.annotations = self.annotations.without(left_out)
        self._files = _paths_of(self.images, self.annotations.file_names)
        self.classes = self.annotations.classes
        self._keeps = self._fits(most_kept(reading.workers))
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
                raise Broken(f"{error}; repair it, or do without such pictures: --leave-out-broken") from error
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

    def _fits(self, most: int) -> bool:
        """Do all pictures of the split, once they are decoded, reduced if they are JPEGs, need no more bytes?"""
        total = 0
        for name, (width, height) in zip(self._files.tolist(), self.annotations.sizes.tolist()):
            by = self.transform.reduction(height, width) if name.lower().endswith((".jpg", ".jpeg")) else 1
            total += 4 * -(-width // by) * -(-height // by)  # 4: Pillow adds an unused byte to each pixel's three
            if total > most:
                return False
        return True

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
