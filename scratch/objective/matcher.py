"""matcher: which query answers for which object?

    cost[q,t] = −p_q[label_t] · w_class + ‖box_q − box_t‖₁ · w_bbox − GIoU(box_q, box_t) · w_giou
                 (focal: what "yes" costs more than "no" stands for −p: ops/beyond/focal_loss)

    pred_logits (B,Q,K+1), pred_boxes (B,Q,4), M_i boxes of image i
        → per image min(M_i, Q) pairs (query, target)

DETR answers with a set: Q boxes in no order. Before it can be told what is wrong, each true object
needs one query that is blamed for it; the cheapest assignment is that pairing (section 3.1,
equation 1; appendix A.2). One query for one object is also why DETR needs no non-maximum
suppression: a second box for the same object is simply wrong.

The cost uses the probability and not its logarithm, which keeps it on the scale of the box terms
(section 3.1). Same pairs as the official DETR's HungarianMatcher; proven in
tests/objective/test_matcher.py.

Images are solved one after another. A pool of two processes was slower: 16 problems of 100×20 take
5.7 ms alone and 10.5 ms by the pool, 96 take 31.9 and 36.6 ms, for the costs must travel there. Nor
is there work to hide it behind: every loss begins with its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import torch
from torch import Tensor

from scratch.ops.activations import at_least_float32, softmax
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_generalized_box_iou
from scratch.ops.beyond.focal_loss import focal_matching_cost
from scratch.ops.hungarian import linear_sum_assignment


@dataclass(frozen=True)
class HungarianMatcher:
    """The cheapest one-to-one pairing of queries and targets, image by image; no gradient passes through it.

    matcher(outputs, targets) takes
        outputs    "pred_logits" (B,Q,K+1), or (B,Q,K) if `focal`, of any float type, "pred_boxes" (B,Q,4) cxcywh
        targets    B dicts: "labels" (M_i,) int64 in 0..K-1, "boxes" (M_i,4) cxcywh; "image_id", for error messages
    and returns, for each image, (query indices, target indices): two int64 CPU tensors of min(M_i, Q) entries, ordered
    by query. All is computed in float32 (float64 for float64 outputs), and brought to the host in a single copy.

    Raises ValueError for a label that the model has no class for, and FloatingPointError if an output, a target, a cost
    or a loss to come is not finite, naming the first such tensor, its images and the batch. Every output is looked at,
    matched or not, so that what passes here has a finite loss.
    """

    cost_class: float = 1.0
    cost_bbox: float = 5.0
    cost_giou: float = 2.0
    focal: bool = False
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0

    def __post_init__(self) -> None:
        if not (self.cost_class or self.cost_bbox or self.cost_giou):
            raise ValueError("got three matching costs of 0: every pairing would do; wanted at least one above 0")

    @torch.no_grad()
    def __call__(self, outputs: dict[str, Tensor], targets: list[dict[str, Any]]) -> list[tuple[Tensor, Tensor]]:
        logits, boxes = at_least_float32(outputs["pred_logits"]), at_least_float32(outputs["pred_boxes"])
        B, Q, K = logits.shape
        K -= not self.focal  # one sigmoid for each class; or a softmax that holds "no object" as well
        if len(targets) != B:
            raise ValueError(f"got {len(targets)} targets for {B} images; wanted one dict for each image")

        # The targets of all images in one row: T = Σ M_i. Each needs its cost with the Q queries of its own image and
        # no other, so the table is (T,Q): nothing is padded, and no image is priced against another's objects.
        sizes = [len(target["labels"]) for target in targets]
        image = [i for i, M in enumerate(sizes) for _ in range(M)]
        image = torch.tensor(image, dtype=torch.int64).to(boxes.device, non_blocking=True)      # (T)
        labels = torch.cat([target["labels"] for target in targets])                            # (T)
        wanted = torch.cat([target["boxes"] for target in targets]).to(boxes.dtype)[:, None]    # (T,1,4)
        offered = boxes[image]                                                                  # (T,Q,4)

        # A label of K would silently mean "no object", and one beyond it ends a CUDA process; both are refused below.
        known = (labels >= 0) & (labels < K)                                                    # (T)
        if self.focal:
            price = focal_matching_cost(logits, self.focal_alpha, self.focal_gamma)             # (B,Q,K)
        else:
            price = -softmax(logits, dim=-1)                                                    # (B,Q,K+1)
        price = price[image, :, labels.clamp(0, K - 1)]                                         # (T,Q)
        distance = (offered - wanted).abs().sum(-1)                                             # (T,Q)
        giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(offered), box_cxcywh_to_xyxy(wanted))  # (T,Q)
        cost = self.cost_class * price + self.cost_bbox * distance - self.cost_giou * giou

        # −log p ≤ (largest − smallest logit) + log(K+1), so where B·Q times the gap is finite, loss_ce is. A sigmoid's
        # −log p ≤ |logit| + log 2 is a gap between the logit and 0.
        low, high = logits.amin(-1), logits.amax(-1)                                            # (B,Q)
        gap = (high.clamp(min=0) - low.clamp(max=0)) * (B * Q * K) if self.focal else (high - low) * (B * Q)

        # Waiting for the device is the matcher's real price, so what the host must know travels together.
        sound = torch.stack([known.all(), *(x.isfinite().all() for x in (gap, boxes, cost))]).all()
        *table, all_sound = torch.cat((cost, sound.to(cost.dtype).expand(1, Q))).tolist()       # T+1 rows of Q
        if not all(all_sound):
            _refuse_labels(known.split(sizes), targets, K)
            _refuse_non_finite(logits, boxes, cost.split(sizes), gap, targets)

        pairs, start = [], 0
        for M in sizes:
            target, query = linear_sum_assignment(table[start:start + M])
            query, target = zip(*sorted(zip(query, target))) if query else ((), ())
            pairs.append((torch.tensor(query, dtype=torch.int64), torch.tensor(target, dtype=torch.int64)))
            start += M
        return pairs


def _refuse_labels(known: Sequence[Tensor], targets: list[dict[str, Any]], K: int) -> None:
    """Raise ValueError if a label is not one of 0..K-1."""
    guilty = [target for target, each in zip(targets, known) if not each.all()]
    if guilty:
        labels = sorted({label for target in guilty for label in target["labels"].tolist() if not 0 <= label < K})
        raise ValueError(f"got labels {labels} in image_id {_ids(guilty)}; wanted 0..{K - 1}, for the model has {K} "
                         "classes: number the categories from 0, or build the model with num_classes to match")


def _refuse_non_finite(logits: Tensor, boxes: Tensor, costs: Sequence[Tensor], gap: Tensor,
                       targets: list[dict[str, Any]]) -> None:
    """Raise FloatingPointError that names the first tensor that is not finite, and the images in which it is not."""
    wanted = [target["boxes"] for target in targets]
    for name, tensors in (("pred_logits", logits), ("pred_boxes", boxes), ("the targets' boxes", wanted),
                          ("the matching cost (of finite boxes too large for their type)", costs),
                          ("loss_ce (of finite logits too large for their type)", gap)):
        guilty = [target for target, tensor in zip(targets, tensors) if not tensor.isfinite().all()]
        if guilty:
            raise FloatingPointError(
                f"got a value that is not finite in {name}, image_id {_ids(guilty)} of the batch {_ids(targets)}; "
                "wanted finite numbers. Look at these images' annotations; lower the learning rate or train in float32")


def _ids(targets: list[dict[str, Any]]) -> list:
    """The images of `targets`, each once: the criterion shows every image once for each decoder layer."""
    return sorted({target.get("image_id") for target in targets})
