"""two_philosophies: an image holds a set of objects; how do two-stage detectors find it, and DETR?

    800×1066, ResNet-50      Faster R-CNN with FPN              DETR
    1  features              (256,200,267) … (256,13,17)        (2048,25,34), encoded: (850,256)
    2  first guesses         213,663 fixed boxes (anchors)      100 learnt object queries
    3  for each guess        object? and 4 corrections          –
    4  region proposals      1000 a level, NMS 0.7 → 1000       –
    5  its features          RoIAlign → (1000,256,7,7)          each query reads all 850 cells …
    6  prediction            K+1 classes, 4·K corrections       … and says K+1 classes, 4 numbers
    7  remove duplicates     score > 0.05, NMS 0.5, best 100    –
    8  training targets      IoU ≥ 0.7 yes, < 0.3 no; ≥ 0.5;    Hungarian: one query for one object
                             256 anchors, 512 boxes drawn

The left column asks every place "is an object here?". All places near an object are trained to say
yes (`label_anchors`: one-to-many assignment), so step 7 must remove by hand the duplicates that
step 8 teaches: non-maximum suppression (NMS). The right column is set prediction: no duplicates.

               AP    small  medium  large   epochs  GFLOPs        Carion et al. 2020, table 1
    F. R-CNN+  42.0  26.6   45.4    53.4    109     180           (Faster R-CNN-FPN+, 42 M)
    DETR       42.0  20.5   45.8    61.1    500      86           (DETR, 41 M)

This file implements steps 2, 4 and 7 of the left column, the boxes of 3 and 6, and the targets of 8.
Step 5 is in ops/beyond/roi_align. The layers of 1, 3 and 6 are not here. A chain of all steps:
tests/model/beyond/test_two_philosophies.py. Ren et al. 2015, 1506.01497; Lin et al. 1612.03144.
Read: anchor_grid → label_anchors → correct → propose → clear_up
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scratch.ops.boxes import box_iou
from scratch.ops.beyond.nms import batched_nms

# Chosen by hand, as in the released code (Detectron2's Base-RCNN-FPN): a person must choose them again for small cells,
# for long ships, for crowds. DETR's own: the number of queries and seven weights of costs and losses.
STRIDES = (4, 8, 16, 32, 64)                # of the five levels of the pyramid
SIDES = (32, 64, 128, 256, 512)             # pixels: the root of an anchor's area, one for each level
RATIOS = (0.5, 1.0, 2.0)                    # height ÷ width, three at every cell
YES, NO = 0.7, 0.3                          # IoU with an object: an anchor from YES up is positive, below NO negative
PER_LEVEL, PROPOSALS = 1000, 1000           # the best of each level, and the best of all, while testing
PROPOSAL_NMS, CLASS_NMS = 0.7, 0.5
LEAST_SCORE, DETECTIONS = 0.05, 100
LARGEST_STEP = math.log(1000 / 16)          # of a side's logarithm, or an early exp(·) is infinite


def anchor_grid(height: int, width: int) -> list[Tensor]:
    """Step 2. The fixed boxes of an image of H×W pixels: for each level (h·w·3, 4) xyxy, row by row.

    They cover all places, sizes and shapes that are expected: 71,221 cells times 3 for 800×1066 pixels. DETR's queries
    are 100 whatever the size. Each learns which region it predicts first (figure 7 of the paper), and the decoder
    layers refine its prediction.
    """
    levels = []
    for stride, side in zip(STRIDES, SIDES):
        h, w = -(-height // stride), -(-width // stride)
        rows, columns = torch.arange(h) + 0.5, torch.arange(w) + 0.5                    # (h,), (w,): the cells' centres
        y, x = torch.meshgrid(rows * stride, columns * stride, indexing="ij")           # (h,w) each
        centres = torch.stack((x, y), dim=-1).reshape(-1, 1, 2)                         # (h·w,1,2)
        root = torch.tensor(RATIOS).sqrt()                                              # (3,)
        half = side / 2 * torch.stack((1 / root, root), dim=-1)                         # (3,2): width, height
        levels.append(torch.cat((centres - half, centres + half), dim=-1).flatten(0, 1))  # (h·w·3,4)
    return levels


def label_anchors(anchors_xyxy: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Step 8. The target of each anchor: (A,4), (M,4) → 1 yes, 0 no or −1 ignored (A,), and of which object (A,).

    Yes, if its IoU with some object is at least 0.7, or if no anchor overlaps that object more (so that every object
    has one); no, if it is below 0.3 with all. Many anchors get the same object (one-to-many assignment). This is where
    duplicates come from, and why NMS must follow. DETR's bipartite matching gives an object to one query and "no
    object" to all others (scratch/objective/matcher): a duplicate costs as much as any false prediction.
    """
    if not len(boxes_xyxy):
        nothing = torch.zeros(len(anchors_xyxy), dtype=torch.int64, device=anchors_xyxy.device)
        return nothing, nothing
    iou, _ = box_iou(anchors_xyxy, boxes_xyxy)                          # (A,M)
    best, object_of = iou.max(dim=1)                                    # (A,), (A,)
    labels = torch.where(best >= YES, 1, torch.where(best < NO, 0, -1))
    most = iou.amax(dim=0)                                              # (M,)
    rescued = (iou == most) & (most > 0)                                # (A,M)
    return torch.where(rescued.any(dim=1), 1, labels), torch.where(rescued.any(1), rescued.int().argmax(1), object_of)


