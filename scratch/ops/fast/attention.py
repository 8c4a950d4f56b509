"""attention (fast): how few tensors of B·N·Q·S numbers does attention need?

    scaled_dot_product_attention ── q, k, v, bias ──▶ fast_attention ─┬─ plain mode: None
      (ops/attention.py)                                              ├─ Attention: one, the weights P
                                                                      └─ TiledAttention: none

    q (B·N,Q,d)  k (B·N,S,d)  v (B·N,S,d)  bias (1 or B·N, 1 or Q, S) or None
    → output (B·N,Q,d), and the weights P (B·N,Q,S) or None

attention_batched makes the scores, the masked scores and P: three such tensors.
Here P is computed in the memory of the scores, and the backward is written by hand from P alone.
Where the weights are very many, and not asked for, they are made tile by tile and never lie in
memory together (fast/tiled_attention.py).

Equal to attention_batched in value and gradients; tests/ops/fast/test_attention.py.
Read: Attention → fast_attention → fast/tiled_attention.py → the ladder at the end of this file
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from scratch.ops.dropout import dropout_mask
from scratch.ops.fast.switch import plain, replayed
from scratch.ops.fast.tiled_attention import TiledAttention, lowered, raised, scaled_product
from scratch.ops.activations import at_least_float32, autocast_applies
from scratch.ops.fast.precision import as_in_forward, without_autocast


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
            used = P if mask is None else _kept(P, mask, scale)  # (B·N, Q, S): P, or P' under dropout
            output = torch.bmm(used, raised(v))  # (B·N, Q, d), for δ not rounded to half
        ctx.save_for_backward(q, k, v, P, mask, output)  # P' is not among them: mask and P give it again
        ctx.root, ctx.scale, ctx.bias_shape = root, scale, None if bias is None else bias.shape
        ctx.set_materialize_grads(False)  # unused weights then send None, not a (B·N, Q, S) tensor of zeros
        return output.to(v.dtype), used.to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor | None, grad_used: Tensor | None):
        q, k, v, P, mask, output = ctx.saved_tensors
        with as_in_forward(output):  # the operands have their dtype already
            if grad_output is None:  # a loss on the weights alone
                grad_output = torch.zeros_like(output, dtype=v.dtype)
            used = P if mask is None else _kept(P, mask, ctx.scale)  # (B·N, Q, S)
            grad_v = torch.bmm(used.transpose(1, 2), raised(grad_output)).to(v.dtype)  # (B·N, S, d)

            exact = at_least_float32(output).dtype  # G − δ subtracts near equals: not in half precision
            G = scaled_product(grad_output, v.transpose(1, 2), 1.0, dtype=exact)  # (B·N, Q, S), changed in place
            delta = (grad_output.to(exact) * output).sum(-1, keepdim=True)  # (B·N, Q, 1)
            if grad_used is not None:  # the loss depends on the returned weights too: ∂L/∂P' has a second part
                G += grad_used
                delta += (grad_used.to(exact) * used).sum(-1, keepdim=True)
            if mask is not None:
                G = _kept(G, mask, ctx.scale)  # from ∂L/∂P' to ∂L/∂P
            grad_scores = lowered(G.sub_(delta).mul_(P), q.dtype)  # (B·N, Q, S)

            grad_q = scaled_product(grad_scores, raised(k), ctx.root).to(q.dtype)  # (B·N, Q, d)
            grad_k = scaled_product(grad_scores.transpose(1, 2), raised(q), ctx.root).to(k.dtype)  # (B·N, S, d)
            # The bias was broadcast over queries, or heads and images: its gradient is the sum over them.
            grad_bias = grad_scores.sum_to_size(ctx.bias_shape).to(q.dtype) if ctx.needs_input_grad[3] else None
        return grad_q, grad_k, grad_v, grad_bias, None


def _kept(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """x∘m/(1−p), a new tensor. On a GPU `where` would launch a second kernel, for its 0."""
    return (x * mask if x.is_cuda else torch.where(mask, x, 0)).mul_(scale)


def _softmax_(scores: Tensor) -> Tensor:
    """softmax over the last axis, as in activations.py, but in the memory of the scores, which are no halves."""
    if not scores.numel():  # no keys: nothing to weigh, and an output of 0
        return scores
    scores.sub_(scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)).exp_()
    return scores.div_(scores.sum(-1, keepdim=True).clamp_(min=1))  # a row of −∞ alone: 0/1


# Up to here the weights are made at once and kept, 64 MiB of them in float32; beyond, tile by tile and twice. On a GPU,
# where many small tiles are many kernel launches, 128 MiB of them in half precision.
_MOST_WEIGHTS, _MOST_WEIGHTS_OF_A_GPU = 2**24, 2**26


def fast_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout_p: float,
                   need_weights: bool) -> tuple[Tensor, Tensor | None] | None:
    """Output and weights of heads (B·N, rows, columns), or None in plain mode.

    The weights are None where they were made tile by tile: not `need_weights`, and more than _MOST_WEIGHTS.
    """
    if plain():
        return None
    if autocast_applies(q):  # here, because the backward's products run outside autocast and must meet one dtype
        low = torch.get_autocast_dtype(q.device.type)
        q, k, v, bias = (x if x is None else x.to(low) for x in (q, k, v, bias))
    if not need_weights and _too_many(len(q) * q.shape[1] * k.shape[1], q, bias, dropout_p):
        return TiledAttention.apply(q, k, v, bias, dropout_p), None
    return Attention.apply(q, k, v, bias, dropout_p)


def _too_many(weights: int, q: Tensor, bias: Tensor | None, dropout_p: float = 0.0) -> bool:
    """Should so many weights be made tile by tile? Not where a mask learns, and not where nothing is computed.

    torch.compile would write out every tile of the loop. A CUDA graph cannot repeat the seed of the tiles' dropout.
    """
    real = q.device.type != "meta" and not torch.compiler.is_compiling() and not (replayed() and dropout_p > 0)
    most = _MOST_WEIGHTS_OF_A_GPU if q.is_cuda else _MOST_WEIGHTS
    return weights > most and real and not (bias is not None and bias.requires_grad)


# ── the ladder: what each step buys ─────────────────────────────────────────────────────────────────────────────────
# 16 heads of 32 and 1,050 tokens, in milliseconds on two threads (`python -m benchmarks.ladder`); MB: what the forward
# moves through memory.
#
#                          forward   + backward   MB
#     attention_batched    50.7      124.0        855
#     Attention            45.5      103.4        714
#     TiledAttention       33.3      109.9        9     weights are computed twice: less memory, not less time
#     torch.nn             17.4      64.0         9
#     the products alone   12.4
