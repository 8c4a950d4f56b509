"""attention: how can a cell of the image ask all the others, and weigh what they answer?

    P = softmax(q kᵀ/√d + mask)         O = P v

    q (B,N,Q,d)  k (B,N,S,d)  v (B,N,S,d)   →   O (B,N,Q,d)  P (B,N,Q,S)         D = N·d

    x (B,S,D) ─W─▶ N heads (B,N,S,d) ─▶ q kᵀ (B,N,Q,S) ─▶ softmax ─▶ P v (B,N,Q,d) ─W─▶ y (B,Q,D)

One head can point at one thing at a time; N heads of width d point at N for the same number of
multiply-adds: 2·Q·S·D in the two products, and D² for each row of each of the four linear maps.

Why √d: q·k sums d products, so its variance is d where those of q and k are 1. At d = 64 and 100
keys the largest weight is then 0.78 on average, and Σ P(1−P), the scale of the softmax's gradient,
0.31. Divided by √d: 0.08 and 0.97.

The steps, for 16 heads of 32 and 1,050 tokens, forward and with backward, in milliseconds on two
threads (`python -m benchmarks.ladder`; torch.nn: 17.4 and 64.0; its products alone: 12.4):

    attention_batched 50.7, 124.0    in place (Attention) 45.5, 103.4    fast/tiled_attention.py 33.3, 109.9

Masks: `key_padding_mask` (B,S) bool, True = padding: nobody looks there. `attn_mask` (Q,S) or
(B·N,Q,S): float, added; or bool, True = not allowed, as in nn.MultiheadAttention (and opposite to
nn.functional.scaled_dot_product_attention). A query that may look nowhere gets weights and output
0, where torch gives NaN.

Same as torch.nn.MultiheadAttention(batch_first=True) in value, gradients, parameters and, under a
seed, initial values and dropout (but for very many weights: fast/tiled_attention.py draws other masks);
that and the figures: tests/ops/test_attention.py.
Read: attention_naive → attention_batched → scaled_dot_product_attention → MultiheadAttention, and
fast/tiled_attention.py for what becomes of very many weights
Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from scratch.ops.activations import at_least_float32, autocast_applies, softmax
from scratch.ops.fast.tiled_attention import TiledAttention, lowered, raised, scaled_product
from scratch.ops.dropout import check_probability, dropout_mask
from scratch.ops.init import constant_, xavier_uniform_
from scratch.ops.linear import Linear, linear
from scratch.ops.fast.precision import as_in_forward, without_autocast


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


def attention_batched(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All queries, heads and images at once: the two inner sums are the rows of two matrix products.

    `bias` is added to the scores: 0 where a query may look, −∞ where it may not. Exact, but wasteful: the scores, the
    scaled scores, the masked scores and P are four tensors of B·N·Q·S numbers.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, N, Q, S)
    P = softmax(scores if bias is None else scores + bias, dim=-1)  # (B, N, Q, S), rows sum to 1
    return P @ v, P  # (B, N, Q, d), (B, N, Q, S)


# ── one tensor of B·N·Q·S numbers instead of four ───────────────────────────────────────────────────────────────────


class Attention(Function):
    """P is computed in the memory of the scores, and of that size only P (under dropout also a bool mask) is kept.

    Scaling and masking ride on the product: `baddbmm` computes bias + q kᵀ/√d in one go. Backwards, with G = ∂L/∂P:

        ∂v = Pᵀ ∂O      G = ∂O vᵀ      ∂scores = P ∘ (G − δ),  δ_i = Σ_j G_ij·P_ij
        ∂q = ∂scores k/√d              ∂k = ∂scoresᵀ q/√d

    δ needs no pass over the large tensors: Σ_j (Σ_c ∂O_ic·v_jc)·P_ij = Σ_c ∂O_ic·O_ic, a sum over d instead of over S
    (Dao et al. 2022, FlashAttention, arXiv 2205.14135, appendix B.2). Dropout puts P' = P∘m/(1−p) in the place of P in
    O = P' v; then ∂v = P'ᵀ ∂O and G = ∂O vᵀ ∘ m/(1−p), and the shortcut to δ still holds.
    All tensors are (B·N, rows, columns); bias is None or (1 or B·N, 1 or Q, S).
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout_p: float) -> tuple[Tensor, Tensor]:
        root = 1 / math.sqrt(q.shape[-1])
        wide = torch.promote_types(q.dtype, torch.float32)
        with without_autocast(q):  # the operands have their dtype already; autocast would lower again what is raised
            P = lowered(_softmax_(scaled_product(q, k.transpose(1, 2), root, bias, wide)), q.dtype)  # (B·N, Q, S)
            mask, scale = dropout_mask(P, dropout_p) if dropout_p > 0 else (None, 1.0)
            used = P if mask is None else torch.where(mask, P, 0).mul_(scale)  # (B·N, Q, S): P, or P' under dropout
            output = torch.bmm(used, raised(v))  # (B·N, Q, d), for δ not rounded to half
        ctx.save_for_backward(q, k, v, P, mask, output)  # P' is not among them: mask and P give it again
        ctx.root, ctx.scale, ctx.bias_shape = root, scale, None if bias is None else bias.shape
        ctx.set_materialize_grads(False)  # whoever ignores the weights sends None, not a (B·N, Q, S) tensor of zeros
        return output.to(v.dtype), used.to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor | None, grad_used: Tensor | None):
        q, k, v, P, mask, output = ctx.saved_tensors
        with as_in_forward(output):  # the operands have their dtype already
            if grad_output is None:  # a loss on the weights alone
                grad_output = torch.zeros_like(output, dtype=v.dtype)
            used = P if mask is None else torch.where(mask, P, 0).mul_(ctx.scale)  # (B·N, Q, S)
            grad_v = torch.bmm(used.transpose(1, 2), raised(grad_output)).to(v.dtype)  # (B·N, S, d)

            exact = at_least_float32(output).dtype  # G − δ subtracts near equals: not in half precision
            G = scaled_product(grad_output, v.transpose(1, 2), 1.0, dtype=exact)  # (B·N, Q, S), changed in place
            delta = (grad_output.to(exact) * output).sum(-1, keepdim=True)  # (B·N, Q, 1)
            if grad_used is not None:  # somebody derives through the returned weights too: ∂L/∂P' has a second part
                G += grad_used
                delta += (grad_used.to(exact) * used).sum(-1, keepdim=True)
            if mask is not None:
                G = torch.where(mask, G, 0).mul_(ctx.scale)  # from ∂L/∂P' to ∂L/∂P
            grad_scores = lowered(G.sub_(delta).mul_(P), q.dtype)  # (B·N, Q, S)

            grad_q = scaled_product(grad_scores, raised(k), ctx.root).to(q.dtype)  # (B·N, Q, d)
            grad_k = scaled_product(grad_scores.transpose(1, 2), raised(q), ctx.root).to(k.dtype)  # (B·N, S, d)
            # The bias was broadcast over queries, or heads and images: its gradient is the sum over them.
            grad_bias = grad_scores.sum_to_size(ctx.bias_shape).to(q.dtype) if ctx.needs_input_grad[3] else None
        return grad_q, grad_k, grad_v, grad_bias, None


