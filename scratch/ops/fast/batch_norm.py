"""batch_norm, fast: the backward of training written by hand, in few passes over the image.

    g = ∂L/∂y, r = 1/√(σ² + ε), n = B·H·W: two sums for each channel give everything

    ∂bias = Σ g      ∂weight = Σ g·x̂ = r·Σ g·(x−μ)      ∂x = weight·r·(g − ∂bias/n − x̂·∂weight/n)

    x, y, g (B,C,H,W)     weight, bias, μ, σ² (C)

The derivation is that of fast/layer_norm.py, over images and pixels instead of features. The door
of ops/batch_norm.py. Proven in tests/ops/test_batch_norm.py (both modes) and
tests/ops/fast/test_batch_norm.py.
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.switch import plain


def fast_batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """Training: (y (B,C,H,W), μ (1,C,1,1), σ² (1,C,1,1)); None in plain mode."""
    return None if plain() else _BatchNorm.apply(x, weight, bias, eps)


class _BatchNorm(torch.autograd.Function):
    """Training: returns (y, μ, σ²). Keeps x and a few numbers a channel; x − μ is computed again for the backward.

    The backward is layer_norm's formula with means over n. There weight differs from element to element of a mean;
    here it is constant on a channel and leaves the sums, so that ∂bias and ∂weight are all that ∂x needs besides x and
    g. A norm takes a few FLOPs an element, so memory traffic is what counts: each line below on x is a pass over it.

    Where μ is large against σ, rounding μ shifts every x − μ by the same `rest`, which is the mean of what is left
    (see ops/layer_norm.py). From there on it is one more number of its channel in each formula.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = _over_images(torch.mean, x, wide)  # (1,C,1,1)
        centred = x - mean  # (B,C,H,W), in float32 at least
        # What rounding left over; 0 in exact arithmetic. A half x is rounded far more coarsely than its float32 mean:
        # there this would gain nothing, and on a GPU cost a kernel launch.
        rest = _over_images(torch.mean, centred, wide) if x.dtype is wide else None  # (1,C,1,1)
        # E[c²] − E[c]² loses digits for a large mean (ops/layer_norm.py), but c is centred: the second term is tiny.
        squares = centred.square()  # (B,C,H,W)
        variance = _over_images(torch.mean, squares, wide)  # (1,C,1,1)
        if rest is not None:
            variance = variance - rest * rest
        r = torch.rsqrt(variance + eps)
        scale, shift = _per_channel(weight.to(wide)) * r, _per_channel(bias.to(wide))  # (1,C,1,1)
        # The squares are not needed any more: y is written over them, and no third image is allocated.
        memory = squares if x.dtype is wide else torch.empty_like(x)  # a half y is rounded as it is written
        y = _multiply_add(shift if rest is None else shift - rest * scale, centred, scale, memory)  # (B,C,H,W)
        ctx.save_for_backward(x, weight, mean, rest, r)  # x, and not x̂: the layer before keeps x anyway
        if rest is not None:
            mean = mean + rest  # for the running statistics
        ctx.mark_non_differentiable(mean, variance)  # running statistics are measured, not learned
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _mean: Tensor, _variance: Tensor):
        x, weight, mean, rest, r = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        centred = x - mean  # one pass over x again is cheaper than keeping a second image
        grad_bias = _over_images(torch.sum, grad, mean.dtype)  # (1,C,1,1)
        products = grad * centred  # (B,C,H,W), the place of ∂x
        total = _over_images(torch.sum, products, mean.dtype)  # (1,C,1,1)
        grad_weight = (total if rest is None else total - rest * grad_bias) * r  # (1,C,1,1)
        # Two sums a channel over the whole batch, as in the forward: the gradient of one image depends on the others.
        # With x̂ = (x − μ − rest)·r, ∂x is linear in x − μ and g: three numbers a channel, two multiply-adds a pixel.
        scale = _per_channel(weight.to(mean.dtype)) * r  # (1,C,1,1)
        part = scale * (-1 / n)
        slope = part * r * grad_weight
        constant = part * grad_bias if rest is None else part * grad_bias - rest * slope
        of_x = _multiply_add(constant, centred, slope, products)  # (B,C,H,W)
        grad_x = _multiply_add(of_x, grad, scale, of_x if x.dtype is of_x.dtype else torch.empty_like(x))
        return grad_x, grad_weight.view(-1).to(weight.dtype), grad_bias.view(-1).to(weight.dtype), None


def _over_images(how: Callable[..., Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum or mean over images and pixels, in `dtype`: (B,C,H,W) → (1,C,1,1).

    Over all three axes at once, a CPU's threads can only share the channels, and where the channels of a pixel are
    neighbours in memory, each thread reads every pixel. Image by image first, each thread has its own images: at
    16×16×72×72 with two threads 62 instead of 114 µs. On a GPU a second kernel launch costs more than that.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return how(x, (0, 2, 3), keepdim=True, dtype=dtype)
    return how(how(x, (2, 3), keepdim=True, dtype=dtype), 0, keepdim=True)


def _multiply_add(shift: Tensor, x: Tensor, scale: Tensor, memory: Tensor) -> Tensor:
    """shift + x·scale, in the memory and dtype of `memory`. torch.compile fuses it and needs no memory to write to."""
    if torch.compiler.is_compiling():
        return torch.addcmul(shift, x, scale).to(memory.dtype)
    return torch.addcmul(shift, x, scale, out=memory)


def _per_channel(parameter: Tensor) -> Tensor:
    """(C) → (1,C,1,1): broadcasts over images and pixels."""
    return parameter.view(1, -1, 1, 1)
