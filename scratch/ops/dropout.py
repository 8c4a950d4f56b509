"""dropout: how to keep a network from relying on any single number?

    m_i ~ Bernoulli(1 − p)              y_i = m_i · x_i / (1 − p)          while training
                                        y   = x                            in eval()
    any shape → the same shape          p is the share to drop, m the mask

        x   0.5  1.2  −0.3  0.8         p = ½
        m    1    0     1    1
        y   1.0   0   −0.6  1.6         E[y] = (1 − p) · x/(1 − p) = x

Dropout is a *regularisation*: it makes the training task harder, against overfitting (good on the
training data, worse on all other). This form is called inverted dropout: the numbers that stay are
divided by 1 − p during training, so that the expected value is x and evaluation needs no
correction. Each training step uses another random subnetwork; evaluation is roughly their average
(Srivastava et al. 2014, section 1).

The mask is kept for the backward, as bool: one byte for each number, where torch's CPU version
keeps one of x's own type (four bytes in float32). x is not needed: ∂x = m · ∂y / (1 − p).

Same as torch.nn.functional.dropout and torch.nn.Dropout; under the same seed on a CPU also the same
mask. Proven in tests/ops/test_dropout.py.
Read: dropout_naive (the formula) → dropout_mask → dropout → Dropout
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dropout_naive(x: Tensor, p: float) -> Tensor:
    """The formula, for p < 1: a uniform draw from [0, 1) is below 1 − p with probability 1 − p."""
    return torch.where(torch.rand_like(x) < 1 - p, x / (1 - p), 0)


def dropout_mask(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Return a bool mask shaped like x, True with probability 1 − p, and the factor 1/(1 − p) (0 where p is 1)."""
    return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p), 0.0 if p == 1 else 1 / (1 - p)


def check_probability(p: float) -> float:
    """Return p; outside [0, 1] (or NaN) it raises ValueError."""
    if not 0 <= p <= 1:
        raise ValueError(f"got dropout probability {p}, wanted the share of numbers to drop, from 0 to 1")
    return p


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """While training, set a share p of x to 0 and divide the rest by 1 − p; otherwise return x itself.

    p = 0 draws nothing and returns x; p = 1 gives zeros, with zero gradient. While training, another p raises ValueError.
    """
    if not training or check_probability(p) == 0:
        return x
    mask, scale = dropout_mask(x, p)
    return torch.where(mask, x, 0).mul_(scale)  # autograd keeps the mask for `where` and nothing for the product


class Dropout(nn.Module):
    """Drops while the model is in train mode. Owns no weights."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_probability(p)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
