"""activations: equal to torch in value and gradient, and finite where a naive formula overflows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratch.ops.activations import (at_least_float32, autocast_applies, float32_under_autocast, inverse_sigmoid,
                                     log_softmax, relu, relu_, sigmoid, softmax, softmax_naive)
from scratch.ops.fast.precision import without_autocast
from tests.checks import assert_as_precise_as_torch, assert_same

pytestmark = pytest.mark.usefixtures("mode")  # by its own arithmetic and through its door (conftest.py)


def torch_inverse_sigmoid(p, eps=1e-5):
    p = p.clamp(0, 1)
    return torch.log(p.clamp(min=eps)) - torch.log((1 - p).clamp(min=eps))


POINTWISE = {"relu": (relu, torch.relu), "relu_": (lambda x: relu_(x + 0), torch.relu),
             "sigmoid": (sigmoid, torch.sigmoid),
             "inverse_sigmoid": (inverse_sigmoid, torch_inverse_sigmoid)}
PAIRS = {"softmax": (softmax, torch.softmax), "log_softmax": (log_softmax, torch.log_softmax)}
shapes = st.lists(st.integers(0, 5), max_size=3)
nan, inf = math.nan, math.inf


def slope(function, x: float, dtype: torch.dtype = torch.float64) -> float:
    point = torch.tensor(x, dtype=dtype, requires_grad=True)
    function(point).backward()
    return point.grad.item()


@pytest.mark.parametrize("name", POINTWISE)
@given(shape=shapes, size=st.sampled_from([1e-3, 1.0, 30.0]))
def test_pointwise_equal_torch(name, shape, size):
    assert_same(*POINTWISE[name], torch.randn(shape) * size)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_are_as_precise_as_torch(name):
    assert_as_precise_as_torch(*POINTWISE[name], torch.randn(211) * 4)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_let_nan_through(name):
    y = POINTWISE[name][0](torch.tensor([nan, 1.0]))
    assert y[0].isnan() and y[1].isfinite()


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_keep_the_layout_of_images_stored_channels_last(name):
    x = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last)
    assert POINTWISE[name][0](x).is_contiguous(memory_format=torch.channels_last)


def test_the_table_of_the_header():
    x = torch.tensor([-3.0, 0.0, 3.0])
    assert relu(x).tolist() == [0, 0, 3]
    assert sigmoid(x).tolist() == pytest.approx([0.047, 0.5, 0.953], abs=5e-4)


# ── relu ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_relu_by_hand():
    assert relu(torch.tensor([-inf, -2.0, 0.0, 3.0, inf])).tolist() == [0, 0, 0, 3, inf]
    assert [slope(relu, x) for x in (-2.0, 0.0, 3.0)] == [0, 0, 1]


def test_a_clamp_left_to_autograd_would_pass_a_gradient_at_zero():
    assert slope(lambda x: x.clamp(min=0), 0.0) == 1


def test_two_linear_layers_without_a_nonlinear_function_between_them_are_one():
    x, W1, W2 = torch.randn(3, dtype=torch.float64), *torch.randn(2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(W2 @ (W1 @ x), (W2 @ W1) @ x)


# ── sigmoid ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_sigmoid_by_hand():
    y = sigmoid(torch.tensor([0.0, math.log(3), -math.log(3), 1e4, -1e4, inf, -inf], dtype=torch.float64))
    assert y.tolist() == pytest.approx([0.5, 0.75, 0.25, 1, 0, 1, 0], abs=1e-15)
    assert slope(sigmoid, 0.0) == 0.25


@pytest.mark.parametrize("x", [20.0, -20.0, 80.0, -80.0])
def test_the_slope_of_sigmoid_keeps_its_digits_far_from_zero(x):
    truth = math.exp(-abs(x)) / (1 + math.exp(-abs(x))) ** 2
    assert slope(sigmoid, x, torch.float32) == pytest.approx(truth, rel=1e-5)


def test_y_times_one_minus_y_would_lose_the_slope():
    assert slope(sigmoid, 20.0, torch.float32) == pytest.approx(2.06e-9, rel=1e-2)
    assert slope(torch.sigmoid, 20.0, torch.float32) == 0
    assert torch.sigmoid(torch.tensor(16.0)) < 1 and torch.sigmoid(torch.tensor(17.5)) == 1


@pytest.mark.parametrize("x", [1e4, -1e4])
def test_the_slope_of_sigmoid_is_zero_not_nan_at_ten_thousand(x):
    assert slope(sigmoid, x, torch.float32) == 0


# ── inverse_sigmoid ─────────────────────────────────────────────────────────────────────────────────────────────────


@given(shape=shapes, eps=st.sampled_from([1e-5, 1e-3, 0.1]))
def test_inverse_sigmoid_equals_torch_on_probabilities(shape, eps):
    assert_same(lambda p: inverse_sigmoid(p, eps), lambda p: torch_inverse_sigmoid(p, eps), torch.rand(shape))


def test_inverse_sigmoid_is_logit_between_eps_and_one_minus_eps():
    assert_same(inverse_sigmoid, torch.logit, torch.linspace(1.1e-5, 1 - 1.1e-5, 211))


def test_inverse_sigmoid_is_as_precise_as_torch_on_probabilities():
    assert_as_precise_as_torch(inverse_sigmoid, torch_inverse_sigmoid, torch.rand(211) * 0.9 + 0.05)


def test_inverse_sigmoid_by_hand():
    p = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    assert inverse_sigmoid(p).tolist() == pytest.approx([-math.log(3), 0, math.log(3)], abs=1e-15)
    assert [slope(inverse_sigmoid, x) for x in (0.25, 0.5)] == pytest.approx([16 / 3, 4])


def test_inverse_sigmoid_leads_back_from_any_probability_between_eps_and_one_minus_eps():
    assert_same(lambda p: sigmoid(inverse_sigmoid(p)), lambda p: p, torch.linspace(1.1e-5, 1 - 1.1e-5, 211))


def test_inverse_sigmoid_leads_back_from_any_score_between_minus_and_plus_eleven():
    assert_same(lambda x: inverse_sigmoid(sigmoid(x)), lambda x: x, torch.linspace(-11, 11, 211))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("p, x, steepness", [(0.0, -11.51, 1), (1.0, 11.51, 1), (-3.0, -11.51, 0), (4.0, 11.51, 0)])
def test_inverse_sigmoid_at_zero_and_one_and_beyond_is_finite_with_a_slope_of_one_or_none(dtype, p, x, steepness):
    value = inverse_sigmoid(torch.tensor(p, dtype=dtype))
    assert value.item() == pytest.approx(x, abs=max(0.005, 8 * torch.finfo(dtype).eps))
    assert slope(inverse_sigmoid, p, dtype) == pytest.approx(steepness)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_plain_formula_of_inverse_sigmoid_has_no_slope_at_zero_and_one(p):
    assert math.isnan(slope(lambda p: torch.log(p / (1 - p)), p))


def test_a_box_refined_in_logits_stays_within_zero_and_one():
    box = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    refined = sigmoid(inverse_sigmoid(box) + torch.tensor([-3.0, math.log(3), 3.0]))
    assert (refined > 0).all() and (refined < 1).all() and refined[1].item() == pytest.approx(0.75)


def test_inverse_sigmoid_returns_float32_under_autocast():
    p = torch.rand(7).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = inverse_sigmoid(p)
        assert inverse_sigmoid(p.double()).dtype is torch.float64
    torch.testing.assert_close(x, torch_inverse_sigmoid(p.float()))
    x.sum().backward()
    assert p.grad.dtype is torch.bfloat16


# ── softmax, log_softmax ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", PAIRS)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_softmaxes_equal_torch_along_any_axis(name, shape, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    ours, theirs = PAIRS[name]
    assert_same(lambda x: ours(x, dim), lambda x: theirs(x, dim), torch.randn(shape) * 3)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_softmaxes_are_as_precise_as_torch(name, size):
    ours, theirs = PAIRS[name]
    assert_as_precise_as_torch(lambda x: ours(x, -1), lambda x: theirs(x, -1), torch.randn(13, 101) * size)


@pytest.mark.parametrize("name", PAIRS)
def test_softmaxes_at_plus_and_minus_ten_thousand_equal_torch(name):
    ours, theirs = PAIRS[name]
    x = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]])
    assert_same(lambda x: ours(x, -1), lambda x: theirs(x, -1), x)
    torch.testing.assert_close(ours(x, -1), theirs(x, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_softmaxes_equal_torch_where_some_scores_are_masked(name):
    mask = torch.tensor([[False, True, False], [True, False, True]])
    ours, theirs = PAIRS[name]
    cut = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)  # the gradient of the open entries

    def only_open(function):
        return lambda x: torch.where(mask, 0, function(x.masked_fill(mask, -inf), -1)) * cut

    assert_same(only_open(ours), only_open(theirs), torch.randn(2, 3))


def test_softmax_by_hand():
    y = softmax(torch.tensor([0.0, math.log(2), math.log(5)]), 0)
    torch.testing.assert_close(y, torch.tensor([1.0, 2.0, 5.0]) / 8)


def test_the_naive_softmax_agrees_until_it_overflows():
    assert_same(softmax_naive, softmax, torch.randn(5, 7), torch.tensor(-1))
    assert softmax_naive(torch.tensor([88.0, 0.0]), 0).isfinite().all()
    assert softmax_naive(torch.tensor([89.0, 0.0]), 0).isnan().any()
    assert softmax(torch.tensor([89.0, 0.0]), 0).tolist() == [1, pytest.approx(math.exp(-89))]


def test_e_to_the_89_and_in_half_precision_to_the_12_is_infinite():
    assert torch.tensor(89.0).exp().isinf() and torch.tensor(12.0, dtype=torch.float16).exp().isinf()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_minus_infinity_gives_zeros_and_no_gradient_where_torch_gives_nan(dtype):
    x = torch.tensor([[-inf, -inf], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    y = softmax(x, -1)
    y.backward(torch.tensor([[3.0, 5.0], [0.0, 1.0]], dtype=dtype))
    assert y.tolist() == [[0, 0], [0.5, 0.5]] and x.grad.tolist() == [[0, 0], [-0.25, 0.25]]
    assert torch.softmax(x, -1)[0].isnan().all()


def test_log_softmax_of_a_row_of_minus_infinity_stays_there():
    x = torch.tensor([[-inf, -inf], [0.0, 0.0]], requires_grad=True)
    y = log_softmax(x, -1)
    y[1].sum().backward()
    assert y[0].tolist() == [-inf, -inf] and x.grad.isfinite().all()
    assert torch.log_softmax(x, -1)[0].isnan().all()


@pytest.mark.parametrize("name", PAIRS)
def test_softmaxes_let_nan_through(name):
    assert PAIRS[name][0](torch.tensor([nan, 1.0]), 0).isnan().all()


@pytest.mark.parametrize("name", PAIRS)
def test_softmaxes_of_no_rows_are_empty(name):
    assert PAIRS[name][0](torch.randn(0, 3), -1).shape == (0, 3)


@pytest.mark.parametrize("name", PAIRS)
def test_softmaxes_of_rows_without_a_score_are_empty(name):
    assert_same(*(lambda x, f=f: f(x, -1) for f in PAIRS[name]), torch.randn(3, 0))


def test_log_softmax_reaches_where_the_probability_rounds_to_zero():
    x = torch.tensor([0.0, -200.0])
    assert softmax(x, 0)[1] == 0 and log_softmax(x, 0)[1] == -200


@pytest.mark.parametrize("name", PAIRS)
def test_softmaxes_return_float32_under_autocast(name):
    x = torch.randn(3, 5, dtype=torch.bfloat16, requires_grad=True)
    ours, theirs = PAIRS[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(x, -1)
        assert ours(x.double(), -1).dtype is torch.float64
    torch.testing.assert_close(y, theirs(x.float(), -1))
    y.sum().backward()
    assert x.grad.dtype is torch.bfloat16


# ── in which dtype ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype, raised", [
    (torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32), (torch.int64, torch.float32)])
def test_at_least_float32_raises_what_is_below_and_copies_nothing_else(dtype, raised):
    x = torch.ones(3, dtype=dtype)
    assert at_least_float32(x).dtype == raised and (at_least_float32(x) is x) == (dtype == raised)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_autocast_touches_all_but_float64(dtype):
    x = torch.ones(3, dtype=dtype)
    assert not autocast_applies(x) and float32_under_autocast(x) is x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert autocast_applies(x) == (dtype != torch.float64)
        assert float32_under_autocast(x).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        with without_autocast(x):
            assert not autocast_applies(x)
