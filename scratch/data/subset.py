"""subset: which 2,000 images represent the 118,000 of COCO, the same ones on every machine?

    images with a box of the classes ─▶ in an order that only their ids decide ─▶ dealt in turn

    order, by SHA-256 of the id     person  car  dog  cat  …    turn 1: each class takes the first
        7  3  9  1  4  8  2  …         7     3    9    4        image that it is on and that is free
                                       2     8    …             turn 2: the next …

Many times more photographs show a person than an aeroplane: drawn evenly, they would teach little
about most classes, and measure them by a handful of boxes. Dealt in turn, each of K classes is on
at least count/K images, if so many show it; a class without images left is skipped.

No random generator is in it, whose numbers could change with a version, and no order of the file.
Boxes of other classes are left out, with their categories; ids are COCO's own.
Proven in tests/data/test_subset.py.
"""

from __future__ import annotations

import hashlib
from typing import Any, Iterator, Sequence

from scratch.data.classes import Classes

# The everyday classes of the comparison in docs/results.md; 2,000 of their images to learn from and 500 to judge by.
TEN_CLASSES = ("person", "car", "dog", "cat", "bicycle", "motorcycle", "airplane", "bus", "train", "truck")


def choose(document: dict[str, Any], names: Sequence[str], count: int) -> dict[str, Any]:
    """A COCO document of `count` images with these classes, or of all that there are if they are fewer.

    document   "images", "annotations", "categories" as in an instances file; not changed
    Raises ValueError for a name that is no category, or a count below 1.
    """
    if count < 1:
        raise ValueError(f"got {count} images to choose, wanted at least 1")
    every = Classes(tuple(c["id"] for c in document["categories"]), tuple(c["name"] for c in document["categories"]))
    wanted = every.named(names).ids
    shown: dict[int, set[int]] = {id: set() for id in wanted}  # class → the images that it is on
    for annotation in document["annotations"]:
        if annotation["category_id"] in shown and not annotation.get("iscrowd", 0):
            shown[annotation["category_id"]].add(annotation["image_id"])
    order = sorted((image["id"] for image in document["images"]), key=_place)
    hands = {id: iter([image for image in order if image in images]) for id, images in shown.items()}
    chosen: dict[int, None] = {}  # a set that keeps its order
    while hands and len(chosen) < count:
        for id in list(hands):
            free = _next_free(hands[id], chosen)
            if free is None:
                del hands[id]
            elif len(chosen) < count:
                chosen[free] = None
    return {
        **{name: document[name] for name in ("info", "licenses") if name in document},
        "images": [image for image in document["images"] if image["id"] in chosen],
        "annotations": [a for a in document["annotations"]
                        if a["image_id"] in chosen and a["category_id"] in shown],
        "categories": [c for c in document["categories"] if c["id"] in shown],
    }


def _place(image_id: int) -> bytes:
    """What images are sorted by: as good as random, and the same everywhere and at any time."""
    return hashlib.sha256(str(image_id).encode()).digest()


def _next_free(hand: Iterator[int], chosen: dict[int, None]) -> int | None:
    return next((image for image in hand if image not in chosen), None)
