"""place_encoding: how is a place encoded that is not a cell, such as the centre of a box?

    e[2i] = sin(2π·p / T^{2i/F})    e[2i+1] = cos(2π·p / T^{2i/F})      p in [0,1], T = 20, i < F/2

    numbers (…,n) → (…,n·F)         pad_mask (B,h,w) → the cells' centres (B,h·w,2), x before y

    two cells of an image    │ 0 │ 1 │      sine_encoding counts from 1: ½ and 1, the far edges
                                            cell_centres: ¼ and ¾, as boxes measure their centres

The same sinusoids as the positional encoding of sine_encoding.py, for any number: the anchors of
model/anchors/decoder are places that move from layer to layer. There is no torch.nn counterpart;
held against sine_code_naive and sine_encoding in tests/ops/beyond/test_place_encoding.py.
Read after sine_encoding.py: cell_centres → sine_of. Source: DAB-DETR, Liu et al. 2022, 2201.12329.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cell_centres(pad_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """pad_mask (B,h,w) → (x, y) of each cell's centre in [0,1] of the unpadded image: (B,h·w,2).

    A count from 1 names a cell's far edge; half a cell less is its centre, which is where a box's centre is measured.
    """
    image = ~pad_mask
    y, x = image.cumsum(1, dtype=dtype), image.cumsum(2, dtype=dtype)  # (B,h,w)
    rows, columns = y[:, -1:, :].clamp(min=1), x[:, :, -1:].clamp(min=1)
    return torch.stack(((x - 0.5) / columns, (y - 0.5) / rows), dim=-1).flatten(1, 2)  # (B,h·w,2)


def sine_of(numbers: Tensor, num_pos_feats: int, temperature: float = 20.0, scale: float = 2 * math.pi) -> Tensor:
    """numbers (…,n) in [0,1] → (…,n·num_pos_feats): the formula's code of each number, one after the other.

    The temperature is 20 where DETR's is 10,000 (DAB-DETR, section 4.5): at 10,000 most pairs hardly move from 0 to 1
    (35 of 64, see sine_encoding); at 20 all of them do.
    """
    pair = torch.arange(num_pos_feats // 2, dtype=numbers.dtype, device=numbers.device)
    period = temperature ** (2 * pair / num_pos_feats)  # (F/2)
    angle = (numbers * scale)[..., None] / period  # (…,n,F/2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-3)  # (…,n·F): sin, cos, sin, cos …
