"""one_to_many: in one-to-many assignment, which queries are trained on which object?

    logits (L,B,Q,K), boxes (L,B,Q,4), targets ─► fit (L,B,Q,M) = α·score + (1 − α)·IoU
                                                     │            score: of the object's class
    an object gets the `most` queries that fit it best, if their IoU ≥ `least`; the best in any case
    a query that several objects get goes to the one that it fits best
                                                     ▼
                                       target (L,B,Q): the object's place among all T; T for none

    IoU with           a     b         `most` = 2, α = 0, `least` = 0.4
    query 1           0.9   0.1        a gets 1 and 2, b gets 2 alone: the IoU of 3 is too small
    query 2           0.4   0.6        2 goes to b
    query 3           0.0   0.2        1: a    2: b    3: none

Bipartite matching would give 1 to a and 2 to b, too; but it gives each object one query, and trains
all others near it to predict nothing. Here they are trained on the object, if their own boxes are
on it. There is no sum to minimise as in bipartite matching: a few tensor operations suffice, and a
GPU does not wait for the CPU.

After MS-DETR (Zhao et al. 2024, arXiv 2401.03989), whose code has α = 0.3 and the threshold 0.4.
Proven in tests/objective/test_one_to_many.py. Read: assigned_queries
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from scratch.ops.activations import sigmoid
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou

ALPHA, LEAST = 0.3, 0.4

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# MS-DETR compares 0.4 with the fit, not with the IoU, and gives each query to its best object before each object keeps
# its best 6; here objects come first. Held by test_each_query_is_trained_on_what_a_plain_search_says.


def assigned_queries(logits: Tensor, boxes: Tensor, targets: list[dict[str, Any]], most: int,
                     filler: Optional[Tensor] = None, alpha: float = ALPHA, least: float = LEAST) -> Tensor:
    """Which object each query is trained on: (L,B,Q) int64, its place among all T targets of the batch, or T for none.

    logits (L,B,Q,K), of a sigmoid for each class, boxes (L,B,Q,4) cxcywh in [0,1]. filler (B,Q) bool: queries that only
    fill up their row, and are trained on nothing. Of an object and a query the fit is alpha·score + (1 − alpha)·IoU; of
    equal ones the first query is the better one. No gradient flows through it.
    """
    (L, B, Q, _), sizes = logits.shape, [len(target["labels"]) for target in targets]
    T, M = sum(sizes), max(sizes)
    if not T:
        return torch.zeros((L, B, Q), dtype=torch.int64, device=logits.device)
    first = torch.tensor([sum(sizes[:i]) for i in range(B)])[:, None]                           # (B,1)
    real = torch.arange(M) < torch.tensor(sizes)[:, None]                                       # (B,M)
    place = torch.where(real, first + torch.arange(M), 0).to(logits.device, non_blocking=True)  # (B,M)
    possible = real.to(logits.device, non_blocking=True)[:, None]                               # (B,1,M)
    if filler is not None:
        possible = possible & ~filler[:, :, None]                                               # (B,Q,M)
    labels = torch.cat([target["labels"] for target in targets])[place]                         # (B,M)
    true_boxes = torch.cat([target["boxes"] for target in targets]).to(boxes.dtype)[place]      # (B,M,4)

    score = sigmoid(logits.detach()).gather(3, labels[None, :, None].expand(L, B, Q, M))        # (L,B,Q,M)
    iou = paired_box_iou(box_cxcywh_to_xyxy(boxes.detach())[:, :, :, None],
                         box_cxcywh_to_xyxy(true_boxes)[:, None])                               # (L,B,Q,M)
    fit = (alpha * score + (1 - alpha) * iou).masked_fill(~possible, -1)                        # (L,B,Q,M)
    order = fit.argsort(dim=2, descending=True, stable=True)[:, :, :most]                       # (L,B,min(most,Q),M)
    enough = iou.gather(2, order) >= least
    enough[:, :, 0] = True
    taken = torch.zeros_like(iou, dtype=torch.bool).scatter(2, order, enough) & possible        # (L,B,Q,M)
    best = fit.masked_fill(~taken, -1).max(3)                                                   # (L,B,Q)
    return torch.where(best.values < 0, T, place.expand(L, B, M).gather(2, best.indices))
