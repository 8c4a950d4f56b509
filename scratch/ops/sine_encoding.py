"""sine_encoding: attention does not see the order of its tokens; how does a cell tell its place?

    y = (rows of the image down to this cell) / (rows of the image) · 2π      x likewise, in its row
    e[2i] = sin(y / T^{2i/F})    e[2i+1] = cos(y / T^{2i/F})        T = 10000, i = 0 … F/2 − 1

    pad_mask (B,h,w), True = padding: outside the image → (B,2F,h,w): F numbers for y, then F for x

        pad_mask      · · · ▒         y/2π   ½ ½ ½ 0         x/2π   ⅓ ⅔ 1 1
        (2 rows,      · · · ▒                1 1 1 0                ⅓ ⅔ 1 1
        3 columns     ▒ ▒ ▒ ▒                1 1 1 0                0 0 0 0
        of image)
Attention treats tokens as a set: a permutation of them permutes the results and changes nothing
else. So each gets a *positional encoding*, here sinusoids of its coordinates at F/2 frequencies.

Pair i = 0 turns once across the image, every other pair less. The last ones are nearly constant: at
DETR's F = 128, 35 of the 64 pairs move by less than 0.1 rad from one edge to the other.

A shift by Δ rotates pair i, (sin, cos), by Δ/T^{2i/F}, wherever it starts. A rotation is a
linear map, so a layer can learn one, such as "a quarter of the image to the left". Shifts are
fractions of the image, not numbers of cells, because y and x are normalised. Only cells of the image
are counted, so padding does not change their encoding.

Same as the official DETR's PositionEmbeddingSine(F, normalize=True), which torch.nn lacks; proven
in tests/ops/test_sine_encoding.py. Sources: Vaswani et al. 2017, section 3.5; DETR, appendix A.4.
Read: sine_code_naive (the formula) → sine_encoding
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

    What changed from the formula: the positions of all cells are one cumulative sum along each axis, and each angle is
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
    divisor = temperature ** (2 * pair / num_pos_feats)  # (F/2): 1 … nearly T; the period is 2π times it
    return torch.cat((_sinusoids(y, divisor), _sinusoids(x, divisor)), dim=1).to(dtype)  # (B, 2F, h, w)


def _sinusoids(position: Tensor, divisor: Tensor) -> Tensor:
    angle = position[:, None] / divisor[:, None, None]  # (B, F/2, h, w)
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1, 2)  # (B, F, h, w): sin, cos, sin, cos …
