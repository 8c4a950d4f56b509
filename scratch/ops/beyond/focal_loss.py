"""focal_loss: nearly every target is negative; how do the few positives still count?

    FL = −α_t · (1 − p_t)^γ · log p_t       p = σ(z), for each class by itself
    t = 1 (positive):  p_t = p,      α_t = α
    t = 0 (negative):  p_t = 1 − p,  α_t = 1 − α

    logits z (..., K), targets t (..., K) in [0,1] → (..., K), or a scalar

Each class is a binary classification of its own, so "no object" is K negatives and needs no class.
This is *class imbalance*: 100 queries and 91 classes give 9,100 predictions, and for an image with 7
objects 7 of them have a positive target. The loss summed over each kind:

                                     7 positives   9,093 negatives
    cross-entropy    all p = 0.01    32.2          91.4        most of the loss is the negatives'
    focal loss       all p = ½        0.30       1182          the same with a bias of 0
    focal loss       all p = 0.01     7.9           0.007      no longer with `prior_bias`

The factor (1 − p_t)^γ reduces the loss of *easy negatives* (and positives), which are right already.
With γ = 2 the loss at p_t = 0.9 is 100 times smaller than its cross-entropy, at 0.968 about 1000 times, and at
p_t = ½ only 4 times.

torch.nn has no counterpart; proven against a composition of torch functions in
tests/ops/beyond/test_focal_loss.py. Source: Lin et al. 2017, arXiv 1708.02002, sections 3 and 4.1.
Read: sigmoid_focal_loss_naive (the formula) → sigmoid_focal_loss → focal_matching_cost → prior_bias
"""

from __future__ import annotations

import math
from typing import Union

import torch
from torch import Tensor

from scratch.ops.activations import at_least_float32, float32_under_autocast, sigmoid
from scratch.ops.cross_entropy import reduced


def sigmoid_focal_loss_naive(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The formula, for targets of 0 and 1: (..., K), (..., K) → (..., K).

    Not numerically stable: at z = 17 float32 rounds p to 1, so that a no costs −log 0 = ∞; at z = −89 e⁻ᶻ overflows.
    """
    p = 1 / (1 + torch.exp(-logits))
    yes = -alpha * (1 - p) ** gamma * torch.log(p)
    no = -(1 - alpha) * p ** gamma * torch.log(1 - p)
    return torch.where(targets == 1, yes, no)


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0,
                       reduction: str = "none") -> Tensor:
    """Return the focal loss of logits (..., K) for targets (..., K), reduced by "none", "sum" or "mean".

    alpha   the weight of a yes, against 1 − alpha of a no; negative: both have weight 1. The published ¼ is below ½,
            because γ has already reduced the loss of the easy noes (section 5.1)
    gamma   how strongly the loss of an easy answer is reduced; 0 leaves the binary cross-entropy

    A target between 0 and 1 mixes p_t, α_t and the cross-entropy of yes and no in that proportion, as is common. For
    γ > 0 the minimum of such a loss is not at p = t: for t = 0.7 and γ = 2 it is at p = 0.88.

    Under autocast the result is float32. Logits and targets of two shapes, or another reduction, raise ValueError.
    """
    same_shape(logits, targets)
    dtype = float32_under_autocast(logits).dtype
    exact = at_least_float32(logits.to(dtype))  # low precision is rounded once, at the end
    return reduced(_focal(exact, targets.to(exact.dtype), alpha, gamma), reduction).to(dtype)


def same_shape(logits: Tensor, targets: Tensor) -> None:
    """Raise ValueError unless every class of `logits` (..., K) has a target of its own."""
    if logits.shape != targets.shape:
        raise ValueError(f"got logits {tuple(logits.shape)} and targets {tuple(targets.shape)}, wanted one shape: give "
                         "each class its own target, 1 for yes and 0 for no, instead of the index of a class")


def binary_cross_entropy(z: Tensor, t: Union[Tensor, float]) -> Tensor:
    """−t·log p − (1 − t)·log(1 − p) with p = σ(z), finite for any finite logit z: (..., K) → (..., K)."""
    # = max(z,0) − t·z + log(1 + e^−|z|), and max(z,0) = (|z| + z)/2. In this order the large terms cancel before the
    # small one is added: −log p at z = 20 is 2.06e-9, not 0. And the slope at z = 0 is ½ − t, as it should be; the
    # gradient of max(z, 0) = z.clamp(min=0) at z = 0 is 1 in autograd, and ½ is needed here.
    size = z.abs()
    return size / 2 + (0.5 - t) * z + torch.log1p(torch.exp(-size))


def _focal(z: Tensor, t: Union[Tensor, float], alpha: float, gamma: float) -> Tensor:
    """Equal to the naive formula where that is finite, and finite in value and gradient for any finite z (..., K).

    A backward written by hand was hardly faster, so the arithmetic is left to autograd.
    """
    # 1 − p_t = (1 − t)·p + t·(1 − p), with σ(−z) for 1 − p: in float32 1 − σ(20) is 0. lerp is exact at both ends.
    error = torch.lerp(sigmoid(z), sigmoid(-z), t)
    # Where that rounds to 0 the slope of 0^γ is ∞ for γ < 1, and 0 · ∞ is NaN: use the smallest normal number instead.
    loss = binary_cross_entropy(z, t) * error.clamp(min=torch.finfo(z.dtype).tiny) ** gamma
    return loss if alpha < 0 else loss * (alpha * t + (1 - alpha) * (1 - t))


def focal_matching_cost(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the cost of matching a query with an object of each class: logits (..., Q, K) → (..., Q, K).

        cost[q,k] = FL(z[q,k], 1) − FL(z[q,k], 0) = α·(1 − p)^γ·(−log p) − (1 − α)·p^γ·(−log(1 − p))

    Why a difference: the loss of a query without an object is that of K noes; with an object of class k it is a yes at
    k and the other K − 1 noes. So the class loss of a whole matching is

        Σ_q Σ_k FL(z[q,k], 0)  +  Σ_pairs cost[q, class of the pair's object]

    and the first sum is the same for every matching: the matching of the lowest cost has the lowest loss.

    Source: the code of Deformable DETR (Zhu et al. 2020, arXiv 2010.04159). It adds 1e-8 inside the logarithms, which
    is not needed here. float32 under autocast.
    """
    dtype = float32_under_autocast(logits).dtype
    exact = at_least_float32(logits.to(dtype))
    return (_focal(exact, 1.0, alpha, gamma) - _focal(exact, 0.0, alpha, gamma)).to(dtype)


def prior_bias(prior: float = 0.01) -> float:
    """Return −log((1 − π)/π), the bias with which a class head starts at p = π (section 4.1): −4.595 for π = 0.01.

    With a bias of 0 the negatives dominate the gradient of the first steps. A prior outside of (0, 1) raises ValueError.
    """
    if not 0 < prior < 1:
        raise ValueError(f"got prior {prior}, wanted the share of positive targets, above 0 and below 1")
    return -math.log((1 - prior) / prior)
