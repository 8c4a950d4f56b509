"""average_pooling: the mean of each window.

    y[b,c,i,j] = Σ over u, v   x[b, c, i·s + u − p, j·s + v − p] / k²     outside the image: 0

    x (B,C,H,W) → y (B,C,H',W')      H' = ⌊(H + 2p − k)/s⌋ + 1; a remainder at the end is not seen

     k = 2, s = 2             mean        gradient of mean: an equal share for every pixel
    ┌─────┬─────┐           ┌─────┐     ┌─────────┬─────────┐
    │ 1 3 │ 0 0 │     →     │ 2 0 │     │ g/4 g/4 │ g/4 g/4 │
    │ 2 2 │ 0 0 │           └─────┘     │ g/4 g/4 │ g/4 g/4 │
    └─────┴─────┘                       └─────────┴─────────┘

A ResNet classifier ends with it; DETR cuts that end off.

Same as torch.nn.functional.avg_pool2d with count_include_pad=True and without ceil_mode, and its
layer; proven in tests/ops/beyond/test_average_pooling.py.
Read: ops/windows.py → avg_pool2d_naive (the formula) → avg_pool2d → AvgPool2d
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.max_pool import empty_image
from scratch.ops.fast.overlap import taps
from scratch.ops.windows import MaxPool2d, Pair, pooling_windows


def avg_pool2d_naive(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None,
                     padding: int | Pair = 0) -> Tensor:
    """The definition: the part of the window inside the image, added up, over the area of the whole window.

    The area is k² even where the window reaches over the edge, so a mean near the border is pulled towards 0.
    """
    (kH, kW), (sH, sW), (pH, pW), (h, w) = pooling_windows(x, kernel_size, stride, padding)
    y = x.new_empty(*x.shape[:2], h, w)
    for i in range(h):
        for j in range(w):
            top, left = i * sH - pH, j * sW - pW  # the zeros of the padding add nothing
            y[:, :, i, j] = x[:, :, max(top, 0):top + kH, max(left, 0):left + kW].sum((2, 3)) / (kH * kW)
    return y


def avg_pool2d(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0) -> Tensor:
    """The mean of each window, padding counted as zeros: (B,C,H,W) → (B,C,H',W'), channels last in memory.

    Equal to `avg_pool2d_naive` because a sum may be taken in any order, here one tap of the window at a time.
    The division comes last, once for each output. Arguments as for `max_pool2d`.
    """
    return _AvgPool.apply(x, *pooling_windows(x, kernel_size, stride, padding))


class _AvgPool(torch.autograd.Function):
    """Every pixel of a window receives 1/k² of its gradient. Sums in float32, whatever x is kept in.

    Linear in x, so the backward needs no tensor: the same loop over the taps with reading and writing exchanged.
    """

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, size: Pair) -> Tensor:
        ctx.windows = x.shape, kernel, stride, padding, size
        y = empty_image(x, size, torch.promote_types(x.dtype, torch.float32)).zero_()  # (B,C,H',W')
        for pixels, outputs in taps(*ctx.windows):
            y[outputs] += x[pixels]  # half precision is raised on the way
        return y.div_(kernel[0] * kernel[1]).to(x.dtype)  # rounded once, after the division

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        shape, kernel = ctx.windows[:2]  # of the image, of the window
        grad_x = empty_image(grad, shape[2:], torch.promote_types(grad.dtype, torch.float32)).zero_()  # (B,C,H,W)
        for pixels, outputs in taps(*ctx.windows):
            grad_x[pixels] += grad[outputs]  # where windows overlap, the shares add up
        return grad_x.div_(kernel[0] * kernel[1]).to(grad.dtype), None, None, None, None


class AvgPool2d(MaxPool2d):
    """`avg_pool2d` with its arguments remembered, as torch.nn.AvgPool2d."""

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding)
