"""conv2d: how does one output pixel depend on a neighbourhood of the image?

    y[b,o,i,j] = bias[o] + Σ_c Σ_u Σ_v  w[o,c,u,v] · x[b, c, i·s + u·d − p, j·s + v·d − p]    (G = 1)

    x (B,C,H,W) → y (B,O,H',W')        w (O, C/G, k, k')   bias (O)
    H' = ⌊(H + 2p − d·(k−1) − 1)/s⌋ + 1, W' likewise; pixels outside the image count as 0

       x, k = 3, s = 1, p = 1          s  stride: the window moves s pixels for one output pixel
      ┌─────────┐                      p  padding: zeros around the image; p = (k−1)/2 keeps H' = H
      │[0 0 0]0 │                      d  dilation: the window's pixels are d apart: it covers more
      │[0 a b]c │ → y[0,0] = w₁₁·a +   G  groups: output channels of group g see only the
      │[0 d e]f │            w₁₂·b + …    C/G input channels of group g
      └─────────┘
A filter (kernel) w[o] gives one channel of the output *feature map*. The same filter is used at
every place, because an edge looks the same everywhere: a 3×3 layer of 64 → 64 channels has 36,864
weights; a linear layer between two such images of 56×56 would need 40 billion.

The *receptive field* of an output pixel is the part of the image that it depends on: k×k for one
layer; a second 3×3 layer on top of the first sees 5×5, so deep layers can respond to whole objects.

Cost: 2·B·H'·W'·k·k'·(C/G)·O FLOPs (a multiply-add is 2), and twice that again for the two gradients.
Same as torch.nn.functional.conv2d and torch.nn.Conv2d; proven in tests/ops/test_conv2d.py.
Read: windows.py (which pixels a window sees) → conv2d_naive (the formula) → conv2d_im2col (one
      matrix multiplication) → conv2d → Conv2d (owns the weights); then ops/fast/convolution.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratch.ops.activations import autocast_applies
from scratch.ops.fast.convolution import fast_convolution
from scratch.ops.init import kaiming_uniform_, uniform_
from scratch.ops.windows import Pair, Windows, output_size, pair


def conv2d_naive(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1, padding: int | Pair = 0,
                 dilation: int | Pair = 1, groups: int = 1) -> Tensor:
    """The definition: one output pixel at a time. Slow, obvious, and the oracle for the rest."""
    windows = _windows(x, weight, bias, stride, padding, dilation, groups)
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), G, size = windows  # each a pair: rows, columns
    (B, C, H, W), (O, c, _, _) = x.shape, weight.shape  # c = C/G
    padded = x.new_zeros(B, C, H + 2 * pH, W + 2 * pW)
    padded[:, :, pH:pH + H, pW:pW + W] = x  # so that no index leaves the image: x[i·s + u·d − p] = padded[i·s + u·d]
    y = x.new_zeros(B, O, *size)  # (B,O,H',W')
    for o in range(O):
        first = o // (O // G) * c  # the first input channel of o's group
        for i in range(size[0]):
            for j in range(size[1]):
                for u in range(kH):
                    for v in range(kW):
                        seen = padded[:, first:first + c, i * sH + u * dH, j * sW + v * dW]  # (B,c)
                        y[:, o, i, j] += (weight[o, :, u, v] * seen).sum(1)  # Σ_c, for all images: (B)
        if bias is not None:
            y[:, o] += bias[o]  # (B,H',W'): one number for the whole plane
    return y


def conv2d_im2col(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1,
                  padding: int | Pair = 0, dilation: int | Pair = 1, groups: int = 1) -> Tensor:
    """im2col ("image to columns"): what a window sees becomes one column of a matrix; a filter is one row of another.

    Then the convolution is one matrix multiplication (GEMM) for each image and group: (O/G, k·k'·c) by (k·k'·c, H'·W').
    Equal because every y is the dot product of a filter with what its window sees. A GEMM reuses each number from the
    cache; the price is that each pixel is copied k·k' times. Autograd derives the gradients: that of a view adds up
    where windows overlap. In the picture above with s = 1, p = 1 the column of window (0,0) is 0 0 0 0 a b 0 d e.
    """
    windows = _windows(x, weight, bias, stride, padding, dilation, groups)
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), G, size = windows
    (B, C, H, W), (O, c, _, _) = x.shape, weight.shape
    padded = x.new_zeros(B, C, H + 2 * pH, W + 2 * pW)
    padded[:, :, pH:pH + H, pW:pW + W] = x  # (B,C,H+2p,W+2p')
    # unfold: all windows along one axis, s pixels apart, each of d·(k−1)+1 pixels; a view, no copy.
    seen = padded.unfold(2, dH * (kH - 1) + 1, sH).unfold(3, dW * (kW - 1) + 1, sW)  # (B,C,H',W', covered, covered')
    seen = seen[..., ::dH, ::dW]  # (B,C,H',W',k,k')
    columns = seen.permute(0, 1, 4, 5, 2, 3).reshape(B, G, c * kH * kW, size[0] * size[1])  # the copy
    y = weight.reshape(G, O // G, c * kH * kW) @ columns  # (B,G,O/G,H'·W')
    y = y.reshape(B, O, *size)  # (B,O,H',W'): the groups lie one after another
    return y if bias is None else y + bias.to(y.dtype).view(O, 1, 1)  # over all images and pixels; `to` for autocast


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1, padding: int | Pair = 0,
           dilation: int | Pair = 1, groups: int = 1) -> Tensor:
    """Convolve images x (B,C,H,W) with filters weight (O,C/G,k,k') and add bias (O) → (B,O,H',W').

    stride, padding and dilation are an int or a pair (rows, columns). Under autocast the product is computed in its
    precision. Raises ValueError for shapes that do not fit together, TypeError for operands of different dtype.

    `fast_convolution` (ops/fast) chooses among faster plans, which need no k·k' copies of the image. Their result is
    channels last in memory and must not be changed in place (`y.add_(…)`) while its gradient is wanted: use `y = y + …`.
    """
    y = fast_convolution(x, weight, bias, _windows(x, weight, bias, stride, padding, dilation, groups))
    return conv2d_im2col(x, weight, bias, stride, padding, dilation, groups) if y is None else y  # plain mode


class Conv2d(nn.Module):
    """A convolution that owns its filters; parameters, defaults and first draws as torch.nn.Conv2d.

    Padding is given in pixels and filled with zeros: the words "same" and "valid" and other fillings are not offered.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Pair, stride: int | Pair = 1,
                 padding: int | Pair = 0, dilation: int | Pair = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"got {in_channels} → {out_channels} channels in {groups} groups, "
                             "wanted both counts divisible by a positive number of groups")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        shape = (out_channels, in_channels // groups, *pair(kernel_size))
        # Channels last in memory, as the images of ops/fast: one tap of all filters is then a matrix without a copy.
        self.weight = nn.Parameter(torch.empty(shape).contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None  # a norm right behind would remove it
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight ~ U(±1/√fan_in), which is what a = √5 means, and bias the same; fan_in = C/G·k·k'."""
        kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        O, c, kH, kW = self.weight.shape
        return (f"{c * self.groups}, {O}, kernel_size={(kH, kW)}, stride={pair(self.stride)}, "
                f"padding={pair(self.padding)}, dilation={pair(self.dilation)}, "
                f"groups={self.groups}, bias={self.bias is not None}")


def _windows(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int | Pair, padding: int | Pair,
             dilation: int | Pair, groups: int) -> Windows:
    """Check that image and filters fit together, and count the windows.

    Each refusal names what was got and what was wanted: a wrong shape would otherwise surface far from its cause, as a
    matrix product that does not fit.
    """
    if x.dim() != 4 or weight.dim() != 4:
        raise ValueError(f"got an image of shape {tuple(x.shape)} and a weight of shape {tuple(weight.shape)}, "
                         "wanted (B,C,H,W) and (O,C/groups,k,k')")
    C, (O, c, kH, kW) = x.shape[1], weight.shape
    if groups < 1 or C != c * groups or O % groups:
        raise ValueError(f"got {C} channels for {O} filters of {c} channels in {groups} groups, "
                         f"wanted {c * groups} channels and a number of filters that the groups divide")
    if bias is not None and bias.shape != (O,):
        raise ValueError(f"got a bias of shape {tuple(bias.shape)}, wanted one number for each of {O} filters")
    dtypes = {t.dtype for t in (x, weight, bias) if t is not None}
    if len(dtypes) > 1 and not autocast_applies(x):  # under autocast the product brings them to one
        raise TypeError(f"got image, weight and bias in {sorted(map(str, dtypes))}, wanted one dtype: "
                        "cast them, or use autocast")
    kernel, strides, paddings, dilations = (kH, kW), pair(stride), pair(padding), pair(dilation)
    size = output_size((x.shape[2], x.shape[3]), kernel, strides, paddings, dilations)
    return Windows(kernel, strides, paddings, dilations, groups, size)
