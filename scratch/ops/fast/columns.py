"""columns: how does im2col work without keeping its k·k' copies of the image for the backward?

    columns[(b,i,j), (u,v,c)] = x[b, c, i·s + u·d − p, j·s + v·d − p]    a row is what a window sees
    y (n,O) = columns (n,E) @ matrix (E,O)           n = B·H'·W' windows   E = k·k'·C entries of one

    k = 2, s = 1, C = 1:  a b c  windows  a b d e   matrix w₀₀   y₀₀ = a·w₀₀ + b·w₀₁ + d·w₁₀ + e·w₁₁
                          d e f     →     b c e f          w₀₁   y₀₁ = b·w₀₀ + c·w₀₁ + e·w₁₀ + f·w₁₁
                                                           w₁₀
                                                           w₁₁
conv2d_im2col, left to autograd, keeps the columns until the backward. Here the backward is written
by hand: only x and weight are kept, and the columns are built a second time. With g = ∂L/∂y (n,O):

    ∂matrix = columnsᵀ g      ∂columns = g matrixᵀ
    ∂x: `_fold` (col2im) adds the gradient of each copy to the pixel that it came from;
        at s = 1 `_backwards` computes it as another convolution, without these additions

Also new: the image is read channels last (B,H,W,C), so that the C channels of a pixel are one
contiguous row, and windows are rows; y is channels last in memory too (logically B,O,H',W').

FLOPs: 2·n·E·O, and the same again for each of ∂x and ∂weight. Memory: the image is copied k·k'
times, except for a 1×1 kernel, whose columns are the image itself. With G groups: G products with
E = k·k'·C/G and O/G columns in one batch. Proven in tests/ops/fast/test_columns.py and
test_convolution.py. Read after conv2d_im2col in conv2d.py: _columns → _matrix → Columns.forward
→ _fold → _backwards, _turned → backward
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scratch.ops.fast.precision import as_in_forward
from scratch.ops.windows import Windows


class Columns(torch.autograd.Function):
    """One matrix multiplication for each group: for groups, half precision, small images, few channels if dilated.

    In half precision a product adds up in float32 and rounds once. The shifted plan would round after each of
    its k² taps, so half precision always takes this plan.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        return _product(_columns(x, windows), _matrix(weight, windows.groups), bias, windows)  # (B,O,H',W')

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        windows: Windows = ctx.windows
        (O, c, kH, kW), G = weight.shape, windows.groups
        grad_x = grad_weight = grad_bias = None
        with as_in_forward(x):  # the dtype is the forward's, also where backward() is called under autocast
            g = grad.permute(0, 2, 3, 1).reshape(-1, G, O // G).transpose(0, 1)  # (G,n,O/G)
            if ctx.needs_input_grad[0] and (back := _backwards(windows, x)):
                grad_x = _product(_columns(grad, back), _turned(weight), None, back)  # (B,C,H,W)
            elif ctx.needs_input_grad[0]:  # y = columns·matrix, so ∂columns = g·matrixᵀ
                grad_x = _fold(g @ _matrix(weight, G).transpose(1, 2), x, windows)  # (B,C,H,W)
            if ctx.needs_input_grad[1]:  # ... and ∂matrix = columnsᵀ·g
                grad_weight = g.transpose(1, 2) @ _columns(x, windows)  # (G,O/G,E)
                grad_weight = grad_weight.view(O, kH, kW, c).permute(0, 3, 1, 2)  # (O,c,kH,kW), channels last
            if ctx.needs_input_grad[2]:
                grad_bias = grad.sum((0, 2, 3))  # (O): the bias stands in every pixel of every image
        return grad_x, grad_weight, grad_bias, None


def _product(columns: Tensor, matrix: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """Columns (G,n,E) and matrix (G,E,O/G) → (B,O,H',W')."""
    G, _, o = matrix.shape  # o = O/G
    y = columns @ matrix if bias is None else torch.baddbmm(bias.view(G, 1, o), columns, matrix)  # (G,n,O/G)
    return y.transpose(0, 1).reshape(-1, *windows.size, G * o).permute(0, 3, 1, 2)


def _matrix(weight: Tensor, groups: int) -> Tensor:
    """Weights (O,c,kH,kW) → (G, kH·kW·c, O/G): a column holds one filter, in the order of `_columns`.

    A view of weights stored channels last, as Conv2d keeps them: BLAS reads a matrix by rows or by columns alike.
    """
    return weight.permute(0, 2, 3, 1).reshape(groups, len(weight) // groups, weight[0].numel()).transpose(1, 2)


def _backwards(windows: Windows, x: Tensor) -> Windows | None:
    """The windows through which ∂x sees g = ∂L/∂y, or None where there are none.

    Pixel m is seen by window i at tap u where m = i + u·d − p. Solve that for i, the windows that see pixel m:
    i = m − u·d + p = m + (k−1−u)·d − p' with p' = d·(k−1) − p. So ∂x is a convolution of g with padding p' by the
    filters turned by 180 degrees (u → k−1−u), their two kinds of channels exchanged: one copy and one product, where
    `_fold` takes k·k' additions. At a stride of 2 half of what a pixel sees would be zeros between the g's: `_fold` is
    better there.
    """
    (kernel, stride, padding, dilation, groups, _), size = windows, (x.shape[2], x.shape[3])
    back = (dilation[0] * (kernel[0] - 1) - padding[0], dilation[1] * (kernel[1] - 1) - padding[1])
    if stride != (1, 1) or groups > 1 or min(back) < 0:
        return None
    return Windows(kernel, stride, back, dilation, groups, size)


def _turned(weight: Tensor) -> Tensor:
    """Weights (O,C,kH,kW) → (1, kH·kW·O, C): the matrix of the filters that `_backwards` asks for."""
    O, C, kH, kW = weight.shape
    return weight.flip(2, 3).permute(2, 3, 0, 1).reshape(1, kH * kW * O, C)


def _columns(x: Tensor, windows: Windows) -> Tensor:
    """Image (B,C,H,W) → (G, B·H'·W', kH·kW·C/G): each row holds what one window of one group sees.

    `as_strided` only names the windows: a step of one output pixel is `stride` pixels in memory, a step of one
    tap `dilation` pixels. The reshape then copies, except where nothing overlaps: a 1×1 kernel stays a view.
    """
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), G, size = windows
    B, C, H, W = x.shape
    image = x.permute(0, 2, 3, 1)  # (B,H,W,C)
    if pH or pW:  # one copy with a frame of zeros, so that no window leaves the memory of the image
        image = x.new_zeros(B, H + 2 * pH, W + 2 * pW, C)
        image[:, pH:pH + H, pW:pW + W] = x.permute(0, 2, 3, 1)
    if _in_words(image, G):  # numbers are moved here, not computed with: four half ones at a time
        image, C = image.view(torch.int64), C // 4
    b, h, w, c = image.stride()  # steps in memory from an image, row, pixel, channel to the next
    patches = image.as_strided((B, *size, kH, kW, C), (b, sH * h, sW * w, dH * h, dW * w, c))
    # Now image[b, i·s + u·d, j·s + v·d, c] is called patches[b, i, j, u, v, c].
    patches = patches.unflatten(-1, (G, C // G)).permute(5, 0, 1, 2, 3, 4, 6)  # (G,B,H',W',kH,kW,C/G)
    return patches.reshape(G, B * size[0] * size[1], kH * kW * (C // G)).view(x.dtype)


def _in_words(image: Tensor, groups: int) -> bool:
    """May an image (B,H,W,C) be copied as 64-bit integers? A GPU's copy spends its time on where each number goes.

    Not under torch.compile, which writes a copy of its own.
    """
    return (not torch.compiler.is_compiling() and image.element_size() == 2 and groups == 1
            and image.is_contiguous() and image.shape[-1] % 4 == 0 and image.storage_offset() % 4 == 0)


def _fold(columns: Tensor, x: Tensor, windows: Windows) -> Tensor:
    """The gradient of `_columns`: every copy of a pixel returns its share, and the shares add up in float32.

    (G, B·H'·W', kH·kW·C/G) → (B,C,H,W). Within one tap no pixel is seen twice, since windows are a whole stride apart;
    so each tap is one addition of a strided slice, and only the taps have to be taken one after another.
    """
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), G, (h, w) = windows  # here h, w are H', W'
    B, C, H, W = x.shape
    if (kH, kW, sH, sW, pH, pW) == (1, 1, 1, 1, 0, 0):  # the columns are the pixels
        return columns.transpose(0, 1).reshape(B, H, W, C).permute(0, 3, 1, 2)
    image = x.new_zeros(B, H + 2 * pH, W + 2 * pW, C, dtype=torch.promote_types(x.dtype, torch.float32))
    target = image.unflatten(-1, (G, C // G))  # (B,H+2p,W+2p,G,C/G), the same memory
    taps = columns.view(G, B, h, w, kH, kW, C // G)
    for u in range(kH):
        for v in range(kW):
            top, left = u * dH, v * dW
            seen = target[:, top:top + sH * (h - 1) + 1:sH, left:left + sW * (w - 1) + 1:sW]  # (B,H',W',G,C/G)
            seen += taps[:, :, :, :, u, v].permute(1, 2, 3, 0, 4)  # `seen` is a view: this adds into `image`
    return image[:, pH:pH + H, pW:pW + W].permute(0, 3, 1, 2).to(x.dtype)
