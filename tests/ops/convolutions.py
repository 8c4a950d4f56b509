"""Convolutions drawn for the tests of ops/conv2d and of its plans in ops/fast."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor


def random_inputs(B: int, C: int, O: int, kernel: tuple, size: tuple, groups: int = 1,
                  bias: bool = True) -> list[Tensor]:
    x = torch.randn(B, C, *size, dtype=torch.float64)
    weight = torch.randn(O, C // groups, *kernel, dtype=torch.float64)
    return [x, weight, torch.randn(O, dtype=torch.float64)] if bias else [x, weight]


@st.composite
def convolutions(draw, channels: st.SearchStrategy, grouped: bool, largest: int = 4):
    """Inputs and options of one convolution whose window fits, with rows and columns drawn apart."""
    groups = draw(st.integers(1, 3)) if grouped else 1
    small = st.integers(1, 3)
    axes = []
    for _ in range(2):
        kernel, stride, padding, dilation = draw(st.integers(1, 3)), draw(small), draw(st.integers(0, 3)), draw(small)
        needed = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        axes.append((kernel, stride, padding, dilation, needed + draw(st.integers(0, largest))))
    kernel, stride, padding, dilation, size = zip(*axes)
    C, O = groups * draw(channels), groups * draw(small)
    inputs = random_inputs(draw(small), C, O, kernel, size, groups, draw(st.booleans()))
    return inputs, dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


def bound(function, **options):
    return lambda *inputs: function(*inputs, **options)


RESNET = {  # what a ResNet asks for: kernel, stride, padding, dilation, channels
    "stem": (7, 2, 3, 1, 3), "3x3": (3, 1, 1, 1, 19), "3x3 stride 2": (3, 2, 1, 1, 19), "3x3 dilated": (3, 1, 2, 2, 19),
    "1x1": (1, 1, 0, 1, 19), "1x1 stride 2": (1, 2, 0, 1, 19),
}
