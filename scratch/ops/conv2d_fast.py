"""conv2d_fast: how does a 3×3 convolution become nine matrix products, on one copy of the image?

    y (N,O) = Σ_u Σ_v  pixels[shift_uv : shift_uv + N] (N,C) @ weight[u,v] (C,O)

Lay the padded images (channels last) end to end as one long list of pixels, w to a row. A pixel's
neighbour u rows down and v columns right then lies u·w + v places further on, for *every* pixel: so
tap (u,v) is one product with a contiguous slice of the list, and the convolution is the sum of k·k'
products.

    0 0 0 0    k = 3, a 2×3 image: w = 3 + 1. A row's right padding is the next row's left padding.
    0 a b c  → list: 0 0 0 0|0 a b c|0 d e f|0 0 0 0 …   tap (0,0) starts at 0, tap (1,2) at 1·4 + 2
    0 d e f    result: a b c ·|d e f ·|· · · ·|           · = a window that straddles rows: cut away
    0 0 0 0

Equal to conv2d_columns.py, where the same sum over (u,v,c) is one product: here its outer part,
over (u,v), is a loop of k·k' steps, which each add to y. What changed: the image is copied once,
not k·k' times. The price is the windows that straddle, a few columns a row, and k·k' passes over y,
which the cache makes cheap: the list is gone through tile by tile, and each tile k·k' times.

Backward, with g = ∂L/∂y (zero at the straddling windows), tap by tap, by the same slices:
    ∂weight[u,v] = pixels[shift : shift + N]ᵀ g         ∂pixels[shift : shift + N] += g weight[u,v]ᵀ
Only x and weight are kept for the backward: the list is built again there.

Read after conv2d_columns.py: Shifted.forward → _row_lengths → _pixels → _phases (stride)
→ tiles → Shifted.backward. Proven in tests/ops/test_conv2d.py.
"""

from __future__ import annotations

from typing import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.precision import as_in_forward
from scratch.ops.windows import Pair, Windows, overlap


TILE = 2**18  # numbers of a tile's wider side: 1 MB in float32


class Shifted(torch.autograd.Function):
    """k² products over shifted slices of one list of pixels: for float32 and float64, one group, many channels."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        B, O, (h, w) = x.shape[0], weight.shape[0], _row_lengths(windows)  # h rows of w pixels an image
        N = B * h * w  # straddling windows included
        weight = weight.contiguous(memory_format=torch.channels_last)  # as Conv2d keeps it: no copy
        y = x.new_zeros(N, O) if bias is None else bias.repeat(N, 1)  # sums start at the bias: no pass to add it later
        for phase, taps in _phases(windows):
            pixels = _pixels(x, phase, windows)  # (N + tail, C)
            for a, b in tiles(N, weight, max(weight.shape[:2]), TILE):
                for u, v, shift in taps:
                    y[a:b].addmm_(pixels[a + shift:b + shift], weight[:, :, u, v].T)  # (n,O) += (n,C) @ (C,O)
        return _cut(y, B, windows).contiguous().permute(0, 3, 1, 2)  # (B,O,H',W')

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        windows: Windows = ctx.windows
        (B, C, H, W), O = x.shape, weight.shape[0]
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        h, w = _row_lengths(windows)
        N = B * h * w
        g = grad.new_zeros(N, O)  # a straddling window was cut away, so its gradient is zero
        _cut(g, B, windows).copy_(grad.permute(0, 2, 3, 1))  # (B,H',W',O), into its place in g
        weight = weight.contiguous(memory_format=torch.channels_last)
        # (O,C,kH,kW), channels last: each [:, :, u, v] is a matrix as BLAS takes it
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_x = x.new_zeros(B, H, W, C) if need_x else None
        with as_in_forward(x):  # whoever calls backward() under autocast must not lower these products
            for phase, taps in _phases(windows):
                pixels = _pixels(x, phase, windows) if need_weight else None  # (N + tail, C)
                grad_pixels = x.new_zeros(N + _tail(windows), C) if need_x else None  # (N + tail, C)
                for a, b in tiles(N, weight, max(weight.shape[:2]), TILE):
                    for u, v, shift in taps:  # y[n] += pixels[n+shift]·w: a factor's gradient is g times the other
                        if need_x:
                            grad_pixels[a + shift:b + shift].addmm_(g[a:b], weight[:, :, u, v])  # (n,C)
                        if need_weight:
                            grad_weight[:, :, u, v].addmm_(g[a:b].T, pixels[a + shift:b + shift])  # (O,C)
                if need_x:  # each pixel lies in exactly one phase, so its gradient is written once and never added
                    inside, outside = _places(x, phase, windows)
                    grad_x[outside] = grad_pixels[:N].view(B, h, w, C)[inside]  # past N there is no image
        return (grad_x.permute(0, 3, 1, 2) if need_x else None,
                grad_weight,
                grad.sum((0, 2, 3)) if need_bias else None, None)


def _reach(windows: Windows) -> Pair:
    """How many rows down and columns right, in its phase, the last tap lies from the first.

    At stride 1 this is the height and width of the window less one: 2 for a 3×3 kernel, 4 if it is dilated by 2.
    """
    (kH, kW), (sH, sW), _, (dH, dW), _, _ = windows
    return dH * (kH - 1) // sH, dW * (kW - 1) // sW


def _row_lengths(windows: Windows) -> Pair:
    """(h, w): rows an image and columns a row take in the list.

    The windows need H' + reach rows. At stride 1 each image starts with `padding` rows of zeros, which end
    the image before it as well, so that they need not be stored twice. Columns likewise.
    """
    lengths = []
    for size, reach, stride, padding in zip(windows.size, _reach(windows), windows.stride, windows.padding):
        shared = padding if stride == 1 else 0  # in a phase, padding is not whole rows: share nothing
        lengths.append(size + max(0, reach - shared))
    return lengths[0], lengths[1]


def straddling(windows: Windows) -> float:
    """The share of the list's windows that straddle rows or images: they are computed to be cut away."""
    (h, w), (height, width) = _row_lengths(windows), windows.size
    return 1 - height * width / (h * w)


