"""variant: what is trained beside the published loss, so that a detector learns in minutes?

    loss_ce         focal loss / num_boxes instead of the cross-entropy      matcher.focal    ops/beyond/focal_loss
                    target: IoU of the box, to a power, not 1                loss.quality     quality_focal_loss
    every loss      the mean over G groups of queries                        group_outputs    model/anchors/queries
    dn_loss_…       noised true boxes: their targets are known               denoising        model/anchors/denoising
    many_loss_…     second predictions: several queries for an object        one_to_many      model/anchors/one_to_many
    cell_loss_…     cells of the encoder, assigned by `assigned_cells`       proposals        model/anchors/proposals

One-to-many assignment: groups, noised boxes, second predictions and cells give each object more than one positive
prediction in a step, where the published matching gives it one. All of them go through the same few lines as the
published losses, as further layers: a group has a matching of its own; the others need none, because where their boxes
or cells are says which object is theirs.
Proven in tests/objective/test_variant.py. Read: criterion_for → VariantCriterion → assigned_cells
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from scratch.config import LossConfig, ModelConfig
from scratch.objective.criterion import (
    Matching, Normalisers, SetCriterion, Targets, matched_places, named_by_layer, stacked_layers)
from scratch.objective.matcher import HungarianMatcher
from scratch.objective.one_to_many import assigned_queries
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.beyond.quality_focal_loss import quality_focal_loss
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou, paired_generalized_box_iou
from scratch.ops.cross_entropy import cross_entropy, l1_loss

# The weight of a cell without an object. The cells of one object have weight 1 together, and most cells have no object:
# at 1 each they would outweigh the objects, at 0 nothing would keep them from predicting one. The value is set by
# hand; there is no comparison with others.
EMPTY = 0.25


def criterion_for(model: ModelConfig, matcher: HungarianMatcher, loss: LossConfig) -> SetCriterion:
    """The criterion that a model needs: the published one, or where its output dict may have more, the variant's."""
    if not model.beyond_published():
        return SetCriterion(model.num_classes, matcher, loss)
    return VariantCriterion(model.num_classes, matcher, loss, model.one_to_many)


