"""activations: where does a network bend, and how does a score become a probability?

    relu(x) = max(x, 0)         gelu(x) = x · Φ(x),  Φ(x) = P(z ≤ x) for z ~ N(0,1)
    sigmoid(x) = 1/(1 + e⁻ˣ)    softmax(x)_i = e^{x_i} / Σ_j e^{x_j}       all keep the shape
    inverse_sigmoid(p) = log(max(p, ε) / max(1 − p, ε))

          relu   ╱           gelu   ╱           sigmoid   ╭────          x       −3      0       3
                ╱                  ╱                     ╱               gelu    −0.004  0   2.996
          ─────┘             ───╮_╱               ──────╯                sigmoid  0.047  ½   0.953

Without a bend two linear layers are one: W₂(W₁x) = (W₂W₁)x.

What makes these notes is not the formulas but their edges. e⁸⁹ is infinite in float32 and e¹² in
float16, so none but softmax_naive gives an exponential a positive argument; the gradients, but for
inverse_sigmoid's, are written by hand from what the forward knows; float16 and bfloat16 are
computed in float32, then rounded.

Same as torch.relu, nn.functional.gelu, torch.sigmoid, torch.softmax and torch.log_softmax, but for
three edges: an infinite gradient at a dead relu (see `_Relu`), a softmax row of nothing but −∞ (see
`softmax`), and the gradient of sigmoid far from 0, which is more exact here. inverse_sigmoid is
torch.logit between ε and 1 − ε. Proven in tests/ops/test_activations.py.
Read: relu → relu_ → gelu → sigmoid → inverse_sigmoid → softmax_naive → softmax → log_softmax
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import Function

from scratch.ops.precision import at_least_float32, float32_under_autocast

# ── relu ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Relu(Function):
    """y > 0 exactly where x > 0, so the output is all that the backward needs.

    The next layer keeps y anyway. x.clamp(min=0) left to autograd would keep x, a second tensor of the same size, and
    would send a gradient of 1 through x = 0.

    The slope multiplies. torch chooses: where(y > 0, grad, 0), so that 0 · ∞ is 0 there and NaN here. An infinite
    gradient is an overflow further up, and need not be hidden; and a CPU guesses the branch of each number, wrongly for
    every other one, and takes many times as long for it as for a product.
    """

    @staticmethod
    def forward(ctx, x: Tensor, in_place: bool) -> Tensor:
        y = x.clamp_(min=0) if in_place else x.clamp(min=0)  # NaN stays NaN: an error must not turn into a quiet 0
        if in_place:
            ctx.mark_dirty(x)  # whoever wanted x for a gradient is told that it is gone
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.sign(y).mul_(grad), None  # y ≥ 0, so the sign is the slope: 1 or 0


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0) of any shape. The kink at 0 has no derivative; by convention the gradient there is 0."""
    return _Relu.apply(x, False)


def relu_(x: Tensor) -> Tensor:
    """`relu`, written over x: a new tensor less, which a large image would have to be written to through the memory.

    For an x that nobody else reads, such as what a norm or a sum has just made. PyTorch refuses parameters and results
    of `conv2d`, and the backward of an operation that has kept x; without gradients it refuses nothing. torch.compile
    overwrites where it pays, and is given the plain version.
    """
    return _Relu.apply(x, not torch.compiler.is_compiling())


# ── gelu ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Gelu(Function):
    """d/dx x·Φ(x) = Φ(x) + x·φ(x), where φ(x) = e^{−x²/2}/√(2π) is the bell curve that Φ integrates."""

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
    # erf(t) = 2/√π ∫₀ᵗ e^{−s²} ds is the same integral in other units: it starts at 0 instead of −∞ and its bell has
    # variance ½. Shift by one half, stretch by √2, and it is Φ.
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def gelu(x: Tensor) -> Tensor:
    """Return x·Φ(x), exactly (Hendrycks & Gimpel 2016, arXiv 1606.08415): relu with its kink smoothed.

    A relu multiplies x by "is x above 0?"; gelu by the probability that x is above a standard normal draw.
    """
    return _Gelu.apply(x)


