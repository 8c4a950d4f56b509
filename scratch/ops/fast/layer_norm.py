"""layer_norm, fast: the backward of a normalisation, written by hand.

Within one row, x̂ᵢ depends on every xⱼ through μ and σ. With r = 1/√(σ² + ε), n features in a row
and ĝ = ∂L/∂y · weight:

    ∂x̂ᵢ/∂xⱼ = r·(δᵢⱼ − 1/n − x̂ᵢ·x̂ⱼ/n)          (∂μ/∂xⱼ = 1/n,  ∂r/∂xⱼ = −r²·x̂ⱼ/n)
    ∂L/∂x   = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂))     two means for each row
    ∂L/∂weight = Σ_rows ∂L/∂y · x̂               ∂L/∂bias = Σ_rows ∂L/∂y

A shift or a scaling of the whole row changes nothing in y (but for ε), so the gradient has no part
in these two directions: the two means remove it. Autograd would keep every intermediate tensor;
here x̂ alone is kept.
Cost: some 10 FLOPs an element, so memory traffic is what counts.

The door of ops/layer_norm.py; group norm (ops/beyond) uses `standardise` as well. Proven in
tests/ops/test_layer_norm.py (both modes) and tests/ops/fast/test_layer_norm.py.
Read: standardise → fast_layer_norm
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.activations import at_least_float32
from scratch.ops.fast.precision import as_in_forward
from scratch.ops.fast.switch import plain


def fast_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor | None:
    """Rows (R,D) → (R,D) with weight and bias (D); None in plain mode."""
    return None if plain() else _LayerNorm.apply(x, weight, bias, eps)


def standardise(x: Tensor, mean: Callable[[Tensor], Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """x̂ = (x − μ)·r and r = 1/√(σ² + ε); `mean` averages over a row, a group, … and keeps its axes with length 1.

    The mean is subtracted twice, for the reason that ops/layer_norm.py gives.
    """
    centred = x - mean(x)  # a new tensor: from here on it may be changed in place
    centred -= mean(centred)  # the rounding error of the first mean; nothing where that was exact
    r = torch.rsqrt(mean(centred.square()) + eps)  # ε: a constant row gives 0/√ε = 0 and not 0/0
    return centred.mul_(r), r


class _LayerNorm(torch.autograd.Function):
    """Rows (R,D) → (R,D). Keeps x̂ and r: x̂ is needed by two of the three gradients, and x by none."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        wide = at_least_float32(x)
        standard, r = _standardise_in_few_passes(wide, eps) if _on_a_gpu(x) else standardise(wide, _row_mean, eps)
        ctx.save_for_backward(standard, r, weight)
        ctx.dtype = x.dtype  # the parameters may have another one: float32 under half-precision tokens
        return torch.addcmul(bias.to(r.dtype), standard, weight.to(r.dtype)).to(x.dtype)  # one pass

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        standard, r, weight = ctx.saved_tensors
        grad = grad.to(standard.dtype)  # (R,D)
        if _on_a_gpu(grad):
            return *_gradients_in_few_passes(grad, standard, r, weight, ctx.dtype), None
        scaled = grad * weight  # (R,D): ĝ
        mean, slope = _row_mean(scaled), _row_mean(scaled * standard)  # (R,1)
        grad_x = scaled.sub_(mean).addcmul_(standard, slope, value=-1).mul_(r)  # the formula above, in the memory of ĝ
        return grad_x.to(ctx.dtype), (grad * standard).sum(0).to(weight.dtype), grad.sum(0).to(weight.dtype), None


# On a GPU each line is a kernel launch and a pass over memory, and a mean over rows is as fast as one over anything else.
# So the variance comes from one pass (Welford's algorithm, which subtracts the mean as it goes), and the two means of
# the backward from two matrix-vector products: mean(ĝ) = g·(weight/n), mean(ĝ·x̂) = (g·x̂)·(weight/n). Bytes of a
# float32 element: 28 instead of 52 in the forward, 56 instead of 76 in the backward.


def _on_a_gpu(x: Tensor) -> bool:
    return x.is_cuda and not torch.compiler.is_compiling()  # the compiler fuses what is written down in full


def _standardise_in_few_passes(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x̂ and r of rows (R,D), as `standardise`."""
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)  # (R,1)
    r = (variance + eps).rsqrt_()
    return (x - mean).mul_(r), r


def _gradients_in_few_passes(grad: Tensor, standard: Tensor, r: Tensor, weight: Tensor,
                             dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """∂L/∂x, ∂L/∂weight and ∂L/∂bias from g (R,D), x̂ (R,D), r (R,1) and weight (D)."""
    with as_in_forward(grad):  # no product in half precision
        wide = weight.to(grad.dtype)
        share = wide / -grad.shape[1]  # (D)
        products = grad * standard  # (R,D)
        mean, slope = torch.mv(grad, share)[:, None], torch.mv(products, share)[:, None]  # (R,1): −mean(ĝ), −mean(ĝ·x̂)
        grad_x = torch.addcmul(mean, grad, wide).addcmul_(standard, slope).mul_(r)
    return grad_x.to(dtype), products.sum(0).to(weight.dtype), grad.sum(0).to(weight.dtype)


def _row_mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)  # (R,D) → (R,1)
