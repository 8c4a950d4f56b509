"""winograd: how are three windows of a 3-tap filter computed with five multiplications, not nine?

    y (3) = Eᵀ [ (E w / n) ⊙ (J x) ]      x: 5 pixels of a row   w: a filter's 3 taps in that row
                                          y: 3 windows side by side   ⊙: element by element
    x₀ x₁ x₂ x₃ x₄     y₀ = w₀x₀ + w₁x₁ + w₂x₂      directly: 9 multiplications
    └──y₀──┘           y₁ = w₀x₁ + w₁x₂ + w₂x₃      Winograd's minimal filtering, F(3, 3): 5, the
       └──y₁──┘        y₂ = w₀x₂ + w₁x₃ + w₂x₄      ⊙; E and J are additions and scalings
          └──y₂──┘
E, J and n are the same for all filters and images; their derivation is before `evaluate`. With C
channels and many windows, each of the five multiplications becomes a matrix multiplication (GEMM),
whose sums run over the channels; the k rows of a kernel are k such products, added up before Eᵀ:

    M_point (T,O) = Σ_u  V_point[u rows down] (T,C) @ U_point,u (C,O)        T tiles of 3 windows
    V = J x, U = E w / n

Equal to fast/shifted.py and torch.nn.functional.conv2d, for 5/9 of the multiplications. The price:
18 additions for the three windows of a tile and each channel, 6 for the three taps of a filter;
tiles that stick out of a row (40 windows take 14 tiles); and precision (also below).

Backward: ∂x is the same convolution of g = ∂L/∂y by the filters turned by 180 degrees; since
y = Eᵀ[(E w/n) ⊙ V], ∂w = Eᵀ[(E g) ⊙ V / n]: the same transforms. Only x and weight are kept.
Read after fast/shifted.py: evaluate → evaluate_transposed → interpolate_transposed → _filters →
_frame → _planes → _slabs → _convolve → Winograd. Proven in tests/ops/fast/test_winograd.py.
Sources: Winograd 1980, Arithmetic Complexity of Computations; Lavin & Gray 2015, arXiv 1509.09308,
section 4 (filter, data, inverse transform: E/n, J, Eᵀ); Barabasz et al. 2018, 1803.10986 (points).
"""

from __future__ import annotations

from typing import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.precision import as_in_forward
from scratch.ops.windows import Pair, Windows

# ── why five multiplications are enough ─────────────────────────────────────────────────────────────────────────────
# Two polynomials of degree 2, w(t) = w₀ + w₁t + w₂t² and d(t), have a product s(t) of degree 4. Its five coefficients
# are s_j = Σ_{i+v=j} w_v·d_i. As a matrix that is s = W d, where W (5×3) has the entry w_{j−i} in row j and column i.
#
# Five values of s(t) fix it, so three steps compute s: evaluate w and d at five points (E w and E d), multiply the
# values point by point (five multiplications), interpolate (Jᵀ(·/n)). As matrices: W = Jᵀ · diag(E w / n) · E.
#
# A convolution along a row, y_i = Σ_v w_v·x_{i+v}, is y = Wᵀ x. The transpose of a product is the product of the
# transposes in reverse order, so Wᵀ = Eᵀ · diag(E w / n) · J: the formula at the top.
#
# The points are ±a, ±b and ∞. The "value at ∞" of a polynomial is its last coefficient.
#
#     E   row p: (1, p, p²)                                        row ∞: (0, 0, 1)
#     J   row p: the coefficients of M(t) / (t − p) / p            row ∞: those of M(t) = (t² − a²)(t² − b²)
#     n   M'(p)/p, which is 2(a² − b²) at ±a and 2(b² − a²) at ±b; 1 at ∞
#
# At p and −p they differ in the sign of the odd part: the even part and the odd part are each computed once, for both.
#
# ── precision ───────────────────────────────────────────────────────────────────────────────────────────────────────
# In Eᵀ, large numbers of opposite sign are added. The sum is small, the rounding errors of its terms are not. So in
# float32, with 64 to 256 channels, the error (root mean square, against float64) is 1.5 to 1.9 times that of torch.nn
# for images that are channels first in memory, and 0.5 to 0.8 times that of torch.nn for images that are channels last.
# It depends on the points: a = 1/2 and b = 5/4 make it smallest, within a few percent.
#
# The error of a window is in proportion to the largest number of its whole tile, five pixels wide, not of its own three
# pixels. One very large pixel therefore makes also windows inexact that do not contain it, up to two columns away; an
# infinite one or a NaN leaves no number in them.
#
# Two axes at once, F(4×4, 3×3) with 36 points, would save 3/4 of the multiplications; its error is several times ours.
POINT_A, POINT_B = 0.5, 1.25
PAIRS = ((POINT_A, POINT_B), (POINT_B, POINT_A))  # planes 0, 1: the points a and −a; 2, 3: b and −b; 4: ∞
SLAB = 2**21  # numbers of the five planes of a slab's wider side: 8 MB in float32


