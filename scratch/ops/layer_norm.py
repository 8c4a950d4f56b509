"""layer_norm: how does every token get the same scale, whatever came before?

    x̂ = (x − μ) / √(σ² + ε)      μ = mean of x over the last axes
    y = x̂ · weight + bias        σ² = mean of (x − μ)², the variance

    x (..., D) → y (..., D)       weight, bias (D): `normalized_shape`, which may be several axes

      token 0:  10  12  14        μ = 12, σ = 1.63      →  -1.22   0   1.22
      token 1:  -1   0   1        μ =  0, σ = 0.82      →  -1.22   0   1.22     each row by itself

A token is a row of D numbers (features). Its mean becomes 0 and its variance 1, up to ε, which
prevents a division by 0; weight and bias, shared by all tokens, let the network learn others.

Numerically, "mean of x² minus squared mean" is the trap: at mean 1e4 and σ = 1 both are 1e8, and
float32 numbers are 8 apart there. Subtract the mean first, square after.

Same as torch.nn.functional.layer_norm and torch.nn.LayerNorm; proven in
tests/ops/test_layer_norm.py. Source: Ba, Kiros & Hinton 2016, arXiv 1607.06450, section 3.
Read: layer_norm_naive (the formula) → layer_norm → LayerNorm (owns weight and bias)
"""

from __future__ import annotations

import math
from typing import Sequence

import torch
from torch import Tensor, nn

from scratch.ops.activations import at_least_float32, float32_under_autocast
from scratch.ops.fast.layer_norm import fast_layer_norm


def layer_norm_naive(x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor, bias: Tensor,
                     eps: float = 1e-5) -> Tensor:
    """The definition, one token at a time."""
    shape = _check(x, normalized_shape, weight, bias)
    tokens = []
    for token in x.reshape(-1, *shape):
        mean = token.sum() / token.numel()  # ()
        variance = ((token - mean) ** 2).sum() / token.numel()  # by n, not n − 1: this token's own variance
        tokens.append((token - mean) / torch.sqrt(variance + eps) * weight + bias)
    return torch.stack(tokens).reshape(x.shape)  # (..., D)


def layer_norm(x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor, bias: Tensor,
               eps: float = 1e-5) -> Tensor:
    """Normalise x over its last axes `normalized_shape`, then scale by weight and shift by bias.

    Equal to `layer_norm_naive` on all tokens at once. Statistics are float32 even for bf16 and fp16; the result has the
    dtype of x, or float32 under autocast: as in torch on a GPU, where torch on a CPU keeps the dtype of x.
    Raises ValueError where the shapes do not fit.
    """
    shape = _check(x, normalized_shape, weight, bias)
    x = float32_under_autocast(x)
    D = math.prod(shape)  # several axes are normalised as one: rows of D numbers, R of them
    rows, weight, bias = x.reshape(-1, D), weight.reshape(D), bias.reshape(D)
    y = fast_layer_norm(rows, weight, bias, eps)  # None in plain mode (ops/fast)
    return (_normalised(rows, weight, bias, eps) if y is None else y).view(x.shape)


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Rows (R,D) → (R,D).

    Subtracts the mean twice. Near 1e4 float32 numbers are 0.001 apart; the mean is rounded to one of them, and every
    x − μ is off by the same error. Subtracting close numbers is exact, so that error is the mean of what is left, which
    should be 0, and can be subtracted too.
    """
    wide = at_least_float32(x)
    centred = wide - wide.mean(1, keepdim=True)  # (R,D)
    centred = centred - centred.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)  # (R,1)
    standard = centred * torch.rsqrt(variance + eps)  # (R,D): x̂; ε makes a constant row 0/√ε = 0 and not 0/0
    return (standard * weight.to(wide.dtype) + bias.to(wide.dtype)).to(x.dtype)


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
