"""one_to_many: which queries learn which object, where several may learn the same one?

    logits (L,B,Q,K), boxes (L,B,Q,4), targets ─► fit (L,B,Q,M) = α·score + (1 − α)·IoU       score: of the object's class
                                                     │
    an object takes the `most` queries that fit it best, if IoU ≥ `least`; its best one in any case
    a query that several objects take goes to the one that it fits best
                                                     ▼
                                       target (L,B,Q): the object's place among all T, or T for none

    IoU                a     b         `most` = 2, α = 0, `least` = 0.4
    query 1           0.8   0.1        a takes 1 and 2, b takes 2 alone: 3 has too little of it
    query 2           0.6   0.7        2 goes to b
    query 3           0.1   0.3        1: a    2: b    3: none

One-to-one matching would take 1 and 2, too, and teach each further query near an object to predict
nothing. Here they learn the object as well, if their own boxes are on it. No search for the best
whole is needed, as in bipartite matching: a few tensor operations do it, and a GPU need not wait.
That the scores count keeps what is learnt steady: the queries that answer best go on to.

The numbers 0.3 and 0.4 for α and `least` are those of MS-DETR (Zhao et al. 2024, arXiv 2401.03989).
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
# There an object whose boxes all have an IoU below `least` has no query; here it has its best one, so that the first
# steps of a run, which have no such box, teach something. Held by test_an_object_that_no_box_is_near_has_its_best_query.


def assigned_queries(logits: Tensor, boxes: Tensor, targets: list[dict[str, Any]], most: int,
                     alpha: float = ALPHA, least: float = LEAST) -> Tensor:
    """Which object each query learns: (L,B,Q) int64, its place among all T targets of the batch, or T for none.

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
