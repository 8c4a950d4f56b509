"""precision: in which dtype should an operation compute?

    dtype      bits: sign, exponent, mantissa   step after 1   largest number   sums of ones stop at
    float32    1  8  23                         2⁻²³           3.4e38           2²⁴
    float16    1  5  10                         2⁻¹⁰           65504            2¹¹
    bfloat16   1  8   7                         2⁻⁷            3.4e38           2⁸

    any shape → the same shape: only the dtype changes

Half precision is a format to store and to multiply in, not one to add up in: a matrix product keeps
its sums in float32 and rounds once. The rules of these notes follow from that:

    1. What sums or exponentiates (softmax, norms, losses, boxes) computes in float32 at least.
    2. The result returns in the dtype of the input, rounded once, as torch returns it ...
    3. ... but under autocast softmax, layer norm, group norm and the losses return float32. torch
       does so on a GPU; on a CPU it does so for the losses, and leaves the others in the dtype of
       their input.
    4. float64 stays float64 everywhere: it is the truth that the tests compare with.

Proven in tests/ops/test_precision.py. Sources: IEEE 754; Micikevicius et al. 2018, arXiv
1710.03740.
Read: at_least_float32 → autocast_applies → float32_under_autocast → without_autocast → as_in_forward
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return half precision and integers as float32; float32 and float64 pass as they are, without a copy."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


# ── autocast ────────────────────────────────────────────────────────────────────────────────────────────────────────
# Within `torch.autocast`, matrix products lower their operands by themselves. torch lists the other operations and what
# each should do; ours are made of arithmetic that is on no such list, so each one says for itself what it wants.


def autocast_applies(x: Tensor) -> bool:
    """Is autocast on, and would it touch x? It leaves float64 alone.

    On "meta", where shapes are traced without data, there is none: merely asking for its state raises an error.
    """
    device = x.device.type
    return device != "meta" and x.dtype is not torch.float64 and torch.is_autocast_enabled(device)


def float32_under_autocast(x: Tensor) -> Tensor:
    """Return x in float32 if autocast is on (rule 3), and as it is otherwise.

    The conversion is outside of the operation that asks for it, so autograd returns the gradient in the dtype of x.
    """
    return x.float() if autocast_applies(x) else x


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A block in which matrix products take the operands that they are given."""
    device = x.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def as_in_forward(x: Tensor) -> AbstractContextManager:
    """`without_autocast`, around a backward written by hand.

    Whoever calls `loss.backward()` inside an autocast block would otherwise have the gradient's products lowered,
    though the forward ran in float32. torch.compile needs no such block, for it runs a backward as its forward ran;
    and while it reads one, it takes the rest of the forward to be without autocast too.
    """
    return nullcontext() if torch.compiler.is_compiling() else without_autocast(x)
