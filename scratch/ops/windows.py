"""windows: a kernel slides over an image; where does it stop, and which pixels does it see?

    along one axis, window i at tap u sees pixel   i·s + u·d − p          i = 0 … H'−1,  u = 0 … k−1
    number of windows that fit                     H' = ⌊(H + 2p − d·(k−1) − 1)/s⌋ + 1

    k kernel size: k elements (taps), d pixels apart (d dilation); s stride, p padding

        H = 6, k = 3, s = 2, p = 1, d = 1:  H' = ⌊(6 + 2 − 2 − 1)/2⌋ + 1 = 3

            · 0 1 2 3 4 5 ·           · = padding
            └─0─┘                     window 0 sees padding, 0, 1
                └─1─┘                 window 1 sees 1, 2, 3
                    └─2─┘             window 2 sees 3, 4, 5: the padding at the end is never reached

The pixels that one output depends on are its *receptive field*: k×k here. It grows with every layer
of windows on top (a second one of k = 3 and s = 1 sees 7 pixels a side, padding included).

Convolution and pooling share this arithmetic. *Max pooling* is the simplest use: the largest pixel
of each window, without weights. Backwards, the whole gradient of a window goes to that pixel.

Same sizes as torch.nn.functional.conv2d, and same as max_pool2d and its layer without dilation,
ceil_mode and indices; proven in tests/ops/test_windows.py.
Read: output_size → Windows → max_pool2d_naive → max_pool2d → MaxPool2d
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scratch.ops.fast.max_pool import fast_max_pool2d

Pair = tuple[int, int]  # (rows, columns)


def pair(value: int | Pair) -> Pair:
    """One number stands for rows and columns alike."""
    rows, columns = (value, value) if isinstance(value, int) else value
    return rows, columns


def output_size(image: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Pair:
    """(H',W'): how many windows fit into each axis of the padded image; a remainder at the end is not seen.

    A window of k taps covers d·(k−1) + 1 pixels. The first one always stands at the beginning; `spare` is how far it
    can still move, and every s pixels of that are one more window.
    Raises ValueError if not even one window fits, or if a number is out of its range.
    """
    if min(kernel) < 1 or min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise ValueError(f"got kernel {kernel}, stride {stride}, dilation {dilation}, padding {padding}, "
                         "wanted the first three at least 1 and the padding at least 0")
    spare = [n + 2 * p - d * (k - 1) - 1 for n, k, p, d in zip(image, kernel, padding, dilation)]
    if min(spare) < 0:
        raise ValueError(f"got a {image[0]}×{image[1]} image with padding {padding}, wanted one large enough for a "
                         f"window of kernel {kernel} with dilation {dilation}: enlarge the image or the padding")
    return spare[0] // stride[0] + 1, spare[1] // stride[1] + 1


class Windows(NamedTuple):
    """Which pixels an output pixel sees. Each pair is (rows, columns); `size` is (H',W').

    `groups` is 1 but in a grouped convolution.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    size: Pair


# ── max pooling: a ResNet pools once, k = 3, s = 2, p = 1, after its first convolution (He et al. 2015, table 1) ────


def max_pool2d_naive(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None,
                     padding: int | Pair = 0) -> Tensor:
    """The definition, one output pixel at a time: the part of the window inside the image, and its maximum."""
    (kH, kW), (sH, sW), (pH, pW), (h, w) = pooling_windows(x, kernel_size, stride, padding)
    y = x.new_empty(*x.shape[:2], h, w)  # (B,C,H',W')
    for i in range(h):
        for j in range(w):
            top, left = i * sH - pH, j * sW - pW  # negative in the padding, which never wins
            seen = x[:, :, max(top, 0):top + kH, max(left, 0):left + kW]
            y[:, :, i, j] = seen.flatten(2).max(-1).values  # (B,C)
    return y


def max_pool2d(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0) -> Tensor:
    """The maximum of each window: images x (B,C,H,W) → (B,C,H',W').

    Equal to `max_pool2d_naive` because a maximum may be taken in any order: the loop runs over the k² taps, and each
    step compares whole images. A tap in the padding looks at the nearest pixel of the image instead; the window sees
    that one too, so its maximum does not change. Of equal pixels the first wins, row by row; NaN wins against numbers.
    stride defaults to kernel_size. Raises ValueError for a padding above half the kernel or an image too small.
    """
    kernel, stride, padding, size = pooling_windows(x, kernel_size, stride, padding)
    y = fast_max_pool2d(x, kernel, stride, padding, size)  # None in plain mode (ops/fast)
    if y is not None:
        return y
    for u in range(kernel[0]):
        rows = _pixels(u, stride[0], padding[0], size[0], x.shape[2], x.device)  # (H')
        for v in range(kernel[1]):
            columns = _pixels(v, stride[1], padding[1], size[1], x.shape[3], x.device)  # (W')
            seen = x.index_select(2, rows).index_select(3, columns)  # (B,C,H',W')
            y = seen if y is None else torch.where((seen > y) | seen.isnan(), seen, y)
    return y


def _pixels(tap: int, stride: int, padding: int, length: int, size: int, device: torch.device) -> Tensor:
    """The pixel i·s + u − p that each window i sees at one tap; where that is padding, the nearest pixel."""
    return (torch.arange(length, device=device) * stride + tap - padding).clamp(0, size - 1)  # (length)


def pooling_windows(x: Tensor, kernel_size: int | Pair, stride: int | Pair | None,
                    padding: int | Pair) -> tuple[Pair, Pair, Pair, Pair]:
    """Check the arguments of a pooling: (kernel, stride, padding, output size), each (rows, columns).

    A padding above half the kernel is refused as in torch: a window that sees padding alone has no maximum.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"got {x.dtype} of shape {tuple(x.shape)}, wanted floating-point images (B,C,H,W)")
    kernel, padding = pair(kernel_size), pair(padding)
    strides = kernel if stride is None else pair(stride)  # windows side by side, without gap or overlap
    size = output_size((x.shape[2], x.shape[3]), kernel, strides, padding)
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ValueError(f"got padding {padding} for kernel {kernel}, wanted at most half of it: "
                         "a window could see padding alone")
    return kernel, strides, padding, size


class MaxPool2d(nn.Module):
    """`max_pool2d` with its arguments remembered, as torch.nn.MaxPool2d. Owns no weights: nothing to load or save."""

    def __init__(self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
