"""overlap: for one tap of a kernel, which windows see a pixel there, and which pixel?

    window i at tap u sees pixel   i·s + u·d − p            (ops/windows.py; u·d is `offset` here)

            · 0 1 2 3 4 5 ·           k = 3, s = 2, p = 1
            └─0─┘                     tap 0 sees: padding in window 0, pixels 1 and 3 after
                └─1─┘
                    └─2─┘             overlap(0, 2, 1, 6, 3) = 1:3, 1:5:2

The fast convolution and pooling fix the tap and let it see all its pixels at once: two strided
slices of the same shape, and no padded copy of the image.

Proven in tests/ops/fast/test_overlap.py.
"""

from __future__ import annotations

from typing import Iterator

import torch

Pair = tuple[int, int]  # (rows, columns)


def overlap(offset: int, stride: int, padding: int, size: int, length: int) -> tuple[slice, slice]:
    """Of the windows 0 … length−1, window i looks at pixel i·stride + offset − padding of an axis of `size` pixels.

    Returns the windows whose pixel is not padding, and those pixels: two slices of the same length, so that
    y[windows] and x[pixels] can be combined without a padded copy of x.
    """
    first = max(0, -((offset - padding) // stride))  # the first i with a pixel ≥ 0; −(−a // b) is ⌈a / b⌉
    pixel = first * stride + offset - padding
    count = max(0, min(length - first, -((pixel - size) // stride)))  # as many as stay below `size`
    return slice(first, first + count), slice(pixel, pixel + stride * count, stride)


def taps(shape: torch.Size, kernel: Pair, stride: Pair, padding: Pair, size: Pair) -> Iterator[tuple[tuple, tuple]]:
    """For each tap (u,v) of the window, row by row: (the pixels seen there, by which outputs).

    Both are strided slices of the same shape, so x[pixels] and y[outputs] can be combined element by element. Outputs
    that would see padding at (u,v) are left out.
    """
    every = slice(None)  # all images, all channels
    for u in range(kernel[0]):
        rows, pixel_rows = overlap(u, stride[0], padding[0], shape[2], size[0])
        for v in range(kernel[1]):
            columns, pixel_columns = overlap(v, stride[1], padding[1], shape[3], size[1])
            yield (every, every, pixel_rows, pixel_columns), (every, every, rows, columns)