class VariantCriterion(SetCriterion):
    """As `SetCriterion`; further losses have a prefix: dn_ for noised boxes, many_ for one-to-many predictions, cell_
    for the encoder's cells.

    With groups of queries every loss is the mean over the groups. With `matcher.focal`, loss_ce is the focal loss
    divided by the number of boxes. Noised boxes and cells are not checked by the matcher: theirs may be not finite,
    and the training run says so. one_to_many: the most queries that are trained on an object by their
    second predictions.
    """

    def __init__(self, num_classes: int, matcher: HungarianMatcher, loss: LossConfig, one_to_many: int = 0) -> None:
        super().__init__(num_classes, matcher, loss)
        self.one_to_many = one_to_many

    def __call__(self, outputs: dict[str, Any], targets: Targets, normalisers: Optional[Normalisers] = None,
                 matching: Optional[Matching] = None) -> dict[str, Tensor]:
        logits, boxes = stacked_layers(joined_groups(outputs))                                  # (G·L,B,Q,·)
        G = 1 + len(outputs.get("group_outputs", ()))
        if normalisers is None:
            normalisers = self.normalisers([targets], logits.shape[2], across_ranks=False)
        if matching is None:
            matching = self.matching(outputs, targets)
        by_layer = self._by_layer(logits, boxes, *matched_places(matching, logits, targets), targets, normalisers)
        # A group is a detector of its own, and counts as one of G.
        losses = named_by_layer({name: values.view(G, -1).mean(0) for name, values in by_layer.items()})
        if "denoising" in outputs:
            losses |= prefixed("dn", self._of_denoising(outputs["denoising"], targets, normalisers))
        if "one_to_many" in outputs:
            losses |= prefixed("many", self._of_one_to_many(outputs["one_to_many"], targets, normalisers))
        if "proposals" in outputs:
            losses |= prefixed("cell", self._of_cells(outputs["proposals"], targets, normalisers))
        return losses

    def matching(self, outputs: dict[str, Any], targets: Targets) -> Matching:
        """The pairs of each decoder layer, group by group: (G·L) lists over the images, as the matcher returns them."""
        return super().matching(joined_groups(outputs), targets)

    def total(self, losses: dict[str, Tensor], of: tuple[str, ...] = ("", "dn_", "many_", "cell_")) -> Tensor:
        """As published; noised boxes, one-to-many predictions and cells count, too."""
        return super().total(losses, of)

    def _of_denoising(self, outputs: dict[str, Any], targets: Targets, normalisers: Normalisers) -> dict[str, Tensor]:
        """The losses of the noised queries, without matching: query (copy r, object t) is to predict object t."""
        logits, boxes = stacked_layers(outputs)                                                 # (L,B,P,·)
        R = outputs["copies"]
        M = logits.shape[2] // R
        objects = [torch.arange(len(target["labels"])) for target in targets]
        pairs = [(torch.cat([t + r * M for r in range(R)]), t.repeat(R)) for t in objects]
        places = matched_places([pairs] * len(logits), logits, targets)
        weight = (~outputs["filler"]).to(logits.dtype) / R  # the R copies of an object have weight 1 together
        matched = Normalisers(normalisers.num_boxes, normalisers.num_boxes)  # none of them has the no-object class
        return self._by_layer(logits, boxes, *places, targets, matched, weight)

    def _of_one_to_many(self, outputs: dict[str, Any], targets: Targets,
                        normalisers: Normalisers) -> dict[str, Tensor]:
        """The losses of the one-to-many route: of the batch, means over the P queries that are trained on an object.

        P is known after the forward pass alone. So, unlike all other losses, those of several micro-batches or processes
        are not exactly those of one large batch: each of them has a mean of its own, and counts by its objects.
        """
        logits, boxes = stacked_layers(outputs)                                                 # (L,B,Q,·)
        # Of each query the place of its object, or T for none.
        target = assigned_queries(logits, boxes, targets, self.one_to_many, outputs.get("filler"))  # (L,B,Q)
        T = sum(len(t["labels"]) for t in targets)
        positives = (target < T).sum((1, 2), keepdim=True).to(logits.dtype)                     # P: (L,1,1)
        weight = T / positives if T else torch.full_like(positives, 1 / self.one_to_many)       # every object has one
        weight = weight.expand(logits.shape[:3])                                                # (L,B,Q)
        # Every query is a pair, with an object or with none: see _of_cells.
        return self._by_layer(logits, boxes, torch.arange(target.numel(), device=target.device), target.flatten(),
                              targets, normalisers, weight)

    def _of_cells(self, outputs: dict[str, Any], targets: Targets, normalisers: Normalisers) -> dict[str, Tensor]:
        """The losses of the encoder's cells: those inside an object have it as target, with weight 1 together."""
        logits, boxes = stacked_layers(outputs)                                                 # (1,B,S,·)
        target = assigned_cells(outputs["centres"], outputs["pad_mask"], targets)               # (B·S), T: none
        T = sum(len(t["labels"]) for t in targets)
        among = logits.new_zeros(T + 1).index_add(0, target, torch.ones_like(target, dtype=logits.dtype))  # cells of each
        weight = torch.where(target < T, 1 / among[target], EMPTY).view(logits.shape[1:3])      # (B,S)
        weight = weight.masked_fill(outputs["pad_mask"], 0.0)
        # Every cell is a pair, with an object or with none: to select those with one, the CPU would wait for the GPU.
        return self._by_layer(logits, boxes, torch.arange(len(target), device=target.device), target, targets,
                              normalisers, weight)

    def _by_layer(self, logits: Tensor, boxes: Tensor, query: Tensor, target: Tensor, targets: Targets,
                  normalisers: Normalisers, weight: Optional[Tensor] = None) -> dict[str, Tensor]:
        """As the published losses by layer, with a weight (B,Q) or (L,B,Q) of queries, and the focal loss if wanted.

        With weights, a target of T, the number of all objects, is none: class K, and no box losses.
        """
        focal = self.matcher.focal
        if weight is None and not focal:
            return super()._by_layer(logits, boxes, query, target, targets, normalisers)
        (L, B, Q, _), K, P = logits.shape, self.num_classes, len(query) // len(logits)
        no_label = torch.full((1,), K, device=logits.device)                                    # of target T: "no object"
        any_box = boxes.new_full((1, 4), 0.5)                                                   # its losses count 0
        labels = torch.cat([*(t["labels"] for t in targets), no_label])[target]                 # (L·P)
        true_boxes = torch.cat([*(t["boxes"].to(boxes.dtype) for t in targets), any_box])[target]  # (L·P,4)
        matched_boxes = boxes.flatten(0, 2)[query]                                              # (L·P,4)
        classes = torch.full((L * B * Q,), K, device=logits.device)                             # K: "no object"
        classes[query] = labels
        classes = classes.view(L, B, Q)

        l1 = l1_loss(matched_boxes, true_boxes, reduction="none").sum(-1)                       # (L·P)
        corners, true_corners = box_cxcywh_to_xyxy(matched_boxes), box_cxcywh_to_xyxy(true_boxes)  # (L·P,4)
        giou_loss = 1 - paired_generalized_box_iou(corners, true_corners)                       # (L·P)
        quality = None
        if focal and self.loss.quality:
            iou = paired_box_iou(corners, true_corners).detach()                                # (L·P)
            quality = torch.ones_like(logits[..., 0])                                           # (L,B,Q)
            quality.view(-1)[query] = iou ** self.loss.quality
        class_loss = self._class_loss(logits, classes, quality)                                 # (L,B,Q)
        if weight is not None:
            class_loss = class_loss * weight
            of_pair = weight.expand(L, B, Q).reshape(-1)[query] * (labels < K)                  # (L·P)
            l1, giou_loss = l1 * of_pair, giou_loss * of_pair
        best = logits.detach().argmax(-1)                                                       # (L,B,Q)
        found = logits.detach().amax(-1) > 0 if focal else best != K                            # (L,B,Q)
        right = (best.flatten()[query] == labels).view(L, P).sum(-1)                            # (L)
        objects = torch.tensor([len(t["labels"]) for t in targets]).to(logits.device, non_blocking=True)  # (B)
        return {
            "loss_ce": class_loss.sum((1, 2)) / (normalisers.num_boxes if focal else normalisers.class_weight),
            "loss_bbox": l1.view(L, P).sum(-1) / normalisers.num_boxes,
            "loss_giou": giou_loss.view(L, P).sum(-1) / normalisers.num_boxes,
            "cardinality_error": (found.sum(-1) - objects).abs().to(logits.dtype).mean(-1),
            "class_error": 100 - 100 * right.to(logits.dtype) / max(P, 1),
        }

    def _class_loss(self, logits: Tensor, classes: Tensor, quality: Optional[Tensor]) -> Tensor:
        """The classification loss of each query: logits (L,B,Q,·), classes (L,B,Q), K for "no object" → (L,B,Q).

        quality (L,B,Q) is the target score of a positive; None: 1.
        """
        if not self.matcher.focal:
            class_weight = logits.new_ones(self.num_classes + 1)
            class_weight[-1] = self.loss.eos_coef
            return cross_entropy(logits, classes, class_weight, reduction="none")
        K = self.num_classes
        yes = (classes[..., None] == torch.arange(K, device=classes.device)).to(logits.dtype)   # (L,B,Q,K)
        if quality is None:
            return sigmoid_focal_loss(logits, yes, self.loss.focal_alpha, self.loss.focal_gamma).sum(-1)
        scores = yes * quality[..., None]                                                       # (L,B,Q,K)
        return quality_focal_loss(logits, scores, self.loss.focal_alpha, self.loss.focal_gamma).sum(-1)


