"""norms: over which numbers do layer norm and batch norm take their mean and variance?"""

from __future__ import annotations

import torch
from torch import Tensor

from docs.site.drawings.drawing import Canvas, drawing, shown
from scratch.ops.batch_norm import batch_norm_naive
from scratch.ops.layer_norm import layer_norm_naive

X = torch.tensor([[10.0, 12.0, 14.0], [-1.0, 0.0, 1.0], [2.0, 4.0, 9.0], [5.0, 8.0, 2.0]], dtype=torch.float64)
EPS = 1e-5


def by_layer_norm() -> Tensor:
    """Each row of X by itself: a token's D = 3 features."""
    return layer_norm_naive(X, 3, torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), EPS)


def by_batch_norm() -> Tensor:
    """Each column of X by itself: a channel's values in four images of one pixel."""
    ones, zeros = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return batch_norm_naive(X[:, :, None, None], ones, zeros, EPS)[..., 0, 0]


def paint(canvas: Canvas) -> None:
    cell, high = 46, 28
    sides = ((8, "layer norm", "one token: a row", by_layer_norm(), 1, ("token", "features")),
             (196, "batch norm", "one channel: a column", by_batch_norm(), 0, ("image", "channels")))
    for x, title, axis, result, dim, _ in sides:
        canvas.text(x + 1.5 * cell + 9, 18, title, 13.5, bold=True)
        canvas.text(x + 1.5 * cell + 9, 34, axis, 12, colour="soft")

        def marked(i: int, j: int, dim: int = dim) -> tuple[str, float]:
            return ("orange", 0.3) if (i if dim else j) == 0 else ("none", 1.0)

        left = x + 18
        canvas.grid(left, 44, cell, [[shown(v, 0) for v in row] for row in X.tolist()], 13, marked, high)
        mean, deviation = (f.tolist()[0] for f in (X.mean(dim), X.var(dim, correction=0).sqrt()))
        canvas.text(left + 1.5 * cell, 178, f"μ = {shown(mean, 1)}   σ = {shown(deviation)}", 12.5, colour="orange")
        canvas.line([(left + 1.5 * cell, 184), (left + 1.5 * cell, 202)], arrow=True)
        canvas.grid(left, 206, cell, [[shown(v) for v in row] for row in result.tolist()], 12.5, marked, high)
        for i in range(4):
            for y in (44, 206):
                canvas.text(left - 6, y + (i + 0.5) * high + 4, str(i), 11.5, "end", "soft")
    canvas.text(180, 338, "rows: tokens, or images · columns: features, or channels", 12, colour="soft")


def _of(name: str, note: str) -> object:
    return drawing(name, f"{note}: which numbers share a mean and a variance",
                   "The same table of four rows and three columns, twice. Layer norm takes mean and variance of each "
                   "row, batch norm of each column; below, the normalised numbers.", 348, paint)


LAYER_NORM = _of("layer-norm-axes", "Layer norm beside batch norm")
BATCH_NORM = _of("batch-norm-axes", "Batch norm beside layer norm")
