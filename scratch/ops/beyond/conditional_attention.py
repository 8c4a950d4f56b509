"""conditional_attention: how does a query score the content and the position of a cell separately?

    score = (cq·ck + pq·pk) / √(2d)          c: content, p: place; one head, d numbers each

In DETR's cross-attention between object queries and cells, content and place are added before the
product. That gives four terms, and the last two compare the content of one side with the position
of the other:

    (cq + pq)·(ck + pk) = cq·ck + pq·pk + cq·pk + pq·ck

Conditional DETR (Meng et al. 2021, arXiv 2108.06152, section 3.3) concatenates them instead. The
product of two concatenations is the sum of two products, so the two mixed terms are gone.

    content (B,Q,D) ─W─▶ cq ┐                            ┌ ck ◀─W─ memory (B,S,D)
                            ├ [cq|pq] (B,N,Q,2d) · [ck|pk] ┤
    place   (B,Q,D) ─W─▶ pq ┘                            └ pk ◀─W─ encoded cells (B,S,D)

The product of two positional encodings is largest where the two places agree:

    p(x)·p(x') = Σᵢ sin(x/Tᵢ) sin(x'/Tᵢ) + cos(x/Tᵢ) cos(x'/Tᵢ) = Σᵢ cos((x − x')/Tᵢ)

So with W the identity pq·pk is largest at the query's own place before any training. Here W starts
as a permutation (`deal_pairs`) that gives each head pairs of low and high frequency of both axes.
There is no torch.nn counterpart; tests/ops/beyond/test_conditional_attention.py holds it against
the sum of two products. Read: conditional_scores_naive → deal_pairs → ConditionalAttention
"""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor, nn

from scratch.ops.attention import scaled_dot_product_attention
from scratch.ops.linear import Linear

# ── Departure from the paper ────────────────────────────────────────────────────────────────────────────────────────
# Conditional DETR's maps of the places start at random (Xavier); here as a permutation, `reset_places`. Held, in
# tests/ops/beyond, by test_before_any_learning_a_query_looks_most_at_the_cell_of_its_own_place.


def conditional_scores_naive(cq: Tensor, pq: Tensor, ck: Tensor, pk: Tensor) -> Tensor:
    """The formula for one head: cq, pq (Q,d), ck, pk (S,d) → scores (Q,S)."""
    return (cq @ ck.T + pq @ pk.T) / math.sqrt(2 * cq.shape[1])


def deal_pairs(embed_dim: int, num_heads: int) -> Tensor:
    """The order (D) in which the channels of a positional encoding are given to the heads: a permutation.

    The encoding of a place holds D/4 pairs (sin, cos) for x, then D/4 for y. Pair number i of either axis goes to head
    i mod N, so that head n gets pairs n, n+N, n+2N … Both numbers of a pair go to the same head: only together do they
    encode a place. Where N does not divide the number of pairs, the order stays as it is.
    """
    pairs = torch.arange(embed_dim).view(2, embed_dim // 4, 2)  # (axis, pair, sin/cos)
    if (embed_dim // 4) % num_heads:
        return pairs.flatten()
    return pairs.view(2, -1, num_heads, 2).permute(2, 0, 1, 3).flatten()  # (D): head by head


class ConditionalAttention(nn.Module):
    """Cross-attention by content and by place, in place of MultiheadAttention: five linear maps and the output map."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"got embed_dim {embed_dim} and num_heads {num_heads}, wanted a multiple of the heads")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.q_content = Linear(embed_dim, embed_dim)
        self.kv_content = Linear(embed_dim, 2 * embed_dim)  # keys and values read the same memory: one product
        self.q_place, self.k_place = Linear(embed_dim, embed_dim), Linear(embed_dim, embed_dim)
        self.out_proj = Linear(embed_dim, embed_dim)

    def reset_places(self) -> None:
        """Let both place maps start as the permutation `deal_pairs`, so that near cells score higher from the start."""
        with torch.no_grad():
            for layer in (self.q_place, self.k_place):
                layer.weight.copy_(torch.eye(self.embed_dim)[deal_pairs(self.embed_dim, self.num_heads)])
                layer.bias.zero_()

    def forward(
        self, content: Tensor, place: Tensor, memory: Tensor, memory_place: Tensor,
        key_padding_mask: Optional[Tensor] = None, need_weights: bool = False,
    ) -> tuple[Tensor, Optional[Tensor]]:
        """content, place (B,Q,D), memory, memory_place (B,S,D) → output (B,Q,D), and on request weights (B,N,Q,S)."""
        B, Q, D = content.shape
        ck, v = self.kv_content(memory).split(D, dim=-1)  # (B,S,D) each
        q = torch.cat((self._heads(self.q_content(content)), self._heads(self.q_place(place))), dim=-1)  # (B,N,Q,2d)
        k = torch.cat((self._heads(ck), self._heads(self.k_place(memory_place))), dim=-1)  # (B,N,S,2d)
        output, weights = scaled_dot_product_attention(
            q, k, self._heads(v), None, key_padding_mask, self.dropout, self.training, need_weights)  # (B,N,Q,d)
        return self.out_proj(output.transpose(1, 2).reshape(B, Q, D)), weights  # (B,Q,D)

    def _heads(self, x: Tensor) -> Tensor:
        B, S, D = x.shape
        return x.view(B, S, self.num_heads, D // self.num_heads).transpose(1, 2)  # (B,N,S,d)
