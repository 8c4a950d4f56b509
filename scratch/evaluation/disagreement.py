"""disagreement: predictions fit no object: would they fit under other names, or with the boxes in another form?

    of each picture   its M objects, and its best 2·M detections, one of each box, classes ignored
    found             an object that one of them overlaps with an IoU of 0.5; the one with the highest score names it

    other names   most objects of each class are called by one other class, each class by another one
    other forms   the same count, with one side rewritten as a reader takes it where a file has

                    corners      x0 y0 x1 y1      for x y w h     ┌──┐          read as x y w h, a box is
                    centres      cx cy w h                        └──┘┄┄┄┄┐     larger, and cut at the
                    shares       x y w h in 0..1                     ┊    ┊     picture's border
                    rows first   y x h w                             └┄┄┄┄┘

                  the detections rewritten fit: the split that is judged is in that form
                  the objects rewritten fit: the detector has learnt from a split in that form

By chance more is found where boxes are large or lie alike, so a form must fit twice as well as the detections of the
next picture do. Data that is certainly in another form is refused before training (scratch/data/evidence); here the
detector is the witness of what neither split shows alone. Proven on spoilt splits in
tests/evaluation/test_disagreement.py. Read: Seen → objects_found → called → forms_that_fit
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
from pycocotools import mask

from scratch.evaluation.matching import Results, Truth

IOU = 0.5
MOST = 300     # pictures that are looked at: enough for a share, and a second of work
FITS = 0.4     # this share of the objects must be found in another form, and twice the share as it is, and by chance
EACH = 6       # a class is judged by this number of found objects or more
NAMED = 0.6    # this share of a class's found objects is called by one other class
OF_ALL = 0.7   # and such classes hold this share of all objects found

Rewrite = Callable[[np.ndarray, np.ndarray], np.ndarray]  # boxes (M,4) xywh, size (W,H) → boxes (M,4)


# -- the forms: how a reader takes a true box where a file has it so --------------------------------------------------


def as_it_is(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    return boxes


def corners(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    return _cut(np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1), size)


def centres(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    return _cut(np.concatenate((boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]), axis=1), size)


def shares(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    return boxes / np.tile(size, 2)


def rows_first(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    return _cut(boxes[:, [1, 0, 3, 2]], size)


def _cut(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The part of each box that lies in the picture, as a reader cuts it."""
    ends = np.minimum(boxes[:, :2] + boxes[:, 2:], size)
    return np.concatenate((boxes[:, :2], np.maximum(ends - boxes[:, :2], 0.0)), axis=1)


# Form → how it is read, and the IoU that counts: boxes that all reach the border overlap by half in any case.
FORMS: dict[str, tuple[Rewrite, float]] = {
    "corners": (corners, 0.75), "centres": (centres, IOU), "shares": (shares, IOU), "rows first": (rows_first, IOU)}


# -- what fits ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """One picture: its size (W,H), its objects' boxes (M,4) xywh and categories (M,), and those of its detections."""

    size: np.ndarray
    boxes: np.ndarray
    categories: np.ndarray
    detected: np.ndarray
    named: np.ndarray


def seen_in(truth: Truth, results: Results, most: int = MOST) -> list[Seen]:
    """The first `most` pictures with objects; crowds are none. Detections stand by falling score."""
    objects, detections = defaultdict(list), defaultdict(list)
    for annotation in truth["annotations"]:
        if not annotation.get("iscrowd"):
            objects[annotation["image_id"]].append(annotation)
    pictures = [image for image in truth["images"] if objects[image["id"]]][:most]
    ids = {image["id"] for image in pictures}
    for result in results:
        if result["image_id"] in ids:
            detections[result["image_id"]].append(result)
    seen = []
    for image in pictures:
        mine = objects[image["id"]]
        best: dict[tuple[float, ...], dict[str, Any]] = {}  # a query has a detection for each class, all of one box
        for result in sorted(detections[image["id"]], key=lambda result: -result["score"]):
            best.setdefault(tuple(result["bbox"]), result)
        kept = list(best.values())[:2 * len(mine)]
        seen.append(Seen(np.array([image["width"], image["height"]], dtype=np.float64), _boxes(mine), _classes(mine),
                         _boxes(kept), _classes(kept)))
    return seen


def objects_found(seen: list[Seen], learnt: Rewrite = as_it_is, judged: Rewrite = as_it_is, iou: float = IOU,
                  by_chance: bool = False) -> float:
    """The share of all objects that a detection overlaps, whatever its class; 0 without objects.

    learnt, judged   rewrite the objects' boxes, or the detections'
    by_chance        by the detections of the next picture
    """
    found = 0
    for i, picture in enumerate(seen):
        of = seen[(i + by_chance) % len(seen)]
        overlaps = _overlaps(learnt(picture.boxes, picture.size), judged(of.detected, picture.size))
        found += int((overlaps >= iou).any(1).sum())
    return found / max(1, sum(len(picture.boxes) for picture in seen))


def called(seen: list[Seen]) -> dict[int, Counter[int]]:
    """Category → by which categories its found objects are called, and how often."""
    names: dict[int, Counter[int]] = defaultdict(Counter)
    for picture in seen:
        fits = _overlaps(picture.boxes, picture.detected) >= IOU                                            # (M,n)
        for category, row in zip(picture.categories.tolist(), fits):
            if row.any():
                names[category][int(picture.named[row.argmax()])] += 1
    return dict(names)


def other_names(names: dict[int, Counter[int]]) -> dict[int, int]:
    """Category → the other one that its objects are called by, where nearly all are; {} where that is not so.

    Each must be called by another category: a detector that calls everything by one name has learnt no names yet.
    """
    total = sum(sum(of.values()) for of in names.values())
    wrong: dict[int, int] = {}
    for category, of in names.items():
        name, often = of.most_common(1)[0]
        found = sum(of.values())
        # By chance, n objects are called by one of K names n/K times, with a deviation of √(n/4) at most: more than
        # two deviations above that.
        beyond = often >= found / len(names) + found ** 0.5
        if name != category and found >= EACH and often >= NAMED * found and beyond:
            wrong[category] = name
    held = sum(sum(names[category].values()) for category in wrong)
    alone = len(set(wrong.values())) == len(wrong) >= 2
    return wrong if alone and held >= OF_ALL * total else {}


def forms_that_fit(seen: list[Seen]) -> Optional[tuple[str, str, float, float]]:
    """(form, "judged" or "learnt", share found so, share found as it is) of the form that fits best, if one does.

    "judged": the boxes of this split are in that form. "learnt": those that the detector learnt from are.
    """
    plain, fits = objects_found(seen), []
    for form, (rewrite, iou) in FORMS.items():
        for split in ("judged", "learnt"):
            share, chance = (objects_found(seen, iou=iou, by_chance=other, **{split: rewrite})
                             for other in (False, True))
            if share >= max(FITS, 2 * plain, 2 * chance):
                fits.append((form, split, share, plain))
    return max(fits, key=lambda fit: fit[2], default=None)


def _overlaps(boxes: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """IoU (M,n) of objects (M,4) and detections (n,4)."""
    if not len(detected):
        return np.zeros((len(boxes), 1))
    # pycocotools reads the numbers row by row, however they lie in the memory.
    return mask.iou(np.ascontiguousarray(detected), np.ascontiguousarray(boxes), [0] * len(boxes)).T


def _boxes(entries: list[dict[str, Any]]) -> np.ndarray:
    return np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)


def _classes(entries: list[dict[str, Any]]) -> np.ndarray:
    return np.array([entry["category_id"] for entry in entries], dtype=np.int64)
