"""criterion: how wrong is the answer, in one number for each way of being wrong?

    loss_ce    = Σ_q w[c_q] · −log p_q[c_q] / Σ_q w[c_q]    c_q: q's label, or "no object" (w = 0.1)
    loss_bbox  = Σ_pairs ‖box_q − box_t‖₁ / num_boxes
    loss_giou  = Σ_pairs (1 − GIoU(box_q, box_t)) / num_boxes
    total      = Σ_layers 1·loss_ce + 5·loss_bbox + 2·loss_giou

    pred_logits (L,B,Q,K+1), pred_boxes (L,B,Q,4), targets → a dict of scalars

All L decoder layers answer (auxiliary losses, section 3.2), and each is matched anew: another layer
may see the cat with another query. They are stacked and blamed at once, as if they were L·B images,
so that the host waits once a batch and not once a layer.

What a loss is divided by must be the same for every image of an optimizer step, wherever it is
computed. Then the losses of micro-batches add up to the loss of the large batch, and so do their
gradients. Both divisors follow from the targets alone, for min(M, Q) queries will be matched
whatever the network says: see `Normalisers`.

Same losses as the official DETR's SetCriterion; proven in tests/objective/test_criterion.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from scratch.config import LossConfig
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_generalized_box_iou
from scratch.ops.cross_entropy import cross_entropy, l1_loss
from scratch.ops.precision import at_least_float32

Targets = list[dict[str, Any]]


@dataclass(frozen=True)
class Normalisers:
    """What the losses of one optimizer step are divided by: sums over all its images, divided by the number of ranks.

    Divided, since data parallelism averages the ranks' gradients afterwards: mean over ranks of Σ/(N/ranks) = Σ_all/N.
    """

    num_boxes: float
    """Σ_i M_i, and 1 if there is none"""
    class_weight: float
    """Σ_i min(M_i,Q)·1 + (Q − min(M_i,Q))·eos_coef, the class weights of all queries' labels"""


