"""pooling: how does an image shrink without weights?

    max:  y[b,c,i,j] = max  over u, v   x[b, c, i·s + u − p, j·s + v − p]      outside the image: −∞
    mean: y[b,c,i,j] = Σ over u, v      x[b, c, i·s + u − p, j·s + v − p] / k²   outside: 0, counted

    x (B,C,H,W) → y (B,C,H',W')      H' = ⌊(H + 2p − k)/s⌋ + 1; a remainder at the end is not seen

     k = 2, s = 2             max     mean      gradient of max: all of it to the winner
    ┌─────┬─────┐           ┌─────┐ ┌─────┐     ┌─────┬─────┐
    │ 1 3 │ 0 0 │           │ 3 0 │ │ 2 0 │     │ 0 g │ g 0 │  ← a tie: the first, row by row
    │ 2 2 │ 0 0 │     →     └─────┘ └─────┘     │ 0 0 │ 0 0 │
    └─────┴─────┘                               └─────┴─────┘
A ResNet pools once: maximum, k = 3, s = 2, p = 1, right after the stem (He et al. 2015, table 1).
Cost: k²·B·C·H'·W' comparisons or additions, and no product: memory traffic is all there is to save.

Same as torch.nn.functional.max_pool2d and avg_pool2d, but for dilation, ceil_mode and the indices,
which are not offered; and their layers. Proven in tests/ops/test_pooling.py.
Read: max_pool2d_naive (the formula) → _taps (the views) → max_pool2d → avg_pool2d → the layers
"""

from __future__ import annotations

from typing import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scratch.ops.windows import Pair, output_size, overlap, pair


def max_pool2d_naive(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None,
                     padding: int | Pair = 0) -> Tensor:
    """The definition, one output pixel at a time: clip the window to the image, take its maximum."""
    (kH, kW), (sH, sW), (pH, pW), (h, w) = _windows(x, kernel_size, stride, padding)
    y = x.new_empty(*x.shape[:2], h, w)  # (B,C,H',W')
    for i in range(h):
        for j in range(w):
            top, left = i * sH - pH, j * sW - pW  # negative in the padding: clipped, since −∞ never wins
            seen = x[:, :, max(top, 0):top + kH, max(left, 0):left + kW]
            y[:, :, i, j] = seen.flatten(2).max(-1).values  # (B,C)
    return y


def avg_pool2d_naive(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None,
                     padding: int | Pair = 0) -> Tensor:
    """The definition: what the window sees of the image, added up, over the whole window's area.

    The area is k² even where the window hangs over the edge, so a mean near the border leans towards 0 (this is
    torch's count_include_pad=True).
    """
    (kH, kW), (sH, sW), (pH, pW), (h, w) = _windows(x, kernel_size, stride, padding)
    y = x.new_empty(*x.shape[:2], h, w)
    for i in range(h):
        for j in range(w):
            top, left = i * sH - pH, j * sW - pW  # zeros add nothing, so they need not be seen
            y[:, :, i, j] = x[:, :, max(top, 0):top + kH, max(left, 0):left + kW].sum((2, 3)) / (kH * kW)
    return y


def max_pool2d(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0) -> Tensor:
    """The maximum of each window: images x (B,C,H,W) → (B,C,H',W'), channels last in memory.

    Equal to `max_pool2d_naive` because a maximum may be taken in any order: the loop now runs over the k² places in
    the window, and each of its steps compares whole images. NaN wins every comparison, as in torch.
    stride defaults to kernel_size. Raises ValueError for a padding above half the kernel or an image too small.
    """
    return _MaxPool.apply(x, *_windows(x, kernel_size, stride, padding))


def avg_pool2d(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0) -> Tensor:
    """The mean of each window, padding counted as zeros: (B,C,H,W) → (B,C,H',W'). Arguments as for `max_pool2d`.

    Equal to `avg_pool2d_naive` for the same reason: a sum may be taken in any order, one place of the window at a time.
    The division comes last, once for each output.
    """
    return _AvgPool.apply(x, *_windows(x, kernel_size, stride, padding))


def _taps(shape: torch.Size, kernel: Pair, stride: Pair, padding: Pair, size: Pair) -> Iterator[tuple[tuple, tuple]]:
    """For each place (u,v) in the window, row by row: (the pixels seen there, by which outputs).

    Both are strided slices of the same shape, so x[pixels] and y[outputs] can be combined element by element. Outputs
    that would see padding at (u,v) are left out, and so no padded copy of the image is needed.
    """
    every = slice(None)  # all images, all channels
    for u in range(kernel[0]):
        rows, pixel_rows = overlap(u, stride[0], padding[0], shape[2], size[0])  # see windows.py
        for v in range(kernel[1]):
            columns, pixel_columns = overlap(v, stride[1], padding[1], shape[3], size[1])
            yield (every, every, pixel_rows, pixel_columns), (every, every, rows, columns)


