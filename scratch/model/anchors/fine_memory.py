"""fine_memory: the encoder's feature map is coarse; where exactly are the edges of an object?

    memory (B,h·w,D) ── enlarged ──► (B,D,H',W') ┐
                                                 + ──► norm ──► fine memory (B,H'·W',D)
    an earlier stage (B,C,H',W') ── 1×1 ────────►┘                  H' = ⌈H/8⌉ where h = ⌈H/16⌉

       memory            an earlier stage        fine memory
       ┌───┬───┐         ┌─┬─┬─┬─┐               ┌─┬─┬─┬─┐
       │cat│sky│    +    ├─┼╱┼─┼─┤       =       ├─┼╱┼─┼─┤   what is here, and
       ├───┼───┤         ├╱┼─┼─┼─┤               ├╱┼─┼─┼─┤   where its outline is
       └───┴───┘         └─┴─┴─┴─┘               └─┴─┴─┴─┘

An object of 30 pixels covers two cells at stride 16. Their tokens say what it is, but its edges only
to the nearest cell. The feature map of the stage before is twice as fine and shows the edges, but not
what they belong to. The sum of the two has both (the top-down path of feature pyramid networks, Lin
et al. 2017, arXiv 1612.03144, section 3). The encoder's self-attention, whose cost grows with the
square of the number of cells, stays on the coarse map; only the decoder's cross-attention reads the
fine one, at a cost that grows in proportion to the cells. The class loss also reaches the early
stages of the backbone by a shorter path.

Proven in tests/model/anchors/test_fine_memory.py.
Read: enlarged → FineMemory
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratch.ops.conv2d import Conv2d
from scratch.ops.layer_norm import LayerNorm

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# A feature pyramid has a 3×3 convolution after the sum and no norm; here there is a layer norm and no convolution. Held
# by test_value_and_gradients_are_those_of_a_1x1_convolution_a_sum_and_a_norm (tests/model/anchors/test_fine_memory.py).


def enlarged(x: Tensor, height: int, width: int) -> Tensor:
    """x (B,D,h,w) → (B,D,height,width): cell (i,j) is that of x in which it lies ("nearest" interpolation)."""
    h, w = x.shape[2:]
    rows = torch.arange(height, device=x.device) * h // height  # (height)
    columns = torch.arange(width, device=x.device) * w // width  # (width)
    return x[:, :, rows[:, None], columns]


class FineMemory(nn.Module):
    """memory (B,h·w,D) of a grid `size` (h,w), and a finer stage (B,C,H',W') → (B,H'·W',D)."""

    def __init__(self, channels: int, d_model: int) -> None:
        super().__init__()
        self.lateral = Conv2d(channels, d_model, 1)
        self.norm = LayerNorm(d_model)

    def forward(self, memory: Tensor, size: tuple[int, int], stage: Tensor) -> Tensor:
        edges = self.lateral(stage)  # (B,D,H',W')
        coarse = memory.transpose(1, 2).unflatten(2, size)  # (B,D,h,w)
        return self.norm((edges + enlarged(coarse, *edges.shape[2:])).flatten(2).transpose(1, 2))
