"""layer_norm: how does every token get the same scale, whatever came before?

    x̂ = (x − μ) / √(σ² + ε)      μ = mean of x over the last axes      σ² = mean of (x − μ)²
    y = x̂ · weight + bias        weight, bias: one for each feature, shared by all tokens

    x (..., D) → y (..., D)       weight, bias (D): `normalized_shape`, which may be several axes

      token 0:  10  12  14        μ = 12, σ = 1.63      →  -1.22   0   1.22
      token 1:  -1   0   1        μ =  0, σ = 0.82      →  -1.22   0   1.22     each row by itself

Numerically, "mean of x² minus squared mean" is the trap: at mean 1e4 and σ = 1 both are 1e8, and
float32 keeps no digit below 8 there. Subtract first, square after; see `standardise`.

Backward. One row, x̂ᵢ depends on every xⱼ through μ and σ. With r = 1/√(σ² + ε), n features and
ĝ = ∂L/∂y · weight:
    ∂x̂ᵢ/∂xⱼ = r·(δᵢⱼ − 1/n − x̂ᵢ·x̂ⱼ/n)          (∂μ/∂xⱼ = 1/n,  ∂r/∂xⱼ = −r²·x̂ⱼ/n)
    ∂L/∂x   = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂))     two means a row; the rest cannot shift or scale it
    ∂L/∂weight = Σ_rows ∂L/∂y · x̂               ∂L/∂bias = Σ_rows ∂L/∂y
Cost: some 10 FLOPs an element: memory traffic is what counts.

Same as torch.nn.functional.layer_norm and torch.nn.LayerNorm; proven in
tests/ops/test_layer_norm.py. Source: Ba, Kiros & Hinton 2016, arXiv 1607.06450, section 3.
Read: layer_norm_naive (the formula) → standardise → layer_norm → LayerNorm (owns weight and bias)
"""

from __future__ import annotations

import math
from typing import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scratch.ops.precision import at_least_float32, float32_under_autocast


def layer_norm_naive(x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor, bias: Tensor,
                     eps: float = 1e-5) -> Tensor:
    """The definition, one token at a time."""
    shape = _check(x, normalized_shape, weight, bias)
    tokens = []
    for token in x.reshape(-1, *shape):
        mean = token.sum() / token.numel()  # ()
        variance = ((token - mean) ** 2).sum() / token.numel()  # by n, not n − 1: nothing is estimated
        tokens.append((token - mean) / torch.sqrt(variance + eps) * weight + bias)
    return torch.stack(tokens).reshape(x.shape)  # (..., D)


def standardise(x: Tensor, mean: Callable[[Tensor], Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """x̂ = (x − μ)·r and r = 1/√(σ² + ε); `mean` averages over a row, a group, … and keeps its axes with length 1.

    Centres twice. Near 1e4 the numbers of float32 lie 0.001 apart; the mean is rounded to one of them, and every x − μ
    is off by that much. But subtracting close numbers is exact, so the error is still there to be seen: it is the mean
    of what is left, which should be 0. Subtract it too.
    """
    centred = x - mean(x)  # a new tensor: from here on it may be changed in place
    centred -= mean(centred)  # the rounding error of the first mean; nothing where that was exact
    r = torch.rsqrt(mean(centred.square()) + eps)  # ε: a constant row gives 0/√ε = 0 and not 0/0
    return centred.mul_(r), r


def layer_norm(x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor, bias: Tensor,
               eps: float = 1e-5) -> Tensor:
    """Standardise x over its last axes `normalized_shape`, then scale by weight and shift by bias.

    Equal to `layer_norm_naive` on all tokens at once, with the backward above written by hand: autograd would keep
    every intermediate, this keeps x̂ alone. Statistics are float32 even for bf16 and fp16; the result has the
    dtype of x, or float32 under autocast: as in torch on a GPU, where torch on a CPU keeps the dtype of x.
    Raises ValueError where the shapes do not fit.
    """
    shape = _check(x, normalized_shape, weight, bias)
    x = float32_under_autocast(x)
    D = math.prod(shape)  # several axes are normalised as one: rows of D numbers, R of them
    return _LayerNorm.apply(x.reshape(-1, D), weight.reshape(D), bias.reshape(D), eps).view(x.shape)


class _LayerNorm(torch.autograd.Function):
    """Rows (R,D) → (R,D). Keeps x̂ and r: x̂ is needed by two of the three gradients, and x by none."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        standard, r = standardise(at_least_float32(x), _row_mean, eps)  # (R,D), (R,1)
        ctx.save_for_backward(standard, r, weight)
        ctx.dtype = x.dtype  # the parameters may have another one: float32 under half-precision tokens
        return torch.addcmul(bias.to(r.dtype), standard, weight.to(r.dtype)).to(x.dtype)  # one pass

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        standard, r, weight = ctx.saved_tensors
        grad = grad.to(standard.dtype)  # (R,D)
        scaled = grad * weight  # (R,D): ĝ
        mean, slope = _row_mean(scaled), _row_mean(scaled * standard)  # (R,1)
        grad_x = scaled.sub_(mean).addcmul_(standard, slope, value=-1).mul_(r)  # the formula above, in the memory of ĝ
        return grad_x.to(ctx.dtype), (grad * standard).sum(0).to(weight.dtype), grad.sum(0).to(weight.dtype), None


def _row_mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)  # (R,D) → (R,1)


class LayerNorm(nn.Module):
    """A layer norm that owns its weight (ones) and bias (zeros), as torch.nn.LayerNorm."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight = nn.Parameter(torch.ones(self.normalized_shape))
        self.bias = nn.Parameter(torch.zeros(self.normalized_shape))

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


def _check(x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor, bias: Tensor) -> tuple[int, ...]:
    shape = _shape(normalized_shape)
    if not shape or math.prod(shape) == 0 or tuple(x.shape[-len(shape):]) != shape:
        raise ValueError(f"got x of shape {tuple(x.shape)}, wanted it to end in normalized_shape {shape}, "
                         "which must not be empty")
    if weight.shape != shape or bias.shape != shape:
        raise ValueError(f"got weight {tuple(weight.shape)} and bias {tuple(bias.shape)}, "
                         f"wanted both of normalized_shape {shape}")
    return shape
