"""conv2d_fast: how does a convolution become a few large matrix products?

Two plans, one result. Both read the image channels last (B,H,W,C), so that a pixel's C channels are one
contiguous row of a matrix, and both return the result channels last in memory (logically B,O,H',W').

Columns: copy the k² pixels under each window side by side, then one product.
    columns (B·H'·W', k²·C) @ weight (k²·C, O)         copies the image k² times (not for a 1×1 kernel)

Shifted: copy the image once, and add up k² products. Lay the padded images end to end as one long list of
pixels, w to a row. A pixel's neighbour u rows down and v columns right then lies u·w + v places further on,
for *every* pixel, so tap (u,v) is one product with a contiguous slice of the list:
    y (N,O) += pixels[u·w + v : u·w + v + N] (N,C) @ weight[u,v] (C,O)

       0 0 0 0        k = 3, a 2×3 image: w = 3 + 1. A row's right padding is the next row's left padding.
       0 a b c    →   list: 0 0 0 0|0 a b c|0 d e f|0 0 0 0 …    tap (0,0) starts at 0, tap (1,2) at 1·4 + 2
       0 d e f        result: a b c ·|d e f ·|· · · ·|           · = a window that straddles rows: cut away
       0 0 0 0

FLOPs are 2·B·H'·W'·k²·C·O for both; backward costs the same again for each of ∂x and ∂weight.
Only x and weight are kept for the backward: padded lists and columns are built again there.

Read after conv2d_im2col in conv2d.py: Windows → Columns → _phases → Shifted. Proven in tests/ops/test_conv2d.py.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Pair = Tuple[int, int]


class Windows(NamedTuple):
    """Which pixels an output pixel sees: each pair is (rows, columns); `size` is (H', W')."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    size: Pair


