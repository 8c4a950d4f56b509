"""sine_encoding: attention sees a set of cells; how does a cell say where it stands?

    y = (rows of the image down to this cell) / (rows of the image) · 2π      x alike, along the row
    e[2i] = sin(y / T^{2i/F})    e[2i+1] = cos(y / T^{2i/F})        T = 10000, i = 0 … F/2 − 1

    pad_mask (B,h,w), True = padding → (B,2F,h,w): F numbers for y, then F for x

        pad_mask      · · · ▒         y/2π   ½ ½ ½ 0         x/2π   ⅓ ⅔ 1 1
        (2 rows,      · · · ▒                1 1 1 0                ⅓ ⅔ 1 1
        3 columns     ▒ ▒ ▒ ▒                1 1 1 0                0 0 0 0
        of image)
        i = 0  ╭──╮       one turn over the image       i = F/2 − 1  ───────  nearly constant
                  ╰──╯

Like the digits of a number: the first pair turns fast and tells near cells apart, the last hardly
moves. The pair (sin, cos) at one place is a rotation of that at another, the same rotation for the
same offset, and a rotation is a linear map: "three cells to the left" is easy to learn.

Counting the image's cells and dividing by their number makes the code blind to padding: the last
row of the image is 2π whatever the batch was padded to. Padding gets some finite code too.

Same as the official DETR's PositionEmbeddingSine(F, normalize=True), which torch.nn lacks; proven
in tests/ops/test_sine_encoding.py. Sources: Vaswani et al. 2017, section 3.5; DETR, appendix A.4.
Read: sine_code_naive (the formula) → sine_encoding → cell_centres, sine_of (for any place)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_code_naive(position: float, num_pos_feats: int, temperature: float = 10000.0) -> list[float]:
    """The formula, for one coordinate of one cell."""
    code = []
    for i in range(num_pos_feats // 2):
        angle = position / temperature ** (2 * i / num_pos_feats)
        code += [math.sin(angle), math.cos(angle)]
    return code


def sine_encoding(
    pad_mask: Tensor, num_pos_feats: int, temperature: float = 10000.0, normalize: bool = True,
    scale: float = 2 * math.pi, dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return (B, 2·num_pos_feats, h, w), y's features first, for pad_mask (B, h, w) bool with True = padding.

    With normalize=False positions are plain counts from 1, and `scale` has no effect. float16 and bfloat16 are rounded
    from a float32 result. An odd num_pos_feats raises ValueError: sines and cosines come in pairs.

    What changed from the formula: the counts of all cells are one cumulative sum along each axis, and each angle is
    computed once for its sine and its cosine.
    """
    if num_pos_feats % 2:
        raise ValueError(f"got num_pos_feats {num_pos_feats}, wanted an even number: half sines, half cosines")
    working = torch.promote_types(dtype, torch.float32)
    image = ~pad_mask
    y = image.cumsum(1, dtype=working)  # (B, h, w): 1 in the first row of the image
    x = image.cumsum(2, dtype=working)
    if normalize:
        y = y / (y[:, -1:, :] + 1e-6) * scale  # 1e-6: a column of padding alone counts 0 rows, and 0/0 is NaN
        x = x / (x[:, :, -1:] + 1e-6) * scale
    pair = torch.arange(num_pos_feats // 2, dtype=working, device=pad_mask.device)
    period = temperature ** (2 * pair / num_pos_feats)  # (F/2): 1 … nearly T
    return torch.cat((_waves(y, period), _waves(x, period)), dim=1).to(dtype)  # (B, 2F, h, w)


def _waves(position: Tensor, period: Tensor) -> Tensor:
    angle = position[:, None] / period[:, None, None]  # (B, F/2, h, w)
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1, 2)  # (B, F, h, w): sin, cos, sin, cos …


# ── for places that are no cells: the anchors of scratch/model/anchors/decoder.py ────────────────────────────────────


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

    The temperature is 20 where DETR's is 10,000 (DAB-DETR, section 4.5): a number in [0,1] times 2π turns once at most,
    so all but the first few of DETR's waves would stand still.
    """
    pair = torch.arange(num_pos_feats // 2, dtype=numbers.dtype, device=numbers.device)
    period = temperature ** (2 * pair / num_pos_feats)  # (F/2)
    angle = (numbers * scale)[..., None] / period  # (…,n,F/2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-3)  # (…,n·F): sin, cos, sin, cos …
