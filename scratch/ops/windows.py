"""windows: a kernel slides over an image; where does it stop, and which pixels does it see?

    along one axis, window i at tap u sees pixel   i·s + u·d − p          i = 0 … H'−1,  u = 0 … k−1
    number of windows that fit                     H' = ⌊(H + 2p − d·(k−1) − 1)/s⌋ + 1

    k kernel  s stride  p padding  d dilation (the taps lie d pixels apart)   rows and columns alike

        H = 6, k = 3, s = 2, p = 1, d = 1:  H' = ⌊(6 + 2 − 2 − 1)/2⌋ + 1 = 3

            · 0 1 2 3 4 5 ·           · = padding
            └─0─┘                     window 0 sees padding, 0, 1
                └─1─┘                 window 1 sees 1, 2, 3
                    └─2─┘             window 2 sees 3, 4, 5: the padding at the end is never reached

Convolution and pooling share this arithmetic and differ in what they do with the pixels. The fast
versions turn it around: they fix the tap and ask which windows see a pixel there, all at once.

Same sizes as torch.nn.functional.conv2d and max_pool2d; proven in tests/ops/test_windows.py.
Read: output_size → Windows → overlap
"""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[int, int]  # (rows, columns)


def pair(value: int | Pair) -> Pair:
    """One number stands for rows and columns alike."""
    rows, columns = (value, value) if isinstance(value, int) else value
    return rows, columns


def output_size(image: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Pair:
    """(H',W'): how many windows fit into each axis of the padded image; a remainder at the end is not seen.

    A window of k taps covers d·(k−1) + 1 pixels. The first one always stands at the beginning; `room` is how far it can
    still move, and every s pixels of that room are one more window.
    Raises ValueError if not even one window fits, or if a number is out of its range.
    """
    if min(kernel) < 1 or min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise ValueError(f"got kernel {kernel}, stride {stride}, dilation {dilation}, padding {padding}, "
                         "wanted the first three at least 1 and the padding at least 0")
    rooms = [n + 2 * p - d * (k - 1) - 1 for n, k, p, d in zip(image, kernel, padding, dilation)]
    if min(rooms) < 0:
        raise ValueError(f"got a {image[0]}×{image[1]} image with padding {padding}, wanted room for one window "
                         f"of kernel {kernel} with dilation {dilation}: enlarge the image or the padding")
    return rooms[0] // stride[0] + 1, rooms[1] // stride[1] + 1


class Windows(NamedTuple):
    """Which pixels an output pixel sees: each pair is (rows, columns); `size` is (H',W')."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    size: Pair


def overlap(offset: int, stride: int, padding: int, size: int, length: int) -> tuple[slice, slice]:
    """Of the windows 0 … length−1, window i looks at pixel i·stride + offset − padding of an axis of `size` pixels.

    Returns the windows whose pixel is not padding, and those pixels: two slices of the same length, so that
    y[windows] and x[pixels] can be combined without a padded copy of x. In the picture above, tap u = 0 (offset 0) is
    padding for window 0 and sees pixels 1 and 3 in windows 1 and 2: overlap(0, 2, 1, 6, 3) = 1:3, 1:5:2.
    """
    first = max(0, -((offset - padding) // stride))  # the first i with a pixel ≥ 0; −(−a // b) is ⌈a / b⌉
    pixel = first * stride + offset - padding
    count = max(0, min(length - first, -((pixel - size) // stride)))  # as many as stay below `size`
    return slice(first, first + count), slice(pixel, pixel + stride * count, stride)
