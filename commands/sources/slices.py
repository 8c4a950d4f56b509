"""slices: how are small objects found in a large picture?

    a picture 1152×1152, --slices 640: four windows of 640×640 that overlap by a fifth, and the picture as a whole

    ┌────────┬─┬──────┐      each window is shown to the network as large as a whole picture is,
    │   1    │ │  2   │      so an object in it has more pixels
    ├────────┼─┼──────┤
    ├────────┼─┼──────┤      what is found in the overlap is found twice: non-maximum suppression
    │   3    │ │  4   │      (ops/beyond/nms) keeps the better one
    └────────┴─┴──────┘

A box that touches an edge of its window inside the picture is a part of an object: it is left out,
for a neighbour, or the whole picture, shows all of it. Slicing: Akyon et al. 2022 (arXiv 2202.06934).
Proven in tests/sources/test_slices.py. Read: windows → joined → found_in_slices
"""

from __future__ import annotations

from typing import Sequence

import torch
from PIL import Image

from scratch.detector import Detections, Detector
from scratch.ops.beyond.nms import batched_nms

OVERLAP = 0.2  # of a window's side
SAME = 0.5  # IoU from which on two boxes of a class are one object
EDGE = 2.0  # pixels: a box this near to an inner edge is cut there

Window = tuple[int, int, int, int]


def windows(width: int, height: int, side: int) -> list[Window]:
    """Windows (x₀, y₀, x₁, y₁) of at most side × side pixels that cover the picture; the last ones end at its edges."""
    return [(x, y, min(x + side, width), min(y + side, height))
            for y in starts(height, side) for x in starts(width, side)]


def starts(length: int, side: int) -> list[int]:
    """Where windows of `side` begin along an axis of `length`: evenly, each overlapping the next by OVERLAP or more."""
    if length <= side:
        return [0]
    count = -(-(length - side) // max(1, int(side * (1 - OVERLAP)))) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def joined(parts: Sequence[tuple[Window, Detections]], width: int, height: int) -> Detections:
    """What was found in the windows of one picture, each in its own pixels, as detections of the picture."""
    boxes, scores, labels, names = [], [], [], []
    for (x0, y0, x1, y1), found in parts:
        low = torch.tensor([EDGE if x0 > 0 else -torch.inf, EDGE if y0 > 0 else -torch.inf])
        high = torch.tensor([x1 - x0 - EDGE if x1 < width else torch.inf, y1 - y0 - EDGE if y1 < height else torch.inf])
        whole = ((found.boxes_xyxy[:, :2] > low) & (found.boxes_xyxy[:, 2:] < high)).all(-1)   # (M,)
        boxes.append(found.boxes_xyxy[whole] + torch.tensor([x0, y0, x0, y0]))
        scores.append(found.scores[whole])
        labels.append(found.labels[whole])
        names += [name for name, kept in zip(found.names, whole.tolist()) if kept]
    all_boxes, all_scores, all_labels = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    kept = batched_nms(all_boxes, all_scores, all_labels, SAME)
    kept = kept[all_scores[kept].argsort(descending=True, stable=True)]
    return Detections(all_boxes[kept], all_scores[kept], all_labels[kept], tuple(names[i] for i in kept.tolist()))


def found_in_slices(detector: Detector, image: Image.Image, side: int, threshold: float, batch_size: int) -> Detections:
    """What scores at least `threshold` in a picture; one that is no larger than a window is shown as a whole."""
    places = windows(image.width, image.height, side)
    if len(places) > 1:
        places.append((0, 0, image.width, image.height))
    parts: list[tuple[Window, Detections]] = []
    for i in range(0, len(places), batch_size):
        some = places[i:i + batch_size]
        found = detector.predict([image.crop(place) for place in some], threshold, batch_size)
        parts += zip(some, found)
    return parts[0][1] if len(parts) == 1 else joined(parts, image.width, image.height)
