"""precision: in which dtype should an operation compute?

    dtype      bits: sign, exponent, mantissa   step after 1   largest number   sums of ones stop at
    float32    1  8  23                         2⁻²³           3.4e38           2²⁴
    float16    1  5  10                         2⁻¹⁰           65504            2¹¹
    bfloat16   1  8   7                         2⁻⁷            3.4e38           2⁸

Half precision (float16, bfloat16) is good for storing numbers and for multiplying them, but not for
adding them up. Matrix multiplications (GEMM) therefore keep their sums in float32 and round once.
Mixed precision ("autocast") runs the matrix multiplications in half precision and the rest in
float32. The notes of ops/ follow four rules:

    1. What sums or exponentiates (softmax, norms, losses, boxes) computes in float32 at least.
    2. The result has the dtype of the input, rounded once, as in torch.
    3. Under autocast, softmax, layer norm, group norm and the losses return float32. torch does the
       same on a GPU; on a CPU it does so for the losses only.
    4. float64 stays float64 everywhere: the tests compare with it.

`at_least_float32`, `autocast_applies`, `float32_under_autocast`: see ops/activations.py, which needs
them first. Here is what the backwards written by hand need.

Proven in tests/ops/fast/test_precision.py. Sources: IEEE 754; Micikevicius et al. 2018, arXiv
1710.03740.
Read: without_autocast → as_in_forward
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A block in which matrix multiplications keep the dtype of their operands."""
    device = x.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def as_in_forward(x: Tensor) -> AbstractContextManager:
    """`without_autocast`, for a backward written by hand.

    `loss.backward()` may be called inside an autocast block. The products of the backward would then be lowered to
    half precision, although the forward ran in float32. torch.compile runs a backward in the state of its forward and
    needs no such block; while it traces one, it would also take the rest of the forward to be without autocast.
    """
    return nullcontext() if torch.compiler.is_compiling() else without_autocast(x)
