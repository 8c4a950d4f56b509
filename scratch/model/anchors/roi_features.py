"""roi_features: a box is nearly right; which features say where its edges are?

    memory (B,S,D) ── linear, norm ──► map (B,h,w,c)

    anchor, enlarged by half     7×7 points on the map             (B,T,49·c) ── linear, relu ──► (B,T,D) ─┐
    ┌─────────────────┐                                                                          hs (B,T,D) ┴► box head
    │ · · · · · · · · │          An edge that the box misses by a fifth of its side is seen
    │ · ┌─────────┐ · │          one point further out: always in the same columns of one
    │ · │ ·  ·  · │ · │          matrix, whatever the size of the object and wherever it is.
    │ · └─────────┘ · │          The points around the box show edges that it does not reach.
    └─────────────────┘

An anchor is refined by what a query reads from the memory. In cross-attention it has to learn where to look, and
what it gets is one weighted mean for each head; in minutes it does not learn to look at edges: without this module the
decoder's offsets change AP by 0.003 at most, in four trained runs (docs/results.md). RoIAlign (ops/beyond/roi_align)
reads features at fixed places of each box. Each decoder layer reads them around the box of the layer before it, so
that the box is refined from layer to layer (Cai & Vasconcelos 2018, arXiv 1712.00726; in a decoder of queries: Sparse
R-CNN, Sun et al. 2021, arXiv 2011.12450). No gradient flows into the anchors; the memory gets one from the box losses.

Proven in tests/model/anchors/test_roi_features.py and tests/test_reference.py. Read: RoiFeatures
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratch.ops.activations import relu
from scratch.ops.beyond.roi_align import hats, points_between
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear

SIZE, CHANNELS, ENLARGED = 7, 32, 1.5

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# Sparse R-CNN filters the features of a box with weights that its query computes, and has no attention to the memory.
# Here one linear layer, the same for all queries, adds them to what attention found; boxes are enlarged by half, and one
# point is read for each part, not four. Held in tests/model/anchors/test_roi_features.py.


class RoiFeatures(nn.Module):
    """What the feature map holds around a box, as a vector of the decoder's width."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.project, self.norm = Linear(d_model, CHANNELS), LayerNorm(CHANNELS)
        self.combine = Linear(CHANNELS * SIZE**2, d_model)

    def feature_map(self, memory: Tensor, height: int, width: int) -> Tensor:
        """memory (B,h·w,D) → (B,h,w·c): what is read, once for all decoder layers."""
        x = self.norm(self.project(memory))  # (B,S,c)
        return x.reshape(x.shape[0], height, width * CHANNELS)

    @staticmethod
    def cells_of_image(pad_mask: Tensor) -> Tensor:
        """(B,h,w) → (B,1,2) float32: how many columns and rows of cells the unpadded image has."""
        columns, rows = (~pad_mask).any(1).sum(1), (~pad_mask).any(2).sum(1)  # (B,) each
        return torch.stack((columns, rows), dim=-1)[:, None].float()

    def forward(self, feature_map: Tensor, anchors: Tensor, cells: Tensor) -> Tensor:
        """(B,h,w·c), anchors (B,T,4) cxcywh in [0,1] of the unpadded image, cells (B,1,2) → (B,T,D).

        What lies outside the unpadded image reads as in RoIAlign: the border, and 0 from one cell on.
        """
        B, h, width_channels = feature_map.shape
        T, w = anchors.shape[1], width_channels // CHANNELS
        boxes = anchors.detach().to(torch.promote_types(anchors.dtype, torch.float32))
        cells = cells.to(boxes.dtype).expand(B, T, 2)  # columns and rows
        centres, reach = boxes[..., :2] * cells, ENLARGED / 2 * boxes[..., 2:] * cells  # (B,T,2): x, y in cells
        low, high = centres - reach - 0.5, centres + reach - 0.5  # the first cell's centre is at 0
        at, near = points_between(low, high, SIZE, cells)  # (B,T,2,7)
        columns, rows = (hats(at[:, :, axis], near[:, :, axis], side).to(feature_map.dtype)
                         for axis, side in enumerate((w, h)))  # (B,T,7,w), (B,T,7,h)
        seen = rows.reshape(B, T * SIZE, h) @ feature_map  # (B,T·7,w·c)
        seen = seen.reshape(B, T, SIZE, w, CHANNELS).transpose(2, 3).reshape(B, T, w, SIZE * CHANNELS)
        seen = (columns @ seen).reshape(B, T, SIZE**2 * CHANNELS)  # of each point, columns first
        return relu(self.combine(seen))
