"""gelu: a relu without its kink.

    gelu(x) = x · Φ(x)                  Φ(x) = P(z ≤ x) for z ~ N(0,1), the normal distribution
    ∂/∂x = Φ(x) + x·φ(x)                φ(x) = e^{−x²/2}/√(2π), the density of z

    any shape → the same shape
                                   x       −3      0       3
          gelu   ╱                 gelu    −0.004  0   2.996
                ╱
        ───╮_ ╱

relu multiplies x by 1 or 0; gelu by the probability that a standard normal draw is below x.
Later transformers use it in their feed-forward layers; the published DETR uses relu.

Same as torch.nn.functional.gelu without the tanh approximation; proven in
tests/ops/beyond/test_gelu.py. Source: Hendrycks & Gimpel 2016, arXiv 1606.08415.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import Function

from scratch.ops.activations import at_least_float32


class _Gelu(Function):
    """The backward of the formula above, written by hand: autograd would keep the intermediate tensors."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)  # and not Φ(x): to compute it twice costs less than to keep a second tensor
        z = at_least_float32(x)
        return (z * _normal_cdf(z)).to(x.dtype)  # rounded once

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        z = at_least_float32(x)
        density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)  # φ: the exponent is never positive
        return (grad * (_normal_cdf(z) + z * density)).to(grad.dtype)


def _normal_cdf(z: Tensor) -> Tensor:
    # erf(t) = 2/√π ∫₀ᵗ e^{−s²} ds is the same integral in other units: it starts at 0 instead of −∞, and its density
    # has variance ½. Shift by one half, stretch by √2, and it is Φ.
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def gelu(x: Tensor) -> Tensor:
    """Return x·Φ(x) of any shape, exactly."""
    return _Gelu.apply(x)