class _MaxPool(torch.autograd.Function):
    """Keeps x and y, which the layers before and after keep as well: pooling adds nothing to memory.

    The backward finds the winner again: the first place whose pixel equals the maximum takes the gradient, and
    nothing is left for a later one. NaN equals nothing, so a window of maximum NaN passes no gradient on.
    """

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, size: Pair) -> Tensor:
        y = _image(x, size, x.dtype).fill_(-torch.inf)  # (B,C,H',W')
        ctx.windows = x.shape, kernel, stride, padding, size
        # −∞ is the maximum of nothing; written over by the first pixel, and no window is without one (see `_windows`).
        for pixels, outputs in _taps(*ctx.windows):
            torch.maximum(y[outputs], x[pixels], out=y[outputs])
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, y = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        left = _image(y, y.shape[2:], wide).copy_(grad)  # (B,C,H',W') gradient not yet handed out
        grad_x = _image(x, x.shape[2:], wide).zero_()  # (B,C,H,W)
        wins = torch.empty_like(left)  # (B,C,H',W') scratch paper, used anew by every tap
        for pixels, outputs in _taps(*ctx.windows):
            # 1 or 0, written as numbers: much faster on a CPU than through bool.
            won = torch.eq(x[pixels], y[outputs], out=wins[outputs])
            grad_x[pixels].addcmul_(won, left[outputs])  # the winner takes all that is left; it may win again elsewhere
            left[outputs].addcmul_(won, left[outputs], value=-1)  # g − g is exactly 0, for the second of a tie
        return grad_x.to(x.dtype), None, None, None, None  # (B,C,H,W)


class _AvgPool(torch.autograd.Function):
    """Every pixel of a window receives 1/k² of its gradient. Sums in float32, whatever x is kept in.

    Linear in x, so the backward needs no tensor: the same loop over the taps with reading and writing exchanged.
    """

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, size: Pair) -> Tensor:
        ctx.windows = x.shape, kernel, stride, padding, size
        y = _image(x, size, torch.promote_types(x.dtype, torch.float32)).zero_()  # (B,C,H',W')
        for pixels, outputs in _taps(*ctx.windows):
            y[outputs] += x[pixels]  # half precision is raised on the way
        return y.div_(kernel[0] * kernel[1]).to(x.dtype)  # rounded once, after the division

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        shape, kernel = ctx.windows[:2]  # of the image, of the window
        grad_x = _image(grad, shape[2:], torch.promote_types(grad.dtype, torch.float32)).zero_()  # (B,C,H,W)
        for pixels, outputs in _taps(*ctx.windows):
            grad_x[pixels] += grad[outputs]  # where windows overlap, the shares add up
        return grad_x.div_(kernel[0] * kernel[1]).to(grad.dtype), None, None, None, None


def _image(like: Tensor, size: Pair, dtype: torch.dtype) -> Tensor:
    """An unfilled image of another size, channels last in memory: (B,C,*size)."""
    shape = *like.shape[:2], *size
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


class MaxPool2d(nn.Module):
    """`max_pool2d` with its arguments remembered, as torch.nn.MaxPool2d. Owns no weights: nothing to load or save."""

    def __init__(self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(MaxPool2d):
    """`avg_pool2d` with its arguments remembered, as torch.nn.AvgPool2d."""

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding)


def _windows(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None,
             padding: int | Pair) -> tuple[Pair, Pair, Pair, Pair]:
    """Check the arguments: (kernel, stride, padding, output size), each (rows, columns).

    A padding above half the kernel is refused as in torch: a window that sees padding alone has no maximum.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"got {x.dtype} of shape {tuple(x.shape)}, wanted floating-point images (B,C,H,W)")
    kernel, padding = pair(kernel_size), pair(padding)
    strides = kernel if stride is None else pair(stride)  # windows side by side, without gap or overlap
    size = output_size((x.shape[2], x.shape[3]), kernel, strides, padding)
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ValueError(f"got padding {padding} for kernel {kernel}, wanted at most half of it: "
                         "a window could see padding alone")
    return kernel, strides, padding, size
