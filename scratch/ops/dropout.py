"""dropout: how does a network learn not to lean on any single number?

    m_i ~ Bernoulli(1 − p)              y_i = m_i · x_i / (1 − p)          while training
                                        y   = x                            afterwards
    any shape → the same shape

        x   0.5  1.2  −0.3  0.8         p = ½
        m    1    0     1    1
        y   1.0   0   −0.6  1.6         E[y] = (1 − p) · x/(1 − p) = x

"Inverted": the survivors are enlarged at once, so that evaluation, where nothing is dropped, has
nothing to correct. Each step trains another of 2ⁿ thinned networks; evaluation is roughly their
average (Srivastava et al. 2014, section 1).

The mask is kept for the backward, as bool: one byte for each number, where torch's CPU version
keeps one of x's own type (four bytes in float32). x is not needed: ∂x = m · ∂y / (1 − p).

Same as torch.nn.functional.dropout and torch.nn.Dropout; under the same seed on a CPU also the same
mask. Proven in tests/ops/test_dropout.py.
Read: dropout_naive (the formula) → dropout → Dropout → quick_mask (for fast/tiled_attention.py)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dropout_naive(x: Tensor, p: float) -> Tensor:
    """The formula, for p < 1: a uniform draw falls below 1 − p with probability 1 − p."""
    return torch.where(torch.rand_like(x) < 1 - p, x / (1 - p), 0)


def dropout_mask(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Return a bool mask shaped like x, True with probability 1 − p, and the factor 1/(1 − p) (0 where p is 1)."""
    return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p), 0.0 if p == 1 else 1 / (1 - p)


def quick_mask(x: Tensor, p: float, generator: torch.Generator | None) -> tuple[Tensor, float]:
    """The same where torch's masks need not be matched: another mask, and quicker where a CPU draws one by one.

    16 bits decide well enough: they are below round(65536·p) with that probability in 65536, which is p to within
    1/131072, and the factor goes by the probability as it is. So a draw of 64 bits makes four numbers of the mask. A
    `generator` that is begun anew draws the same mask again.
    """
    dropped = round(2**16 * p)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    bits = words.random_(-2**63, None, generator=generator).view(torch.int16)[:x.numel()].view(x.shape)
    if dropped == 2**16:
        return torch.zeros_like(bits, dtype=torch.bool), 0.0
    return bits >= dropped - 2**15, 2**16 / (2**16 - dropped)  # as signed numbers they begin at −32768


def check_probability(p: float) -> float:
    """Return p; outside [0, 1] (or NaN) it raises ValueError."""
    if not 0 <= p <= 1:
        raise ValueError(f"got dropout probability {p}, wanted the share of numbers to drop, from 0 to 1")
    return p


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """While training, set a share p of x to 0 and divide the rest by 1 − p; otherwise return x itself.

    p = 0 draws nothing and returns x; p = 1 gives zeros, with zero gradient. Another p raises ValueError.
    """
    if not training or check_probability(p) == 0:
        return x
    mask, scale = dropout_mask(x, p)
    return torch.where(mask, x, 0).mul_(scale)  # autograd keeps the mask for the choice and nothing for the product


class Dropout(nn.Module):
    """Drops while the model is in train mode. Owns no weights."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_probability(p)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