def _softmax_(scores: Tensor) -> Tensor:
    """softmax over the last axis, as in activations.py, but in the memory of the scores, which are no halves."""
    if not scores.numel():  # no keys: nothing to weigh, and an output of 0
        return scores
    scores.sub_(scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)).exp_()
    return scores.div_(scores.sum(-1, keepdim=True).clamp_(min=1))  # a row of −∞ alone: 0/1


# Up to here the weights are made at once and kept, 64 MiB of them in float32; beyond, tile by tile and twice.
_MOST_WEIGHTS = 2**24


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, key_padding_mask: Tensor | None = None,
    dropout_p: float = 0.0, training: bool = False, need_weights: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Return (output (B,N,Q,v), weights (B,N,Q,S)) of q (B,N,Q,d), k (B,N,S,d), v (B,N,S,v); v is d unless told.

    The masks are described at the top of this file; a wrong shape raises ValueError, a wrong dtype TypeError. In
    training, a share `dropout_p` of the weights is dropped; the weights returned are those used, as torch returns them.
    Without `need_weights` they are None, and if they are very many, they never lie in memory together
    (fast/tiled_attention.py); the output is the same but for rounding, and for which weights are dropped.
    """
    B, N, Q, _ = q.shape
    S = k.shape[2]  # as many values as keys; as many keys as queries only in self-attention
    if autocast_applies(q):  # here, because the backward's products run outside autocast and must meet one dtype
        q, k, v = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (q, k, v))
    bias = additive_mask(attn_mask, key_padding_mask, B, N, Q, S, q.dtype)
    q, k, v = (x.reshape(B * N, *x.shape[2:]) for x in (q, k, v))  # (B·N, Q or S, d)
    dropout_p = check_probability(dropout_p) if training else 0.0
    if not need_weights and _too_many(B * N * Q * S, q, bias):
        return TiledAttention.apply(q, k, v, bias, dropout_p).view(B, N, Q, -1), None
    output, weights = Attention.apply(q, k, v, bias, dropout_p)
    return output.view(B, N, Q, -1), weights.view(B, N, Q, S) if need_weights else None  # views: B·N apart again


def _too_many(weights: int, q: Tensor, bias: Tensor | None) -> bool:
    """Should so many weights be made tile by tile? Not where a mask learns, and not where nothing is computed.

    torch.compile would write out every tile of the loop.
    """
    real = q.device.type != "meta" and not torch.compiler.is_compiling()
    return weights > _MOST_WEIGHTS and real and not (bias is not None and bias.requires_grad)


def additive_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, B: int, N: int, Q: int, S: int, dtype: torch.dtype,
) -> Tensor | None:
    """Join both masks into one bias to add to the scores, (1 or B·N, 1 or Q, S), or None if there is neither.

    −∞ says "not allowed": e^−∞ is exactly 0, where a large negative number would leak a little.
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
        extra = extra.view(-1, Q, S)  # (1 or B·N, Q, S)
        bias = extra if bias is None else bias + extra  # forbidden by either is forbidden: −∞ + x = −∞
    return bias