def tiles(N: int, weight: Tensor, width: int, numbers: int) -> list[Pair]:
    """A list of N rows from a to b, tile by tile, each of so many `numbers` if a row has `width` of them. The result of a tile stays in a CPU's cache while all k·k' taps add to it.

    Taken whole, a long list is fetched from memory and written back k·k' times. A GPU's list is one tile: there a
    product takes less than its start.
    """
    whole = weight.device.type != "cpu" or torch.compiler.is_compiling()
    n = max(1, N if whole else numbers // width)
    return [(a, min(N, a + n)) for a in range(0, N, n)]


def _tail(windows: Windows) -> int:
    """Zeros after the last image: the furthest that a tap is shifted.

    Without them the slice of the last tap would end before its N-th row.
    """
    (down, right), (_, w) = _reach(windows), _row_lengths(windows)
    return down * w + right


def _phases(windows: Windows) -> Iterator[tuple[Pair, list[tuple[int, int, int]]]]:
    """Split the taps so that every stride becomes 1: yields ((a, b), [(u, v, shift), …]).

    At stride s tap u reads rows i·s + u·d of the padded image: every s-th row, from row a = u·d mod s. These rows
    alone form a smaller image, phase a, in which tap u is ⌊u·d/s⌋ rows down at stride 1. A 3×3 kernel of stride 2
    has 2×2 phases with 4, 2, 2 and 1 taps: still 9 products, none of them for a window that stride 2 leaves out.
    """
    (kH, kW), (sH, sW), _, (dH, dW), _, _ = windows
    _, w = _row_lengths(windows)
    phases: dict[Pair, list[tuple[int, int, int]]] = {}
    for u in range(kH):
        for v in range(kW):
            (down, a), (right, b) = divmod(u * dH, sH), divmod(v * dW, sW)  # rows in the phase, and which phase
            phases.setdefault((a, b), []).append((u, v, down * w + right))
    yield from phases.items()


def _places(x: Tensor, phase: Pair, windows: Windows) -> tuple[tuple, tuple]:
    """Where a phase holds image, as indices into the phase (B,h,w,C) and into the image (B,H,W,C).

    Row i of phase a is row i·s + a − p of the image: the question that `overlap` answers, with a for the tap.
    """
    (h, w), (sH, sW), (pH, pW) = _row_lengths(windows), windows.stride, windows.padding
    in_rows, out_rows = overlap(phase[0], sH, pH, x.shape[2], h)
    in_columns, out_columns = overlap(phase[1], sW, pW, x.shape[3], w)
    return (slice(None), in_rows, in_columns), (slice(None), out_rows, out_columns)


def _pixels(x: Tensor, phase: Pair, windows: Windows) -> Tensor:
    """The list of pixels of one phase, padding included: (N + tail, C).

    Zeros first, then the image into its place: what is not written is the padding. This is the one copy.
    """
    B, C = x.shape[:2]
    h, w = _row_lengths(windows)
    N = B * h * w
    pixels = x.new_zeros(N + _tail(windows), C)
    inside, outside = _places(x, phase, windows)  # rows and columns of the phase, and those of the image
    pixels[:N].view(B, h, w, C)[inside] = x.permute(0, 2, 3, 1)[outside]
    return pixels


def _cut(y: Tensor, B: int, windows: Windows) -> Tensor:
    """The windows of a list of results (N,O) that straddle neither rows nor images: (B,H',W',O), a view."""
    (h, w), (height, width) = _row_lengths(windows), windows.size  # height ≤ h, width ≤ w
    return y.view(B, h, w, y.shape[1])[:, :height, :width]
