"""overlap: the windows and pixels that a loop finds."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from scratch.ops.fast.overlap import overlap


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