class SetCriterion:
    """The set prediction loss of DETR (section 3.1, equation 2), over every decoder layer.

    criterion(outputs, targets, normalisers=None) takes the model's output dict and B targets as the matcher does, and
    returns the official names: loss_ce, class_error, loss_bbox, loss_giou, cardinality_error of the last layer, and
    the same without class_error, with suffix _0 … _{L−2}, of the layers before it. All are scalar tensors in float32
    (float64 for float64 outputs) whatever the model's precision. Without `normalisers` this rank's batch is a step of
    its own.

    class_error        per cent of the matched queries whose best label is wrong (100 if none is matched)
    cardinality_error  |queries that claim an object − objects|, averaged over the images
    The two are there to be read; they have no gradient, and are averages of this batch whatever the normalisers.

    Raises FloatingPointError and ValueError as the matcher does, before a loss could be anything but a finite number.
    """

    def __init__(self, num_classes: int, matcher: HungarianMatcher, loss: LossConfig) -> None:
        self.num_classes, self.matcher, self.eos_coef = num_classes, matcher, loss.eos_coef
        # The weights of the last layer's losses; those of the layers before it weigh the same.
        self.weight_dict = {"loss_ce": loss.ce_loss_coef, "loss_bbox": loss.bbox_loss_coef,
                            "loss_giou": loss.giou_loss_coef}

    def __call__(self, outputs: dict[str, Any], targets: Targets,
                 normalisers: Optional[Normalisers] = None) -> dict[str, Tensor]:
        layers = [*outputs.get("aux_outputs", ()), outputs]                                     # in the decoder's order
        logits = at_least_float32(torch.stack([layer["pred_logits"] for layer in layers]))      # (L,B,Q,K+1)
        boxes = at_least_float32(torch.stack([layer["pred_boxes"] for layer in layers]))        # (L,B,Q,4)
        L, B, Q, _ = logits.shape
        if normalisers is None:
            normalisers = self.normalisers([targets], Q, across_ranks=False)

        as_images = {"pred_logits": logits.flatten(0, 1), "pred_boxes": boxes.flatten(0, 1)}    # (L·B,Q,·)
        pairs = self.matcher(as_images, targets * L)
        sizes = [len(target["labels"]) for target in targets]
        first = [sum(sizes[:i]) for i in range(B)] * L                                          # image i's first target
        # The pairs of all layers in one row, P for each layer: a place among L·B·Q queries and one among T targets.
        query = torch.cat([q + i * Q for i, (q, _) in enumerate(pairs)])                        # (L·P)
        target = torch.cat([t + start for (_, t), start in zip(pairs, first)])                  # (L·P)
        query, target = torch.stack((query, target)).to(logits.device, non_blocking=True)       # (2,L·P), one copy
        P = len(query) // L

        labels = torch.cat([t["labels"] for t in targets])[target]                              # (L·P)
        wanted = torch.cat([t["boxes"] for t in targets]).to(boxes.dtype)[target]               # (L·P,4)
        found = boxes.flatten(0, 2)[query]                                                      # (L·P,4)
        classes = torch.full((L * B * Q,), self.num_classes, device=logits.device)              # K: "no object"
        classes[query] = labels
        class_weight = logits.new_ones(self.num_classes + 1)
        class_weight[-1] = self.eos_coef

        surprise = cross_entropy(logits, classes.view(L, B, Q), class_weight, reduction="none")  # (L,B,Q)
        distance = l1_loss(found, wanted, reduction="none")                                     # (L·P,4)
        giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(found), box_cxcywh_to_xyxy(wanted))  # (L·P)
        best = logits.detach().argmax(-1)                                                       # (L,B,Q)
        claimed = (best != self.num_classes).sum(-1)                                            # (L,B)
        objects = torch.tensor(sizes).to(logits.device, non_blocking=True)                      # (B)
        by_layer = {                                                                            # (L) each
            "loss_ce": surprise.sum((1, 2)) / normalisers.class_weight,
            "loss_bbox": distance.sum(-1).view(L, P).sum(-1) / normalisers.num_boxes,
            "loss_giou": (1 - giou).view(L, P).sum(-1) / normalisers.num_boxes,
            "cardinality_error": (claimed - objects).abs().to(logits.dtype).mean(-1),
        }
        right = (best.flatten()[query] == labels)[(L - 1) * P:].to(logits.dtype)                # of the last layer's P
        class_error = 100 - 100 * right.sum() / max(P, 1)

        losses = {name: values[-1] for name, values in by_layer.items()} | {"class_error": class_error}
        for i in range(L - 1):
            losses |= {f"{name}_{i}": values[i] for name, values in by_layer.items()}
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum over all layers, however many `losses` holds: the number that is minimised."""
        return sum(weight * value for base, weight in self.weight_dict.items()
                   for name, value in losses.items() if name.startswith(base))

    def normalisers(self, micro_batches: list[Targets], num_queries: int, across_ranks: bool = True) -> Normalisers:
        """The divisors of one optimizer step, from the targets of all its micro-batches on this rank.

        Where torch.distributed is initialised, every rank must call this at the same time, unless `across_ranks` is off
        (as in an evaluation, where one rank may have a batch more than another). Ranks and micro-batches may hold
        different numbers of images and boxes: the result is exact, not an average of averages.
        """
        sizes = [len(target["labels"]) for targets in micro_batches for target in targets]
        matched = sum(min(M, num_queries) for M in sizes)
        unmatched = num_queries * len(sizes) - matched
        sums, ranks = torch.tensor([sum(sizes), matched + unmatched * self.eos_coef], dtype=torch.float64), 1
        if across_ranks and torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = sums.to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
            torch.distributed.all_reduce(sums)
            ranks = torch.distributed.get_world_size()
        num_boxes, class_weight = sums.tolist()
        # Nothing to blame (no box; or no box and eos_coef = 0): the sum above the line is 0, whatever stands below.
        return Normalisers(max(num_boxes, 1.0) / ranks, (class_weight or 1.0) / ranks)
