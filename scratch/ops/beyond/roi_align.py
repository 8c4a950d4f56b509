"""roi_align: a box has any size, a linear layer needs 7×7 numbers; how are they read from a feature map?

    y[c,i,j] = mean of x[c] at the n×n points of part (i,j) of the box, read between the cells

    x (C,h,w), boxes (M,4) xyxy in pixels, stride s → y (M,C,r,r)           r = 7, n = 2

      a box over cells, r = n = 2           bilinear interpolation at row p: the weights are
      ·   ┌───────┬───────┐                 ⌊p⌋ + 1 − p for row ⌊p⌋ and p − ⌊p⌋ for row ⌊p⌋ + 1:
      · · │·x · x │·x · x │·                max(0, 1 − |p − row|) for each row (a "hat" function)
      · · │·x · x │·x · x │·
      · · └───────┴───────┘·                pixel u lies at u/s − ½ among the cells' centres

A two-stage detector classifies a box from the features inside it. RoIPool (Girshick 2015) rounded
the box and its parts to whole cells: with s = 16 an edge moved by up to 8 pixels, and the box got
no gradient. RoIAlign rounds nothing (He et al. 2017, arXiv 1703.06870, section 3).

As a matrix it is an attention with fixed weights: each of the r² outputs is a weighted mean over
the S = h·w cells, and the box alone determines the weights. In DETR's cross-attention a query
determines them, over the whole image, so no box is needed beforehand.
DETR as published has none (see scratch/model/beyond/two_philosophies); the detector that learns in minutes reads
the features around a query's box in this way (model/anchors/roi_features).

Same as torchvision.ops.roi_align(aligned=True, sampling_ratio=2); held against torch's grid_sample in
tests/ops/beyond/test_roi_align.py. Read: roi_align_definition (the formula) → points_between → hats → roi_align
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIZE, POINTS = 7, 2  # r and n of Mask R-CNN's box head


def roi_align_definition(x: Tensor, box_xyxy: Tensor, stride: float, size: int = SIZE, points: int = POINTS) -> Tensor:
    """The formula, for one box: (C,h,w), (4,) → (C,size,size). Points outside the cells read their border.

    More than a cell outside, they read 0, as in torchvision.
    """
    C, h, w = x.shape
    x0, y0, x1, y1 = (float(edge) / stride - 0.5 for edge in box_xyxy)
    y = x.new_zeros(C, size, size)
    for i in range(size):
        for j in range(size):
            for k in range(points):
                for l in range(points):
                    p = y0 + (y1 - y0) * (i + (k + 0.5) / points) / size
                    q = x0 + (x1 - x0) * (j + (l + 0.5) / points) / size
                    if not (-1 <= p <= h and -1 <= q <= w):
                        continue
                    p, q = min(max(p, 0), h - 1), min(max(q, 0), w - 1)
                    for row in {math.floor(p), math.ceil(p)}:
                        for column in {math.floor(q), math.ceil(q)}:
                            weight = (1 - abs(p - row)) * (1 - abs(q - column))
                            y[:, i, j] += weight * x[:, row, column] / points ** 2
    return y


def points_between(low: Tensor, high: Tensor, number: int, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Where the middles of `number` equal parts between low and high lie, (…) each → (…,number); and which are read.

    cells (…) is how many there are, at 0, 1 … A point further out than a cell is not read; else one outside moves in.
    """
    offsets = (torch.arange(number, dtype=low.dtype, device=low.device) + 0.5) / number  # (number,)
    at = low[..., None] + (high - low)[..., None] * offsets             # (…,number)
    near = (at >= -1) & (at <= cells[..., None])
    return torch.minimum(at.clamp(min=0), cells[..., None] - 1), near


def hats(at: Tensor, near: Tensor, cells: int) -> Tensor:
    """How much each of `cells` cells counts at each point: (…,n) → (…,n,cells). Rows sum to 1, or to 0 if not near."""
    centres = torch.arange(cells, dtype=at.dtype, device=at.device)     # (cells,)
    return (1 - (at[..., None] - centres).abs()).clamp(min=0) * near[..., None]


def roi_align(x: Tensor, boxes_xyxy: Tensor, stride: float, size: int = SIZE, points: int = POINTS) -> Tensor:
    """The same for all boxes: (C,h,w), (M,4) → (M,C,size,size).

    What changed: two matrix products instead of six loops. Why it is equal: a point's weight is that of its row times
    that of its column, and the points of a part are a grid, so the mean over them is the mean over rows of the mean
    over columns: y[c] = A·x[c]·Bᵀ, with the hats A (r,h) and B (r,w) of the box. Gradients reach x and the box.

    Cost: M·C·r·(h·w + r·w) multiplications, however small the box; kernels that look at the 4 cells of each
    point take 4·M·C·(r·n)². For a 7×7 map of a 25×34 grid that is 7 · (850 + 238) against 784: ten times as much.
    """
    def of_axis(low: Tensor, high: Tensor, cells: int) -> Tensor:       # (M,), (M,) → (M,r,cells)
        at, near = points_between(low, high, size * points, torch.full_like(low, cells))
        return hats(at, near, cells).reshape(-1, size, points, cells).mean(dim=2)

    edges = boxes_xyxy.to(x.dtype) / stride - 0.5                       # (M,4)
    x0, y0, x1, y1 = edges.unbind(-1)                                   # (M,) each
    rows, columns = of_axis(y0, y1, x.shape[1]), of_axis(x0, x1, x.shape[2])
    return rows[:, None] @ x @ columns[:, None].mT                      # (M,1,r,h)·(C,h,w)·(M,1,w,r) → (M,C,r,r)
