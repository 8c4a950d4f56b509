"""convolution: by which plan is a convolution computed, and what does each plan save?

    conv2d (ops/conv2d.py) ── x, weight, bias, windows ──▶ fast_convolution ─┬─ plain mode: None, im2col runs
                                                                             └─ one of five plans, by shape

    x (B,C,H,W)  weight (O,C/G,k,k')  bias (O) or None   →   y (B,O,H',W'), channels last in memory

    convolution                        plan       what it does
    1×1, one group, no padding         pointwise  a window is one pixel: a linear layer, no copy at s = 1
    several groups, few and dilated    Columns    im2col; one batched product over the groups
    bf16, fp16                         Columns    one rounding for each sum instead of k²
    few channels (stem: C = 3, k = 7)  Rows       4 products with an inner length of 42, not 28 of 21
    3×3, s = d = 1, many channels      Winograd   5/9 of the multiplications; on a CPU, not compiled
    many filters, rows that straddle   Columns    k² copies of a small image cost less than wasted windows
    all else                           Shifted    products on one padded copy

Every plan is the sum of conv2d.py in another order. im2col left to autograd copies the image k·k'
times and keeps that copy for the backward. These plans copy less, keep only x and weight, and their
backward is written by hand. The figures behind the choice, and the ladders, are below.

Same as torch.nn.functional.conv2d; proven in tests/ops/fast/test_convolution.py and in the tests of
each plan. Read: pointwise → fast_convolution → winograd_pays → the ladders at the end; then the
plans: fast/columns.py → fast/shifted.py → fast/rows.py → fast/winograd.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.fast.columns import Columns
from scratch.ops.fast.rows import Rows
from scratch.ops.fast.shifted import Shifted, straddling
from scratch.ops.fast.switch import plain
from scratch.ops.fast.winograd import Winograd
from scratch.ops.linear import linear
from scratch.ops.activations import autocast_applies
from scratch.ops.windows import Pair, Windows


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair) -> Tensor:
    """A 1×1 convolution without padding: x (B,C,H,W), weight (O,C,1,1) → (B,O,H',W').

    Each window holds one pixel, so the sum over u and v is gone. What is left, Σ_c w[o,c]·x[c], is the linear layer of
    linear.py at every pixel that the stride does not skip. Two of three convolutions of a ResNet-50 are of this kind.
    """
    seen = x if stride == (1, 1) else x[:, :, ::stride[0], ::stride[1]]  # (B,C,H',W')
    return linear(seen.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)  # (…,C) → (…,O)


# The choice of a plan is a matter of speed: each is right for any number of channels (Winograd's is a little less
# precise). Milliseconds below are those of forward and backward on two threads (`python -m benchmarks.plans`).
#
# Rows copies the image ⌈k/s⌉ times by runs of k'·C numbers. With few channels that is cheap, and Rows needs fewer
# products than Shifted, each with a longer inner dimension:
#     3→64 7×7 /2, 2×256×256: Rows 16.4, Shifted 19.5
_FEW_CHANNELS = 16
# Shifted also computes windows that straddle two rows, and throws them away: O multiply-adds for each number that such
# a window sees. Columns copies each number that a window sees once. So Columns is faster where the share of straddling
# windows, times O, is above this:
#     512→512 3×3 /2, 2×30×40: Columns 56.0, Shifted 67.0        16→32 3×3 /2, 16×36×36: Columns 2.3, Shifted 2.1
_MUCH_WASTE = 13
# Winograd has additions to do for each channel, and for each pair of channels of its filters; its tiles of three
# windows stick out of a row by up to two. With this many channels, windows, columns of the result, and multiplications
# for each tap, the multiplications that it saves are worth more:
#     256→256 3×3, 2×16×16: Winograd 17.0, Columns 17.6        256→256 3×3, 1×16×16: Winograd 12.4, Columns 9.0
#     128→128 3×3, 2×32×32: Winograd 10.6, Shifted 13.0        64→64 3×3, 2×32×32: Winograd 6.2, Shifted 5.1
_MANY_CHANNELS, _MANY_WINDOWS, _MANY_COLUMNS, _MANY_PRODUCTS = 64, 256, 8, 2 * 10**7


def fast_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor | None:
    """The convolution of checked operands by the plan that suits its shape, or None in plain mode.

    Nothing but x and weight is kept for the gradients. The result is channels last in memory
    (`torch.channels_last`); an image that already is needs no copy for it. PyTorch refuses to change it in place
    (`y.add_(…)`), except for pointwise, while its gradient is wanted.
    """
    if plain():
        return None
    if autocast_applies(x):
        # Not inside a plan, where autograd would not see the conversion: so float32 weights get float32 gradients.
        low = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = (t if t is None else t.to(low) for t in (x, weight, bias))
    groups = windows.groups
    if windows.kernel == (1, 1) and windows.padding == (0, 0) and groups == 1:
        return pointwise(x, weight, bias, windows.stride)
    narrow = x.shape[1] < _FEW_CHANNELS
    low_precision = x.dtype in (torch.float16, torch.bfloat16)  # after autocast has had its say
    if groups > 1 or low_precision or (narrow and windows.dilation != (1, 1)):
        plan = Columns
    elif narrow:
        plan = Rows
    elif winograd_pays(x, weight, windows):
        plan = Winograd
    else:
        plan = Columns if straddling(x, windows) * len(weight) > _MUCH_WASTE else Shifted
    return plan.apply(x, weight, bias, windows)


def winograd_pays(x: Tensor, weight: Tensor, windows: Windows) -> bool:
    """Is this a convolution that Winograd's plan can do, and does faster?

    On a CPU, where it was measured; a GPU's products may be in TF32, whose rounding the plan would enlarge.
    torch.compile writes copies where the plan writes into slices.
    """
    kernel, stride, padding, dilation, groups, (height, width) = windows
    can = kernel[1] == 3 and stride == dilation == (1, 1) and padding[0] < kernel[0] and padding[1] < 3 and groups == 1
    (O, C), count = weight.shape[:2], len(x) * height * width  # B·H'·W' windows
    return (can and x.device.type == "cpu" and not torch.compiler.is_compiling() and min(O, C) >= _MANY_CHANNELS
            and width >= _MANY_COLUMNS and count >= _MANY_WINDOWS and count * O * C >= _MANY_PRODUCTS)


# ── the ladders: what each step buys ────────────────────────────────────────────────────────────────────────────────
# Milliseconds on two threads (`python -m benchmarks.ladder`); MB: what the forward moves through memory.
#
# 3×3, 64 → 64 channels, 2×120×160 pixels, 2.83 GFLOP forward:
#
#                        forward   + backward   MB
#     conv2d_naive       89 minutes                   its loops reach 0.5 MFLOP/s
#     conv2d_im2col      29.7      100.1        226
#     Columns            28.7      87.8         226   a backward written by hand keeps less
#     Shifted, whole     20.7      71.4         187   no k² copies, but k passes over y
#     Shifted            19.3      61.7         69    the same tile by tile: y stays in the cache
#     the product alone  15.5                         at the 182 GFLOP/s of a large square one
#     Winograd           15.9      55.3         50    5/9 of the multiplications
#     torch.nn           13.1      43.5         20    oneDNN's own kernel; not a product
#
# With more channels there is less copying for each multiplication. 256 → 256, 2×30×40, takes 39.0 ms forward and
# backward by Winograd, 56.4 by Shifted and 42.1 in torch.nn.
#
# The stem, 7×7, stride 2, 3 → 64, 2×480×640, has so few channels that copying costs more than multiplying. There the
# steps help the forward alone. With the backward each step is slower than the one before:
#
#     conv2d_im2col      31.7      55.4         249
#     Columns            27.7      61.5         249   builds the columns a second time instead of keeping them
#     Rows               26.4      67.8         199   and so its runs
#     torch.nn           14.6      31.4         47
#
# What is bought in exchange is memory: none of the plans keeps a copy of the image until the backward.
