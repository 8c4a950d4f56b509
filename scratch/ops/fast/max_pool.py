"""max_pool, fast: no copy of the image, and a backward that finds the winner again.

     k = 2, s = 2             max        gradient of max: all of it to the winner
    ┌─────┬─────┐           ┌─────┐     ┌─────┬─────┐
    │ 1 3 │ 0 0 │     →     │ 3 0 │     │ 0 g │ g 0 │  ← a tie: the first, row by row
    │ 2 2 │ 0 0 │           └─────┘     │ 0 0 │ 0 0 │
    └─────┴─────┘                       └─────┴─────┘

The door of `max_pool2d` in ops/windows.py, with the same values and gradients; only the gradient of
a window whose maximum is NaN differs: none is passed on. x (B,C,H,W) → y (B,C,H',W'), channels last
in memory. Cost: k²·B·C·H'·W' comparisons and no product, so memory traffic is what counts.

Proven in tests/ops/test_windows.py (both modes) and tests/ops/fast/test_max_pool.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.overlap import Pair, taps
from scratch.ops.fast.switch import plain


def fast_max_pool2d(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, size: Pair) -> Tensor | None:
    """The maximum of each window, (B,C,H,W) → (B,C,*size); None in plain mode. The arguments are checked already."""
    return None if plain() else _MaxPool.apply(x, kernel, stride, padding, size)


class _MaxPool(torch.autograd.Function):
    """Keeps x and y, which the layers before and after keep as well: pooling adds nothing to memory.

    The backward finds the winner again: the first place whose pixel equals the maximum takes the gradient, and
    nothing is left for a later one. NaN equals nothing, so a window of maximum NaN passes no gradient on.
    """

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, size: Pair) -> Tensor:
        y = empty_image(x, size, x.dtype).fill_(-torch.inf)  # (B,C,H',W')
        ctx.windows = x.shape, kernel, stride, padding, size
        # −∞ is the maximum of nothing; written over by the first pixel, and every window sees one (`pooling_windows`).
        for pixels, outputs in taps(*ctx.windows):
            if torch.compiler.is_compiling():  # it cannot write `out` with gaps, and does without
                y[outputs] = torch.maximum(y[outputs], x[pixels])
            else:
                torch.maximum(y[outputs], x[pixels], out=y[outputs])
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, y = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        left = empty_image(y, y.shape[2:], wide).copy_(grad)  # (B,C,H',W') gradient not yet handed out
        grad_x = empty_image(x, x.shape[2:], wide).zero_()  # (B,C,H,W)
        wins = torch.empty_like(left)  # (B,C,H',W') memory for a comparison, used anew by every tap
        for pixels, outputs in taps(*ctx.windows):
            # 1 or 0, written as numbers: much faster on a CPU than through bool.
            if torch.compiler.is_compiling():
                won = (x[pixels] == y[outputs]).to(wide)
            else:
                won = torch.eq(x[pixels], y[outputs], out=wins[outputs])
            grad_x[pixels].addcmul_(won, left[outputs])  # the winner takes all that is left; it may win again elsewhere
            left[outputs].addcmul_(won, left[outputs], value=-1)  # g − g is exactly 0, for the second of a tie
        return grad_x.to(x.dtype), None, None, None, None  # (B,C,H,W)


def empty_image(like: Tensor, size: Pair, dtype: torch.dtype) -> Tensor:
    """An unfilled image of another size, channels last in memory: (B,C,*size)."""
    shape = *like.shape[:2], *size
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)
