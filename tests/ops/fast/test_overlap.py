"""overlap: the windows and pixels that a loop finds."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from scratch.ops.fast.overlap import overlap, taps


@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 5), st.integers(1, 9), st.integers(0, 9))
def test_the_overlap_is_what_a_loop_over_the_windows_finds(offset, stride, padding, size, length) -> None:
    seen = [(i, i * stride + offset - padding) for i in range(length) if 0 <= i * stride + offset - padding < size]
    windows, pixels = overlap(offset, stride, padding, size, length)
    assert windows.stop - windows.start == len(seen)
    assume(seen)
    assert list(zip(range(length)[windows], range(size)[pixels])) == seen


def test_the_picture_of_the_note() -> None:
    assert [overlap(u, 2, 1, 6, 3) for u in range(3)] == [
        (slice(1, 3), slice(1, 5, 2)), (slice(0, 3), slice(0, 6, 2)), (slice(0, 3), slice(1, 7, 2))]


def test_the_taps_of_windows_with_two_sides_strides_and_paddings_are_those_of_a_loop() -> None:
    H, W, (kH, kW), (sH, sW), (pH, pW), (h, w) = 7, 11, (2, 3), (2, 3), (1, 0), (4, 3)
    x, y = torch.arange(H * W).view(1, 1, H, W), torch.arange(h * w).view(1, 1, h, w)
    found = [(u, list(zip(y[outputs].flatten().tolist(), x[pixels].flatten().tolist())))
             for u, (pixels, outputs) in enumerate(taps(x.shape, (kH, kW), (sH, sW), (pH, pW), (h, w)))]
    assert found == [(u * kW + v, [(i * w + j, (i * sH + u - pH) * W + j * sW + v - pW) for i in range(h) for j in range(w)
                                   if 0 <= i * sH + u - pH < H and 0 <= j * sW + v - pW < W])
                     for u in range(kH) for v in range(kW)]
