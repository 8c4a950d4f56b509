"""criterion: how wrong is a set of predictions, as a few numbers with a gradient?

    loss_ce    = Σ_q w[c_q] · −log p_q[c_q] / Σ_q w[c_q]    c_q: the target class of query q
    loss_bbox  = Σ_pairs ‖box_q − box_t‖₁ / num_boxes       num_boxes: the true objects of the step
    loss_giou  = Σ_pairs (1 − GIoU(box_q, box_t)) / num_boxes
    total      = Σ_layers (1·loss_ce + 5·loss_bbox + 2·loss_giou)

    pred_logits (L,B,Q,K+1), pred_boxes (L,B,Q,4), targets → a dict of scalars

loss_ce is the cross-entropy. A matched query's target is its object's class; any other's is K, the
no-object class, with weight w = 0.1 (`eos_coef`). Box losses of matched queries: L1, generalized IoU.

Auxiliary losses (section 3.2): all L decoder layers have these losses, each after a bipartite matching
of its own. They are one batch of L·B images, so that the CPU waits for the GPU once, not L times.
All losses of an optimizer step, on every GPU (*rank*), share num_boxes and Σ w, so that micro-batches
add up to one large batch. Both are known before the forward pass: min(M, Q) queries are matched.

Same as the official SetCriterion for one process and one batch; example: docs/trace.md. Departure: over
several GPUs the official code averages each one's own mean of loss_ce, with a share of at least one
box; here all share both divisors (tests/objective/test_criterion.py). Read: SetCriterion → total
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from scratch.config import LossConfig
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.activations import at_least_float32
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_generalized_box_iou
from scratch.ops.cross_entropy import cross_entropy, l1_loss

Targets = list[dict[str, Any]]
Matching = list[list[tuple[Tensor, Tensor]]]  # of each layer, of each image: (query indices, target indices)


@dataclass(frozen=True)
class Normalisers:
    """The divisors of one optimizer step: sums over all its images, divided by the number of ranks, since data
    parallelism averages the ranks' gradients afterwards: the mean over ranks of Σ_rank/(n/ranks) is Σ_all/n."""

    num_boxes: float  # Σ_i M_i, and 1 if there is none
    class_weight: float  # Σ_i min(M_i,Q)·1 + (Q − min(M_i,Q))·eos_coef, the class weights of all queries' targets


