"""dropout: the mask that torch draws, the share that was asked for, and an expectation that does not move."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scratch.ops.dropout import Dropout, dropout, dropout_naive
from tests.checks import assert_as_precise_as_torch, assert_same


def seeded(function):
    def run(x):
        torch.manual_seed(11)
        return function(x)
    return run


@given(st.lists(st.integers(0, 7), max_size=3), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_equals_torch_under_the_same_seed(shape, p):
    assert_same(seeded(lambda x: dropout(x, p, True)), seeded(lambda x: F.dropout(x, p, True)), torch.randn(shape))


def test_draws_in_the_order_of_the_memory_as_torch_does():
    ours = seeded(lambda x: dropout(x.transpose(0, 2), 0.3, True))
    assert_same(ours, seeded(lambda x: F.dropout(x.transpose(0, 2), 0.3, True)), torch.randn(5, 7, 3))


def test_leaves_the_generator_where_torch_leaves_it():
    x = torch.randn(5, 7)
    seeded(lambda x: dropout(x, 0.1, True))(x)
    after_ours = torch.rand(1)
    seeded(lambda x: F.dropout(x, 0.1, True))(x)
    assert after_ours == torch.rand(1)


def test_as_precise_as_torch():
    assert_as_precise_as_torch(seeded(lambda x: dropout(x, 0.3, True)), seeded(lambda x: F.dropout(x, 0.3, True)),
                               torch.randn(7, 13))


@pytest.mark.parametrize("function", [lambda x, p: dropout(x, p, True), dropout_naive])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_drops_the_share_asked_for_and_keeps_the_mean(function, p):
    n = 100_000
    y = function(torch.ones(n, dtype=torch.float64), p)
    four_sigma = 4 * math.sqrt(p * (1 - p) / n)
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=four_sigma)
    assert y.mean().item() == pytest.approx(1, abs=four_sigma / (1 - p))
    assert y[y != 0].unique().tolist() == [pytest.approx(1 / (1 - p))]


def test_a_uniform_draw_of_exactly_one_minus_p_is_not_below_it(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.tensor([0.25, 0.5, 0.75]))
    assert dropout_naive(torch.ones(3), 0.5).tolist() == [2, 0, 0]


def test_the_gradient_passes_where_the_value_passed():
    x = torch.ones(1000, requires_grad=True)
    y = dropout(x, 0.25, True)
    y.sum().backward()
    assert torch.equal(x.grad, y)


def test_the_example_of_the_header():
    # Under p = ½, survivors are doubled.
    x = torch.tensor([0.5, 1.2, -0.3, 0.8])
    y = dropout(x, 0.5, True)
    assert all(new in (0, 2 * old) for new, old in zip(y.tolist(), x.tolist()))
    assert (torch.tensor([1.0, 0.0, 1.0, 1.0]) * x * 2).tolist() == pytest.approx([1.0, 0, -0.6, 1.6])


def test_p_zero_and_evaluation_return_the_input_itself():
    x = torch.randn(7)
    assert dropout(x, 0.0, True) is x and dropout(x, 0.5, False) is x


def test_p_one_gives_zeros_and_zero_gradient():
    x = torch.randn(7, requires_grad=True)
    y = dropout(x, 1.0, True)
    y.sum().backward()
    assert not y.any() and not x.grad.any()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_probability_outside_zero_to_one_is_refused(p):
    with pytest.raises(ValueError, match=f"{p}"):
        dropout(torch.randn(3), p, True)
    with pytest.raises(ValueError, match=f"{p}"):
        Dropout(p)


@pytest.mark.parametrize("function, bytes_each", [(dropout, 1), (F.dropout, 4)])
def test_autograd_keeps_one_byte_for_each_number_where_torch_keeps_four(function, bytes_each):
    kept = []
    x = torch.randn(70, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        function(x, 0.5, True)
    assert sum(t.numel() * t.element_size() for t in kept if t.numel() > 1) == 70 * bytes_each


def test_the_layer_drops_in_train_mode_only_as_torch():
    ours, theirs, x = Dropout(0.3), nn.Dropout(0.3), torch.randn(5, 7)
    assert torch.equal(seeded(ours)(x), seeded(theirs)(x))
    assert ours.eval()(x) is x
    assert repr(ours) == "Dropout(p=0.3)"
