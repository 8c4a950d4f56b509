"""one_to_many: in one-to-many assignment, which queries are trained on which object?

    logits (L,B,Q,K), boxes (L,B,Q,4), targets ─► fit (L,B,Q,M) = α·score + (1 − α)·IoU       score: of the object's class
                                                     │
    an object gets the `most` queries that fit it best, if their IoU ≥ `least`; the best one in any case
    a query that several objects get goes to the one that it fits best
                                                     ▼
                                       target (L,B,Q): the object's place among all T, or T for none

    IoU with           a     b         `most` = 2, α = 0, `least` = 0.4
    query 1           0.9   0.1        a gets 1 and 2, b gets 2 alone: the IoU of 3 is too small
    query 2           0.4   0.6        2 goes to b
    query 3           0.0   0.2        1: a    2: b    3: none

Bipartite matching would give 1 to a and 2 to b, too; but it gives each object one query, and trains all
others near it to predict nothing. Here they are trained on the object, if their own boxes are on it.
There is no sum to minimise as in bipartite matching: a few tensor operations suffice, and a GPU does not
wait for the CPU. Scores count, so that a query that predicts an object well keeps it in the next step.

α = 0.3 and `least` = 0.4 as in MS-DETR (Zhao et al. 2024, arXiv 2401.03989).
Proven in tests/objective/test_one_to_many.py. Read: assigned_queries
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scratch.ops.activations import sigmoid
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou

ALPHA, LEAST = 0.3, 0.4

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# There an object with which every box has an IoU below `least` gets no query; here it gets the best one, so that the first
# steps of a run, in which no box is near, train something. Held by test_an_object_that_no_box_is_near_has_its_best_query.


def assigned_queries(logits: Tensor, boxes: Tensor, targets: list[dict[str, Any]], most: int,
                     alpha: float = ALPHA, least: float = LEAST) -> Tensor:
    """Which object each query is trained on: (L,B,Q) int64, its place among all T targets of the batch, or T for none.

    logits (L,B,Q,K), of a sigmoid for each class, boxes (L,B,Q,4) cxcywh in [0,1]. Without gradient. Of an object and
    a query the fit is alpha·score + (1 − alpha)·IoU.
    """
    (L, B, Q, _), sizes = logits.shape, [len(target["labels"]) for target in targets]
    T, M = sum(sizes), max(sizes)
    if not T:
        return torch.zeros((L, B, Q), dtype=torch.int64, device=logits.device)
    first = torch.tensor([sum(sizes[:i]) for i in range(B)])[:, None]                           # (B,1)
    real = torch.arange(M) < torch.tensor(sizes)[:, None]                                       # (B,M)
    place = torch.where(real, first + torch.arange(M), 0).to(logits.device, non_blocking=True)  # (B,M)
    real = real.to(logits.device, non_blocking=True)[:, None]                                   # (B,1,M)
    labels = torch.cat([target["labels"] for target in targets])[place]                         # (B,M)
    true_boxes = torch.cat([target["boxes"] for target in targets]).to(boxes.dtype)[place]      # (B,M,4)

    score = sigmoid(logits.detach()).gather(3, labels[None, :, None].expand(L, B, Q, M))        # (L,B,Q,M)
    iou = paired_box_iou(box_cxcywh_to_xyxy(boxes.detach())[:, :, :, None],
                         box_cxcywh_to_xyxy(true_boxes)[:, None])                               # (L,B,Q,M)
    fit = (alpha * score + (1 - alpha) * iou).masked_fill(~real, -1)
    ranked = fit.topk(min(most, Q), dim=2).values                                               # (L,B,min(most,Q),M)
    taken = (fit >= ranked[:, :, -1:]) & (iou >= least) | (fit == ranked[:, :, :1])
    best = fit.masked_fill(~(taken & real), -1).max(3)                                          # (L,B,Q)
    return torch.where(best.values < 0, T, place.expand(L, B, M).gather(2, best.indices))
