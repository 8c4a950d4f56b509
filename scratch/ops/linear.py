"""linear: how does every output of a linear layer depend on every input?

    y[o] = b[o] + Σ_i  W[o,i] · x[i]          y = x Wᵀ + b

    x (..., I) → y (..., O)        W (O, I)   b (O)        I inputs, O outputs

        y₀     w₀₀ w₀₁ w₀₂     x₀       row o of W holds the weights of output o;
        y₁  =  w₁₀ w₁₁ w₁₂  ·  x₁       all positions of the leading axes share them
                               x₂

The work is one *matrix multiplication (GEMM)*: R·O·I multiply-adds, where R, the number of rows, is
the product of the leading axes. *Backpropagation* applies the chain rule from the loss L back to the
inputs; its two products cost twice that. With ∂y for ∂L/∂y, how the loss changes with each output:

    ∂x = ∂y W         (R,O)(O,I)        how the loss changes with each input, for the layer before
    ∂W = ∂yᵀ x        (O,R)(R,I)        how it changes with each weight, summed over all rows
    ∂b = Σ_rows ∂y                      the optimizer (training/optimizer) computes its step from these

PyTorch's autograd derives them from the forward and keeps x and W for it, nothing more.

*Embedding*: a *one-hot* vector (all 0, one 1) times a table selects a row: x·table, table = Wᵀ.

Same as torch.nn.functional.linear and embedding, and their layers; tests/ops/test_linear.py.
Read: linear_naive → linear_matmul → linear → Linear → embedding_naive → embedding → Embedding
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


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

    weight is (out_features, in_features), bias (out_features) or None. The leading axes are flattened to rows, so that
    there is a single matrix multiplication, and `addmm` starts its sums at b instead of at 0: the same additions
    without the second pass. Mixed precision (`torch.autocast`, training/precision) applies to it as to any product.
    """
    *leading, in_features = x.shape
    rows = x.reshape(math.prod(leading), in_features)  # (R, I); not −1, which is ambiguous for an empty tensor
    y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)  # (R, O)
    return y.view(*leading, weight.shape[0])  # (..., O)


class Linear(nn.Module):
    """Owns W and b. Both start as draws from U(−1/√I, 1/√I), as in torch.nn.Linear; ops/init.py explains that range."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, bias={self.bias is not None}"


# ── embedding: a table of learned vectors, such as DETR's object queries ────────────────────────────────────────────


def embedding_naive(indices: Tensor, weight: Tensor) -> Tensor:
    """One-hot rows times the table: a matrix multiplication that multiplies nearly everything by 0."""
    rows, D = weight.shape
    one_hot = indices[..., None] == torch.arange(rows, device=indices.device)  # (..., rows)
    return one_hot.to(weight.dtype) @ weight  # (..., D)


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """Return the rows of the table `weight` (rows, D) at integer indices (...): (..., D).

    Equal, because the one-hot vector of i has its single 1 at i: D numbers are read for each index instead of rows·D
    multiplied. Backwards, ∂y is added to the row that was read; a row that was read twice gets the sum of two.
    An index outside the table raises IndexError.
    """
    rows, D = weight.shape
    # On a GPU this check would make the CPU wait for it; there an assertion on the device stops the run.
    if indices.device.type == "cpu" and indices.numel():
        lowest, highest = indices.min().item(), indices.max().item()
        if lowest < 0 or highest >= rows:
            raise IndexError(f"got indices from {lowest} to {highest}, wanted 0 to {rows - 1}: "
                             f"the table has {rows} rows")
    return weight.index_select(0, indices.flatten()).view(*indices.shape, D)  # (..., D)


class Embedding(nn.Module):
    """Owns the table, drawn from N(0, 1), as torch.nn.Embedding without its options. DETR reads `.weight` whole."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim).normal_())

    def forward(self, indices: Tensor) -> Tensor:
        return embedding(indices, self.weight)

    def extra_repr(self) -> str:
        num_embeddings, embedding_dim = self.weight.shape
        return f"{num_embeddings}, {embedding_dim}"
