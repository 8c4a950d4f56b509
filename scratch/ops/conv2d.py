"""conv2d: how can one output pixel see a neighbourhood?

    y[b,o,i,j] = bias[o] + Σ_c Σ_u Σ_v  w[o,c,u,v] · x[b, c, i·s + u·d − p, j·s + v·d − p]

    x (B,C,H,W) → y (B,O,H',W')        w (O, C/G, k, k')   bias (O)
    H' = ⌊(H + 2p − d·(k−1) − 1)/s⌋ + 1, W' likewise; pixels outside the image count as 0

       x, k = 3, s = 1, p = 1          s  stride: the window moves s pixels for one output pixel
      ┌─────────┐                      p  padding: zeros around the image; p = (k−1)/2 keeps H' = H
      │[0 0 0]0 │                      d  dilation: the window's pixels lie d apart, so it sees more
      │[0 a b]c │ → y[0,0] = w₁₁·a +   G  groups: output channels of group g see only the
      │[0 d e]f │            w₁₂·b + …    C/G input channels of group g
      └─────────┘
The same w at every place: what an edge looks like does not depend on where it is. A 3×3 layer of
64 → 64 channels has 36,864 weights; a linear layer between two such images of 56×56 would need
40 billion.
Cost: 2·B·H'·W'·k·k'·(C/G)·O FLOPs, and twice that again for the two gradients.

What each step of these notes buys: 3×3, 64 → 64 channels, 2×120×160 pixels, 2.83 GFLOP forward, in
milliseconds on two threads (`python -m benchmarks.ladder`, which also climbs the stem's ladder):

                       forward   + backward   MB through memory, forward
    conv2d_naive       89 minutes             (its loops make 0.5 MFLOP/s)
    conv2d_im2col      29.7      100.1        226
    Columns            28.7      87.8         226       a backward written by hand keeps less
    Shifted, whole     20.7      71.4         187       no k² copies, but k times through y
    Shifted            19.3      61.7         69        … tile by tile, in the cache
    the product alone  15.5                             at the 182 GFLOP/s of a large square one
    Winograd           15.9      55.3         50        5/9 of the multiplications
    torch.nn           13.1      43.5         20        oneDNN's own kernel; not a product

With more channels there is less to pass over for each product: 256 → 256, 2×30×40, takes 39.0 ms
forward and backward by Winograd, 56.4 by Shifted and 42.1 in torch.nn.

Same as torch.nn.functional.conv2d and torch.nn.Conv2d; proven in tests/ops/test_conv2d.py.
Read: windows.py (which pixels a window sees) → conv2d_naive (the formula)
      → conv2d_im2col (one matrix product) → conv2d (chooses the plan)
      → pointwise, fast/columns.py, fast/shifted.py, fast/rows.py, fast/winograd.py (the plans)
      → Conv2d (owns the weights)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratch.ops.activations import autocast_applies
from scratch.ops.fast.columns import Columns
from scratch.ops.fast.shifted import Shifted, straddling
from scratch.ops.fast.rows import Rows
from scratch.ops.fast.winograd import Winograd
from scratch.ops.init import kaiming_uniform_, uniform_
from scratch.ops.linear import linear
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
    """All windows side by side as the columns of one matrix, all filters as the rows of another: one product.

    Equal because every y is the dot product of a filter with what its window sees. The loops over o, i, j became a
    matrix product, which reuses each number from cache; the price is that each pixel is copied k·k' times.
    Autograd differentiates it: a view's gradient adds up where windows overlap.
    In the picture above with s = 1, p = 1 the column of window (0,0) is 0 0 0 0 a b 0 d e.
    """
    windows = _windows(x, weight, bias, stride, padding, dilation, groups)
    (kH, kW), (sH, sW), (pH, pW), (dH, dW), G, size = windows
    (B, C, H, W), (O, c, _, _) = x.shape, weight.shape
    padded = x.new_zeros(B, C, H + 2 * pH, W + 2 * pW)
    padded[:, :, pH:pH + H, pW:pW + W] = x  # (B,C,H+2p,W+2p')
    # unfold names the windows without copying: along an axis, every s-th stretch of d·(k−1)+1 pixels.
    seen = padded.unfold(2, dH * (kH - 1) + 1, sH).unfold(3, dW * (kW - 1) + 1, sW)  # (B,C,H',W', stretch, stretch')
    seen = seen[..., ::dH, ::dW]  # (B,C,H',W',k,k')
    columns = seen.permute(0, 1, 4, 5, 2, 3).reshape(B, G, c * kH * kW, size[0] * size[1])  # the copy
    y = weight.reshape(G, O // G, c * kH * kW) @ columns  # (B,G,O/G,H'·W')
    y = y.reshape(B, O, *size)  # (B,O,H',W'): the groups lie one after another
    return y if bias is None else y + bias.view(O, 1, 1)  # broadcast over images and pixels


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair) -> Tensor:
    """A 1×1 convolution without padding: x (B,C,H,W), weight (O,C,1,1) → (B,O,H',W').

    Each window holds one pixel, so the sum over u and v is gone: what is left, Σ_c w[o,c]·x[c], is the linear layer of
    linear.py at every pixel that the stride does not skip. Two of three convolutions of a ResNet-50 are of this kind.
    """
    seen = x if stride == (1, 1) else x[:, :, ::stride[0], ::stride[1]]  # (B,C,H',W')
    return linear(seen.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)  # (…,C) → (…,O)


# The choice of a plan is a matter of speed: each is right for any number of channels (Winograd's is a little less
# precise). Milliseconds below are those of forward and backward on two threads (`python -m benchmarks.plans`).
#
# Runs of so few channels are copied at little cost, and Rows has fewer products than Shifted, of a longer inner length:
#     3→64 7×7 /2, 2×256×256: Rows 16.4, Shifted 19.5
_FEW_CHANNELS = 16
# A window that straddles rows costs Shifted O products for each number that a window sees; k² copies of the image cost
# Columns one copy for each. So the copies are cheaper where the share that straddles, times O, is above this:
#     512→512 3×3 /2, 2×30×40: Columns 56.0, Shifted 67.0        16→32 3×3 /2, 16×36×36: Columns 2.3, Shifted 2.1
_MUCH_WASTE = 13
# Winograd's additions are for each channel, those of its filters for each pair of channels; its tiles of three windows
# stick out of a row by up to two. Where there are so many channels, windows, columns and multiplications of each tap,
# what it saves outweighs them:
#     256→256 3×3, 2×16×16: Winograd 17.0, Columns 17.6        256→256 3×3, 1×16×16: Winograd 12.4, Columns 9.0
#     128→128 3×3, 2×32×32: Winograd 10.6, Shifted 13.0        64→64 3×3, 2×32×32: Winograd 6.2, Shifted 5.1
_MANY_CHANNELS, _MANY_WINDOWS, _MANY_COLUMNS, _MANY_PRODUCTS = 64, 256, 8, 2 * 10**7


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Pair = 1, padding: int | Pair = 0,
           dilation: int | Pair = 1, groups: int = 1) -> Tensor:
    """Convolve images x (B,C,H,W) with filters weight (O,C/G,k,k') and add bias (O) → (B,O,H',W').

    Equal to `conv2d_im2col`, without its k² copies where that pays, and nothing but x and weight is kept for the
    gradients. The choice goes by shape:

        1×1, one group, no padding         pointwise  a window is a pixel: a linear layer, nothing is copied at s = 1
        several groups, few and dilated    Columns    one batched product over the groups
        bf16, fp16                         Columns    one rounding for each sum instead of k²
        few channels (stem: C = 3, k = 7)  Rows       4 products with an inner length of 42, not 28 of 21
        3×3, s = d = 1, much to multiply   Winograd   5/9 of the multiplications; on a CPU, not compiled
        many filters, rows that straddle   Columns    k² copies of a small image cost less than the wasted windows
        all else                           Shifted    products on one padded copy

    The result is channels last in memory (`torch.channels_last`); an image that already is needs no copy for it.
    PyTorch refuses to change it in place (`y.add_(…)`), but for pointwise, while its gradient is wanted: write
    `y = y + …`.
    Under autocast the product runs in its precision. stride, padding and dilation are an int or a pair (rows, columns).
    Raises ValueError for shapes that do not fit together, TypeError for operands of different dtype.
    """
    if autocast_applies(x):
        # Here and not inside, where autograd would not see the conversion: so float32 weights get float32 gradients.
        low = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = (t if t is None else t.to(low) for t in (x, weight, bias))
    windows = _windows(x, weight, bias, stride, padding, dilation, groups)
    if windows.kernel == (1, 1) and windows.padding == (0, 0) and groups == 1:
        return pointwise(x, weight, bias, windows.stride)
    narrow = x.shape[1] < _FEW_CHANNELS
    low_precision = x.dtype in (torch.float16, torch.bfloat16)  # after autocast has had its say
    if groups > 1 or low_precision or (narrow and windows.dilation != (1, 1)):
        plan = Columns
    elif narrow:
        plan = Rows
    elif _winograd_pays(x, weight, windows):
        plan = Winograd
    else:
        plan = Columns if straddling(x, windows) * len(weight) > _MUCH_WASTE else Shifted
    return plan.apply(x, weight, bias, windows)


def _winograd_pays(x: Tensor, weight: Tensor, windows: Windows) -> bool:
    """Is this a convolution that Winograd's plan can do, and does faster?

    On a CPU, where it was measured; a GPU's products may be in TF32, whose rounding the plan would enlarge.
    torch.compile writes copies where the plan writes into slices.
    """
    kernel, stride, padding, dilation, groups, (height, width) = windows
    can = kernel[1] == 3 and stride == dilation == (1, 1) and padding[0] < kernel[0] and padding[1] < 3 and groups == 1
    O, C, N = *weight.shape[:2], len(x) * height * width
    return (can and x.device.type == "cpu" and not torch.compiler.is_compiling() and min(O, C) >= _MANY_CHANNELS
            and width >= _MANY_COLUMNS and N >= _MANY_WINDOWS and N * O * C >= _MANY_PRODUCTS)


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
        # Channels last, as the images: the filters' numbers for one tap are then a matrix that BLAS takes as it lies.
        self.weight = nn.Parameter(torch.empty(shape).contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None  # no use before a norm
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
    if len(dtypes) > 1:
        raise TypeError(f"got image, weight and bias in {sorted(map(str, dtypes))}, wanted one dtype: "
                        "cast them, or use autocast")
    kernel, strides, paddings, dilations = (kH, kW), pair(stride), pair(padding), pair(dilation)
    size = output_size((x.shape[2], x.shape[3]), kernel, strides, paddings, dilations)
    return Windows(kernel, strides, paddings, dilations, groups, size)