def overlap(offset: int, stride: int, padding: int, size: int, length: int) -> Tuple[slice, slice]:
    """Of the positions 0 … length−1, position i looks at pixel i·stride + offset − padding of an axis of `size` pixels.

    Returns the positions whose pixel is not padding, and those pixels.
    """
    first = max(0, -((offset - padding) // stride))  # −(−a // b) is ⌈a / b⌉
    pixel = first * stride + offset - padding
    count = max(0, min(length - first, -((pixel - size) // stride)))
    return slice(first, first + count), slice(pixel, pixel + stride * count, stride)


# ---------------------------------------------------------------------------------------------- columns
class Columns(torch.autograd.Function):
    """One matrix product for each group: for 1×1 kernels, few channels, several groups, and half precision.

    In half precision a product adds up in float32 and rounds once. The shifted plan would round after each of
    its k² taps, so half precision always comes here.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        B, O, G = x.shape[0], weight.shape[0], windows.groups
        with torch.autocast(x.device.type, enabled=False):  # the operands have their final dtype already
            columns, matrix = _columns(x, windows), _matrix(weight, G)  # (G,N,K), (G,K,O/G): N = B·H'·W', K = k²·C/G
            y = columns @ matrix if bias is None else torch.baddbmm(bias.view(G, 1, O // G), columns, matrix)
        return y.transpose(0, 1).reshape(B, *windows.size, O).permute(0, 3, 1, 2)  # (B,O,H',W')

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        windows: Windows = ctx.windows
        (O, c, kH, kW), G = weight.shape, windows.groups
        grad_x = grad_weight = grad_bias = None
        with torch.autocast(x.device.type, enabled=False):
            g = grad.permute(0, 2, 3, 1).reshape(-1, G, O // G).transpose(0, 1)  # (G,N,O/G)
            if ctx.needs_input_grad[0]:  # y = columns·matrix, so ∂columns = g·matrixᵀ
                grad_x = _fold(g @ _matrix(weight, G).transpose(1, 2), x, windows)
            if ctx.needs_input_grad[1]:  # ... and ∂matrix = columnsᵀ·g
                grad_weight = _columns(x, windows).transpose(1, 2) @ g  # (G,K,O/G)
                grad_weight = grad_weight.view(G, kH, kW, c, O // G).permute(0, 4, 3, 1, 2).reshape(O, c, kH, kW)
            if ctx.needs_input_grad[2]:
                grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def _matrix(weight: Tensor, groups: int) -> Tensor:
    """Weights (O,c,kH,kW) → (G, kH·kW·c, O/G): a column holds one filter, in the order of `_columns`."""
    O, c, kH, kW = weight.shape
    return weight.view(groups, O // groups, c, kH, kW).permute(0, 3, 4, 2, 1).reshape(groups, kH * kW * c, O // groups)


def _columns(x: Tensor, windows: Windows) -> Tensor:
    """Image (B,C,H,W) → (G, B·H'·W', kH·kW·C/G): each row holds what one window of one group sees.

    `as_strided` only names the windows: a step of one output pixel is `stride` pixels in memory, a step of one
    tap `dilation` pixels. The reshape then copies, except where nothing overlaps: a 1×1 kernel stays a view.
    """
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), G, size = windows
    B, C, H, W = x.shape
    image = x.permute(0, 2, 3, 1)  # (B,H,W,C)
    if pH or pW:
        image = x.new_zeros(B, H + 2 * pH, W + 2 * pW, C)
        image[:, pH:pH + H, pW:pW + W] = x.permute(0, 2, 3, 1)
    b, h, w, c = image.stride()
    patches = image.as_strided((B, *size, kH, kW, C), (b, sH * h, sW * w, dH * h, dW * w, c))
    patches = patches.unflatten(-1, (G, C // G)).permute(5, 0, 1, 2, 3, 4, 6)  # (G,B,H',W',kH,kW,C/G)
    return patches.reshape(G, B * size[0] * size[1], kH * kW * (C // G))


def _fold(columns: Tensor, x: Tensor, windows: Windows) -> Tensor:
    """The gradient of `_columns`: every copy of a pixel returns its share, and the shares add up in float32."""
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), G, (h, w) = windows
    B, C, H, W = x.shape
    if (kH, kW, sH, sW, pH, pW) == (1, 1, 1, 1, 0, 0):  # the columns are the pixels
        return columns.transpose(0, 1).reshape(B, H, W, C).permute(0, 3, 1, 2)
    image = x.new_zeros(B, H + 2 * pH, W + 2 * pW, C, dtype=torch.promote_types(x.dtype, torch.float32))
    target, taps = image.unflatten(-1, (G, C // G)), columns.view(G, B, h, w, kH, kW, C // G)
    for u in range(kH):
        for v in range(kW):
            top, left = u * dH, v * dW
            seen = target[:, top:top + sH * (h - 1) + 1:sH, left:left + sW * (w - 1) + 1:sW]  # (B,H',W',G,C/G)
            seen += taps[:, :, :, :, u, v].permute(1, 2, 3, 0, 4)
    return image[:, pH:pH + H, pW:pW + W].permute(0, 3, 1, 2).to(x.dtype)


# ---------------------------------------------------------------------------------------------- shifted
class Shifted(torch.autograd.Function):
    """k² products over shifted slices of one list of pixels: for float32 and float64, one group, many channels."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        B, O, (h, w) = x.shape[0], weight.shape[0], _row_lengths(windows)
        N = B * h * w
        matrices = weight.permute(2, 3, 1, 0).contiguous()  # (kH,kW,C,O)
        y = x.new_zeros(N, O) if bias is None else bias.repeat(N, 1)
        with torch.autocast(x.device.type, enabled=False):
            for phase, taps in _phases(windows):
                pixels = _pixels(x, phase, windows)  # (N + tail, C)
                for u, v, shift in taps:
                    y.addmm_(pixels[shift:shift + N], matrices[u, v])
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
        _cut(g, B, windows).copy_(grad.permute(0, 2, 3, 1))
        matrices = weight.permute(2, 3, 0, 1).contiguous()  # (kH,kW,O,C)
        grad_matrices = torch.empty_like(matrices)
        grad_x = x.new_zeros(B, H, W, C) if need_x else None
        with torch.autocast(x.device.type, enabled=False):
            for phase, taps in _phases(windows):
                pixels = _pixels(x, phase, windows) if need_weight else None
                grad_pixels = x.new_zeros(N + _tail(windows), C) if need_x else None
                for u, v, shift in taps:  # y[n] += pixels[n+shift]·matrix: a factor's gradient is g times the other
                    if need_x:
                        grad_pixels[shift:shift + N].addmm_(g, matrices[u, v])
                    if need_weight:
                        torch.mm(g.T, pixels[shift:shift + N], out=grad_matrices[u, v])
                if need_x:
                    inside, outside = _places(x, phase, windows)
                    grad_x[outside] = grad_pixels[:N].view(B, h, w, C)[inside]
        return (grad_x.permute(0, 3, 1, 2) if need_x else None,
                grad_matrices.permute(2, 3, 0, 1) if need_weight else None,
                grad.sum((0, 2, 3)) if need_bias else None, None)


def _reach(windows: Windows) -> Pair:
    """How many rows down and columns right, in its phase, the last tap lies from the first."""
    (kH, kW), (sH, sW), _, (dH, dW), _, _ = windows
    return dH * (kH - 1) // sH, dW * (kW - 1) // sW


def _row_lengths(windows: Windows) -> Pair:
    """(h, w): rows an image and columns a row take in the list.

    The windows need H' + reach rows. At stride 1 each image starts with `padding` rows of zeros, which end
    the image before it as well, so that they need not be stored twice. Columns likewise.
    """
    lengths = []
    for size, reach, stride, padding in zip(windows.size, _reach(windows), windows.stride, windows.padding):
        shared = padding if stride == 1 else 0
        lengths.append(size + max(0, reach - shared))
    return lengths[0], lengths[1]


def _tail(windows: Windows) -> int:
    """Zeros after the last image: the furthest that a tap is shifted."""
    (down, right), (_, w) = _reach(windows), _row_lengths(windows)
    return down * w + right


def _phases(windows: Windows) -> Iterator[Tuple[Pair, list[Tuple[int, int, int]]]]:
    """Split the taps so that every stride becomes 1: yields ((a, b), [(u, v, shift), …]).

    At stride s tap u reads rows i·s + u·d of the padded image: every s-th row, from row a = u·d mod s. These rows
    alone form a smaller image, phase a, in which tap u is ⌊u·d/s⌋ rows down at stride 1. A 3×3 kernel of stride 2
    has 2×2 phases with 4, 2, 2 and 1 taps: still 9 products, none of them for a window that stride 2 leaves out.
    """
    (kH, kW), (sH, sW), _, (dH, dW), _, _ = windows
    _, w = _row_lengths(windows)
    phases: dict[Pair, list[Tuple[int, int, int]]] = {}
    for u in range(kH):
        for v in range(kW):
            (down, a), (right, b) = divmod(u * dH, sH), divmod(v * dW, sW)
            phases.setdefault((a, b), []).append((u, v, down * w + right))
    yield from phases.items()


def _places(x: Tensor, phase: Pair, windows: Windows) -> Tuple[tuple, tuple]:
    """Where a phase holds image, as indices into the phase (B,h,w,C) and into the image (B,H,W,C)."""
    (h, w), (sH, sW), (pH, pW) = _row_lengths(windows), windows.stride, windows.padding
    in_rows, out_rows = overlap(phase[0], sH, pH, x.shape[2], h)
    in_columns, out_columns = overlap(phase[1], sW, pW, x.shape[3], w)
    return (slice(None), in_rows, in_columns), (slice(None), out_rows, out_columns)


def _pixels(x: Tensor, phase: Pair, windows: Windows) -> Tensor:
    """The list of pixels of one phase, padding included: (N + tail, C)."""
    B, C = x.shape[:2]
    h, w = _row_lengths(windows)
    N = B * h * w
    pixels = x.new_zeros(N + _tail(windows), C)
    inside, outside = _places(x, phase, windows)
    pixels[:N].view(B, h, w, C)[inside] = x.permute(0, 2, 3, 1)[outside]
    return pixels


def _cut(y: Tensor, B: int, windows: Windows) -> Tensor:
    """The windows of a list of results (N,O) that straddle neither rows nor images: (B,H',W',O), a view."""
    (h, w), (height, width) = _row_lengths(windows), windows.size
    return y.view(B, h, w, y.shape[1])[:, :height, :width]
