"""quality_focal_loss: is a score how sure the class is, or how good the whole answer is?

    QFL = −α_t · |t − p|^γ · (t·log p + (1 − t)·log(1 − p))       p = σ(z)
    t     the box's IoU with its object, to a power, at the object's class; 0 at every other class
    α_t   α where t > 0, else 1 − α

    logits z (..., K), targets t (..., K) in [0,1] → (..., K), or a scalar

AP sorts all answers by their score and walks down the list; at IoU 0.75 a box that fits by 0.6 is
false wherever it stands. A score that only knows the class puts it where it likes:

    answer         class score   IoU     sorted by class      by class and fit
    a cat, loose      0.97       0.6     loose · exact        exact · loose
    a cat, exact      0.85       0.9     AP75: ✗ ✓            AP75: ✓ ✗

So the score is told to be both: a yes is not 1 but as much as the box deserves. The focal factor
changes with it: what silences an answer is no longer that p is near to 1, but that it is near to t.
For t of 0 and 1 the two losses are the same number; between them the focal loss is least at another
p than t (see its note), and this one is least at t, since both factors are.

The target is a number, not a path: no gradient goes from the score into the box.

Source: Li et al. 2020, generalized focal loss, arXiv 2006.04388, section 3.1, equation 2, without α
there. torch.nn has no counterpart; proven in tests/ops/beyond/test_quality_focal_loss.py.
Read: quality_focal_loss_naive (the formula) → quality_focal_loss
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.activations import at_least_float32, float32_under_autocast, sigmoid
from scratch.ops.cross_entropy import reduced
from scratch.ops.beyond.focal_loss import same_shape, surprise


def quality_focal_loss_naive(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The formula: (..., K), (..., K) → (..., K). It fails where that of the focal loss does."""
    p = 1 / (1 + torch.exp(-logits))
    cross_entropy = -(targets * torch.log(p) + (1 - targets) * torch.log(1 - p))
    yes = (targets > 0).to(logits.dtype)
    return (alpha * yes + (1 - alpha) * (1 - yes)) * (targets - p).abs() ** gamma * cross_entropy


def quality_focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0,
                       reduction: str = "none") -> Tensor:
    """Return the quality focal loss of logits (..., K) for targets (..., K), reduced by "none", "sum" or "mean".

    alpha and gamma as in `sigmoid_focal_loss`; gamma 0 leaves the cross-entropy. Equal to the naive formula where that
    is finite, and finite in value and gradient for any finite logit.
    Under autocast the result is float32. Logits and targets of two shapes, or another reduction, raise ValueError.
    """
    same_shape(logits, targets)
    dtype = float32_under_autocast(logits).dtype
    z = at_least_float32(logits.to(dtype))  # low precision is rounded once, at the end
    t = targets.to(z.dtype)
    # What changed: |t − p| from the small one of p and 1 − p, which keeps its digits where the other rounds to 1.
    # Right of z = 0 that is 1 − p = σ(−z), and |t − p| = |(1 − p) − (1 − t)|.
    small = sigmoid(-z.abs())
    missed = (small - torch.where(z > 0, 1 - t, t)).abs()
    # The slope of 0^γ is ∞ for γ < 1, and 0 · ∞ is NaN: the smallest normal number stands in for 0.
    loss = surprise(z, t) * missed.clamp(min=torch.finfo(z.dtype).tiny) ** gamma
    if alpha >= 0:
        yes = (t > 0).to(z.dtype)
        loss = loss * (alpha * yes + (1 - alpha) * (1 - yes))
    return reduced(loss, reduction).to(dtype)
