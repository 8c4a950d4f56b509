"""attention: how does a token (a cell of the image, an object query) use what all others know?

    Attention(q, k, v) = P v,   P = softmax(q kᵀ/√d + mask)           scaled dot-product attention

    B images, N heads: q (B,N,Q,d)  k v (B,N,S,d) → P (B,N,Q,S), rows sum to 1; output (B,N,Q,d)

A *query* says what a token looks for, a *key* what it offers, a *value* what it passes on. In
*self-attention* all come from the same tokens, in *cross-attention* keys and values from others.
Softmax turns a row of scores q·k into weights for the mean of the values. With two queries:

    q kᵀ/√d   0     ln 3      P   1/4  3/4     v   4      output   1/4·4 + 3/4·8 = 7
              ln 3  0             3/4  1/4         8               3/4·4 + 1/4·8 = 5

Several heads (*multi-head attention*, D = N·d): head n has linear maps (projections) of its own,

    q_n = x_q W_qnᵀ + b_qn    k_n = x_k W_knᵀ + b_kn    v_n = x_v W_vnᵀ + b_vn    (D → d each)
    y = [O_1 … O_N] W_oᵀ + b_o      O_n = Attention(q_n, k_n, v_n)      x_q, y (B,Q,D)  x_k, x_v (B,S,D)

For each query, one head has one row of weights, narrow or spread out; N heads have N rows, at the
multiply-adds of one wide head: 2·Q·S·D in q kᵀ and P v, and D² a token in each linear map.
Why √d: q·k has variance d if their numbers are independent, with mean 0 and variance 1. At d = 64 the
10 largest of 100 weights then sum to 0.998: other keys get hardly any gradient. After /√d: to 0.38.
Same as torch.nn.MultiheadAttention(batch_first=True), but for a query that may look nowhere; proven
in tests/ops/test_attention.py. Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.
Read: attention_naive → attention_batched → scaled_dot_product_attention → MultiheadAttention
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratch.ops.activations import softmax
from scratch.ops.dropout import check_probability, dropout
from scratch.ops.fast.attention import fast_attention
from scratch.ops.init import constant_, xavier_uniform_
from scratch.ops.linear import Linear, linear


def attention_naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The formula for one head of one image, in loops: q (Q,d), k (S,d), v (S,d) → (Q,d)."""
    Q, d = q.shape
    S = k.shape[0]
    rows = []
    for i in range(Q):  # each query by itself: nothing passes between queries
        scores = [sum(q[i, c] * k[j, c] for c in range(d)) / math.sqrt(d) for j in range(S)]
        e = [torch.exp(score) for score in scores]  # S numbers
        total = sum(e)
        rows.append(sum(e[j] / total * v[j] for j in range(S)))  # (d): a mean of the values, weighted by P_ij
    return torch.stack(rows)  # (Q, d)


