"""init: how large may a weight be before the first step?

    y_o = Σ_i w_oi · x_i                Var y = fan_in · Var w · E[x²]     (w independent, mean 0)
    ∂/∂x_i = Σ_o w_oi · ∂/∂y_o          Var ∂x = fan_out · Var w · Var ∂y

    A signal that should leave layer after layer as large as it came needs a factor of 1:
    Var w = 1/fan_in    keeps the signal       Var w = 1/fan_out    keeps the gradient
    Xavier:   Var w = gain² · 2/(fan_in + fan_out)    a compromise for both
    Kaiming:  Var w = gain² / fan                     one of them exactly; gain² = 2 under relu,
              which sets half of its inputs to 0 and so halves E[x²]

    fan_in, fan_out:  (O, I) → I, O         (O, I, k, k') → I·k·k', O·k·k'

          30 layers of width 256, relu:   E[x²] of the last over the first
          Kaiming, relu    ████████████  about 1
          Xavier           ▏             about 2⁻³⁰ = 1e-9: half is lost at each layer
          Kaiming, a = √5                about 6⁻³⁰ = 5e-24

Same draws as torch.nn.init under the same seed; that and the figures: tests/ops/test_init.py.
Sources: Glorot & Bengio 2010, section 4.2 (Xavier); He et al. 2015, arXiv 1502.01852, section 2.2.
Read: calculate_fan → calculate_gain → xavier_* → kaiming_* (each fills its tensor and returns it)
"""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import Tensor


def calculate_fan(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out): how many products one output sums, and how many outputs one input feeds.

    Takes a linear (O, I) or convolution (O, I, k, k') weight; fewer than two axes raise ValueError.
    """
    if tensor.dim() < 2:
        raise ValueError(f"got a tensor of shape {tuple(tensor.shape)}, wanted a weight (O, I, ...): a bias has no "
                         "fan, fill it with constant_ or uniform_")
    window = math.prod(tensor.shape[2:])  # 1 for a linear layer: the product of nothing
    return tensor.shape[1] * window, tensor.shape[0] * window


def calculate_gain(nonlinearity: str, a: float = 0.0) -> float:
    """Return the factor on the weights that makes up for what `nonlinearity` takes from the signal.

    relu keeps half of E[x²]: √2. leaky_relu with slope a keeps (1 + a²)/2. tanh shrinks: 5/3 is its customary factor.
    An unknown name raises ValueError.
    """
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2),
             "leaky_relu": math.sqrt(2 / (1 + a * a))}
    if nonlinearity not in gains:
        raise ValueError(f"got nonlinearity {nonlinearity!r}, wanted one of {', '.join(gains)}")
    return gains[nonlinearity]


@torch.no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with draws from U(a, b), whose variance is (b − a)²/12."""
    return _in_order(tensor, lambda t: t.uniform_(a, b))


@torch.no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with draws from N(mean, std²)."""
    return _in_order(tensor, lambda t: t.normal_(mean, std))


@torch.no_grad()
def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with one value."""
    return tensor.fill_(value)


def _in_order(tensor: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Draw in the order of the indices, so that one seed gives the same weights however they lie in memory."""
    if tensor.is_contiguous():
        return draw(tensor)
    return tensor.copy_(draw(torch.empty_like(tensor, memory_format=torch.contiguous_format)))


# Uniform or normal makes no difference to the sums above: they ask for a variance only. U(−b, b) has variance b²/3,
# hence b = √3 · std.


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """U(−b, b) with b = gain·√(6/(fan_in + fan_out)); the official DETR fills its whole transformer with it."""
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """N(0, gain²·2/(fan_in + fan_out))."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """U(−b, b) with b = gain·√(3/fan); `a` is the slope of leaky_relu.

    a = √5 is what torch.nn.Linear and Conv2d start from. No network has that slope: it makes gain² = 1/3 and so
    b = 1/√fan_in, the rule of an older library. The signal shrinks under it, and normalisation layers repair that.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """N(0, gain²/fan); ResNets start from mode="fan_out", nonlinearity="relu": the gradient keeps its size."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def _xavier_std(tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(calculate_fan(tensor)))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"got mode {mode!r}, wanted 'fan_in' (keeps the signal's size) or 'fan_out' (the gradient's)")
    fan = calculate_fan(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)
