"""activations: what stands between two linear layers, and how do scores become probabilities?

    relu(x) = max(x, 0)                       sigmoid(x) = 1/(1 + e⁻ˣ)
    softmax(z)_i = e^{z_i} / Σ_j e^{z_j}      log_softmax(z)_i = z_i − log Σ_j e^{z_j}
    inverse_sigmoid(p) = log(p/(1 − p))       each keeps the shape of its input

          relu   ╱          sigmoid   ╭────          x         −3      0      3
                ╱                    ╱               relu       0      0      3
          ─────┘              ──────╯                sigmoid    0.047  0.5    0.953

Without an *activation function* between them two linear layers are one: W₂(W₁x) = (W₂W₁)x.

*Logits* are the scores before sigmoid or softmax: any real numbers. sigmoid turns each into a
probability of its own; softmax turns a row of logits into probabilities that sum to 1. log Σ e^z is
called *log-sum-exp*. e⁸⁹ is infinite in float32, and e¹² in float16, so every exponential here but
softmax_naive's has an exponent ≤ 0. On a first reading skip `at_least_float32`: numbers of 16 bits
(half precision, see ops/fast/precision) are computed in float32 and rounded once.

Same as torch's (inverse_sigmoid: torch.logit between ε and 1 − ε), except a row of −∞ (`softmax`), the
gradient of sigmoid far from 0, which is more exact here, and that of relu at NaN or for an infinite
gradient (ops/fast/activations). Proven in tests/ops/test_activations.py.
Read: relu → sigmoid → softmax_naive → softmax → log_softmax; later at_least_float32, inverse_sigmoid
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.fast.activations import fast_activation


def at_least_float32(x: Tensor) -> Tensor:
    """Return half precision and integers as float32; float32 and float64 pass without a copy."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def autocast_applies(x: Tensor) -> bool:
    """Is mixed precision (`torch.autocast`) on, and does it apply to x? It leaves float64 alone."""
    device = x.device.type  # "meta": shapes without data, a device that raises when asked for its autocast state
    return device != "meta" and x.dtype is not torch.float64 and torch.is_autocast_enabled(device)


def float32_under_autocast(x: Tensor) -> Tensor:
    """Return x as float32 under autocast, where softmax, norms and losses return float32; otherwise x itself."""
    return x.float() if autocast_applies(x) else x


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0) of any shape. The gradient at 0 is 0 by convention; that of x.clamp(min=0) would be 1."""
    y = fast_activation("relu", x)  # None in plain mode (ops/fast)
    return torch.where(x <= 0, 0, x) if y is None else y  # NaN stays NaN: NaN ≤ 0 is false


def relu_(x: Tensor) -> Tensor:
    """`relu` of an x that nothing else reads, such as the result of a norm: the fast version writes over it."""
    y = fast_activation("relu_", x)
    return relu(x) if y is None else y


def sigmoid(x: Tensor) -> Tensor:
    """Return 1/(1 + e⁻ˣ) of any shape. Left of 0 it is written e^x/(e^x + 1), because e⁻ˣ would overflow there."""
    y = fast_activation("sigmoid", x)
    if y is None:
        wide = at_least_float32(x)
        z = torch.exp(torch.where(wide < 0, wide, -wide))  # e^−|x|, in (0, 1]
        y = (torch.where(wide < 0, z, 1) / (1 + z)).to(x.dtype)
    return y


def inverse_sigmoid(p: Tensor, eps: float = 1e-5) -> Tensor:
    """Return log(p/(1 − p)) of any shape, the logit of a probability p; float32 under autocast.

    p and 1 − p count as eps at least: 0 and 1 give ∓11.51 with a slope of 1, where the formula itself has a slope of
    NaN. Below 0 and above 1 the value is the same and the slope 0.
    """
    p = float32_under_autocast(p)
    inside = at_least_float32(p).clamp(0, 1)
    return torch.log(inside.clamp(min=eps) / (1 - inside).clamp(min=eps)).to(p.dtype)


def softmax_naive(x: Tensor, dim: int) -> Tensor:
    """The formula. A logit of 89 makes it ∞/∞ = NaN in float32."""
    e = torch.exp(x)
    return e / e.sum(dim, keepdim=True)


def _shifted(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """x − max(x), and Σ e^(x − max(x)): e^max cancels in softmax, and no exponent is above 0.

    A row of −∞ has the maximum −∞, and −∞ − (−∞) is NaN; with the lowest finite number instead the row stays −∞.
    """
    x = at_least_float32(x)
    if x.numel():  # an empty row has no maximum; the shift cancels, so it needs no gradient
        x = x - x.detach().amax(dim, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
    return x, torch.exp(x).sum(dim, keepdim=True).clamp(min=1)  # holds e⁰ = 1; the 0 of a row of −∞ counts as 1


def softmax(x: Tensor, dim: int) -> Tensor:
    """Return e^x divided by its sum along `dim`: positive numbers that sum to 1. float32 under autocast.

    A row of −∞ gives zeros with a gradient of zero (torch: NaN): in attention, a query that may attend to nothing.
    """
    x = float32_under_autocast(x)
    y = fast_activation("softmax", x, dim)
    if y is None:
        shifted, total = _shifted(x, dim)
        y = (torch.exp(shifted) / total).to(x.dtype)
    return y


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return x minus its log-sum-exp; float32 under autocast. A row of −∞ stays −∞ (torch: NaN).

    The logarithm of `softmax` would be −∞ where a small probability rounds to 0; this stays finite.
    """
    x = float32_under_autocast(x)
    y = fast_activation("log_softmax", x, dim)
    if y is None:
        shifted, total = _shifted(x, dim)
        y = (shifted - torch.log(total)).to(x.dtype)
    return y
