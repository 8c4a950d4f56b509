"""tiled_attention: how can each of 4,000 tokens look at all the others, without 16 million weights?

    a row, tile by tile of its scores s:      top' = max(top, max s)      e = exp(s − top')
        total' = total·exp(top − top') + Σ e    sum' = sum·exp(top − top') + e·v    O = sum / total

    q (B·N,Q,d)  k (B·N,S,d)  v (B·N,S,d)  bias (1 or B·N, 1 or Q, S) or None   →   O (B·N,Q,d)

This is the *online softmax* of *FlashAttention*: a row's softmax without the whole row at once.
When a later tile holds a larger score, all that was added up before, Σ e and Σ e·v, is too large by
one factor, since e^{s − top'} = e^{s − top}·e^{top − top'}. Multiplying by it corrects both sums.

    scores     s: 1 3 │ 2 5            tile 1: top 3, total e⁻² + 1         = 1.14
                                       tile 2: top 5, total 1.14·e⁻² + e⁻³ + 1 = 1.20
                                       at once:              e⁻⁴ + e⁻² + e⁻³ + 1 = 1.20

Kept for the backward: q, k, v, O and one number for each row, the *log-sum-exp* of its scores,
λ = log Σ e^s = top + log total. A weight is then exp(s − λ), so the tiles are computed again:

    P = exp(s − λ)      ∂v += Pᵀ ∂O      ∂s = P ∘ (∂O vᵀ − δ)      ∂q += ∂s k/√d      ∂k += ∂sᵀ q/√d

with δ from O, as in fast/attention.py. FLOPs: seven products instead of six, 2·B·N·Q·S·d each.
Equal to attention_batched in value and gradients; tests/ops/fast/test_tiled_attention.py.
Read after ops/attention.py and fast/attention.py: _tiles → _Rows → TiledAttention → scaled_product
Sources: Milakov & Gimelshein 2018, arXiv 1805.02867, algorithm 3 (online softmax); Dao et al. 2022,
FlashAttention, arXiv 2205.14135, algorithms 1 and 4.
"""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple, Optional

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from scratch.ops.activations import at_least_float32
from scratch.ops.fast.dropout import quick_mask
from scratch.ops.fast.precision import as_in_forward, without_autocast

# Numbers of a tile's scores. A CPU's must fit into its cache beside what they are made of; a GPU's must be many enough
# to keep it busy.
CPU_TILE, CPU_SIDE = 2**19, 512
GPU_TILE, GPU_SIDE = 2**25, 2048


class _Tiles(NamedTuple):
    """How the scores (B·N,Q,S) are cut: so many heads, queries and keys at a time."""

    heads: int
    queries: int
    keys: int