def evaluate(parts: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """E: the values of w₀ + w₁t + w₂t² at the five points: three tensors (…) → five tensors `out` (…)."""
    w0, w1, w2 = parts
    for (p, _), plus, minus in zip(PAIRS, out[0:4:2], out[1:4:2]):
        even = torch.add(w0, w2, alpha=p * p)
        torch.add(even, w1, alpha=p, out=plus)
        torch.sub(even, w1, alpha=p, out=minus)
    out[4].copy_(w2)


def evaluate_transposed(values: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Eᵀ: coefficient k gathers pᵏ of each point's value, and the last one ∞'s: five tensors (…) → three tensors (…).

    The values are overwritten on the way. A part of `out` may have fewer tiles (the last axis but one) than the values:
    those that it lacks stick out of the image.
    """
    plus_a, minus_a, plus_b, minus_b, last = values
    even_a, even_b = plus_a + minus_a, plus_b + minus_b
    odd_a, odd_b = plus_a.sub_(minus_a).mul_(POINT_A), plus_b.sub_(minus_b)

    def inside(t: Tensor, part: Tensor) -> Tensor:
        return t if t.shape == part.shape else t[..., :part.shape[-2], :]

    torch.add(inside(even_a, out[0]), inside(even_b, out[0]), out=out[0])
    torch.add(inside(odd_a, out[1]), inside(odd_b, out[1]), alpha=POINT_B, out=out[1])
    torch.add(inside(last.add_(even_a, alpha=POINT_A**2), out[2]), inside(even_b, out[2]), alpha=POINT_B**2, out=out[2])


def interpolate_transposed(x: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """J: five pixels of each tile (…) → five tensors `out` (…)."""
    for (p, q), plus, minus in zip(PAIRS, out[0:4:2], out[1:4:2]):
        even = torch.sub(x[2], x[0], alpha=q * q)
        odd = torch.sub(x[3], x[1], alpha=q * q)
        torch.add(even, odd, alpha=1 / p, out=plus)
        torch.sub(even, odd, alpha=1 / p, out=minus)
    torch.sub(x[4], x[2], alpha=POINT_A**2 + POINT_B**2, out=out[4]).add_(x[0], alpha=(POINT_A * POINT_B) ** 2)


class Winograd(torch.autograd.Function):
    """Three windows of three taps at a time, F(3, 3), along the rows: for kernels of three columns.

    For float32 and float64, stride 1, no dilation, one group, less padding than kernel.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        filters = _filters(weight.permute(3, 2, 0, 1).unbind()).transpose(2, 3)  # (5,k,C,O)
        y = _convolve(x.permute(0, 2, 3, 1), [point.unbind() for point in filters.unbind()], windows)  # (B,H',W',O)
        return (y if bias is None else y.add_(bias)).permute(0, 3, 1, 2)  # (B,O,H',W')

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        windows: Windows = ctx.windows
        grad_x = grad_weight = None
        g = grad.permute(0, 2, 3, 1)  # (B,H',W',O)
        with as_in_forward(x):  # also where backward() is called under autocast
            if ctx.needs_input_grad[0]:  # as in fast/columns: g, convolved by the filters turned by 180 degrees
                (kH, kW), (pH, pW) = windows.kernel, windows.padding
                back = windows._replace(padding=(kH - 1 - pH, kW - 1 - pW), size=(x.shape[2], x.shape[3]))
                turned = _filters(weight.permute(3, 2, 0, 1).unbind()[::-1])  # columns here, rows there: (5,k,O,C)
                grad_x = _convolve(g, [point.unbind()[::-1] for point in turned.unbind()], back).permute(0, 3, 1, 2)
            if ctx.needs_input_grad[1]:
                grad_weight = _grad_weight(x.permute(0, 2, 3, 1), g, weight, windows)  # (O,C,k,3)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None


def _filters(columns: Sequence[Tensor]) -> Tensor:
    """E w / n: the three columns of the filters, each (k,O,C) → (5,k,O,C)."""
    filters = columns[0].new_empty(5, *columns[0].shape)
    evaluate(columns, filters.unbind())
    return _divided(filters)


def _divided(points: Tensor) -> Tensor:
    """Divide (5,…) by n, in place: 2(a² − b²) at ±a, 2(b² − a²) at ±b, 1 at ∞."""
    n = 2 * (POINT_A**2 - POINT_B**2)
    points[:2].div_(n)
    points[2:4].div_(-n)
    return points


def _convolve(x: Tensor, filters: Sequence[Sequence[Tensor]], windows: Windows) -> Tensor:
    """Convolve x (B,H,W,C) by transformed filters, of which filters[point][u] is (C,O) → (B,H',W',O)."""
    (h, T), kH, O = _layout(windows), windows.kernel[0], filters[0][0].shape[1]
    frame = _frame(x, windows.padding, h, T, kH - 1)
    y = x.new_empty(len(x), *windows.size, O)
    for images, rows in _slabs(len(x), windows, max(x.shape[3], O)):
        planes = _planes(frame[_listed(images, rows, h, kH - 1)])  # (5,(l + k − 1)·T,C) of the slab's l list rows
        n = planes.shape[1] - (kH - 1) * T
        height = h if images.stop - images.start > 1 else rows.stop - rows.start
        products = x.new_empty(5, (images.stop - images.start) * height * T, O)
        for plane, rows_of_filter, product in zip(planes.unbind(), filters, products[:, :n].unbind()):
            for u, row in enumerate(rows_of_filter):  # the first product finds nothing there yet to add to
                product.addmm_(plane[u * T:u * T + n], row, beta=min(u, 1))  # (n,O) += (n,C) @ (C,O)
        inside = products.view(5, -1, height, T, O)[:, :, :rows.stop - rows.start]  # without what straddles images
        evaluate_transposed(inside.unbind(), [y[images, rows, k::3] for k in range(3)])
    return y


def _grad_weight(x: Tensor, g: Tensor, weight: Tensor, windows: Windows) -> Tensor:
    """∂weight of x (B,H,W,C) and g = ∂L/∂y (B,H',W',O): (O,C,k,3), channels last in memory."""
    (h, T), (kH, _), (O, C) = _layout(windows), windows.kernel, weight.shape[:2]
    frame, g = _frame(x, windows.padding, h, T, kH - 1), _frame(g, (0, 0), h, T, 0)  # g is zero where windows straddle
    grad_filters = weight.new_zeros(5, kH, O, C)
    for images, rows in _slabs(len(x), windows, max(C, O)):
        planes = _planes(frame[_listed(images, rows, h, kH - 1)])  # (5,(l + k − 1)·T,C)
        tiles = g[_listed(images, rows, h, 0), :T]  # (l,T,3,O)
        values = x.new_empty(5, *tiles.shape[:2], O)
        evaluate(tiles.unbind(2), values.unbind())
        for plane, value, grads in zip(planes.unbind(), values.flatten(1, 2).mT.unbind(), grad_filters.unbind()):
            for u, grad in enumerate(grads.unbind()):
                grad.addmm_(value, plane[u * T:u * T + value.shape[1]])  # (O,C) += (O,n) @ (n,C)
    grad_weight = torch.empty_like(weight, memory_format=torch.channels_last)
    evaluate_transposed(_divided(grad_filters).unbind(), grad_weight.permute(3, 2, 0, 1).unbind())
    return grad_weight


def _layout(windows: Windows) -> tuple[int, int]:
    """(h, T): rows an image takes in the frame, tiles of three windows a row.

    As in fast/shifted, an image starts with `padding` rows of zeros, which end the image before it as well.
    """
    (kH, _), (height, width) = windows.kernel, windows.size
    return height + max(0, kH - 1 - windows.padding[0]), -(-width // 3)


def _frame(x: Tensor, padding: Pair, h: int, T: int, tail: int) -> Tensor:
    """Images (B,H,W,C) in a frame of zeros, one below the other: (B·h + tail, T + 1, 3, C), threes of pixels."""
    B, H, W, C = x.shape
    frame = x.new_zeros(B * h + tail, 3 * (T + 1), C)
    frame[:B * h].view(B, h, 3 * (T + 1), C)[:, padding[0]:padding[0] + H, padding[1]:padding[1] + W] = x
    return frame.view(-1, T + 1, 3, C)


def _planes(pixels: Tensor) -> Tensor:
    """J x: rows of the frame (l,T+1,3,C) → (5,l·T,C). A tile sees its own three pixels and two of the next tile."""
    l, T, C = len(pixels), pixels.shape[1] - 1, pixels.shape[3]
    planes = pixels.new_empty(5, l, T, C)
    columns = (*pixels[:, :T].unbind(2), *pixels[:, 1:, :2].unbind(2))
    interpolate_transposed(columns, planes.unbind())
    return planes.flatten(1, 2)


def _slabs(B: int, windows: Windows, width: int) -> Iterator[tuple[slice, slice]]:
    """Cut the work into slabs whose planes, `width` numbers to a tile, stay in a CPU's cache: yields (images, rows).

    As many whole images as SLAB holds or, of an image that it does not hold, equal parts of its rows.
    """
    (h, T), height = _layout(windows), windows.size[0]
    rows = max(1, SLAB // (5 * T * width))
    if rows >= h:
        yield from ((slice(b, min(B, b + rows // h)), slice(0, height)) for b in range(0, B, rows // h))
    else:
        rows = -(-height // -(-height // rows))
        for b in range(B):
            yield from ((slice(b, b + 1), slice(i, min(height, i + rows))) for i in range(0, height, rows))


def _listed(images: slice, rows: slice, h: int, below: int) -> slice:
    """From the first to the last row of a slab, in the frame's list of rows of all images, and so many `below`."""
    return slice(images.start * h + rows.start, (images.stop - 1) * h + rows.stop + below)
