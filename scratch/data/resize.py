"""resize: how does an image become smaller without aliasing? Two matrix products.

    y = R_h · x · R_wᵀ            x (..., h, w) → y (..., h', w')         R_h (h', h), R_w (w', w)

    R[i, j] ∝ max(0, 1 − |j + ½ − c| / s)       each row divided by its sum
    c = (i + ½) · h/h'                          the centre of output pixel i, on the input's scale
    s = max(1, h/h')                            half the width of the triangle

    from 6 pixels to 4, s = 1.5:          .62  .38   ·    ·    ·    ·
                                           ·   .33  .56  .11   ·    ·      each output pixel is a mean of the pixels
                                           ·    ·   .11  .56  .33   ·      around it; nearer ones count more
                                           ·    ·    ·    ·   .38  .62

Bilinear interpolation takes the two nearest pixels, whatever the scale: of a picture made three
times smaller only a third of the pixels would count, and a fine pattern turns into one that is not there (aliasing).
Here the triangle grows with the scale (antialiasing), so that every pixel counts. Rows and columns
are independent, so the weights of a two-dimensional triangle need never be stored.

The same as torch.nn.functional.interpolate(mode="bilinear", antialias=True); proven in
tests/data/test_resize.py. Read: resize_naive (the formula) → triangle_weights → resize
"""

from __future__ import annotations

import torch
from torch import Tensor


def resize_naive(row: list[float], size: int) -> list[float]:
    """The formula for one row of pixels: a list of any length → `size` numbers."""
    scale = len(row) / size
    s = max(1.0, scale)
    out = []
    for i in range(size):
        c = (i + 0.5) * scale
        weights = [max(0.0, 1 - abs(j + 0.5 - c) / s) for j in range(len(row))]
        out.append(sum(w * x for w, x in zip(weights, row)) / sum(weights))
    return out


def triangle_weights(length: int, size: int, like: Tensor) -> Tensor:
    """R (size, length), with the device and the dtype of `like`; its rows sum to 1."""
    scale = length / size
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale                # (h')
    pixel = torch.arange(length, dtype=torch.float64) + 0.5                         # (h)
    weights = (1 - (pixel - centre[:, None]).abs() / max(1.0, scale)).clamp(min=0)  # (h',h)
    return (weights / weights.sum(1, keepdim=True)).to(like)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (..., h, w) of a floating dtype → (..., *size), smaller or larger, with a gradient.

    Raises ValueError for a size below 1, or for fewer than two axes.
    """
    if min(size) < 1 or x.ndim < 2:
        raise ValueError(f"got a size of {tuple(size)} for pixels {tuple(x.shape)}, wanted two sides of 1 or more, and "
                         "pixels (..., h, w)")
    h, w = x.shape[-2:]
    return triangle_weights(h, size[0], x) @ x @ triangle_weights(w, size[1], x).T
