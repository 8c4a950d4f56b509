"""cross_entropy: how wrong is a prediction, and how should each logit change?

    ℓ_b = −w[t_b] · log softmax(z_b)[t_b]       mean = Σ_b ℓ_b / Σ_b w[t_b]         L1: |a − b|

    logits z (..., K), target t (...) int64, class weights w (K) → a scalar, or (...) unreduced

        loss │╲                       −log p, p the probability of the right class: 0 at p = 1,
           3 │ ╲                      0.69 at p = ½, and without limit towards p = 0
             │  ╲_
           0 │____‾‾──── p            ∂ℓ/∂z = w[t] · (softmax(z) − onehot(t)): the predicted
             0    ½    1              probabilities minus the one-hot target

*Cross-entropy* is the negative log-likelihood of the target. In terms of the logits it is their
log-sum-exp minus the logit of the target: log Σ_k e^{z_k} − z_t. softmax and logarithm must be one
step: the probability of a logit 1e4 below the largest rounds to 0; log 0 is −∞, where log_softmax
is −1e4.

Same as torch.nn.functional.cross_entropy and l1_loss, but classes are the last axis (torch: the
second), and there is no ignore_index; proven in tests/ops/test_cross_entropy.py.
Read: cross_entropy_naive (the formula) → cross_entropy → l1_loss
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.activations import at_least_float32, float32_under_autocast, log_softmax


def cross_entropy_naive(logits: Tensor, target: Tensor) -> Tensor:
    """The formula for one row: logits (K), target an integer. Fails where e^z overflows."""
    e = torch.exp(logits)
    return -torch.log(e[target] / e.sum())


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """Return the weighted negative log-likelihood of integer targets (...) under logits (..., K).

    reduction: "mean" divides by the summed class weights of the targets, so even if all targets have weight 0.1 the
    loss keeps its size; "sum"; or "none", which returns (...). Without targets the sum is 0 and the mean NaN.
    Under autocast the result is float32. A target outside 0 … K−1 or a mismatch of shapes raises ValueError.
    """
    K = logits.shape[-1]
    if target.shape != logits.shape[:-1]:
        raise ValueError(f"got targets {tuple(target.shape)} for logits {tuple(logits.shape)}, wanted one target for "
                         f"each row of K = {K} logits: {tuple(logits.shape[:-1])}")
    # On a GPU this check would make the CPU wait at every loss; there gather's own assertion stops the run.
    if target.device.type == "cpu" and target.numel() and (target.min() < 0 or target.max() >= K):
        raise ValueError(f"got targets from {target.min()} to {target.max()}, wanted classes 0 to {K - 1}")
    dtype = float32_under_autocast(logits).dtype
    exact = at_least_float32(logits.to(dtype))  # low precision is rounded once, at the end
    loss = -log_softmax(exact, dim=-1).gather(-1, target[..., None]).squeeze(-1)  # (...)
    if weight is None:
        return reduced(loss, reduction).to(dtype)
    weight = weight.to(loss.dtype)[target]  # (...)
    loss = loss * weight
    return (loss.sum() / weight.sum() if reduction == "mean" else reduced(loss, reduction)).to(dtype)


def l1_loss(a: Tensor, b: Tensor, reduction: str = "mean") -> Tensor:
    """Return |a − b| of two tensors of one shape, reduced by "mean", "sum" or "none". float32 under autocast.

    The gradient is ±1 however far apart they are, and 0 where they agree. Different shapes raise ValueError.
    """
    if a.shape != b.shape:
        raise ValueError(f"got shapes {tuple(a.shape)} and {tuple(b.shape)}, wanted one shape: a silent broadcast "
                         "would compare each with every other")
    return reduced((float32_under_autocast(a) - float32_under_autocast(b)).abs(), reduction)


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean, the sum or ("none") the losses themselves; another word raises ValueError."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"got reduction {reduction!r}, wanted 'mean', 'sum' or 'none'")
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
