"""summary: what does a data set look like, in a few numbers?

    Annotations ─▶ summarise ─▶ DataSummary ─▶ scratch/recipe: how to train on it

    size of an object = √(w·h / (W·H))               w h: its box, W H: its picture, in pixels
    small_object      = min over classes of the size that a quarter of the class's objects stay below

The class of the smallest objects counts, because an average over all objects hides it: of BCCD's
blood cells, few are platelets, which are much smaller than the others, and AP is the mean over classes.

    looks_the_same_turned    Do the boxes look alike from all four sides? Then so do the pictures, as far as
                             boxes can tell (cells, satellites), and a quarter turn makes a picture that could be.

        (1)  |mean of ln(w/h)| ≤ 0.1         as wide as tall
        (2)  |ln(σ_x / σ_y)|   ≤ 0.1         spread over the width as over the height
        (3)  |mean of y − ½|   ≤ 0.05        as often above the middle as below
        (4)  4 objects a picture or more, 200 in all: with fewer, these means are chance

Proven in tests/data/test_summary.py. Read: DataSummary → summarise → looks_the_same_turned
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scratch.data.annotations import Annotations

FEWEST_FOR_A_CLASS = 20  # objects; a quarter of fewer is chance
FEWEST_TO_TURN = 200  # objects, and
OBJECTS_TO_TURN = 4.0  # of them in a picture
ALIKE = 0.1  # of a logarithm: within 10 %
CENTRED = 0.05  # of the picture's height


@dataclass(frozen=True)
class DataSummary:
    """What a recipe needs to know of a training split; crowds do not count."""

    pictures: int
    classes: int
    boxes: int
    most_objects: int
    """boxes in the picture that has the most"""
    small_object: float
    """the size of a small object of the class of the smallest objects: its share of the side of a picture that is shown
    as a square"""
    turnable: bool
    """a quarter turn of a picture makes one that could be in the set"""


def summarise(annotations: Annotations) -> DataSummary:
    """The training split in numbers. Without a box, a small object has the size 0."""
    a = annotations
    picture_of = np.repeat(np.arange(len(a)), np.diff(a.offsets))[~a.crowd]         # (M,)
    boxes, labels = a.boxes_xywh[~a.crowd], a.labels[~a.crowd]                      # (M,4), (M,)
    sides = a.sizes.astype(np.float64)                                              # (n,2): width, height
    objects = np.bincount(picture_of, minlength=len(a))                             # (n,)
    per_class = np.bincount(labels, minlength=len(a.classes.ids))                   # (K,)
    sizes = np.sqrt((boxes[:, 2:] / sides[picture_of]).prod(axis=1))                # (M,)
    enough = np.flatnonzero(per_class >= FEWEST_FOR_A_CLASS)
    groups = [sizes[labels == label] for label in enough] or [sizes]
    return DataSummary(
        pictures=len(a), classes=len(a.classes.ids), boxes=len(boxes),
        most_objects=int(objects.max(initial=0)),
        small_object=min(float(np.quantile(group, 0.25)) for group in groups) if len(boxes) else 0.0,
        turnable=looks_the_same_turned(boxes, sides[picture_of], len(a)))


def looks_the_same_turned(boxes_xywh: np.ndarray, sides: np.ndarray, pictures: int) -> bool:
    """Boxes (M,4) in pixels, the width and height (M,2) of the picture of each, the number of pictures: (1) to (4)."""
    if len(boxes_xywh) < max(FEWEST_TO_TURN, OBJECTS_TO_TURN * pictures):
        return False
    centres = (boxes_xywh[:, :2] + boxes_xywh[:, 2:] / 2) / sides                   # (M,2), in [0,1]
    spread_x, spread_y = centres.std(axis=0)
    if min(spread_x, spread_y) == 0:
        return False
    shape = np.log(boxes_xywh[:, 2] / boxes_xywh[:, 3]).mean()
    return bool(abs(shape) <= ALIKE and abs(np.log(spread_x / spread_y)) <= ALIKE
                and abs(centres[:, 1].mean() - 0.5) <= CENTRED)
