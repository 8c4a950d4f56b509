"""embedding: how does an integer become a vector that can learn?

    y[...] = W[i[...]]                  the i-th row of a table

    i (...) int64 → y (..., D)          W (K, D)

        i = [2, 0, 2]     W  ┌ w₀ ┐       y ┌ w₂ ┐
                             │ w₁ │   →     │ w₀ │
                             └ w₂ ┘         └ w₂ ┘

A lookup is a matrix product in disguise: the one-hot row of i times W. The disguise saves work: D
numbers are read for each index where the product would multiply K·D. Backwards, the transposed
one-hot product becomes an addition into the rows that were read: ∂W[i] += ∂y. w₂ above was read
twice and receives the sum of two gradients; w₁ receives none.

DETR's object queries and (in some variants) learned positions are such tables.

Same as torch.nn.functional.embedding and torch.nn.Embedding; proven in tests/ops/test_embedding.py.
Read: embedding_naive (one-hot times table) → embedding (the lookup) → Embedding
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratch.ops.init import normal_


def embedding_naive(indices: Tensor, weight: Tensor) -> Tensor:
    """The matrix product that a lookup stands for."""
    K, D = weight.shape
    one_hot = indices[..., None] == torch.arange(K, device=indices.device)  # (..., K)
    return one_hot.to(weight.dtype) @ weight  # (..., D)


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """Return the rows of weight (K, D) at integer indices (...): (..., D). An index outside 0 … K−1 raises IndexError.

    What changed: the product's K multiplications for each number, all but one of them by 0, became one read. Equal,
    because the one-hot row has its single 1 at i. autograd turns `index_select` into the index_add described above; it
    keeps the indices only.
    """
    K, D = weight.shape
    # On a GPU this look at the numbers would make the host wait; there an assertion on the device stops the run.
    if indices.device.type == "cpu" and indices.numel():
        lowest, highest = indices.min().item(), indices.max().item()
        if lowest < 0 or highest >= K:
            raise IndexError(f"got indices from {lowest} to {highest}, wanted 0 to {K - 1}: the table has {K} rows")
    return weight.index_select(0, indices.flatten()).view(*indices.shape, D)  # (..., D)


class Embedding(nn.Module):
    """Owns the table, drawn from N(0, 1), as torch.nn.Embedding; its further options are not offered.

    A table read whole, as DETR's queries are, needs no lookup: the model takes `.weight` itself.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        normal_(self.weight)

    def forward(self, indices: Tensor) -> Tensor:
        return embedding(indices, self.weight)

    def extra_repr(self) -> str:
        num_embeddings, embedding_dim = self.weight.shape
        return f"{num_embeddings}, {embedding_dim}"
