"""criterion: how wrong is the answer, in one number for each way of being wrong?

    loss_ce    = Σ_q w[c_q] · −log p_q[c_q] / Σ_q w[c_q]    c_q: q's label, or "no object" (w = 0.1)
    loss_bbox  = Σ_pairs ‖box_q − box_t‖₁ / num_boxes
    loss_giou  = Σ_pairs (1 − GIoU(box_q, box_t)) / num_boxes
    total      = Σ_layers 1·loss_ce + 5·loss_bbox + 2·loss_giou

    pred_logits (L,B,Q,K+1), pred_boxes (L,B,Q,4), targets → a dict of scalars

All L decoder layers answer (auxiliary losses, section 3.2), and each is matched anew: another layer
may see the cat with another query. They are stacked and blamed at once, as if they were L·B images,
so that the host waits for the matching once a batch and not once a layer. Groups of queries
(model/anchors/queries) are so many layers more; noised boxes (model/anchors/denoising) and the encoder's cells
(model/anchors/proposals) are blamed by the same few lines, but need no matching: whose answer is whose is
known from where they stand.

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
from scratch.ops.activations import at_least_float32
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou, paired_generalized_box_iou
from scratch.ops.cross_entropy import cross_entropy, l1_loss
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.beyond.quality_focal_loss import quality_focal_loss

Targets = list[dict[str, Any]]
Matching = list[list[tuple[Tensor, Tensor]]]  # of each layer, of each image: (query indices, target indices)

EMPTY = 0.25  # the weight of a cell without an object, where the cells of an object have 1 together


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

    Further losses have a prefix: dn_ for noised boxes, cell_ for the encoder's cells. With groups of queries every loss
    is the mean over the groups. With `matcher.focal`, loss_ce is the focal loss divided by the number of boxes.

    class_error        per cent of the matched queries whose best label is wrong (100 if none is matched)
    cardinality_error  |queries that claim an object − objects|, averaged over the images
    The two are there to be read; they have no gradient, and are averages of this batch whatever the normalisers.

    Raises FloatingPointError and ValueError as the matcher does, before a loss of the matched queries could be anything
    but a finite number. Noised boxes and cells are not looked at there: theirs may be, and the training run says so.
    """

    def __init__(self, num_classes: int, matcher: HungarianMatcher, loss: LossConfig) -> None:
        self.num_classes, self.matcher, self.loss = num_classes, matcher, loss
        # The weights of the last layer's losses; those of the layers before it weigh the same.
        self.weight_dict = {"loss_ce": loss.ce_loss_coef, "loss_bbox": loss.bbox_loss_coef,
                            "loss_giou": loss.giou_loss_coef}

    def __call__(self, outputs: dict[str, Any], targets: Targets, normalisers: Optional[Normalisers] = None,
                 matching: Optional[Matching] = None) -> dict[str, Tensor]:
        groups = [outputs, *outputs.get("group_outputs", ())]
        G = len(groups)
        logits, boxes = stacked_layers(groups)                                                  # (G·L,B,Q,·)
        if normalisers is None:
            normalisers = self.normalisers([targets], logits.shape[2], across_ranks=False)
        if matching is None:
            matching = self.matching(outputs, targets)
        by_layer = self._by_layer(logits, boxes, *self._places(matching, logits, targets), targets, normalisers)
        # A group is a detector of its own, and counts as one of G.
        losses = named_by_layer({name: values.view(G, -1).mean(0) for name, values in by_layer.items()})
        if "denoising" in outputs:
            losses |= prefixed("dn", self._of_denoising(outputs["denoising"], targets, normalisers))
        if "proposals" in outputs:
            losses |= prefixed("cell", self._of_cells(outputs["proposals"], targets, normalisers))
        return losses

    def matching(self, outputs: dict[str, Any], targets: Targets) -> Matching:
        """The pairs of each decoder layer, group by group: (G·L) lists over the images, as the matcher returns them."""
        logits, boxes = stacked_layers([outputs, *outputs.get("group_outputs", ())])            # (G·L,B,Q,·)
        B = logits.shape[1]
        as_images = {"pred_logits": logits.flatten(0, 1), "pred_boxes": boxes.flatten(0, 1)}    # (G·L·B,Q,·)
        pairs = self.matcher(as_images, targets * len(logits))
        return [pairs[i:i + B] for i in range(0, len(pairs), B)]

    def _of_denoising(self, outputs: dict[str, Any], targets: Targets, normalisers: Normalisers) -> dict[str, Tensor]:
        """The losses of the noised queries: nothing to match, for query (copy r, object t) is to answer object t."""
        logits, boxes = stacked_layers([outputs])                                               # (L,B,P,·)
        R = outputs["copies"]
        M = logits.shape[2] // R
        objects = [torch.arange(len(target["labels"])) for target in targets]
        pairs = [(torch.cat([t + r * M for r in range(R)]), t.repeat(R)) for t in objects]
        places = self._places([pairs] * len(logits), logits, targets)
        weight = (~outputs["filler"]).to(logits.dtype) / R  # an object's R copies have its weight together
        matched = Normalisers(normalisers.num_boxes, normalisers.num_boxes)  # none of them is to say "nothing"
        return self._by_layer(logits, boxes, *places, targets, matched, weight)

    def _of_cells(self, outputs: dict[str, Any], targets: Targets, normalisers: Normalisers) -> dict[str, Tensor]:
        """The losses of the encoder's cells: those inside an object answer for it, and share one object's weight."""
        logits, boxes = stacked_layers([outputs])                                               # (1,B,S,·)
        cell, target = answering_cells(outputs["centres"], outputs["pad_mask"], targets)        # (P) each
        among = logits.new_zeros(sum(len(t["labels"]) for t in targets))                        # (T) cells of each
        among = among.index_add(0, target, torch.ones_like(target, dtype=among.dtype))
        weight = torch.full(logits.shape[1:3], EMPTY, dtype=logits.dtype, device=logits.device)  # (B,S)
        weight.view(-1)[cell] = 1 / among[target]
        weight = weight.masked_fill(outputs["pad_mask"], 0.0)
        return self._by_layer(logits, boxes, cell, target, targets, normalisers, weight)

    def _places(self, matching: Matching, logits: Tensor, targets: Targets) -> Tensor:
        """The pairs of all L layers as a place among the L·B·Q queries and one among all targets: (2,L·P)."""
        Q, sizes = logits.shape[2], [len(target["labels"]) for target in targets]
        first = [sum(sizes[:i]) for i in range(len(sizes))] * len(matching)                     # image i's first target
        pairs = [pair for layer in matching for pair in layer]
        query = torch.cat([q + i * Q for i, (q, _) in enumerate(pairs)])                        # (L·P)
        target = torch.cat([t + start for (_, t), start in zip(pairs, first)])                  # (L·P)
        return torch.stack((query, target)).to(logits.device, non_blocking=True)                # one copy

    def _by_layer(self, logits: Tensor, boxes: Tensor, query: Tensor, target: Tensor, targets: Targets,
                  normalisers: Normalisers, weight: Optional[Tensor] = None) -> dict[str, Tensor]:
        """logits (L,B,Q,·), boxes (L,B,Q,4), `_places` → each loss and error of each layer (L).

        weight   (B,Q), how much a query counts; None: all count 1
        """
        L, B, Q, _ = logits.shape
        K, P = self.num_classes, len(query) // L
        labels = torch.cat([t["labels"] for t in targets])[target]                              # (L·P)
        wanted = torch.cat([t["boxes"] for t in targets]).to(boxes.dtype)[target]               # (L·P,4)
        found = boxes.flatten(0, 2)[query]                                                      # (L·P,4)
        classes = torch.full((L * B * Q,), K, device=logits.device)                             # K: "no object"
        classes[query] = labels
        classes = classes.view(L, B, Q)

        distance = l1_loss(found, wanted, reduction="none").sum(-1)                             # (L·P)
        corners, true_corners = box_cxcywh_to_xyxy(found), box_cxcywh_to_xyxy(wanted)           # (L·P,4)
        gap = 1 - paired_generalized_box_iou(corners, true_corners)                             # (L·P)
        quality = None
        if self.matcher.focal and self.loss.quality:
            fit = paired_box_iou(corners, true_corners).detach()                                # (L·P)
            quality = torch.ones_like(logits[..., 0])                                           # (L,B,Q)
            quality.view(-1)[query] = fit ** self.loss.quality
        surprise = self._surprise(logits, classes, quality)                                     # (L,B,Q)
        divisor = normalisers.num_boxes if self.matcher.focal else normalisers.class_weight
        if weight is not None:
            surprise = surprise * weight
            counts = weight.expand(L, B, Q).reshape(-1)[query]                                  # (L·P)
            distance, gap = distance * counts, gap * counts
        best = logits.detach().argmax(-1)                                                       # (L,B,Q)
        claims = logits.detach().amax(-1) > 0 if self.matcher.focal else best != K              # (L,B,Q)
        claimed = claims.sum(-1)                                                                # (L,B)
        right = (best.flatten()[query] == labels).view(L, P).sum(-1)                            # (L)
        objects = torch.tensor([len(t["labels"]) for t in targets]).to(logits.device, non_blocking=True)  # (B)
        return {
            "loss_ce": surprise.sum((1, 2)) / divisor,
            "loss_bbox": distance.view(L, P).sum(-1) / normalisers.num_boxes,
            "loss_giou": gap.view(L, P).sum(-1) / normalisers.num_boxes,
            "cardinality_error": (claimed - objects).abs().to(logits.dtype).mean(-1),
            "class_error": 100 - 100 * right.to(logits.dtype) / max(P, 1),
        }

    def _surprise(self, logits: Tensor, classes: Tensor, quality: Optional[Tensor]) -> Tensor:
        """The classification loss of each query: logits (L,B,Q,·), classes (L,B,Q), K for "no object" → (L,B,Q).

        quality (L,B,Q) is what a yes is to be; None: 1.
        """
        if self.matcher.focal:
            K = self.num_classes
            yes = (classes[..., None] == torch.arange(K, device=classes.device)).to(logits.dtype)  # (L,B,Q,K)
            if quality is None:
                return sigmoid_focal_loss(logits, yes, self.loss.focal_alpha, self.loss.focal_gamma).sum(-1)
            wanted = yes * quality[..., None]                                                   # (L,B,Q,K)
            return quality_focal_loss(logits, wanted, self.loss.focal_alpha, self.loss.focal_gamma).sum(-1)
        class_weight = logits.new_ones(self.num_classes + 1)
        class_weight[-1] = self.loss.eos_coef
        return cross_entropy(logits, classes, class_weight, reduction="none")

    def total(self, losses: dict[str, Tensor], of: tuple[str, ...] = ("", "dn_", "cell_")) -> Tensor:
        """The weighted sum over all layers, however many `losses` holds: the number that is minimised.

        of   whose losses count: the queries' (""), the noised boxes', the cells'; the first alone can be evaluated
        """
        return sum(weight * value for base, weight in self.weight_dict.items()
                   for name, value in losses.items() if name.startswith(tuple(prefix + base for prefix in of)))

    def normalisers(self, micro_batches: list[Targets], num_queries: int, across_ranks: bool = True) -> Normalisers:
        """The divisors of one optimizer step, from the targets of all its micro-batches on this rank.

        Where torch.distributed is initialised, every rank must call this at the same time, unless `across_ranks` is off
        (as in an evaluation, where one rank may have a batch more than another). Ranks and micro-batches may hold
        different numbers of images and boxes: the result is exact, not an average of averages.
        """
        sizes = [len(target["labels"]) for targets in micro_batches for target in targets]
        matched = sum(min(M, num_queries) for M in sizes)
        unmatched = num_queries * len(sizes) - matched
        sums, ranks = torch.tensor([sum(sizes), matched + unmatched * self.loss.eos_coef], dtype=torch.float64), 1
        if across_ranks and torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = sums.to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
            torch.distributed.all_reduce(sums)
            ranks = torch.distributed.get_world_size()
        num_boxes, class_weight = sums.tolist()
        # Nothing to blame (no box; or no box and eos_coef = 0): the sum above the line is 0, whatever stands below.
        return Normalisers(max(num_boxes, 1.0) / ranks, (class_weight or 1.0) / ranks)


