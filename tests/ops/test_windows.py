"""windows: the number of windows that torch finds; max pooling: equal to torch in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scratch.ops.windows import MaxPool2d, max_pool2d, max_pool2d_naive, output_size, pair
from tests.checks import assert_as_precise_as_torch, assert_same
from tests.ops.poolings import NO_POOLING, poolings

pytestmark = pytest.mark.usefixtures("mode")  # by its own arithmetic and through its door (conftest.py)

nan, inf = float("nan"), float("inf")


@given(*[st.integers(1, 9)] * 2, *[st.integers(1, 4)] * 2, *[st.integers(0, 3)] * 2, *[st.integers(1, 3)] * 2)
def test_as_many_windows_fit_as_torch_counts(H, W, k, s, p, q, d, e) -> None:
    try:
        expected = F.conv2d(torch.ones(1, 1, H, W), torch.ones(1, 1, k, k), None, s, (p, q), (d, e)).shape[2:]
    except RuntimeError:
        with pytest.raises(ValueError, match="one large enough for a window"):
            output_size((H, W), (k, k), (s, s), (p, q), (d, e))
        return
    assert output_size((H, W), (k, k), (s, s), (p, q), (d, e)) == tuple(expected)


@pytest.mark.parametrize("kernel, stride, padding, dilation, expected", [
    (3, 1, 1, 1, (7, 5)), (3, 2, 1, 1, (4, 3)), (2, 3, 0, 4, (1, 1))])
def test_the_output_size_counts_the_windows_that_fit(kernel, stride, padding, dilation, expected) -> None:
    assert output_size((7, 5), *(pair(n) for n in (kernel, stride, padding, dilation))) == expected


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


def test_the_picture_of_the_note() -> None:
    (windows, _) = output_size((6, 6), (3, 3), (2, 2), (1, 1))
    assert windows == 3
    x = torch.arange(1.0, 7.0).repeat(6, 1)[None, None].requires_grad_()
    assert max_pool2d(x, 3, 2, 1)[0, 0, 0].tolist() == [2, 4, 6]  # pixels 1, 3 and 5 are the last of their windows


def test_a_second_layer_of_windows_sees_seven_pixels_of_the_first_ones_image() -> None:
    x = torch.randn(1, 1, 15, 15, dtype=torch.float64, requires_grad=True)
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    F.conv2d(F.conv2d(x, kernel, None, 2, 1), kernel, None, 1, 1)[0, 0, 4, 4].backward()
    assert (x.grad != 0).sum() == 7 * 7


# ── max pooling ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(poolings())
def test_the_definition_of_the_maximum_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: max_pool2d_naive(x, *arguments), lambda x: F.max_pool2d(x, *arguments), x)


@given(poolings())
def test_max_pooling_equals_torch(case) -> None:
    x, arguments = case
    assert_same(lambda x: max_pool2d(x, *arguments), lambda x: F.max_pool2d(x, *arguments), x)


@given(poolings())
def test_the_gradient_of_a_tie_goes_where_torch_sends_it(case) -> None:
    x, arguments = case
    assert_same(lambda x: max_pool2d(x, *arguments), lambda x: F.max_pool2d(x, *arguments), x.round().clamp(-1, 1))


@pytest.mark.parametrize("x", [[[-inf] * 3] * 3, [[inf, inf, 0.0], [-inf, -inf, 0.0], [0.0, -inf, inf]]])
def test_infinity_behaves_as_in_torch_in_value_and_gradient(x: list) -> None:
    assert_same(lambda x: max_pool2d(x, 2, 1, 1), lambda x: F.max_pool2d(x, 2, 1, 1), torch.tensor([[x]]))


def test_the_largest_pixel_of_each_window_by_hand_and_of_a_tie_the_first() -> None:
    x = torch.tensor([[[[1.0, 3.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]]]], requires_grad=True)
    y = max_pool2d(x, 2)
    y.backward(torch.full_like(y, 7.0))
    assert y.tolist() == [[[[3.0, 0.0]]]]
    assert x.grad.tolist() == [[[[0.0, 7.0, 7.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]]


def test_padding_never_wins_a_maximum() -> None:
    x = torch.full((1, 1, 2, 2), -4.0)
    assert max_pool2d(x, 2, padding=1).tolist() == [[[[-4.0, -4.0], [-4.0, -4.0]]]]


def test_nan_wins_every_window_that_sees_it_and_leaves_the_others_their_gradient() -> None:
    x = torch.tensor([[[[1.0, nan, 2.0, 5.0, 3.0]]]], requires_grad=True)
    y = max_pool2d(x, (1, 2), 1)
    y.sum().backward()
    torch.testing.assert_close(y, F.max_pool2d(x, (1, 2), 1), equal_nan=True, rtol=0, atol=0)
    assert x.grad[..., [0, 2, 3, 4]].tolist() == [[[[0.0, 0.0, 2.0, 0.0]]]]


def test_low_precision_is_as_precise_as_torch() -> None:
    assert_as_precise_as_torch(lambda x: max_pool2d(x, 3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1),
                               torch.randn(2, 5, 13, 11))


def test_the_stride_is_the_kernel_unless_given() -> None:
    assert_same(lambda x: max_pool2d(x, (2, 3)), lambda x: F.max_pool2d(x, (2, 3)), torch.randn(2, 3, 7, 11))


def test_no_images_give_no_results() -> None:
    assert max_pool2d(torch.zeros(0, 3, 5, 5), 3, 2, 1).shape == F.max_pool2d(torch.zeros(0, 3, 5, 5), 3, 2, 1).shape


@pytest.mark.parametrize("arguments", [(2,), (3, 2, 1), ((2, 3), (1, 2), (1, 0))])
def test_the_layer_takes_torchs_arguments(arguments: tuple) -> None:
    x = torch.randn(2, 3, 7, 11)
    torch.testing.assert_close(MaxPool2d(*arguments)(x), nn.MaxPool2d(*arguments)(x))
    assert not MaxPool2d(*arguments).state_dict()


@pytest.mark.parametrize("x, arguments, words", NO_POOLING)
def test_arguments_that_do_not_fit_are_named(x, arguments, words) -> None:
    with pytest.raises(ValueError, match=words):
        max_pool2d(x, *arguments)