class SetCriterion:
    """The set prediction loss of DETR (section 3.1, equation 2), over every decoder layer.

    criterion(outputs, targets, normalisers=None) takes the model's output dict and the matcher's targets, and returns
    the official names: loss_ce, loss_bbox, loss_giou and two errors of the last layer, and the same but class_error,
    with suffix _0 … _{L−2}, of the layers before it. All are scalars in float32 (float64 for float64 outputs). Without
    `normalisers` this batch is a step of its own. Raises as the matcher does.

    class_error        per cent of the matched queries whose best class is wrong (100 if none is matched)
    cardinality_error  |queries that predict an object − objects|, averaged over the images; both without gradient
    """

    def __init__(self, num_classes: int, matcher: HungarianMatcher, loss: LossConfig) -> None:
        self.num_classes, self.matcher, self.loss = num_classes, matcher, loss
        self.weight_dict = {"loss_ce": loss.ce_loss_coef, "loss_bbox": loss.bbox_loss_coef,
                            "loss_giou": loss.giou_loss_coef}  # the same for every layer

    def __call__(self, outputs: dict[str, Any], targets: Targets, normalisers: Optional[Normalisers] = None,
                 matching: Optional[Matching] = None) -> dict[str, Tensor]:
        logits, boxes = stacked_layers(outputs)                                                 # (L,B,Q,·)
        if normalisers is None:
            normalisers = self.normalisers([targets], logits.shape[2], across_ranks=False)
        places = matched_places(self.matching(outputs, targets) if matching is None else matching, logits, targets)
        return named_by_layer(self._by_layer(logits, boxes, *places, targets, normalisers))

    def matching(self, outputs: dict[str, Any], targets: Targets) -> Matching:
        """The pairs of each decoder layer: L lists over the images, as the matcher returns them."""
        logits, boxes = stacked_layers(outputs)                                                 # (L,B,Q,·)
        L, B = logits.shape[:2]
        pairs = self.matcher({"pred_logits": logits.flatten(0, 1), "pred_boxes": boxes.flatten(0, 1)}, targets * L)
        return [pairs[i:i + B] for i in range(0, len(pairs), B)]

    def _by_layer(self, logits: Tensor, boxes: Tensor, query: Tensor, target: Tensor, targets: Targets,
                  normalisers: Normalisers) -> dict[str, Tensor]:
        """logits (L,B,Q,K+1), boxes (L,B,Q,4), `matched_places` → each loss and error of each layer (L)."""
        (L, B, Q, _), K, P = logits.shape, self.num_classes, len(query) // len(logits)
        labels = torch.cat([t["labels"] for t in targets])[target]                              # (L·P)
        true_boxes = torch.cat([t["boxes"] for t in targets]).to(boxes.dtype)[target]           # (L·P,4)
        matched_boxes = boxes.flatten(0, 2)[query]                                              # (L·P,4)
        classes = torch.full((L * B * Q,), K, device=logits.device)                             # K: "no object"
        classes[query] = labels
        class_weight = logits.new_ones(K + 1)
        class_weight[-1] = self.loss.eos_coef
        class_loss = cross_entropy(logits, classes.view(L, B, Q), class_weight, reduction="none")  # (L,B,Q)
        l1 = l1_loss(matched_boxes, true_boxes, reduction="none").sum(-1)                       # (L·P)
        giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(matched_boxes), box_cxcywh_to_xyxy(true_boxes))  # (L·P)

        best = logits.detach().argmax(-1)                                                       # (L,B,Q)
        right = (best.flatten()[query] == labels).view(L, P).sum(-1)                            # (L)
        objects = torch.tensor([len(t["labels"]) for t in targets]).to(logits.device, non_blocking=True)  # (B)
        return {
            "loss_ce": class_loss.sum((1, 2)) / normalisers.class_weight,
            "loss_bbox": l1.view(L, P).sum(-1) / normalisers.num_boxes,
            "loss_giou": (1 - giou).view(L, P).sum(-1) / normalisers.num_boxes,
            "cardinality_error": ((best != K).sum(-1) - objects).abs().to(logits.dtype).mean(-1),
            "class_error": 100 - 100 * right.to(logits.dtype) / max(P, 1),
        }

    def total(self, losses: dict[str, Tensor], of: tuple[str, ...] = ("",)) -> Tensor:
        """The weighted sum over all layers, which is minimised. of: the prefixes of the names that count."""
        return sum(weight * value for base, weight in self.weight_dict.items()
                   for name, value in losses.items() if name.startswith(tuple(prefix + base for prefix in of)))

    def normalisers(self, micro_batches: list[Targets], num_queries: int, across_ranks: bool = True) -> Normalisers:
        """The divisors of one optimizer step, from the targets of all its micro-batches on this rank.
        With `across_ranks` every rank must call this at once (not in an evaluation: one may have a batch more)."""
        sizes = [len(target["labels"]) for targets in micro_batches for target in targets]
        matched = sum(min(M, num_queries) for M in sizes)
        unmatched = num_queries * len(sizes) - matched
        sums, ranks = torch.tensor([sum(sizes), matched + unmatched * self.loss.eos_coef], dtype=torch.float64), 1
        if across_ranks and torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = sums.to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
            torch.distributed.all_reduce(sums)
            ranks = torch.distributed.get_world_size()
        num_boxes, class_weight = sums.tolist()
        # Where a sum is 0 (no box; no box and eos_coef = 0), so is the numerator, whatever the divisor.
        return Normalisers(max(num_boxes, 1.0) / ranks, (class_weight or 1.0) / ranks)


def stacked_layers(outputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The logits (L,B,Q,·) and boxes (L,B,Q,4) of all layers of an output dict, at least float32."""
    layers = [*outputs.get("aux_outputs", ()), outputs]
    logits, boxes = (torch.stack([layer[name] for layer in layers]) for name in ("pred_logits", "pred_boxes"))
    return at_least_float32(logits), at_least_float32(boxes)


def matched_places(matching: Matching, logits: Tensor, targets: Targets) -> Tensor:
    """The pairs of all L layers as a place among the L·B·Q queries and one among all targets: (2,L·P)."""
    Q, sizes = logits.shape[2], [len(target["labels"]) for target in targets]
    first = [sum(sizes[:i]) for i in range(len(sizes))] * len(matching)                         # image i's first target
    pairs = [pair for layer in matching for pair in layer]
    query = torch.cat([q + i * Q for i, (q, _) in enumerate(pairs)])                            # (L·P)
    target = torch.cat([t + start for (_, t), start in zip(pairs, first)])                      # (L·P)
    return torch.stack((query, target)).to(logits.device, non_blocking=True)                    # one copy


def named_by_layer(by_layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """(L) of each loss → the official names: the last layer's as they are, "_0" … "_{L−2}" behind those before it."""
    return {name: values[-1] for name, values in by_layer.items()} | {
        f"{name}_{i}": value for name, values in by_layer.items() if name != "class_error"
        for i, value in enumerate(values[:-1])}
