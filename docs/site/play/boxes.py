"""boxes: two boxes to drag, with IoU, GIoU and L1."""

from __future__ import annotations

from typing import Any

import torch

from docs.site.play.widget import widget
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou, paired_generalized_box_iou
from scratch.ops.cross_entropy import l1_loss

Box = tuple[float, float, float, float]  # cx, cy, w, h
SCENES: tuple[tuple[str, Box, Box], ...] = (
    ("overlapping", (0.35, 0.40, 0.40, 0.40), (0.55, 0.60, 0.40, 0.40)),
    ("apart", (0.22, 0.30, 0.28, 0.36), (0.72, 0.62, 0.28, 0.36)),
    ("one inside the other", (0.50, 0.50, 0.70, 0.60), (0.45, 0.55, 0.25, 0.25)),
    ("same centre, other shape", (0.50, 0.50, 0.70, 0.20), (0.50, 0.50, 0.20, 0.70)),
)


def values(a: Box, b: Box) -> dict[str, float]:
    """IoU, GIoU and L1 of two boxes (cx, cy, w, h), by scratch/ops."""
    one, two = (torch.tensor(box, dtype=torch.float64) for box in (a, b))
    corners = [box_cxcywh_to_xyxy(box) for box in (one, two)]
    return {"iou": paired_box_iou(*corners).item(), "giou": paired_generalized_box_iou(*corners).item(),
            "l1": l1_loss(one, two, reduction="sum").item()}


def data() -> dict[str, Any]:
    """Some pairs of boxes to start from, with what scratch/ops computes for them."""
    return {"scenes": [{"name": name, "a": a, "b": b, **values(a, b)} for name, a, b in SCENES]}


BOXES = widget(
    "boxes", "Two boxes: IoU, GIoU and L1", "ops/boxes",
    "How well do two boxes agree? IoU is the shared area divided by that of the union. GIoU also subtracts the share "
    "of the hull that neither box covers. L1 is the sum of the four absolute differences of (cx, cy, w, h). DETR's "
    "box loss is 5·L1 + 2·(1 − GIoU).\n\n"
    "Try: pull the boxes apart. IoU stays at 0, GIoU falls on towards −1, so its gradient still says which way to go. "
    "Then let one box lie inside the other: why are IoU and GIoU equal there?", data)
