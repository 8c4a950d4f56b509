"""linear: how can every output look at every input at once?

    y[o] = b[o] + Σ_i  W[o,i] · x[i]          y = x Wᵀ + b

    x (..., I) → y (..., O)        W (O, I)   b (O)

            x₀ ─┬──╲╱── y₀         a row of W holds the strengths of the wires into one output;
            x₁ ─┼──╱╲── y₁         the same wires serve each position of the leading axes
            x₂ ─┘

Cost: R·O·I multiply-adds for R rows (the product of the leading axes), twice that backwards:

    ∂x = ∂y W         (R,O)(O,I)        which inputs would have lowered the loss
    ∂W = ∂yᵀ x        (O,R)(R,I)        every row votes, the votes are summed
    ∂b = Σ_rows ∂y

Autograd derives these two products and one sum from `addmm` and keeps no more than x and W for
them, so nothing is left to write by hand.

Same as torch.nn.functional.linear and torch.nn.Linear; proven in tests/ops/test_linear.py.
Read: linear_naive (the formula) → linear_matmul (one product) → linear (one pass) → Linear
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratch.ops.init import calculate_fan, kaiming_uniform_, uniform_


def linear_naive(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The formula, letter by letter, for one row: x (I) → y (O)."""
    O, I = weight.shape
    y = [sum(weight[o, i] * x[i] for i in range(I)) for o in range(O)]
    if bias is not None:
        y = [y[o] + bias[o] for o in range(O)]
    return torch.stack(y)  # (O)


def linear_matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """All rows at once. Equal because entry (r, o) of the product x Wᵀ is Σ_i x[r,i]·W[o,i] by definition.

    The bias is a second pass over y: R·O numbers read and written once more.
    """
    y = x @ weight.T  # (..., O)
    return y if bias is None else y + bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b: x (..., in_features) → (..., out_features).

    weight is (out_features, in_features), bias (out_features) or None. The rows are laid under one another, so that
    any number of leading axes is a single matrix product, and `addmm` starts its sums at b instead of at 0: the same
    additions without the second pass. Autocast lowers it as it lowers any matrix product.
    """
    *leading, in_features = x.shape
    rows = x.reshape(math.prod(leading), in_features)  # (R, I); not −1, which is ambiguous for an empty tensor
    y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)  # (R, O)
    return y.view(*leading, weight.shape[0])  # (..., O)


class Linear(nn.Module):
    """Owns W and b, and draws them as torch.nn.Linear does: both from U(±1/√in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        kaiming_uniform_(self.weight, a=math.sqrt(5))
        if bias:
            fan_in, _ = calculate_fan(self.weight)
            bound = 1 / math.sqrt(fan_in)
            uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, bias={self.bias is not None}"
