"""activations, fast: the gradients of relu, sigmoid and softmax, written by hand.

    y = relu(x)            ∂L/∂x = g where y > 0, else 0             keeps y
    y = sigmoid(x)         ∂L/∂x = g · z/(1 + z)²,  z = e^−|x|       keeps x
    y = softmax(x)         ∂L/∂x = y · (g − Σ_j g_j·y_j)             keeps y
    y = log_softmax(x)     ∂L/∂x = g − e^y · Σ_j g_j                 keeps y          g = ∂L/∂y

The door of ops/activations.py, with the same values. Autograd would keep every intermediate tensor;
here one is kept, and it is one that the next layer keeps anyway (y), or the layer before (x).

Two differences in the gradient of relu: an infinite g at a dead unit gives NaN, where torch and the
plain version give 0; at a NaN it is 0, where they pass g on (see `_Relu`).
Proven in tests/ops/test_activations.py (values and gradients, both modes) and
tests/ops/fast/test_activations.py (what is kept, what is written over).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from scratch.ops.fast.switch import plain


def fast_activation(name: str, x: Tensor, *arguments: int) -> Tensor | None:
    """Return the activation `name` of x with its backward written by hand; None in plain mode.

    name   "relu", "relu_" (written over x), "sigmoid", "softmax" or "log_softmax" (these two with the argument dim)
    """
    return None if plain() else _BY_NAME[name](x, *arguments)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))  # float32 at least


class _Relu(Function):
    """y > 0 exactly where x > 0, so the output is all that the backward needs.

    The next layer keeps y anyway. x.clamp(min=0) left to autograd would keep x, a second tensor of the same size.

    The slope multiplies. torch selects: where(y > 0, grad, 0), so that 0 · ∞ is 0 there and NaN here. An infinite
    gradient is an overflow in a later layer and should not be hidden. And on a CPU the selection is many times slower
    than the product: it branches on every number, and half of the predictions of the branch are wrong.
    """

    @staticmethod
    def forward(ctx, x: Tensor, in_place: bool) -> Tensor:
        y = x.clamp_(min=0) if in_place else x.clamp(min=0)  # NaN stays NaN: an error must not turn into a quiet 0
        if in_place:
            ctx.mark_dirty(x)  # autograd raises if another backward needs x
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        if y.is_cuda:  # there a comparison, which writes one byte a number, is as fast as any other pass
            return grad * (y > 0), None
        return torch.sign(y).mul_(grad), None  # y ≥ 0, so the sign is the slope: 1 or 0


def _relu(x: Tensor) -> Tensor:
    return _Relu.apply(x, False)


def _relu_(x: Tensor) -> Tensor:
    """Written over x: one tensor less to write through the memory.

    PyTorch refuses parameters and results of `conv2d`, and the backward of an operation that has kept x; without
    gradients it refuses nothing. torch.compile decides by itself what to write over, and gets the other version.
    """
    return _Relu.apply(x, not torch.compiler.is_compiling())


class _Sigmoid(Function):
    """σ' = y(1 − y), but 1 − y is not computed from y: above x = 17 float32 rounds y to 1 and the difference is 0.

    1 − σ(x) = σ(−x), so σ' = σ(x)·σ(−x) = z/(1 + z)² with z = e^{−|x|}. At x = 20 this is 2.06e-9; y(1 − y) gives 0.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        z = torch.exp(-_wide(x).abs())  # in (0, 1]: never overflows
        y = torch.where(x < 0, z, 1) / (1 + z)  # e^x/(e^x + 1) left of 0, 1/(1 + e^−x) right of it: equal, both safe
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        z = torch.exp(-_wide(x).abs())
        return (grad * (z / (1 + z) ** 2)).to(grad.dtype)  # the same for x and −x


def _shifted(x: Tensor, dim: int) -> Tensor:
    # x − max(x) in new memory, as in ops/activations.py; a row of −∞ stays −∞.
    x = _wide(x)
    if not x.numel():  # a row without elements has no maximum
        return x.clone()
    return x - x.amax(dim, keepdim=True).clamp_(min=torch.finfo(x.dtype).min)


def _sum_of_exponentials(e: Tensor, dim: int) -> Tensor:
    # The row's maximum contributes e⁰ = 1, so a sum below 1 can only be the 0 of a row of −∞. Divided by 1, it stays 0.
    return e.sum(dim, keepdim=True).clamp_(min=1)


class _Softmax(Function):
    """∂L/∂x_i = y_i · (g_i − Σ_j g_j·y_j), from ∂y_j/∂x_i = y_j·(δ_ij − y_i). Keeps y alone."""

    @staticmethod
    def forward(ctx, x: Tensor, dim: int) -> Tensor:
        e = _shifted(x, dim).exp_()  # in (0, 1], in the memory of the shifted logits
        y = e.div_(_sum_of_exponentials(e, dim)).to(x.dtype)
        ctx.save_for_backward(y)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        y, g = _wide(y), _wide(grad)
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
        y, g = _wide(y), _wide(grad)
        return (g - y.exp() * g.sum(ctx.dim, keepdim=True)).to(grad.dtype), None


_BY_NAME = {"relu": _relu, "relu_": _relu_, "sigmoid": _Sigmoid.apply, "softmax": _Softmax.apply,
            "log_softmax": _LogSoftmax.apply}
