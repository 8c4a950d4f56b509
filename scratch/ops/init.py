"""init: how large may a weight be before the first training step?

    y_o = Σ_i w_oi · x_i              Var y = fan_in · Var w · E[x²]      (w independent, mean 0)
    ∂x_i = Σ_o w_oi · ∂y_o            Var ∂x = fan_out · Var w · Var ∂y   (∂x, ∂y: gradients)

*Variance* is the mean squared distance from the mean; *fan-in* the number of inputs of one output,
*fan-out* that of outputs of one input: (O, I) → I, O; (O, I, k, k') → I·k·k', O·k·k'. Values keep
their size through many layers if Var w = 1/fan_in, gradients if Var w = 1/fan_out. An activation
changes that; the *gain* makes up for it (relu halves the mean square E[x²], so gain² = 2):

    Xavier:   Var w = gain² · 2/(fan_in + fan_out)    a compromise between both
    Kaiming:  Var w = gain² / fan                     one of them: fan_in or fan_out

          30 layers of width 256, relu:   E[x²] of the last layer over that of the input
          Kaiming, relu    ████████████  about 1
          Xavier           ▏             about 2⁻³⁰ = 1e-9: half is lost at each layer
          gain² = ⅓ (as torch.nn.Linear, without its bias) about 6⁻³⁰ = 5e-24

Same draws as torch.nn.init under one seed; proven in tests/ops/test_init.py. Sources: Glorot &
Bengio 2010, section 4.2 (Xavier); He et al. 2015, arXiv 1502.01852, section 2.2 (Kaiming).
Read: calculate_fan → calculate_gain → xavier_* → kaiming_*
"""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import Tensor


def calculate_fan(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight (O, I) or (O, I, k, k'); fewer than two axes raise ValueError."""
    if tensor.dim() < 2:
        raise ValueError(f"got a tensor of shape {tuple(tensor.shape)}, wanted a weight (O, I, ...): a bias has no "
                         "fan, fill it with constant_ or uniform_")
    return math.prod(tensor.shape[1:]), math.prod((tensor.shape[0], *tensor.shape[2:]))


def calculate_gain(nonlinearity: str, a: float = 0.0) -> float:
    """The factor on the weights that compensates for a nonlinear function; `a` is the slope of leaky_relu below 0."""
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2),  # tanh: by convention
             "leaky_relu": math.sqrt(2 / (1 + a * a))}
    if nonlinearity not in gains:
        raise ValueError(f"got nonlinearity {nonlinearity!r}, wanted one of {', '.join(gains)}")
    return gains[nonlinearity]


@torch.no_grad()
def _filled(tensor: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Draw in the order of the indices, so that one seed gives the same weights in every memory layout."""
    return tensor.copy_(draw(torch.empty_like(tensor, memory_format=torch.contiguous_format)))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """U(a, b), of variance (b − a)²/12."""
    return _filled(tensor, lambda t: t.uniform_(a, b))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """N(mean, std²)."""
    return _filled(tensor, lambda t: t.normal_(mean, std))


def constant_(tensor: Tensor, value: float) -> Tensor:
    """One value everywhere."""
    return _filled(tensor, lambda t: t.fill_(value))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """U(−b, b) with b = √3·std (its variance is b²/3); the official DETR fills its whole transformer with it."""
    bound = math.sqrt(3.0) * (gain * math.sqrt(2.0 / sum(calculate_fan(tensor))))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """N(0, gain²·2/(fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(calculate_fan(tensor))))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """U(−b, b) with b = gain·√(3/fan). torch's Linear and Conv2d use a = √5: gain² = 1/3, and so b = 1/√fan_in."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """N(0, gain²/fan); ResNets start with mode="fan_out", nonlinearity="relu": the gradient keeps its size."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"got mode {mode!r}, wanted 'fan_in' (keeps the size of values) or 'fan_out' (of gradients)")
    fan_in, fan_out = calculate_fan(tensor)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_out if mode == "fan_out" else fan_in)
