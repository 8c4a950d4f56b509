"""avg_pool2d against torch.nn.functional."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import nn

from scratch.ops.beyond.average_pooling import AvgPool2d, avg_pool2d, avg_pool2d_naive
from tests.checks import assert_as_precise_as_torch, assert_same
from tests.ops.poolings import NO_POOLING, poolings


@given(poolings())
def test_the_definition_of_the_mean_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: avg_pool2d_naive(x, *arguments), lambda x: F.avg_pool2d(x, *arguments), x)


@given(poolings())
def test_mean_pooling_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: avg_pool2d(x, *arguments), lambda x: F.avg_pool2d(x, *arguments), x)


def test_the_picture_of_the_note_by_hand() -> None:
    x = torch.tensor([[[[1.0, 3.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]]]], requires_grad=True)
    y = avg_pool2d(x, 2)
    y.backward(torch.full_like(y, 8.0))
    assert y.tolist() == [[[[2.0, 0.0]]]]
    assert x.grad.unique().tolist() == [2.0]


def test_padding_counts_in_a_mean() -> None:
    x = torch.full((1, 1, 2, 2), -4.0)
    assert avg_pool2d(x, 2, padding=1).tolist() == [[[[-1.0, -1.0], [-1.0, -1.0]]]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_result_and_the_gradient_are_channels_last(layout) -> None:
    x = torch.randn(2, 5, 7, 11).to(memory_format=layout).requires_grad_()
    y = avg_pool2d(x, 3, 2, 1)
    torch.testing.assert_close(y, F.avg_pool2d(x, 3, 2, 1))
    grad_x, = torch.autograd.grad(y.sum(), x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert grad_x.is_contiguous(memory_format=torch.channels_last)


def test_low_precision_is_as_precise_as_torch() -> None:
    assert_as_precise_as_torch(lambda x: avg_pool2d(x, 3, 2, 1), lambda x: F.avg_pool2d(x, 3, 2, 1),
                               torch.randn(2, 5, 13, 11))


def test_the_stride_is_the_kernel_unless_given() -> None:
    assert_same(lambda x: avg_pool2d(x, (2, 3)), lambda x: F.avg_pool2d(x, (2, 3)), torch.randn(2, 3, 7, 11))


def test_no_images_give_no_results() -> None:
    assert avg_pool2d(torch.zeros(0, 3, 5, 5), 3, 2, 1).shape == F.avg_pool2d(torch.zeros(0, 3, 5, 5), 3, 2, 1).shape


@pytest.mark.parametrize("arguments", [(2,), (3, 2, 1), ((2, 3), (1, 2), (1, 0))])
def test_the_layer_takes_torchs_arguments(arguments: tuple) -> None:
    x = torch.randn(2, 3, 7, 11)
    torch.testing.assert_close(AvgPool2d(*arguments)(x), nn.AvgPool2d(*arguments)(x))
    assert not AvgPool2d(*arguments).state_dict()


@pytest.mark.parametrize("x, arguments, words", NO_POOLING)
def test_arguments_that_do_not_fit_are_named(x, arguments, words) -> None:
    with pytest.raises(ValueError, match=words):
        avg_pool2d(x, *arguments)
