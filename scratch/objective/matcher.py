"""matcher: which query is trained on which object?

    cost[q,t] = −p_q[label_t] · w_class + ‖box_q − box_t‖₁ · w_bbox − GIoU(box_q, box_t) · w_giou

    pred_logits (B,Q,K+1), pred_boxes (B,Q,4), M_i boxes of image i
        → per image min(M_i, Q) pairs (query, target)

Set prediction: Q object queries predict Q boxes in no order. Before a loss can be computed, each
true object needs one query whose target it is. Bipartite matching finds it: of all one-to-one
assignments of objects to queries, the one with the smallest sum of costs (section 3.1, equation 1;
appendix A.2), by the Hungarian algorithm of ops/hungarian. A query without an object has the
no-object class as its target. One query for one object is also why DETR needs no non-maximum
suppression: a query with a second box for the same object is trained to predict no object. The cost
uses the probability, not its logarithm, to be on the scale of the box terms (section 3.1). ‖·‖₁ is
the sum of the four absolute differences (L1), GIoU the generalized IoU of ops/boxes. `focal` belongs
to a branch, not to the published DETR. The code stores cost[t,q].

Same pairs as the official DETR's HungarianMatcher; proven in tests/objective/test_matcher.py.
Read: HungarianMatcher (__call__: the costs, then one assignment for each image)
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
    """The one-to-one matching of queries and targets with the least cost, image by image; without gradient.

    matcher(outputs, targets) takes
        outputs    "pred_logits" (B,Q,K+1), or (B,Q,K) if `focal`, of any float type, "pred_boxes" (B,Q,4) cxcywh
        targets    B dicts: "labels" (M_i,) int64 in 0..K-1, "boxes" (M_i,4) cxcywh; "image_id", for error messages
    and returns, for each image, (query indices, target indices): two int64 CPU tensors of min(M_i, Q) entries, ordered
    by query. All is computed in float32 (float64 for float64 outputs), and copied to the CPU once.

    Raises ValueError for a label that the model has no class for, and FloatingPointError if an output, matched or not,
    a target, a cost or a loss to come is not finite, naming the first such tensor, its images and the batch.
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
        B, Q, K = *logits.shape[:2], logits.shape[2] - (0 if self.focal else 1)  # softmax: K + 1 logits
        if len(targets) != B:
            raise ValueError(f"got {len(targets)} targets for {B} images; wanted one dict for each image")

        # The targets of all images in one row: T = Σ M_i. Each needs its cost with the Q queries of its own image only,
        # so the cost matrices of all images are one table (T,Q), without padding.
        sizes = [len(target["labels"]) for target in targets]
        image = torch.tensor([i for i, M in enumerate(sizes) for _ in range(M)], dtype=torch.int64)
        image = image.to(boxes.device, non_blocking=True)                                       # (T)
        labels = torch.cat([target["labels"] for target in targets])                            # (T)
        true_boxes = torch.cat([target["boxes"] for target in targets]).to(boxes.dtype)[:, None]  # (T,1,4)
        pred_boxes = boxes[image]                                                               # (T,Q,4)
        # A label of K would silently mean "no object", and one beyond it would end a CUDA process: refused below.
        known = (labels >= 0) & (labels < K)                                                    # (T)
        class_cost = (focal_matching_cost(logits, self.focal_alpha, self.focal_gamma) if self.focal
                      else -softmax(logits, dim=-1))[image, :, labels.clamp(0, K - 1)]          # (T,Q)
        l1 = (pred_boxes - true_boxes).abs().sum(-1)                                            # (T,Q)
        giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(pred_boxes), box_cxcywh_to_xyxy(true_boxes))  # (T,Q)
        cost = self.cost_class * class_cost + self.cost_bbox * l1 - self.cost_giou * giou

        # Will the cross-entropy be finite? −log p ≤ (largest − smallest logit) + log(K+1), summed over B·Q queries.
        # (For a sigmoid −log p ≤ |logit| + log 2.)
        low, high = logits.amin(-1), logits.amax(-1)                                            # (B,Q)
        logit_range = (high.clamp(min=0) - low.clamp(max=0)) * (B * Q * K) if self.focal else (high - low) * (B * Q)
        # To wait for the GPU costs more than the matching, so costs and checks come to the CPU in one copy.
        valid = torch.stack([known.all(), *(x.isfinite().all() for x in (logit_range, boxes, cost))]).all()
        *table, all_valid = torch.cat((cost, valid.to(cost.dtype).expand(1, Q))).tolist()       # T+1 rows of Q
        if not all(all_valid):
            _refuse_labels(known.split(sizes), targets, K)
            _refuse_non_finite(logits, boxes, cost.split(sizes), logit_range, targets)
        pairs, start = [], 0
        for M in sizes:
            target, query = linear_sum_assignment(table[start:start + M])
            query, target = zip(*sorted(zip(query, target))) if query else ((), ())
            pairs.append((torch.tensor(query, dtype=torch.int64), torch.tensor(target, dtype=torch.int64)))
            start += M
        return pairs


def _refuse_labels(known: Sequence[Tensor], targets: list[dict[str, Any]], K: int) -> None:
    """Raise ValueError if a label is not one of 0..K-1."""
    if wrong := [target for target, each in zip(targets, known) if not each.all()]:
        labels = sorted({label for target in wrong for label in target["labels"].tolist() if not 0 <= label < K})
        raise ValueError(f"got labels {labels} in image_id {_ids(wrong)}; wanted 0..{K - 1}, because the model has {K} "
                         "classes: number the categories from 0, or build the model with num_classes to match")


def _refuse_non_finite(logits: Tensor, boxes: Tensor, costs: Sequence[Tensor], logit_range: Tensor,
                       targets: list[dict[str, Any]]) -> None:
    """Raise FloatingPointError that names the first tensor that is not finite, and the images in which it is not."""
    for name, tensors in (("pred_logits", logits), ("pred_boxes", boxes),
                          ("the targets' boxes", [target["boxes"] for target in targets]),
                          ("the matching cost (of finite boxes too large for their type)", costs),
                          ("loss_ce (of finite logits too large for their type)", logit_range)):
        if wrong := [target for target, tensor in zip(targets, tensors) if not tensor.isfinite().all()]:
            raise FloatingPointError(
                f"got a value that is not finite in {name}, image_id {_ids(wrong)} of the batch {_ids(targets)}; "
                "wanted finite numbers. Look at these images' annotations; lower the learning rate or train in float32")


def _ids(targets: list[dict[str, Any]]) -> list:
    """The images of `targets`, each once: the criterion passes every image once for each decoder layer."""
    return sorted({target.get("image_id") for target in targets}, key=str)  # some may have none
