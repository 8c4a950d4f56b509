"""batch_norm, fast: the backward of training written by hand, in few passes over the image.

    g = ∂L/∂y, r = 1/√(σ² + ε), n = B·H·W: two sums for each channel give everything

    ∂bias = Σ g      ∂weight = Σ g·x̂ = r·Σ g·(x−μ)      ∂x = weight·r·(g − ∂bias/n − x̂·∂weight/n)

    x, y, g (B,C,H,W)     weight, bias, μ, σ² (C)

The derivation is that of fast/layer_norm.py, over images and pixels instead of features. The door
of ops/batch_norm.py. Proven in tests/ops/test_batch_norm.py (both modes) and
tests/ops/fast/test_batch_norm.py. Read: _BatchNorm → _HalfBatchNorm (half precision on a GPU)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.switch import plain


def fast_batch_norm(x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor,
                    training: bool, momentum: float, eps: float) -> Tensor | None:
    """x (B,C,H,W) → y (B,C,H,W); in training the running statistics have moved. None in plain mode, and where an
    evaluation would gain nothing: of a float32 image, or with a weight that learns.
    """
    if plain():
        return None
    if not training:
        learns = torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad)
        if x.dtype not in (torch.float16, torch.bfloat16) or learns or torch.compiler.is_compiling():
            return None
        scale = _per_channel(weight.float() * torch.rsqrt(running_var.float() + eps))  # (1,C,1,1)
        shift = torch.addcmul(_per_channel(bias.float()), _per_channel(running_mean.float()), scale, value=-1)
        return _HalfMultiplyAdd.apply(x, scale, shift)
    y, mean, variance = (_HalfBatchNorm if _in_half(x) else _BatchNorm).apply(x, weight, bias, eps)
    n = x.numel() // x.shape[1]
    moved = _Moved(running_mean, running_var, mean.view(-1), variance.view(-1), n / (n - 1), momentum)
    if _noted is None or torch.compiler.is_compiling():
        with torch.no_grad():
            running_mean.lerp_(moved.mean.to(running_mean.dtype), momentum)
            running_var.lerp_(moved.variance.to(running_var.dtype) * moved.unbiased, momentum)
        return y
    if id(running_mean) in _noted:  # a layer that is used twice: one step after the other
        _move(list(_noted.values()))
        _noted.clear()
    _noted[id(running_mean)] = moved
    return y


class _Moved(NamedTuple):
    """The running statistics of one layer, and what they are to move to."""

    running_mean: Tensor  # (C)
    running_var: Tensor
    mean: Tensor
    variance: Tensor
    unbiased: float  # n/(n − 1)
    momentum: float


_noted: dict[int, _Moved] | None = None


@contextmanager
def statistics_at_the_end() -> Iterator[None]:
    """While it lasts, running statistics are noted; then those of all layers move together, by some calls for all.

    Nothing reads them while a model trains. A ResNet-152 has 155 batch norms: on a GPU, three calls for each of them
    are 465 kernel launches, which take longer than the arithmetic.
    """
    global _noted
    before, _noted = _noted, {}
    try:
        yield
        _move(list(_noted.values()))
    finally:
        _noted = before


@torch.no_grad()
def _move(layers: list[_Moved]) -> None:
    """running ← (1 − momentum)·running + momentum·new, in place, the variance by n − 1 instead of n."""
    for momentum in {layer.momentum for layer in layers}:
        some = [layer for layer in layers if layer.momentum == momentum]
        for running, new, factors in (
                ([layer.running_mean for layer in some], [layer.mean for layer in some], None),
                ([layer.running_var for layer in some], [layer.variance for layer in some],
                 [layer.unbiased for layer in some])):
            new = list(torch._foreach_mul(new, factors)) if factors else new
            torch._foreach_lerp_(running, [value.to(old.dtype) for old, value in zip(running, new)], momentum)


def _in_half(x: Tensor) -> bool:
    """On a GPU, where memory traffic counts most. torch.compile fuses what is written down in full."""
    return x.dtype in (torch.float16, torch.bfloat16) and x.is_cuda and not torch.compiler.is_compiling()


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
        ctx.set_materialize_grads(False)  # they send None, not a tensor of zeros
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor | None, _mean: None, _variance: None):
        if grad is None:
            return None, None, None, None
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


class _HalfBatchNorm(torch.autograd.Function):
    """The same for half precision on a GPU: no image is written in float32, and fewer are written at all.

    Bytes of an element, forward and backward: 28, where `_BatchNorm` moves 64 of a half image. Every sum adds up in
    float32, and every line computes in float32 and rounds its result once. Two results are half: the products g·x,
    and slope·x + constant. The gradient of a half image is rounded to half anyway.

    σ² comes from one pass over x, by Welford's algorithm, which subtracts the mean as it goes: E[x²] − E[x]² would lose
    all digits of a mean that is large against σ. For ∂weight this is different: Σ g·(x−μ) = Σ g·x − μ·Σ g. Each
    product is off by its rounding, ε·|g·x| with ε = 2⁻¹¹ (fp16) or 2⁻⁸ (bf16), so x̂ is off by ε·|x|/σ. That is what the
    rounding of x to half has cost before.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = x.mean((0, 2, 3), keepdim=True, dtype=wide)  # (1,C,1,1)
        variance = torch.var(x, (0, 2, 3), correction=0, keepdim=True, out=torch.empty_like(mean))  # (1,C,1,1)
        r = (variance + eps).rsqrt_()
        scale = _per_channel(weight.to(wide)) * r  # (1,C,1,1)
        shift = torch.addcmul(_per_channel(bias.to(wide)), mean, scale, value=-1)  # (1,C,1,1)
        y = torch.addcmul(shift, x, scale, out=torch.empty_like(x))  # (B,C,H,W)
        ctx.save_for_backward(x, weight, mean, r, scale)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor | None, _mean: None, _variance: None):
        if grad is None:
            return None, None, None, None
        x, weight, mean, r, scale = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        grad_bias = grad.sum((0, 2, 3), keepdim=True, dtype=mean.dtype)  # (1,C,1,1)
        products = x * grad  # (B,C,H,W), half
        total = products.sum((0, 2, 3), keepdim=True, dtype=mean.dtype)  # (1,C,1,1)
        grad_weight = torch.addcmul(total, mean, grad_bias, value=-1).mul_(r)  # (1,C,1,1)
        # ∂x = scale·g + slope·(x − μ) + part·∂bias
        part = scale * (-1 / n)
        slope = (grad_weight * r).mul_(part)
        constant = torch.addcmul(part.mul_(grad_bias), slope, mean, value=-1)
        of_x = torch.addcmul(constant, x, slope, out=products)  # (B,C,H,W), half, in the memory of the products
        grad_x = torch.addcmul(of_x, grad, scale, out=of_x)
        return grad_x, grad_weight.view(-1).to(weight.dtype), grad_bias.view(-1).to(weight.dtype), None


class _HalfMultiplyAdd(torch.autograd.Function):
    """Evaluation, and frozen: y = x·scale + shift of a half image, rounded as it is written.

    Left to autograd, y and its gradient would be written in float32 first, and cast afterwards.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return torch.addcmul(shift, x, scale, out=torch.empty_like(x))  # (B,C,H,W)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return torch.mul(grad, scale, out=torch.empty_like(grad)), None, None


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
