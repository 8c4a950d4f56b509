"""The max pooling written by hand: what it keeps, its memory layout, and NaN."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scratch.ops.windows import max_pool2d

pytestmark = pytest.mark.usefixtures("fast_mode")

nan = float("nan")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_result_and_the_gradient_are_channels_last(layout) -> None:
    x = torch.randn(2, 5, 7, 11).to(memory_format=layout).requires_grad_()
    y = max_pool2d(x, 3, 2, 1)
    torch.testing.assert_close(y, F.max_pool2d(x, 3, 2, 1))
    grad_x, = torch.autograd.grad(y.sum(), x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert grad_x.is_contiguous(memory_format=torch.channels_last)


def test_max_pooling_keeps_nothing_but_its_input_and_output() -> None:
    kept: list[torch.Tensor] = []
    x = torch.randn(2, 5, 7, 11, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = max_pool2d(x, 3, 2, 1)
    assert [t.data_ptr() for t in kept] == [x.data_ptr(), y.data_ptr()]


def test_a_window_whose_maximum_is_nan_passes_no_gradient_on() -> None:
    x = torch.tensor([[[[1.0, nan, 2.0, 5.0, 3.0]]]], requires_grad=True)
    y = max_pool2d(x, (1, 2), 1)
    y.sum().backward()
    torch.testing.assert_close(y, F.max_pool2d(x, (1, 2), 1), equal_nan=True, rtol=0, atol=0)
    assert x.grad.tolist() == [[[[0.0, 0.0, 0.0, 2.0, 0.0]]]]
