"""quality_focal_loss: should a score say how certain the class is, or how good the whole prediction is?

    QFL = −α_t · |t − p|^γ · (t·log p + (1 − t)·log(1 − p))       p = σ(z)
    t     the quality of the box: (IoU with its object)^power at the object's class, else 0
    α_t   α where t > 0, else 1 − α

    logits z (..., K), targets t (..., K) in [0,1] → (..., K), or a scalar

Average precision (AP) sorts all predictions by score. At the IoU threshold 0.75 a box of IoU 0.6 is
a false positive, which costs more the higher its score is. A score for the class alone may put it
first:

    prediction     class score   IoU     sorted by class      sorted by class and fit
    a cat, loose      0.97       0.6     loose · exact        exact · loose
    a cat, exact      0.85       0.9     AP75: ✗ ✓            AP75: ✓ ✗

So the target of the score is not 1 but the quality of the box, and the focal factor reduces the
loss where p is near to t. For t of 0 and 1 both losses are the same. Between them the minimum of
the focal loss is not at p = t (see its note); the minimum of this one is: both factors are lowest
there. The target is a constant: no gradient flows through it to the box.

Source: Li et al. 2020, generalized focal loss, arXiv 2006.04388, section 3.1, equation 2, without α
there. torch.nn has no counterpart; proven in tests/ops/beyond/test_quality_focal_loss.py.
Read: quality_focal_loss_naive (the formula) → quality_focal_loss
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.activations import at_least_float32, float32_under_autocast, sigmoid
from scratch.ops.cross_entropy import reduced
from scratch.ops.beyond.focal_loss import binary_cross_entropy, same_shape

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# QFL has no α_t; here it has, as the focal loss, to which it is equal for targets of 0 and 1 (held by
# test_for_yes_and_no_it_is_the_focal_loss). The target there is the IoU; here it is a power of it that the criterion
# chooses (`loss.quality`; held in tests/objective/test_variant.py).


def quality_focal_loss_naive(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The formula: (..., K), (..., K) → (..., K). Not numerically stable, as that of the focal loss."""
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
    # |t − p| is computed from the smaller one of p and 1 − p, which keeps its digits where the other rounds to 1.
    # For z > 0 that is 1 − p = σ(−z), and |t − p| = |(1 − p) − (1 − t)|.
    small = sigmoid(-z.abs())
    error = (small - torch.where(z > 0, 1 - t, t)).abs()
    # The slope of 0^γ is ∞ for γ < 1, and 0 · ∞ is NaN: use the smallest normal number instead of 0.
    loss = binary_cross_entropy(z, t) * error.clamp(min=torch.finfo(z.dtype).tiny) ** gamma
    if alpha >= 0:
        yes = (t > 0).to(z.dtype)
        loss = loss * (alpha * yes + (1 - alpha) * (1 - yes))
    return reduced(loss, reduction).to(dtype)
