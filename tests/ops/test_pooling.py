"""max_pool2d and avg_pool2d against torch.nn.functional."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scratch.ops.pooling import AvgPool2d, MaxPool2d, avg_pool2d, avg_pool2d_naive, max_pool2d, max_pool2d_naive
from tests.checks import assert_as_precise_as_torch, assert_same

PAIRS = [(max_pool2d, F.max_pool2d), (avg_pool2d, F.avg_pool2d)]
nan, inf = float("nan"), float("inf")


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


@given(poolings())
def test_the_definition_of_the_maximum_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: max_pool2d_naive(x, *arguments), lambda x: F.max_pool2d(x, *arguments), x)


@given(poolings())
def test_the_definition_of_the_mean_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: avg_pool2d_naive(x, *arguments), lambda x: F.avg_pool2d(x, *arguments), x)


@given(poolings())
def test_max_pooling_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: max_pool2d(x, *arguments), lambda x: F.max_pool2d(x, *arguments), x)


@given(poolings())
def test_the_gradient_of_a_tie_goes_where_torch_sends_it(case) -> None:
    x, arguments = case
    assert_same(lambda x: max_pool2d(x, *arguments), lambda x: F.max_pool2d(x, *arguments), x.round().clamp(-1, 1))


@given(poolings())
def test_mean_pooling_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: avg_pool2d(x, *arguments), lambda x: F.avg_pool2d(x, *arguments), x)


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_low_precision_is_as_precise_as_torch(ours, theirs) -> None:
    assert_as_precise_as_torch(lambda x: ours(x, 3, 2, 1), lambda x: theirs(x, 3, 2, 1), torch.randn(2, 5, 13, 11))


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_the_stride_is_the_kernel_unless_given(ours, theirs) -> None:
    assert_same(lambda x: ours(x, (2, 3)), lambda x: theirs(x, (2, 3)), torch.randn(2, 3, 7, 11))


def test_the_picture_of_the_note_by_hand() -> None:
    x = torch.tensor([[[[1.0, 3.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]]]], requires_grad=True)
    y = max_pool2d(x, 2)
    y.backward(torch.full_like(y, 7.0))
    assert y.tolist() == [[[[3.0, 0.0]]]]
    assert x.grad.tolist() == [[[[0.0, 7.0, 7.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]]
    assert avg_pool2d(x, 2).tolist() == [[[[2.0, 0.0]]]]


def test_padding_never_wins_a_maximum_but_counts_in_a_mean() -> None:
    x = torch.full((1, 1, 2, 2), -4.0)
    assert max_pool2d(x, 2, padding=1).tolist() == [[[[-4.0, -4.0], [-4.0, -4.0]]]]
    assert avg_pool2d(x, 2, padding=1).tolist() == [[[[-1.0, -1.0], [-1.0, -1.0]]]]


@pytest.mark.parametrize("x", [[[-inf] * 3] * 3, [[inf, inf, 0.0], [-inf, -inf, 0.0], [0.0, -inf, inf]]])
def test_infinity_behaves_as_in_torch_in_value_and_gradient(x: list) -> None:
    assert_same(lambda x: max_pool2d(x, 2, 1, 1), lambda x: F.max_pool2d(x, 2, 1, 1), torch.tensor([[x]]))


def test_nan_wins_every_window_that_sees_it_and_leaves_the_others_their_gradient() -> None:
    x = torch.tensor([[[[1.0, nan, 2.0, 5.0, 3.0]]]], requires_grad=True)
    y = max_pool2d(x, (1, 2), 1)
    y.sum().backward()
    torch.testing.assert_close(y, F.max_pool2d(x, (1, 2), 1), equal_nan=True, rtol=0, atol=0)
    assert x.grad.tolist() == [[[[0.0, 0.0, 0.0, 2.0, 0.0]]]]


@pytest.mark.parametrize("ours, theirs", PAIRS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_result_and_the_gradient_are_channels_last(ours, theirs, layout) -> None:
    x = torch.randn(2, 5, 7, 11).to(memory_format=layout).requires_grad_()
    y = ours(x, 3, 2, 1)
    torch.testing.assert_close(y, theirs(x, 3, 2, 1))
    grad_x, = torch.autograd.grad(y.sum(), x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert grad_x.is_contiguous(memory_format=torch.channels_last)


def test_max_pooling_keeps_nothing_but_its_input_and_output() -> None:
    kept: list[torch.Tensor] = []
    x = torch.randn(2, 5, 7, 11, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = max_pool2d(x, 3, 2, 1)
    assert [t.data_ptr() for t in kept] == [x.data_ptr(), y.data_ptr()]


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_no_images_give_no_results(ours, theirs) -> None:
    assert ours(torch.zeros(0, 3, 5, 5), 3, 2, 1).shape == theirs(torch.zeros(0, 3, 5, 5), 3, 2, 1).shape


@pytest.mark.parametrize("ours, theirs", [(MaxPool2d, nn.MaxPool2d), (AvgPool2d, nn.AvgPool2d)])
@pytest.mark.parametrize("arguments", [(2,), (3, 2, 1), ((2, 3), (1, 2), (1, 0))])
def test_the_layers_take_torchs_arguments(ours, theirs, arguments: tuple) -> None:
    x = torch.randn(2, 3, 7, 11)
    torch.testing.assert_close(ours(*arguments)(x), theirs(*arguments)(x))
    assert not ours(*arguments).state_dict()


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
@pytest.mark.parametrize("x, arguments, words", [
    (torch.zeros(1, 1, 5, 5), (2, 1, 2), "at most half"), (torch.zeros(1, 1, 3, 3), (4,), "room for one window"),
    (torch.zeros(1, 5, 5), (2,), r"images \(B,C,H,W\)"),
    (torch.zeros(1, 1, 5, 5, dtype=torch.uint8), (2,), "floating-point"),
    (torch.zeros(1, 1, 5, 5), (2, 0), "at least 1"),
])
def test_arguments_that_do_not_fit_are_named(pool, x, arguments, words) -> None:
    with pytest.raises(ValueError, match=words):
        pool(x, *arguments)