def _forbid(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, -math.inf)


# ── the layer ───────────────────────────────────────────────────────────────────────────────────────────────────────


class MultiheadAttention(nn.Module):
    """Owns the four linear maps. W_q, W_k and W_v lie under one another in `in_proj_weight` (3D, D), as in torch."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"got embed_dim {embed_dim} and num_heads {num_heads}, wanted a multiple of the heads")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, check_probability(dropout)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim))
        self.out_proj = Linear(embed_dim, embed_dim)  # mixes what the heads found
        # The same draws in the same order as torch, so that one seed starts both alike.
        xavier_uniform_(self.in_proj_weight)
        constant_(self.in_proj_bias, 0.0)
        constant_(self.out_proj.bias, 0.0)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None, need_weights: bool = False, average_attn_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """query (B,Q,D), key and value (B,S,D) → output (B,Q,D), and on request the weights.

        The weights are (B,N,Q,S), or (B,Q,S) where `average_attn_weights` asks for the mean over the heads.
        """
        B, Q, D = query.shape
        q, k, v = (self._split_heads(x) for x in self._project(query, key, value))  # (B, N, Q or S, d)
        output, weights = scaled_dot_product_attention(
            q, k, v, attn_mask, key_padding_mask, self.dropout, self.training, need_weights)  # (B,N,Q,d), (B,N,Q,S)
        output = self.out_proj(output.transpose(1, 2).reshape(B, Q, D))  # (B, Q, D)
        return output, weights.mean(dim=1) if need_weights and average_attn_weights else weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """q, k, v with as few products as can be: neighbours that are one and the same tensor share one.

        DETR's encoder has q = k = src + pos and v = src: two products instead of three, of the same FLOPs, but
        larger, and with src + pos read once. `split`, not slices: its gradient is one concatenation, where each slice
        would send back a (3D, D) tensor that is mostly zeros.
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
