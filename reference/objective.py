"""reference.objective: DETR's matching and losses with torch.nn.functional and SciPy; notes in scratch/objective/."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from scratch.config import LossConfig

Matches = list[tuple[Tensor, Tensor]]


def _xyxy(boxes: Tensor) -> Tensor:
    centre, size = boxes.split(2, dim=-1)
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of xyxy boxes whose leading axes broadcast."""
    area_a, area_b = ((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b))
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = area_a + area_b - overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return overlap / union - (hull - union) / hull


class ReferenceCriterion(nn.Module):
    """Outputs and targets as for `scratch.objective.criterion.SetCriterion` → the same losses; `total` adds them."""

    def __init__(self, num_classes: int, loss: LossConfig):
        super().__init__()
        self.num_classes, self.config = num_classes, loss
        self.register_buffer("class_weight", torch.tensor([1.0] * num_classes + [loss.eos_coef]))

    @torch.no_grad()
    def match(self, logits: Tensor, boxes: Tensor, targets: list[dict[str, Any]]) -> list[Matches]:
        """logits (L,B,Q,K+1), boxes (L,B,Q,4) → for each layer and image, (query indices, target indices)."""
        probability, costs = logits.softmax(-1), []
        for i, target in enumerate(targets):
            costs.append(self.config.set_cost_bbox * torch.cdist(boxes[:, i], target["boxes"].to(boxes), p=1)
                         - self.config.set_cost_class * probability[:, i][..., target["labels"]]
                         - self.config.set_cost_giou * _giou(_xyxy(boxes[:, i])[:, :, None], _xyxy(target["boxes"])))
        sizes = [len(target["labels"]) for target in targets]
        every = torch.cat(costs, dim=-1).cpu()  # one transfer for all layers and images
        return [[tuple(torch.as_tensor(x, device=logits.device) for x in linear_sum_assignment(cost.numpy()))
                 for cost in layer.split(sizes, dim=-1)] for layer in every]

    def _losses(self, logits: Tensor, boxes: Tensor, matches: Matches,
                targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        image = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(matches)])
        query = torch.cat([query for query, _ in matches])
        labels = torch.cat([target["labels"][j] for target, (_, j) in zip(targets, matches)])
        true_boxes = torch.cat([target["boxes"][j] for target, (_, j) in zip(targets, matches)]).to(boxes)
        classes = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
        classes[image, query] = labels
        sizes = [len(target["labels"]) for target in targets]
        num_boxes, matched = max(sum(sizes), 1), boxes[image, query]
        right = (logits[image, query].argmax(-1) == labels).to(logits.dtype)
        answered = (logits.argmax(-1) != self.num_classes).sum(1).to(logits.dtype)
        return {
            "loss_ce": F.cross_entropy(logits.transpose(1, 2), classes, self.class_weight.to(logits.dtype)),
            "loss_bbox": F.l1_loss(matched, true_boxes, reduction="sum") / num_boxes,
            "loss_giou": (1 - _giou(_xyxy(matched), _xyxy(true_boxes))).sum() / num_boxes,
            "class_error": 100 - 100 * right.mean() if len(labels) else logits.new_tensor(100.0),
            "cardinality_error": F.l1_loss(answered, answered.new_tensor(sizes)),
        }

    def forward(self, outputs: dict[str, Any], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        layers = [*outputs.get("aux_outputs", []), outputs]
        logits, boxes = (torch.stack([layer[name] for layer in layers]) for name in ("pred_logits", "pred_boxes"))
        matches = self.match(logits, boxes, targets)
        *aux, last = [self._losses(*layer, targets) for layer in zip(logits, boxes, matches)]
        return {**last, **{f"{name}_{i}": value for i, losses in enumerate(aux)
                           for name, value in losses.items() if name != "class_error"}}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        weights = {"loss_ce": self.config.ce_loss_coef, "loss_bbox": self.config.bbox_loss_coef,
                   "loss_giou": self.config.giou_loss_coef}
        return sum(weight * value for name, weight in weights.items()
                   for key, value in losses.items() if key == name or key.startswith(name + "_"))