def stacked_layers(groups: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """The logits (G·L,B,Q,·) and boxes (G·L,B,Q,4) of G output dicts, each in its decoder's order, at least float32."""
    layers = [layer for group in groups for layer in (*group.get("aux_outputs", ()), group)]
    return (at_least_float32(torch.stack([layer["pred_logits"] for layer in layers])),
            at_least_float32(torch.stack([layer["pred_boxes"] for layer in layers])))


def named_by_layer(by_layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """(L) of each loss → the official names: the last layer's as they are, "_0" … "_{L−2}" behind those before it."""
    losses = {name: values[-1] for name, values in by_layer.items()}
    for name, values in by_layer.items():
        if name != "class_error":
            losses |= {f"{name}_{i}": value for i, value in enumerate(values[:-1])}
    return losses


def prefixed(prefix: str, by_layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of each layer under the official names with a prefix; errors are left out."""
    return {f"{prefix}_{name}": value for name, value in named_by_layer(by_layer).items() if name.startswith("loss")}


def answering_cells(centres: Tensor, pad_mask: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Which cells answer for which objects: places among the B·S cells and among all T targets, (P) each.

    centres (B,S,2) x, y of the cells, pad_mask (B,S). A cell inside a box answers for it, inside several for the
    smallest. The cell nearest to an object's centre answers for it if no smaller object wants it, inside or not.
    """
    B, S, _ = centres.shape
    image = torch.tensor([i for i, target in enumerate(targets) for _ in target["labels"]], dtype=torch.int64)
    image = image.to(centres.device, non_blocking=True)                                         # (T)
    wanted = torch.cat([target["boxes"] for target in targets]).to(centres.dtype)               # (T,4)
    low, high = box_cxcywh_to_xyxy(wanted)[:, None].split(2, dim=-1)                            # (T,1,2) each
    x = centres[image]                                                                          # (T,S,2)
    distance = (x - wanted[:, None, :2]).square().sum(-1).masked_fill(pad_mask[image], torch.inf)  # (T,S)
    nearest = distance.argmin(1, keepdim=True)                                                  # (T,1)
    wants = ((low < x) & (x < high)).all(-1).scatter(1, nearest, True) & ~pad_mask[image]       # (T,S)
    order = wanted[:, 2:].prod(-1).argsort(stable=True)                                         # (T), smallest first
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)                                 # (T)
    T = len(order)
    bid = torch.where(wants, rank[:, None], T)                                                  # (T,S)
    won_by = torch.full((B, S), T, device=centres.device)
    won_by = won_by.scatter_reduce(0, image[:, None].expand_as(bid), bid, "amin").flatten()     # (B·S), a rank or T
    cell = (won_by < T).nonzero().squeeze(1)                                                    # (P)
    return cell, order[won_by[cell]]
