"""nms: a detector predicts one object many times; which of the boxes stays?

    in order of falling score:  keep a box unless IoU(box, one that is kept) > t

    boxes (n,4) xyxy, scores (n,) → the indices of the boxes that are kept, best score first

    ┌───────┐ 0.9 kept               ┌─────┬─┬─────┐
    │┌──────┼┐ 0.8 IoU 0.7: gone     │ 0.9 │ │ 0.8 │   two cats side by side, IoU > t:
    └┼──────┘│                       │     │ │     │   0.8 was right, and is gone
     └───────┘                       └─────┴─┴─────┘

A dense detector classifies every place of the image, and all places near an object are trained to
predict it. So it predicts every object many times. Non-maximum suppression (NMS) removes these
duplicates. Its threshold t is set by hand: if it is low, neighbours are lost; if it is high,
duplicates stay. No gradient passes through it, so the network cannot learn from what it does.

DETR has no such step. One query predicts an object, the others learn to predict "no object"; in the
decoder's self-attention they see each other. After the first decoder layer, where duplicates are
still left, NMS improves AP; after the last it costs a little (Carion et al. 2020, section 4.2).
This project's detector never calls this file. It is here for comparison
(scratch/model/beyond/two_philosophies); `predict --slices` joins overlapping parts of one picture by it.

Same as torchvision.ops.nms and batched_nms; proven in tests/ops/beyond/test_nms.py.
Read: nms_definition (the rule above) → nms (all pairs at once) → batched_nms (class by class)
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.boxes import box_iou, paired_box_iou


def nms_definition(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> list[int]:
    """The rule, box by box: (n,4), (n,) → the indices of those that are kept. Of equal scores the first comes first.

    Up to n²/2 overlaps, one after the other.
    """
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -float(scores[i])):  # sorted is stable
        if all(paired_box_iou(boxes_xyxy[i], boxes_xyxy[j]) <= iou_threshold for j in kept):
            kept.append(i)
    return kept


def nms(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The same: (n,4), (n,) → (kept,) int64.

    What changed: all overlaps come from one broadcast, and all boxes are decided at once, in rounds, until a round
    changes nothing.

        round 0   a  b  c  d     all are kept
        round 1   a  –  –  –     a box is gone if a kept box of higher score covers it: a covers b, b c, and c d
        round 2   a  –  c  d     b is gone, so it no longer removes c
        round 3   a  –  c  –     c is back, and covers d
        round 4   a  –  c  –     as before: done

    Why it is equal: whether a box is kept depends on boxes of higher score alone. The best box is right from the start.
    Once the first m boxes are right, the next one is right after one more round, and they all stay so. So n rounds are
    enough, and as many as the longest such chain has boxes. n² overlaps take 4·n² bytes: 4 MB for 1000 boxes.
    """
    order = scores.argsort(descending=True, stable=True)                # (n,)
    iou, _ = box_iou(boxes_xyxy[order], boxes_xyxy[order])              # (n,n)
    covers = (iou > iou_threshold).triu(diagonal=1)                     # (n,n): row i, of higher score, covers column j
    kept = torch.ones_like(order, dtype=torch.bool)                     # (n,)
    while True:
        after = ~(covers & kept[:, None]).any(dim=0)                    # (n,)
        if torch.equal(after, kept):
            return order[kept]
        kept = after


def batched_nms(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """`nms` within each group (a class, a level of a pyramid): (n,4), (n,), (n,) int → (kept,) int64.

    A dog may stand in front of a bicycle, so boxes of two classes must not suppress each other. What changed: the boxes
    of each group are moved so far that no two groups overlap, and one call does all of them. Moving two boxes together
    does not change their IoU (except for rounding: the sums are made in float64; a Mac's GPU has float32 alone).
    """
    if not len(boxes_xyxy):
        return torch.zeros(0, dtype=torch.int64, device=boxes_xyxy.device)
    boxes = boxes_xyxy.to(torch.float32 if boxes_xyxy.device.type == "mps" else torch.float64)
    reach = boxes.max() - boxes.min() + 1                               # no two groups touch
    return nms(boxes + (groups.to(boxes.dtype) * reach)[:, None], scores, iou_threshold)
