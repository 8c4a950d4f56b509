"""dropout, fast: a dropout mask that is quick to draw, where torch's masks need not be matched.

    one random 64-bit integer = 4 random 16-bit integers = 4 numbers of the mask

    n = round(65536·p)              dropped where a 16-bit integer is one of the n smallest
    scale = 1/(1 − n/65536)         for the probability as it is used

A CPU draws random numbers one after another, so four at once take a quarter of the draws. A 16-bit
integer has 65536 values, all equally likely, so the probability to drop is n/65536, which differs
from p by at most 1/131072. The numbers that stay are divided by one minus that probability, so the
expected value stays x.

Used by fast/tiled_attention.py. Proven in tests/ops/fast/test_dropout.py.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quick_mask(x: Tensor, p: float, generator: torch.Generator | None) -> tuple[Tensor, float]:
    """Return a bool mask shaped like x, False where to drop, and the factor for what stays (0 where all is dropped).

    A `generator` that is seeded again draws the same mask again.
    """
    dropped = round(2**16 * p)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    bits = words.random_(-2**63, None, generator=generator).view(torch.int16)[:x.numel()].view(x.shape)
    if dropped == 2**16:
        return torch.zeros_like(bits, dtype=torch.bool), 0.0
    return bits >= dropped - 2**15, 2**16 / (2**16 - dropped)  # signed integers begin at −32768
