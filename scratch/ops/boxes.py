"""boxes: how well do two boxes agree, and which way should one move to agree better?

    IoU(a,b)  = |a ∩ b| / |a ∪ b|                   in [0, 1]; 0 for all disjoint boxes, near or far
    GIoU(a,b) = IoU − (|hull| − |a ∪ b|) / |hull|   in [−1, 1]; still tells near from far

        ┌────────┐┄┄┄┄┐     a = (0,0,2,2), b = (1,1,3,3)
        │ a   ┌──┼────┤     a ∩ b: 1·1 = 1      a ∪ b: 4 + 4 − 1 = 7
        └─────┼──┘  b │     hull (dotted, the smallest box around both): 3·3 = 9
        ┊┄┄┄┄┄└───────┘     IoU = 1/7           GIoU = 1/7 − 2/9 = −5/63

    A box is xyxy (x0, y0, x1, y1), or cxcywh (centre, size; what the model predicts, in [0,1] of
    the image), or xywh (corner, size; what COCO files hold): (..., 4)

IoU is intersection over union; GIoU the generalized IoU (Rezatofighi et al. 2019, arXiv 1902.09630),
which has a gradient for disjoint boxes too. Half precision is raised to float32: at pixel 640 bf16
counts in steps of 4, and the area of a 256×256 box overflows fp16. A box with x1 ≤ x0 or y1 ≤ y0 has
area 0, and 0/0 counts as 0 with gradient 0, where the plain formula gives NaN. Not in torch.nn; proven
against the definition and a composition of torch in tests/ops/test_boxes.py.
Read: giou_of_two (the definition) → paired_generalized_box_iou (pairs) → generalized_box_iou (all pairs)
"""

from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

from scratch.ops.activations import at_least_float32


def box_cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) centre and size → (..., 4) corners."""
    centre, size = at_least_float32(boxes_cxcywh).split(2, dim=-1)      # (...,2) each
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def box_xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) corners → (..., 4) centre and size."""
    low, high = at_least_float32(boxes_xyxy).split(2, dim=-1)           # (...,2) each
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def box_xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """(..., 4) upper left corner and size (COCO's own) → (..., 4) corners."""
    low, size = at_least_float32(boxes_xywh).split(2, dim=-1)           # (...,2) each
    return torch.cat((low, low + size), dim=-1)


def box_area(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) → (...), 0 for empty and inside-out boxes."""
    return _area(*at_least_float32(boxes_xyxy).split(2, dim=-1))


def giou_of_two(a: Sequence[float], b: Sequence[float]) -> float:
    """The definition, for two xyxy boxes of four plain numbers each."""
    def area(x0: float, y0: float, x1: float, y1: float) -> float:
        return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    hull = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    iou = shared / union if union > 0 else 0.0
    return iou - ((hull - union) / hull if hull > 0 else 0.0)


def paired_box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of each box of `a` with its partner in `b`: (...,4), (...,4) → (...); leading dimensions broadcast."""
    return _ratio(*_shared_and_union(at_least_float32(a_xyxy), at_least_float32(b_xyxy)))


def paired_generalized_box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """GIoU of each box of `a` with its partner in `b`: (...,4), (...,4) → (...); leading dimensions broadcast.

    What changed: a tensor operation for each line of the definition, elementwise; each `if` becomes `_ratio`.
    """
    a, b = at_least_float32(a_xyxy), at_least_float32(b_xyxy)
    shared, union = _shared_and_union(a, b)                             # (...) each
    hull = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    return _ratio(shared, union) - _ratio(hull - union, hull)


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of each of A boxes `a` with each of M boxes `b`: (...,A,4), (...,M,4) → two of (...,A,M)."""
    a, b = at_least_float32(a_xyxy), at_least_float32(b_xyxy)
    shared, union = _shared_and_union(a[..., :, None, :], b[..., None, :, :])
    return _ratio(shared, union), union


def generalized_box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """GIoU of each of A boxes `a` with each of M boxes `b`: (...,A,4), (...,M,4) → (...,A,M), by two new axes."""
    return paired_generalized_box_iou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def _area(low: Tensor, high: Tensor) -> Tensor:
    """Corners (...,2) each → (...). Clamped before the product: two negative sides would make a positive area."""
    width, height = (high - low).clamp(min=0).unbind(-1)
    return width * height


def _shared_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas (...) of a ∩ b and a ∪ b, for a and b (...,4)."""
    shared = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    return shared, _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 with gradient 0 where whole is 0.

    The divisor is replaced *before* the division: `where(whole > 0, part / whole, 0)` has the right value, but in
    backpropagation the unused side's infinite slope times 0 is NaN. Areas below the smallest normal number count as 0:
    their reciprocal may be infinite.
    """
    solid = whole > torch.finfo(whole.dtype).tiny
    return torch.where(solid, part / torch.where(solid, whole, 1), 0)