# ── sigmoid ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Sigmoid(Function):
    """σ' = y(1 − y), but 1 − y is not computed from y: beyond x = 17 float32 rounds y to 1 and the difference is gone.

    1 − σ(x) = σ(−x), so σ' = σ(x)·σ(−x) = z/(1 + z)² with z = e^{−|x|}. At x = 20 this is 2.06e-9; y(1 − y) gives 0.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        z = torch.exp(-at_least_float32(x).abs())  # in (0, 1]: never overflows
        y = torch.where(x < 0, z, 1) / (1 + z)  # e^x/(e^x + 1) left of 0, 1/(1 + e^−x) right of it: equal, both safe
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        z = torch.exp(-at_least_float32(x).abs())
        return (grad * (z / (1 + z) ** 2)).to(grad.dtype)  # even in x, so the sign of x is of no account


def sigmoid(x: Tensor) -> Tensor:
    """Return 1/(1 + e⁻ˣ) of any shape: any number becomes one in (0, 1), as a box coordinate must be."""
    return _Sigmoid.apply(x)


def inverse_sigmoid(p: Tensor, eps: float = 1e-5) -> Tensor:
    """Return log(p/(1 − p)) of any shape, the x with sigmoid(x) = p. float32 under autocast.

    A box is refined by a step Δ before the bend, sigmoid(inverse_sigmoid(box) + Δ), so that it stays in (0, 1) (Zhu et
    al. 2021, arXiv 2010.04159, section 4.2). p and 1 − p each count as eps at least: 0 and 1 give ∓11.51, with a slope
    of 1 where the plain formula has NaN. Beyond 0 and 1 the value is the same and the slope 0.
    """
    p = float32_under_autocast(p)
    inside = at_least_float32(p).clamp(0, 1)
    return torch.log(inside.clamp(min=eps) / (1 - inside).clamp(min=eps)).to(p.dtype)


# ── softmax, log_softmax ────────────────────────────────────────────────────────────────────────────────────────────


def softmax_naive(x: Tensor, dim: int) -> Tensor:
    """The formula. A score of 89 makes it inf/inf = NaN in float32."""
    e = torch.exp(x)
    return e / e.sum(dim, keepdim=True)


def _shifted(x: Tensor, dim: int) -> Tensor:
    # Numerator and denominator both divided by e^max: the value is the same, the largest exponent is 0.
    # A row of −∞ has max −∞, and −∞ − (−∞) is NaN; with the lowest finite number in its place the row stays −∞.
    x = at_least_float32(x)
    if not x.numel():  # a row of nothing has no maximum, and nothing to shift
        return x.clone()
    return x - x.amax(dim, keepdim=True).clamp_(min=torch.finfo(x.dtype).min)


def _sum_of_exponentials(e: Tensor, dim: int) -> Tensor:
    # The row's maximum contributes e⁰ = 1, so a sum below 1 can only be the 0 of a row of −∞. Divided by 1, it stays 0.
    return e.sum(dim, keepdim=True).clamp_(min=1)


class _Softmax(Function):
    """∂L/∂x_i = y_i · (g_i − Σ_j g_j·y_j): a score gains only by what its output is worth above the row's average.

    Keeps y alone, and that is kept by the next operation anyway.
    """

    @staticmethod
    def forward(ctx, x: Tensor, dim: int) -> Tensor:
        e = _shifted(x, dim).exp_()  # in (0, 1], in the memory of the shifted scores
        y = e.div_(_sum_of_exponentials(e, dim)).to(x.dtype)
        ctx.save_for_backward(y)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        y, g = at_least_float32(y), at_least_float32(grad)
        gy = g * y
        return (gy - y * gy.sum(ctx.dim, keepdim=True)).to(grad.dtype), None  # None: no gradient for `dim`


class _LogSoftmax(Function):
    """y_i = x_i − log Σ_j e^{x_j}, hence ∂L/∂x_i = g_i − e^{y_i} · Σ_j g_j: e^y is the softmax, so y is all to keep."""

    @staticmethod
    def forward(ctx, x: Tensor, dim: int) -> Tensor:
        s = _shifted(x, dim)  # ≤ 0: its exponentials cannot overflow
        y = s.sub_(_sum_of_exponentials(s.exp(), dim).log_()).to(x.dtype)
        ctx.save_for_backward(y)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        y, g = at_least_float32(y), at_least_float32(grad)
        return (g - y.exp() * g.sum(ctx.dim, keepdim=True)).to(grad.dtype), None


def softmax(x: Tensor, dim: int) -> Tensor:
    """Return e^x over its sum along `dim`: positive, and 1 together; float32 under autocast.

    A row of nothing but −∞ gives zeros, with a gradient of zero (torch gives NaN). Attention relies on it: a query that
    may look nowhere receives the empty sum, 0, and one fully padded image does not poison its batch.
    """
    return _Softmax.apply(float32_under_autocast(x), dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return log softmax(x), without the detour through a probability that may round to 0. float32 under autocast.

    A row of nothing but −∞ stays −∞, the logarithm of the zeros that `softmax` gives (torch gives NaN).
    """
    return _LogSoftmax.apply(float32_under_autocast(x), dim)
