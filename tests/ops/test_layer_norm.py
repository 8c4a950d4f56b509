"""layer_norm against torch.nn.functional.layer_norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scratch.ops.layer_norm import LayerNorm, layer_norm, layer_norm_naive
from tests.checks import assert_as_precise_as_torch, assert_same

pytestmark = pytest.mark.usefixtures("mode")  # by its own arithmetic and through its door (conftest.py)


def random_inputs(*shape: int, last: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    features = shape[-last:]
    return torch.randn(shape).double(), torch.randn(features).double(), torch.randn(features).double()


def normalising(function, last: int = 1):
    return lambda x, weight, bias: function(x, tuple(x.shape[-last:]), weight, bias, 1e-5)


@given(st.lists(st.integers(1, 4), min_size=0, max_size=3), st.lists(st.integers(2, 5), min_size=1, max_size=2))
def test_every_rung_equals_torch(tokens: list[int], features: list[int]) -> None:
    inputs = random_inputs(*tokens, *features, last=len(features))
    for rung in (layer_norm_naive, layer_norm):
        assert_same(normalising(rung, len(features)), normalising(F.layer_norm, len(features)), *inputs)


@pytest.mark.parametrize("offset", [0.0, 1e2])
def test_low_precision_is_as_precise_as_torch(offset: float) -> None:
    x, weight, bias = random_inputs(3, 7, 61)
    assert_as_precise_as_torch(normalising(layer_norm), normalising(F.layer_norm), x + offset, weight, bias)


def test_at_mean_ten_thousand_float32_is_as_precise_as_torch() -> None:
    x, weight, bias = random_inputs(3, 7, 61)
    assert_as_precise_as_torch(normalising(layer_norm), normalising(F.layer_norm), x + 1e4, weight, bias,
                               dtypes=[torch.float32])


def test_at_mean_ten_thousand_float32_is_right_because_it_centres_twice() -> None:
    x, weight, bias = random_inputs(3, 7, 61)
    x = (x + 1e4).float()
    ours, truth = layer_norm(x, 61, weight.float(), bias.float()), F.layer_norm(x.double(), (61,), weight, bias)
    torch.testing.assert_close(ours.double(), truth, rtol=0, atol=2e-6)
    once = layer_norm_naive(x, 61, weight.float(), bias.float())
    assert (once.double() - truth).abs().max() > 1e-4


def test_mean_of_squares_minus_squared_mean_loses_every_digit_at_ten_thousand() -> None:
    x = torch.randn(256) + 1e4
    assert 1e8 - torch.nextafter(torch.tensor(1e8), torch.tensor(0.0)).item() == 8  # float32's step there
    assert abs((x * x).mean() - x.mean() ** 2) in (0, 8, 16, 24, 32)  # the true variance is 1
    assert torch.nextafter(torch.tensor(1e4), torch.tensor(2e4)).item() - 1e4 == pytest.approx(0.001, rel=0.03)


def test_the_rows_of_the_note_by_hand() -> None:
    x = torch.tensor([[10.0, 12.0, 14.0], [-1.0, 0.0, 1.0]])
    y = layer_norm(x, 3, torch.ones(3), torch.zeros(3))
    torch.testing.assert_close(y, torch.tensor([[-1.22, 0.0, 1.22]] * 2), rtol=0, atol=0.006)
    assert [round(row.std(correction=0).item(), 2) for row in x] == [1.63, 0.82]


def test_two_features_by_hand() -> None:
    x = torch.tensor([1.0, 5.0])  # mean 3, variance 4
    assert layer_norm(x, 2, torch.tensor([10.0, 20.0]), torch.tensor([0.0, 7.0]), eps=0.0).tolist() == [-10.0, 27.0]


def test_the_backward_is_the_derivative_of_the_forward() -> None:
    assert torch.autograd.gradcheck(normalising(layer_norm), [t.requires_grad_() for t in random_inputs(2, 3, 5)])


def test_the_gradient_can_neither_shift_nor_scale_a_token() -> None:
    x, weight, bias = random_inputs(3, 7, 61)
    layer_norm(x.requires_grad_(), 61, weight, bias, eps=0.0).sin().sum().backward()
    nothing = torch.zeros(3, 7, dtype=torch.float64)
    torch.testing.assert_close(x.grad.sum(-1), nothing, rtol=0, atol=1e-12)
    torch.testing.assert_close((x.grad * x).sum(-1), nothing, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_tokens_under_float32_parameters_stay_half_and_are_rounded_once(dtype) -> None:
    layer, x = LayerNorm(61), torch.randn(3, 61).to(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype and layer.weight.grad.dtype == torch.float32
    assert torch.equal(y, layer(x.detach().float()).to(dtype))


def test_autocast_returns_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LayerNorm(61)(torch.randn(3, 61).bfloat16()).dtype == torch.float32


def test_a_constant_token_stays_finite() -> None:
    x = torch.full((2, 7), 1e4, requires_grad=True)
    y = LayerNorm(7)(x)
    y.sum().backward()
    assert not y.any() and x.grad.isfinite().all()


def test_a_transposed_input_is_read_in_its_logical_order() -> None:
    x, weight, bias = random_inputs(5, 3, 7)
    turned = x.transpose(0, 1)
    torch.testing.assert_close(layer_norm(turned, 7, weight, bias), F.layer_norm(turned, (7,), weight, bias))


def test_no_tokens_give_no_results() -> None:
    assert LayerNorm(7)(torch.zeros(2, 0, 7)).shape == (2, 0, 7)


@pytest.mark.parametrize("shape", [7, (7,), (5, 7)])
def test_the_layer_has_torchs_names_shapes_and_defaults(shape) -> None:
    ours, theirs = LayerNorm(shape), nn.LayerNorm(shape)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())
    torch.testing.assert_close(ours(torch.ones(2, 5, 7).cumsum(2)), theirs(torch.ones(2, 5, 7).cumsum(2)))


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="end in normalized_shape"):
        LayerNorm(7)(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="end in normalized_shape"):
        layer_norm(torch.zeros(2), (3, 2), torch.ones(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="wanted both of"):
        layer_norm(torch.zeros(2, 7), 7, torch.ones(5), torch.zeros(5))


def test_the_layer_tells_its_shape_and_epsilon() -> None:
    assert repr(LayerNorm(5)) == "LayerNorm((5,), eps=1e-05)"