def joined_groups(outputs: dict[str, Any]) -> dict[str, Any]:
    """One output dict with the layers of all groups of queries, those of the group that inference keeps first."""
    groups = [outputs, *outputs.get("group_outputs", ())]
    *aux, last = [layer for group in groups for layer in (*group.get("aux_outputs", ()), group)]
    return {**last, "aux_outputs": aux}


def prefixed(prefix: str, by_layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of each layer under the official names with a prefix; errors are left out."""
    return {f"{prefix}_{name}": value for name, value in named_by_layer(by_layer).items() if name.startswith("loss")}


def assigned_cells(centres: Tensor, pad_mask: Tensor, targets: Targets) -> Tensor:
    """Which object each cell is trained on: (B·S), its place among all T targets, or T for none.

    centres (B,S,2) x, y of the cells, pad_mask (B,S). A cell inside a box is assigned to it, inside several to the
    smallest (FCOS, Tian et al. 2019). The cell nearest to an object's centre is assigned to it, inside or not, if no
    smaller object has that cell.
    """
    B, S, _ = centres.shape
    image = torch.tensor([i for i, target in enumerate(targets) for _ in target["labels"]], dtype=torch.int64)
    image = image.to(centres.device, non_blocking=True)                                         # (T)
    true_boxes = torch.cat([target["boxes"] for target in targets]).to(centres.dtype)           # (T,4)
    low, high = box_cxcywh_to_xyxy(true_boxes)[:, None].split(2, dim=-1)                        # (T,1,2) each
    x = centres[image]                                                                          # (T,S,2)
    distance = (x - true_boxes[:, None, :2]).square().sum(-1).masked_fill(pad_mask[image], torch.inf)  # (T,S)
    nearest = distance.argmin(1, keepdim=True)                                                  # (T,1)
    candidate = ((low < x) & (x < high)).all(-1).scatter(1, nearest, True) & ~pad_mask[image]   # (T,S)
    order = true_boxes[:, 2:].prod(-1).argsort(stable=True)                                     # (T), smallest first
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)                                 # (T)
    T = len(order)
    rank = torch.where(candidate, rank[:, None], T)                                             # (T,S)
    lowest = torch.full((B, S), T, device=centres.device)
    lowest = lowest.scatter_reduce(0, image[:, None].expand_as(rank), rank, "amin").flatten()   # (B·S), a rank or T
    return torch.cat((order, order.new_full((1,), T)))[lowest]