def correct(anchors_xyxy: Tensor, deltas: Tensor) -> Tensor:
    """Steps 3 and 6. Boxes from anchors and corrections (dx, dy, dw, dh): (…,4), (…,4) → (…,4) xyxy.

        x = x_a + dx·w_a      w = w_a·exp(dw)           in units of the anchor: small and large anchors weigh the same

    DETR predicts the box itself, as fractions of the image, σ(MLP(token)), without an anchor. Later variants bring
    anchors back as the queries of scratch/model/anchors/decoder, corrected layer by layer, in units of σ⁻¹.
    """
    low, high = anchors_xyxy.split(2, dim=-1)                           # (…,2) each
    size, centre = high - low, (low + high) / 2
    shift, growth = deltas.split(2, dim=-1)                             # (…,2) each
    centre, size = centre + shift * size, size * growth.clamp(max=LARGEST_STEP).exp()
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)    # (…,4)


def propose(levels: list[Tensor], scores: list[Tensor], deltas: list[Tensor], height: int, width: int) -> Tensor:
    """Step 4. For each level anchors (A,4), scores (A,) and corrections (A,4) → at most 1000 boxes (P,4) xyxy.

    The best 1000 of each level, corrected, cut at the image's edge, and without duplicates of the same level: a large
    box and a small one within it may be two objects. Of 213,663 guesses 1000 are left for the expensive steps 5 and 6.
    """
    boxes, kept_scores, level_of = [], [], []
    bound = torch.tensor([width, height, width, height], dtype=levels[0].dtype, device=levels[0].device)  # (4,)
    for level, (anchors, score, delta) in enumerate(zip(levels, scores, deltas)):
        best = score.topk(min(PER_LEVEL, len(score))).indices           # (≤ 1000,)
        boxes.append(torch.minimum(correct(anchors[best], delta[best]).clamp(min=0), bound))
        kept_scores.append(score[best])
        level_of.append(torch.full_like(best, level))
    all_boxes, all_scores = torch.cat(boxes), torch.cat(kept_scores)    # (≤ 5000,4), (≤ 5000,)
    kept = batched_nms(all_boxes, all_scores, torch.cat(level_of), PROPOSAL_NMS)
    return all_boxes[kept[:PROPOSALS]]                                  # (P,4)


def clear_up(boxes_xyxy: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step 7. Boxes (P,K,4) and probabilities (P,K) of proposals and classes → boxes (n,4), scores (n,), labels (n,).

    DETR's last step is `postprocess` (scratch/evaluation): the classes' probabilities, and boxes in pixels. Nothing is
    removed. The price is in the table above: matching a set is slow to learn (500 epochs; model/anchors learns faster),
    and a single coarse grid detects small objects worse. The gain: large objects (every prediction sees the whole
    image), a pipeline without thresholds to choose for each data set, and one loss for all.
    """
    place, label = (probabilities > LEAST_SCORE).nonzero().unbind(-1)   # (n,) each
    boxes, scores = boxes_xyxy[place, label], probabilities[place, label]
    kept = batched_nms(boxes, scores, label, CLASS_NMS)[:DETECTIONS]
    return boxes[kept], scores[kept], label[kept]
