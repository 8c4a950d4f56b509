"""boxes: IoU and GIoU of boxes that overlap, and of boxes that do not."""

from __future__ import annotations

import torch

from docs.site.drawings.drawing import Canvas, drawing, shown
from scratch.ops.boxes import box_area, paired_box_iou, paired_generalized_box_iou

A = (0.0, 0.0, 2.0, 2.0)
SCENES = (("overlap", (1.0, 1.0, 3.0, 3.0)), ("near", (2.5, 0.5, 4.5, 2.5)), ("far", (5.0, 1.0, 7.0, 3.0)))


def values(b: tuple[float, ...]) -> tuple[float, float, float, float]:
    """IoU and GIoU of A and b, the area of their union, and that of the smallest box around both."""
    one, two = (torch.tensor(box, dtype=torch.float64) for box in (A, b))
    iou, giou = paired_box_iou(one, two).item(), paired_generalized_box_iou(one, two).item()
    hull = box_area(torch.cat((torch.minimum(one, two)[:2], torch.maximum(one, two)[2:]))).item()
    return iou, giou, (box_area(one) + box_area(two)).item() / (1 + iou), hull


def paint(canvas: Canvas) -> None:
    unit = 27
    for k, (name, b) in enumerate(SCENES):
        top, left = 14 + 110 * k, 12
        iou, giou, union, hull = values(b)
        x1, y1 = max(A[2], b[2]), max(A[3], b[3])
        canvas.rect(left, top, x1 * unit, y1 * unit, "none", "soft", thick=1.4, dash="4 3")
        for box, colour in ((A, "blue"), (b, "orange")):
            canvas.rect(left + box[0] * unit, top + box[1] * unit, (box[2] - box[0]) * unit, (box[3] - box[1]) * unit,
                        colour, colour, 0.28, thick=1.6)
        canvas.text(left + 14, top + 20, "a", 14, colour="blue", bold=True)
        canvas.text(left + b[2] * unit - 12, top + b[3] * unit - 9, "b", 14, colour="orange", bold=True)
        x = 214
        canvas.text(x, top + 14, name, 13, "start", bold=True)
        canvas.text(x, top + 34, f"union {union:.0f}, hull {hull:.4g}", 12, "start", "soft")
        canvas.text(x, top + 54, f"IoU    {shown(iou, 3)}", 13, "start")
        canvas.text(x, top + 73, f"GIoU  {shown(giou, 3)}", 13, "start", "violet")
    canvas.text(180, 346, "dashed: the hull, the smallest box around both", 12, colour="soft")


BOXES = drawing(
    "iou-giou", "IoU is 0 for all disjoint boxes; GIoU still tells near from far",
    "Three pairs of 2×2 boxes: overlapping, near and far. Their IoU is 0.143, 0 and 0; their GIoU falls from −0.079 "
    "further below 0 with the distance.", 356, paint)
