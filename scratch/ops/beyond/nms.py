"""nms: many boxes claim one object; which of them stays?

    from the surest to the least sure:  keep a box unless IoU(box, one that is kept) > t

    boxes (N,4) xyxy, scores (N,) → the places of those that are kept, the surest first

    ┌───────┐ 0.9 kept               ┌─────┬─┬─────┐
    │┌──────┼┐ 0.8 IoU 0.7: gone     │ 0.9 │ │ 0.8 │   two cats side by side, IoU > t:
    └┼──────┘│                       │     │ │     │   0.8 was right, and is gone
     └───────┘                       └─────┴─┴─────┘

A detector that asks each place of the picture whether an object is there hears of every object many
times, and is taught to: all places near it are told to say yes. Non-maximum suppression takes the
repetitions away. Its t is made by hand: too low, and neighbours are lost; too high, and repetitions
stay. And no gradient goes through it: the network never learns what the rule does to its answers.

DETR has no such step. One query answers for an object, the others learn to say "nothing", and see
each other in the decoder's self-attention to agree on who. Run after the first decoder layer, where
they have not agreed yet, NMS still helps; after the last it costs a little AP (Carion et al. 2020,
section 4.2). The detector of this project never calls this file: it is here to be compared with
(scratch/model/beyond/two_philosophies).

Same as torchvision.ops.nms and batched_nms; proven in tests/ops/beyond/test_nms.py.
Read: nms_definition (the sentence above) → nms (all pairs at once) → batched_nms (class by class)
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.boxes import box_iou, paired_box_iou


def nms_definition(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> list[int]:
    """The sentence, box by box: (N,4), (N,) → the places of those that are kept. Of equal scores the first comes first.

    Up to N²/2 overlaps, one after the other.
    """
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -float(scores[i])):  # sorted is stable
        if all(paired_box_iou(boxes_xyxy[i], boxes_xyxy[j]) <= iou_threshold for j in kept):
            kept.append(i)
    return kept


def nms(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The same: (N,4), (N,) → (kept,) int64.

    What changed: all overlaps come from one broadcast, and instead of one box after the other all are decided at
    once, again and again, until nothing changes any more.

        round 0   a  b  c  d     all are kept
        round 1   a  –  –  –     whom a kept, surer box covers is gone: a covers b, b covers c, c covers d
        round 2   a  –  c  d     b is gone, and so does not count against c any longer
        round 3   a  –  c  –     c is back, and covers d
        round 4   a  –  c  –     as before: done

    Why it is equal: a box's fate depends on surer boxes alone. The surest is right from the start, and once the first
    n boxes are right, so is the next one in the round after, and all of them stay. So N rounds are enough, and
    as many as the longest such chain has boxes. N² overlaps take 4·N² bytes: 4 MB for 1000 boxes.
    """
    order = scores.argsort(descending=True, stable=True)                # (N,)
    iou, _ = box_iou(boxes_xyxy[order], boxes_xyxy[order])              # (N,N)
    covers = (iou > iou_threshold).triu(diagonal=1)                     # (N,N): row i, the surer one, covers column j
    kept = torch.ones_like(order, dtype=torch.bool)                     # (N,)
    while True:
        after = ~(covers & kept[:, None]).any(dim=0)                    # (N,)
        if torch.equal(after, kept):
            return order[kept]
        kept = after


def batched_nms(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """`nms` within each group (a class, a level of a pyramid): (N,4), (N,), (N,) int → (kept,) int64.

    A dog may stand in front of a bicycle, so boxes of two classes must not suppress each other. What changed: each
    group's boxes are moved to a place of their own, further away than any box reaches, and one call serves all. Moving
    two boxes together leaves their IoU as it is (but for rounding: the sums are made in float64).
    """
    if not len(boxes_xyxy):
        return torch.zeros(0, dtype=torch.int64, device=boxes_xyxy.device)
    boxes = boxes_xyxy.to(torch.float64)
    reach = boxes.max() - boxes.min() + 1                               # no two groups touch
    return nms(boxes + (groups.to(boxes.dtype) * reach)[:, None], scores, iou_threshold)
