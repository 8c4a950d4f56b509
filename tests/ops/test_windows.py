"""windows: the number of windows that torch finds, and the pixels that a loop finds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from scratch.ops.windows import output_size, overlap, pair


@given(*[st.integers(1, 9)] * 2, *[st.integers(1, 4)] * 2, *[st.integers(0, 3)] * 2, *[st.integers(1, 3)] * 2)
def test_as_many_windows_fit_as_torch_counts(H, W, k, s, p, q, d, e) -> None:
    try:
        expected = F.conv2d(torch.ones(1, 1, H, W), torch.ones(1, 1, k, k), None, s, (p, q), (d, e)).shape[2:]
    except RuntimeError:
        with pytest.raises(ValueError, match="room for one window"):
            output_size((H, W), (k, k), (s, s), (p, q), (d, e))
        return
    assert output_size((H, W), (k, k), (s, s), (p, q), (d, e)) == tuple(expected)


@pytest.mark.parametrize("kernel, stride, padding, dilation, expected", [
    (3, 1, 1, 1, (7, 5)), (3, 2, 1, 1, (4, 3)), (2, 3, 0, 4, (1, 1))])
def test_the_output_size_counts_the_windows_that_fit(kernel, stride, padding, dilation, expected) -> None:
    assert output_size((7, 5), *(pair(n) for n in (kernel, stride, padding, dilation))) == expected


@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 5), st.integers(1, 9), st.integers(0, 9))
def test_the_overlap_is_what_a_loop_over_the_windows_finds(offset, stride, padding, size, length) -> None:
    seen = [(i, i * stride + offset - padding) for i in range(length) if 0 <= i * stride + offset - padding < size]
    windows, pixels = overlap(offset, stride, padding, size, length)
    assert windows.stop - windows.start == len(seen)
    assume(seen)
    assert list(zip(range(length)[windows], range(size)[pixels])) == seen


def test_the_picture_of_the_note() -> None:
    (windows, _) = output_size((6, 6), (3, 3), (2, 2), (1, 1))
    assert windows == 3
    assert [overlap(u, 2, 1, 6, 3) for u in range(3)] == [
        (slice(1, 3), slice(1, 5, 2)), (slice(0, 3), slice(0, 6, 2)), (slice(0, 3), slice(1, 7, 2))]


@pytest.mark.parametrize("value", [3, (3, 3), [3, 3]])
def test_one_number_stands_for_rows_and_columns(value) -> None:
    assert pair(value) == (3, 3)


@pytest.mark.parametrize("number, least", [("kernel", 1), ("stride", 1), ("dilation", 1), ("padding", 0)])
def test_each_number_is_refused_below_its_least_on_either_axis_and_taken_there(number: str, least: int) -> None:
    numbers = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    assert output_size((7, 5), **numbers | {number: (least, least)}) == (7, 5)
    for bad in ((least - 1, least), (least, least - 1)):
        with pytest.raises(ValueError, match=f"{number} .*wanted the first three at least 1"):
            output_size((7, 5), **numbers | {number: bad})
