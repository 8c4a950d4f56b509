"""reference.objective: DETR's matching and losses with torch.nn.functional and SciPy; notes in scratch/objective/."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from scratch.config import LossConfig

EMPTY = 0.25  # the weight of a cell without an object


class Truth(NamedTuple):
    """The T objects of all images in one row."""

    sizes: list[int]
    image: Tensor
    labels: Tensor
    boxes: Tensor


def _xyxy(boxes: Tensor) -> Tensor:
    centre, size = boxes.split(2, dim=-1)
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def _iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of xyxy boxes whose leading axes broadcast."""
    area_a, area_b = ((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b))
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = area_a + area_b - overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = overlap / union
    return iou, iou - (hull - union) / hull


def _answering_cells(centres: Tensor, pad_mask: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """centres (B,S,2), pad_mask (B,S) → the places of the cells inside an object, and each one's smallest object."""
    order = truth.boxes[:, 2:].prod(-1).argsort(stable=True)
    image, boxes, T = truth.image[order], truth.boxes[order], len(order)
    x, low, high = centres[image], *_xyxy(boxes)[:, None].split(2, dim=-1)
    distance = (x - boxes[:, None, :2]).square().sum(-1).masked_fill(pad_mask[image], torch.inf)
    inside = ((low < x) & (x < high)).all(-1).scatter(1, distance.argmin(1, keepdim=True), True) & ~pad_mask[image]
    bid = torch.where(inside, torch.arange(T, device=x.device)[:, None], T)
    winner = torch.full(pad_mask.shape, T, device=x.device)
    winner = winner.scatter_reduce(0, image[:, None].expand_as(bid), bid, "amin").flatten()
    cell = (winner < T).nonzero().squeeze(1)
    return cell, order[winner[cell]]


def _many_pairs(logits: Tensor, boxes: Tensor, truth: Truth, most: int,
                filler: Optional[Tensor]) -> tuple[Tensor, Tensor]:
    """logits (B,Q,K), boxes (B,Q,4) → the places of the queries that learn an object, and each one's object."""
    B, Q, _ = logits.shape
    if not len(truth.labels):
        return truth.labels, truth.labels
    iou = _iou_and_giou(_xyxy(boxes)[truth.image], _xyxy(truth.boxes)[:, None])[0]  # (T,Q)
    fit = 0.3 * logits.sigmoid()[truth.image].take_along_dim(truth.labels[:, None, None], 2)[..., 0] + 0.7 * iou
    if filler is not None:
        fit = fit.masked_fill(filler[truth.image], -1.0)
    order = fit.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # (T,Q): 0 for the best
    taken = ((order < most) & (iou >= 0.4) | (order == 0)) & (fit >= 0)
    bid = fit.new_full((len(fit), B, Q), -1.0)
    bid[torch.arange(len(fit)), truth.image] = fit.where(taken, -1.0)
    best, target = bid.flatten(1).max(0)
    query = (best >= 0).nonzero().squeeze(1)
    return query, target[query]


class ReferenceCriterion(nn.Module):
    """Outputs and targets as for `scratch.objective.criterion.SetCriterion` → the same losses; `total` adds them."""

    def __init__(self, num_classes: int, loss: LossConfig, focal: bool = False, one_to_many: int = 0):
        super().__init__()
        self.num_classes, self.config, self.focal, self.one_to_many = num_classes, loss, focal, one_to_many
        self.register_buffer("class_weight", torch.tensor([1.0] * num_classes + [loss.eos_coef]))

    @torch.no_grad()
    def match(self, logits: Tensor, boxes: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
        """logits (L,B,Q,·), boxes (L,B,Q,4) → the pairs, as places among the L·B·Q queries and the T objects."""
        L, B, Q, _ = logits.shape
        if self.focal:
            price = self._focal(logits, torch.ones_like(logits)) - self._focal(logits, torch.zeros_like(logits))
        else:
            price = -logits.softmax(-1)
        offered = boxes[:, truth.image]
        cost = (self.config.set_cost_class * price.movedim(3, 2)[:, truth.image, truth.labels]
                + self.config.set_cost_bbox * (offered - truth.boxes[:, None]).abs().sum(-1)
                - self.config.set_cost_giou * _iou_and_giou(_xyxy(offered), _xyxy(truth.boxes)[:, None])[1])
        tables, first = cost.cpu().split(truth.sizes, dim=1), np.cumsum([0, *truth.sizes])  # one transfer
        queries, objects = [], []
        for layer in range(L):
            for i, table in enumerate(tables):
                rows, columns = linear_sum_assignment(table[layer].numpy())
                queries.append(columns + (layer * B + i) * Q)
                objects.append(rows + first[i])
        pairs = torch.from_numpy(np.stack((np.concatenate(queries), np.concatenate(objects))))
        query, target = pairs.to(logits.device)
        return query, target

    def _focal(self, logits: Tensor, wanted: Tensor) -> Tensor:
        alpha = self.config.focal_alpha
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        loss = loss * (wanted - logits.sigmoid()).abs() ** self.config.focal_gamma
        return loss if alpha < 0 else loss * torch.where(wanted > 0, alpha, 1 - alpha)

    def _losses(self, logits: Tensor, boxes: Tensor, query: Tensor, target: Tensor, truth: Truth,
                weight: Optional[Tensor] = None) -> dict[str, Tensor]:
        """logits (L,B,Q,·), boxes (L,B,Q,4), the pairs, the weights (B,Q) → each loss of each layer (L)."""
        L, B, Q, _ = logits.shape
        num_boxes, sizes = max(len(truth.labels), 1), torch.tensor(truth.sizes, device=logits.device)
        labels, found, true_boxes = truth.labels[target], boxes.flatten(0, 2)[query], truth.boxes[target]
        iou, giou = _iou_and_giou(_xyxy(found), _xyxy(true_boxes))
        distance, giou_loss = F.l1_loss(found, true_boxes, reduction="none").sum(-1), 1 - giou
        best = logits.argmax(-1)
        if self.focal:
            wanted = torch.zeros_like(logits)
            wanted.view(L * B * Q, -1)[query, labels] = iou.detach() ** self.config.quality
            class_loss, divisor = self._focal(logits, wanted).sum(-1), num_boxes
            claimed = logits.amax(-1) > 0
        else:
            classes = torch.full((L * B * Q,), self.num_classes, device=logits.device)
            classes[query] = labels
            class_weight = self.class_weight.to(logits.dtype)
            class_loss = F.cross_entropy(logits.flatten(0, 2), classes, class_weight, reduction="none").view(L, B, Q)
            divisor = class_weight[classes].view(L, -1).sum(1)
            claimed = best != self.num_classes
        if weight is not None:
            counts = weight.expand(L, B, Q).flatten()[query]
            class_loss, distance, giou_loss = class_loss * weight, distance * counts, giou_loss * counts
        right = (best.flatten()[query] == labels).view(L, -1).to(logits.dtype)
        return {
            "loss_ce": class_loss.sum((1, 2)) / divisor,
            "loss_bbox": distance.view(L, -1).sum(1) / num_boxes,
            "loss_giou": giou_loss.view(L, -1).sum(1) / num_boxes,
            "class_error": 100 - 100 * right.sum(1) / max(right.shape[1], 1),
            "cardinality_error": (claimed.sum(-1) - sizes).abs().to(logits.dtype).mean(-1),
        }

    def _of_one_to_many(self, outputs: dict[str, Any], truth: Truth) -> dict[str, Tensor]:
        layers = [*outputs.get("aux_outputs", []), outputs]
        losses = {}
        for i, layer in enumerate(layers):
            logits, boxes = layer["pred_logits"], layer["pred_boxes"]
            query, target = _many_pairs(logits.detach(), boxes.detach(), truth, self.one_to_many, outputs.get("filler"))
            each = len(truth.labels) / max(len(query), 1) if len(truth.labels) else 1 / self.one_to_many
            weight = logits.new_full(logits.shape[:2], each)
            of_layer = self._losses(logits[None], boxes[None], query, target, truth, weight)
            suffix = "" if i == len(layers) - 1 else f"_{i}"
            losses |= {f"many_{name}{suffix}": of_layer[name][0] for name in ("loss_ce", "loss_bbox", "loss_giou")}
        return losses

    def _of_cells(self, cells: dict[str, Tensor], truth: Truth) -> dict[str, Tensor]:
        cell, target = _answering_cells(cells["centres"], cells["pad_mask"], truth)
        weight = torch.full_like(cells["pad_mask"], EMPTY, dtype=cells["pred_logits"].dtype)
        among = weight.new_zeros(len(truth.labels)).index_add_(0, target, weight.new_ones(len(target)))
        weight.view(-1)[cell] = 1 / among[target]
        weight = weight.masked_fill(cells["pad_mask"], 0.0)
        losses = self._losses(cells["pred_logits"][None], cells["pred_boxes"][None], cell, target, truth, weight)
        return {f"cell_{name}": losses[name][0] for name in ("loss_ce", "loss_bbox", "loss_giou")}

    def forward(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        layers = [*outputs.get("aux_outputs", []), outputs]
        logits, boxes = (torch.stack([layer[name] for layer in layers]) for name in ("pred_logits", "pred_boxes"))
        labels = torch.cat([target["labels"] for target in targets])
        sizes = [len(target["labels"]) for target in targets]
        image = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(labels.device)
        truth = Truth(sizes, image, labels, torch.cat([target["boxes"] for target in targets]).to(boxes))
        by_layer = self._losses(logits, boxes, *self.match(logits, boxes, truth), truth)
        losses = {name: values[-1] for name, values in by_layer.items()}
        losses |= {f"{name}_{i}": value for name, values in by_layer.items() if name != "class_error"
                   for i, value in enumerate(values[:-1])}
        losses |= self._of_one_to_many(outputs["one_to_many"], truth) if "one_to_many" in outputs else {}
        return losses | (self._of_cells(outputs["proposals"], truth) if "proposals" in outputs else {})

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        weights = {"loss_ce": self.config.ce_loss_coef, "loss_bbox": self.config.bbox_loss_coef,
                   "loss_giou": self.config.giou_loss_coef}
        return sum(weight * value for name, weight in weights.items()
                   for key, value in losses.items() if key.removeprefix("cell_").removeprefix("many_").startswith(name))
