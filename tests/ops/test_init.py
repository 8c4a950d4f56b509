"""init: the same draws as torch.nn.init, and values that keep their size through a deep stack."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scratch.ops import init

SHAPES = [(7, 5), (7, 5, 3, 3), (11, 2, 1, 7)]


def assert_same_draws(ours, theirs, shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    our = ours(torch.empty(shape))
    torch.manual_seed(3)
    torch.testing.assert_close(our, theirs(torch.empty(shape)), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(7,), *SHAPES])
def test_uniform_normal_and_constant_draw_what_torch_draws(shape):
    assert_same_draws(lambda t: init.uniform_(t, -0.3, 0.7), lambda t: nn.init.uniform_(t, -0.3, 0.7), shape)
    assert_same_draws(lambda t: init.normal_(t, 0.5, 2.0), lambda t: nn.init.normal_(t, 0.5, 2.0), shape)
    assert_same_draws(lambda t: init.constant_(t, 0.5), lambda t: nn.init.constant_(t, 0.5), shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["xavier_uniform_", "xavier_normal_"])
def test_xavier_draws_what_torch_draws(name, shape):
    ours, theirs = getattr(init, name), getattr(nn.init, name)
    assert_same_draws(ours, theirs, shape)
    assert_same_draws(lambda t: ours(t, gain=1.7), lambda t: theirs(t, gain=1.7), shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("nonlinearity", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize("name", ["kaiming_uniform_", "kaiming_normal_"])
def test_kaiming_draws_what_torch_draws(name, nonlinearity, mode, shape):
    def fill(function):
        return lambda t: function(t, a=0.2, mode=mode, nonlinearity=nonlinearity)

    assert_same_draws(fill(getattr(init, name)), fill(getattr(nn.init, name)), shape)


def test_kaiming_without_arguments_is_that_of_torch():
    assert_same_draws(init.kaiming_uniform_, nn.init.kaiming_uniform_, (7, 5))
    assert_same_draws(init.kaiming_normal_, nn.init.kaiming_normal_, (7, 5))


@given(st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(1, 5), max_size=2))
def test_fans_are_those_of_torch(O, I, window):
    weight = torch.empty(O, I, *window)
    assert init.calculate_fan(weight) == nn.init._calculate_fan_in_and_fan_out(weight)


def test_fans_worked_by_hand():
    assert init.calculate_fan(torch.empty(7, 5, 3, 3)) == (45, 63)


def test_slope_root_5_makes_the_bound_one_over_root_fan_in():
    weight = init.kaiming_uniform_(torch.empty(500, 100), a=math.sqrt(5))
    assert 0.0999 < weight.abs().max() <= 0.1


@pytest.mark.parametrize("fill, variance", [
    (lambda t: init.uniform_(t, -0.5, 1.5), 2.0**2 / 12),
    (lambda t: init.xavier_uniform_(t, gain=2.0), 4 * 2 / 700),
    (lambda t: init.xavier_normal_(t, gain=2.0), 4 * 2 / 700),
    (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), 2 / 300),
    (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), 2 / 400),
])
def test_the_variance_is_the_one_promised(fill, variance):
    weight = fill(torch.empty(400, 300, dtype=torch.float64))  # 120,000 draws: the standard error is below 0.5 %
    assert weight.var().item() == pytest.approx(variance, rel=0.02)


# ── deep stacks: 30 layers of width 256 ─────────────────────────────────────────────────────────────────────────────


def growth_of_the_mean_square(fill, nonlinear, depth: int = 30, width: int = 256) -> float:
    """E[x²] after `depth` layers over E[x²] before them: the geometric mean of 8 random stacks."""
    logs = []
    for _ in range(8):
        x = start = torch.randn(64, width, dtype=torch.float64)
        for _ in range(depth):
            x = nonlinear(x @ fill(torch.empty(width, width, dtype=torch.float64)).T)
        logs.append(math.log(x.square().mean() / start.square().mean()))
    return math.exp(sum(logs) / len(logs))


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def test_kaiming_keeps_the_size_of_values_through_thirty_relu_layers():
    assert 0.5 < growth_of_the_mean_square(lambda w: init.kaiming_normal_(w, nonlinearity="relu"), relu) < 2
    assert 0.5 < growth_of_the_mean_square(lambda w: init.kaiming_uniform_(w, nonlinearity="relu"), relu) < 2


def test_xavier_keeps_the_size_of_values_through_thirty_linear_layers():
    assert 0.5 < growth_of_the_mean_square(init.xavier_uniform_, lambda x: x) < 2


def test_xavier_halves_the_mean_square_at_each_relu():
    assert 0.5 * 2**-30 < growth_of_the_mean_square(init.xavier_normal_, relu) < 2 * 2**-30
    assert 2**-30 == pytest.approx(1e-9, rel=0.1)


def test_slope_root_5_divides_the_mean_square_by_six_at_each_relu():
    measured = growth_of_the_mean_square(lambda w: init.kaiming_uniform_(w, a=math.sqrt(5)), relu)
    assert 0.5 * 6.0**-30 < measured < 2 * 6.0**-30
    assert 6.0**-30 == pytest.approx(5e-24, rel=0.1)


def test_fan_out_keeps_the_gradient_where_fan_in_keeps_the_values():
    x = torch.randn(2000, 100, dtype=torch.float64, requires_grad=True)
    weight = init.kaiming_normal_(torch.empty(700, 100, dtype=torch.float64), mode="fan_out", nonlinearity="linear")
    (x @ weight.T).backward(torch.randn(2000, 700, dtype=torch.float64))
    assert x.grad.var().item() == pytest.approx(1, rel=0.1)
    assert (x @ weight.T).var().item() == pytest.approx(100 / 700, rel=0.1)


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bias_has_no_fan():
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        init.xavier_uniform_(torch.empty(7))


def test_an_unknown_mode_or_nonlinearity_is_named():
    with pytest.raises(ValueError, match="fan_avg"):
        init.kaiming_normal_(torch.empty(7, 5), mode="fan_avg")
    with pytest.raises(ValueError, match="swish"):
        init.kaiming_normal_(torch.empty(7, 5), nonlinearity="swish")


def test_parameters_that_require_gradients_can_be_filled():
    parameter = nn.Parameter(torch.empty(7, 5))
    assert init.xavier_normal_(parameter) is parameter and parameter.requires_grad and parameter.grad_fn is None


def test_a_weight_that_lies_channels_last_gets_the_draws_of_one_that_does_not() -> None:
    weights = [torch.empty(5, 3, 2, 2).contiguous(memory_format=layout)
               for layout in (torch.contiguous_format, torch.channels_last)]
    for weight in weights:
        torch.manual_seed(5)
        init.uniform_(weight, -1, 1)
    assert torch.equal(*weights)