def _tiles(q: Tensor, k: Tensor) -> _Tiles:
    """Squares of the scores, or whole heads where those are smaller; of as many heads as fill a tile."""
    most, side = (CPU_TILE, CPU_SIDE) if q.device.type == "cpu" else (GPU_TILE, GPU_SIDE)
    queries, keys = max(1, min(q.shape[1], side)), max(1, min(k.shape[1], side))
    return _Tiles(max(1, most // (queries * keys)), queries, keys)


def _cut(length: int, step: int) -> Iterator[slice]:
    """0 … length in slices of `step`; the last may be shorter."""
    return (slice(a, min(a + step, length)) for a in range(0, length, step))


class _Rows:
    """The state of the online softmax for some rows: their largest score so far, and Σ e and Σ e·v for that maximum."""

    def __init__(self, heads: int, rows: int, width: int, like: Tensor) -> None:
        # Not −∞: a row that may look nowhere has no other score, and −∞ − (−∞) is NaN.
        self.top = like.new_full((heads, rows, 1), torch.finfo(like.dtype).min)
        self.total, self.sum = like.new_zeros(heads, rows, 1), like.new_zeros(heads, rows, width)

    def add(self, scores: Tensor, v: Tensor, drop: Optional[tuple[Tensor, float]]) -> None:
        """Take in a tile: scores (heads,rows,keys), overwritten, and the values (heads,keys,width) that they weigh."""
        top = torch.maximum(self.top, scores.amax(-1, keepdim=True))
        e = scores.sub_(top).exp_()  # in [0, 1]
        correction = torch.exp(self.top - top)  # 1 where the maximum stays
        self.top = top
        total = e.sum(-1, keepdim=True)  # dropout leaves the softmax's own sum alone
        self.total.mul_(correction).add_(total)
        weights = _dropped(e, drop)
        if v.dtype is e.dtype:
            self.sum.mul_(correction).add_(torch.bmm(weights, v))
        else:  # the product is rounded to half precision, in which the sum may overflow: so compute the mean of v
            mean = torch.bmm((weights / total.clamp(min=torch.finfo(e.dtype).tiny)).to(v.dtype), v)
            self.sum.mul_(correction).addcmul_(mean, total)

    def result(self) -> tuple[Tensor, Tensor]:
        """O (heads,rows,width), and λ (heads,rows,1)."""
        total = self.total.clamp(min=1)  # ≥ 1 wherever there is a score: its maximum's e⁰; 0 where there is none
        return self.sum / total, self.top + total.log()


class TiledAttention(Function):
    """O of q, k, v and a bias that needs no gradient; except for that bias, no tensor of the scores' size is made.

    Memory is linear in Q and S, where fast/attention.py keeps B·N·Q·S weights a layer: at 800×1333 pixels and stride 16
    (4,200 tokens, 8 heads) 0.56 GB of float32 for each image and layer. Timings: `python -m benchmarks.attention`.

    Dropout draws its mask tile by tile from a generator of its own. The backward starts it again from the same seed, so
    that no mask is kept. It is therefore another mask than fast/attention.py's, and than torch's.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout_p: float) -> Tensor:
        assert not ctx.needs_input_grad[3], "a bias that learns needs the weights: take Attention"
        wide = torch.promote_types(q.dtype, torch.float32)
        root, tiles, width = 1 / math.sqrt(q.shape[-1]), _tiles(q, k), v.shape[-1]
        seed = int(torch.randint(2**62, ())) if dropout_p > 0 else 0  # on the CPU: a GPU need not be waited for
        generator = torch.Generator(q.device).manual_seed(seed) if dropout_p > 0 else None
        output = raised(q).new_empty(*q.shape[:2], width)  # (B·N,Q,d)
        lam = q.new_empty(*q.shape[:2], 1, dtype=wide)  # (B·N,Q,1)
        with without_autocast(q):  # the operands have their dtype already; autocast would lower again what is raised
            for n in _cut(len(q), tiles.heads):
                for i in _cut(q.shape[1], tiles.queries):
                    rows = _Rows(n.stop - n.start, i.stop - i.start, width, lam)
                    for j in _cut(k.shape[1], tiles.keys):
                        scores = scaled_product(q[n, i], k[n, j].transpose(1, 2), root, _part(bias, n, i, j), wide)
                        rows.add(scores, raised(v[n, j]), _mask(scores, dropout_p, generator))
                    output[n, i], lam[n, i] = rows.result()
        ctx.save_for_backward(q, k, v, bias, output, lam)
        ctx.seed, ctx.dropout_p = seed, dropout_p
        return output.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        q, k, v, bias, output, lam = ctx.saved_tensors
        wide, root, tiles = lam.dtype, 1 / math.sqrt(q.shape[-1]), _tiles(q, k)
        generator = torch.Generator(q.device).manual_seed(ctx.seed) if ctx.dropout_p > 0 else None
        grad_q, grad_k, grad_v = (torch.zeros_like(x, dtype=wide) for x in (q, k, v))  # sums over tiles
        with as_in_forward(output):  # the operands have their dtype already
            for n in _cut(len(q), tiles.heads):
                for i in _cut(q.shape[1], tiles.queries):
                    delta = (grad[n, i].to(wide) * output[n, i]).sum(-1, keepdim=True)  # (heads,rows,1)
                    for j in _cut(k.shape[1], tiles.keys):  # in the forward's order: the masks come in it
                        scores = scaled_product(q[n, i], k[n, j].transpose(1, 2), root, _part(bias, n, i, j), wide)
                        P = scores.sub_(lam[n, i]).exp_()  # (heads,rows,keys)
                        drop = _mask(P, ctx.dropout_p, generator)
                        used = lowered(_dropped(P, drop), q.dtype)
                        grad_v[n, j] += torch.bmm(used.transpose(1, 2), raised(grad[n, i]))
                        G = scaled_product(grad[n, i], v[n, j].transpose(1, 2), 1.0, dtype=wide)  # ∂L/∂P, or ∂L/∂P'
                        grad_scores = lowered(_dropped(G, drop).sub_(delta).mul_(P), q.dtype)
                        grad_q[n, i] += scaled_product(grad_scores, raised(k[n, j]), root)
                        grad_k[n, j] += scaled_product(grad_scores.transpose(1, 2), raised(q[n, i]), root)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None, None


def _mask(scores: Tensor, p: float, generator: Optional[torch.Generator]) -> Optional[tuple[Tensor, float]]:
    return quick_mask(scores, p, generator) if p > 0 else None


def _dropped(weights: Tensor, drop: Optional[tuple[Tensor, float]]) -> Tensor:
    """P' = P∘m/(1−p) of a tile: a new tensor, or P itself without dropout."""
    return weights if drop is None else torch.where(drop[0], weights, 0).mul_(drop[1])


def _part(bias: Tensor | None, heads: slice, rows: slice, keys: slice) -> Tensor | None:
    """One tile's part of a bias; of a size-1 axis, which counts for all, that one."""
    if bias is None:
        return None
    every = slice(None)
    return bias[heads if len(bias) > 1 else every, rows if bias.shape[1] > 1 else every, keys]


def scaled_product(a: Tensor, b: Tensor, scale: float, bias: Tensor | None = None,
                   dtype: torch.dtype | None = None) -> Tensor:
    """scale · a b (+ bias) for each matrix of the batch: both ride on the product and need no pass of their own.

    Returned in `dtype`, or in that of a. With a dtype, factors are `raised`, so that scores are not rounded to half.
    """
    if dtype is not None:
        a, b, bias = raised(a), raised(b), None if bias is None else raised(bias)
    if bias is None:
        y = torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)  # beta = 0: the empty tensor is not read
    else:
        y = torch.baddbmm(bias, a, b, alpha=scale)
    return y if dtype is None else y.to(dtype)


def raised(x: Tensor) -> Tensor:
    """A half-precision factor in float32, so that the product is not rounded. Not on a GPU, whose float32 products are
    many times slower: there the product is rounded once, as in torch.nn's layers.
    """
    return at_least_float32(x) if _raises(x) else x


def lowered(x: Tensor, dtype: torch.dtype) -> Tensor:
    """What is to meet a `raised` factor, in its dtype."""
    return x if _raises(x) else x.to(dtype)


def _raises(x: Tensor) -> bool:
    return x.device.type == "cpu"
