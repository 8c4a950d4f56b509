"""poolings: the images and arguments that the tests of maximum and mean share."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

# An image and the arguments of a pooling that do not fit, and what is said then.
NO_POOLING = [
    (torch.zeros(1, 1, 5, 5), (2, 1, 2), "at most half"), (torch.zeros(1, 1, 3, 3), (4,), "one large enough for a window"),
    (torch.zeros(1, 5, 5), (2,), r"images \(B,C,H,W\)"),
    (torch.zeros(1, 1, 5, 5, dtype=torch.uint8), (2,), "floating-point"),
    (torch.zeros(1, 1, 5, 5), (2, 0), "at least 1"),
]


@st.composite
def poolings(draw):
    """An image and the arguments of one pooling whose window fits, with rows and columns drawn apart."""
    axes = []
    for _ in range(2):
        kernel = draw(st.integers(1, 4))
        stride, padding = draw(st.integers(1, 4)), draw(st.integers(0, kernel // 2))
        axes.append((kernel, stride, padding, max(1, kernel - 2 * padding) + draw(st.integers(0, 6))))
    kernel, stride, padding, size = zip(*axes)
    B, C = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return torch.randn(B, C, *size, dtype=torch.float64), (kernel, stride, padding)