def attention_batched(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None,
                      dropout_p: float = 0.0) -> tuple[Tensor, Tensor]:
    """All queries, heads and images at once: the two inner sums become two batched matrix multiplications.

    q (…,Q,d), k (…,S,d), v (…,S,d) → output (…,Q,d) and the weights that were used (…,Q,S). `bias` is added to the
    scores: 0 where a query may look, −∞ where it may not. A share `dropout_p` of the weights is dropped. Autograd
    derives it, and keeps several tensors of B·N·Q·S numbers for that; ops/fast/attention.py keeps one or none. q is
    divided by √d before the product, because a score may exceed float16's 65504.
    """
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (…, Q, S)
    P = softmax(scores if bias is None else scores + bias, dim=-1)  # (…, Q, S), rows sum to 1
    P = dropout(P, dropout_p, training=True)  # (…, Q, S); with dropout_p = 0 it is P itself
    output = P @ v  # (…, Q, d)
    return output, P.to(output.dtype)  # under autocast softmax gives float32, the product half precision


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, key_padding_mask: Tensor | None = None,
    dropout_p: float = 0.0, training: bool = False, need_weights: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Return (output (B,N,Q,e), weights (B,N,Q,S)) of q (B,N,Q,d), k (B,N,S,d), v (B,N,S,e); in DETR e = d.

    For the masks see `additive_mask`. In training, a share `dropout_p` of the weights is dropped; the weights returned
    are those used, as torch returns them. Without `need_weights` they are None, and the door to ops/fast need not hold
    them all in memory; the output is the same but for rounding, and for which weights are dropped.
    """
    B, N, Q, _ = q.shape
    S = k.shape[2]  # as many values as keys; as many keys as queries only in self-attention
    bias = additive_mask(attn_mask, key_padding_mask, B, N, Q, S, q.dtype)
    q, k, v = (x.reshape(B * N, *x.shape[2:]) for x in (q, k, v))  # (B·N, Q or S, d)
    dropout_p = check_probability(dropout_p) if training else 0.0
    found = fast_attention(q, k, v, bias, dropout_p, need_weights)  # None in plain mode
    output, weights = attention_batched(q, k, v, bias, dropout_p) if found is None else found
    # Views: B and N apart again. (v.shape[-1], not −1: of an empty batch no size can be inferred.)
    return output.view(B, N, Q, v.shape[-1]), weights.view(B, N, Q, S) if need_weights else None


def additive_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, B: int, N: int, Q: int, S: int, dtype: torch.dtype,
) -> Tensor | None:
    """Join both masks into one bias to add to the scores, (1 or B·N, 1 or Q, S), or None if there is neither.

    `key_padding_mask` (B,S) bool, True = padding: no query looks there. `attn_mask` (Q,S) or (B·N,Q,S): a float is
    added; of a bool, True = not allowed, as in nn.MultiheadAttention (nn.functional.scaled_dot_product_attention means
    the opposite). −∞ says "not allowed": e^−∞ is exactly 0, whatever the other scores and the dtype. A query
    that may look nowhere gets weights and output 0, where torch gives NaN. A wrong shape raises ValueError, a wrong
    dtype TypeError.
    """
    bias = None
    if key_padding_mask is not None:
        if key_padding_mask.dtype is not torch.bool:
            raise TypeError(f"got a key_padding_mask of {key_padding_mask.dtype}, wanted torch.bool, True = padding")
        if key_padding_mask.shape != (B, S):
            raise ValueError(f"got a key_padding_mask of shape {tuple(key_padding_mask.shape)}, wanted (B, S) = {B, S}")
        # The same keys are padding for every head and query: (B, S) → (B·N, 1, S), broadcast over Q by the product.
        bias = _forbid(key_padding_mask, dtype)[:, None, None].expand(B, N, 1, S).reshape(B * N, 1, S)
    if attn_mask is not None:
        if attn_mask.shape not in ((Q, S), (B * N, Q, S)):
            raise ValueError(f"got an attn_mask of shape {tuple(attn_mask.shape)}, wanted (Q, S) = {Q, S} "
                             f"or (B·N, Q, S) = {B * N, Q, S}")
        if attn_mask.dtype is not torch.bool and not attn_mask.is_floating_point():
            raise TypeError(f"got an attn_mask of {attn_mask.dtype}, wanted torch.bool (True = not allowed) "
                            "or a float to add")
        extra = _forbid(attn_mask, dtype) if attn_mask.dtype is torch.bool else attn_mask.to(dtype)
        extra = extra if extra.dim() == 3 else extra[None]  # (1 or B·N, Q, S)
        bias = extra if bias is None else bias + extra  # forbidden by either is forbidden: −∞ + x = −∞
    return bias


def _forbid(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, -math.inf)


class MultiheadAttention(nn.Module):
    """Owns the four linear maps of all heads; parameters and first draws as in torch.

    `in_proj_weight` (3D, D) holds W_q, W_k and W_v under one another, and in each of them the heads: W_q1 … W_qN.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"got embed_dim {embed_dim} and num_heads {num_heads}, wanted a multiple of the heads")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, check_probability(dropout)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim))
        self.out_proj = Linear(embed_dim, embed_dim)  # mixes what the heads found
        # The same draws in the same order as torch, so that one seed gives both the same start.
        xavier_uniform_(self.in_proj_weight)
        constant_(self.in_proj_bias, 0.0)
        constant_(self.out_proj.bias, 0.0)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, *,
        attn_mask: Tensor | None = None, need_weights: bool = False, average_attn_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """query (B,Q,D), key and value (B,S,D) → output (B,Q,D), and on request (torch: unless refused) the weights.

        The weights are (B,N,Q,S), or (B,Q,S) where `average_attn_weights` asks for the mean over the heads.
        """
        B, Q, D = query.shape
        q, k, v = (self._split_heads(x) for x in self._project(query, key, value))  # (B, N, Q or S, d)
        output, weights = scaled_dot_product_attention(
            q, k, v, attn_mask, key_padding_mask, self.dropout, self.training, need_weights)  # (B,N,Q,d), (B,N,Q,S)
        output = self.out_proj(output.transpose(1, 2).reshape(B, Q, D))  # (B, Q, D)
        return output, weights.mean(dim=1) if need_weights and average_attn_weights else weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """q, k, v with as few matrix multiplications as possible: neighbours that are the same tensor share one.

        DETR's encoder has q = k = src + pos and v = src: two products instead of three, with the same FLOPs. `split`,
        not slices: its gradient is one concatenation; each slice would send back a (3D, D) tensor of mostly zeros.
        """
        inputs, rows = [query], [self.embed_dim]  # rows: how much of in_proj_weight each input meets
        for x in (key, value):
            if x is inputs[-1]:  # the very same tensor, not an equal one: no numbers are compared
                rows[-1] += self.embed_dim
            else:
                inputs.append(x)
                rows.append(self.embed_dim)
        weights, biases = self.in_proj_weight.split(rows), self.in_proj_bias.split(rows)
        projected = [linear(x, weight, bias) for x, weight, bias in zip(inputs, weights, biases)]  # (B, Q or S, 1–3·D)
        return [part for y in projected for part in y.split(self.embed_dim, dim=-1)]  # 3 × (B, Q or S, D)

    def _split_heads(self, x: Tensor) -> Tensor:
        B, S, D = x.shape
        return x.view(B, S, self.num_heads, D // self.num_heads).transpose(1, 2)  # (B, N, S, d)
