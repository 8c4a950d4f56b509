"""linear: equal to torch.nn.functional.linear over any leading axes; embedding: its gradients add up in the table."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scratch.ops.linear import Embedding, Linear, embedding, embedding_naive, linear, linear_matmul, linear_naive
from tests.checks import assert_as_precise_as_torch, assert_same


@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_equals_torch_for_any_leading_axes(leading, I, O, with_bias):
    tensors = [torch.randn(*leading, I), torch.randn(O, I)] + ([torch.randn(O)] if with_bias else [])
    assert_same(linear, F.linear, *tensors)


def test_the_ladder_agrees():
    weight, bias = torch.randn(5, 3), torch.randn(5)
    assert_same(linear_naive, linear, torch.randn(3), weight, bias)
    assert_same(linear_naive, linear, torch.randn(3), weight)
    assert_same(linear_matmul, linear, torch.randn(2, 7, 3), weight, bias)
    assert_same(linear_matmul, linear, torch.randn(2, 7, 3), weight)


def test_an_example_worked_by_hand():
    weight, bias = torch.tensor([[3.0, 4.0], [5.0, 6.0], [0.0, -1.0]]), torch.tensor([0.5, 0.0, 1.0])
    y = linear(torch.tensor([[1.0, 2.0]]), weight, bias)
    assert y.tolist() == [[11.5, 17.0, -1.0]]


def test_rows_that_do_not_lie_in_order_give_the_same():
    assert_same(lambda x, w: linear(x.transpose(0, 1), w), lambda x, w: F.linear(x.transpose(0, 1), w),
                torch.randn(5, 2, 7), torch.randn(3, 7))


def test_the_gradients_are_the_three_of_the_header():
    x, weight, bias = torch.randn(11, 3), torch.randn(5, 3), torch.randn(5)
    grad = torch.randn(11, 5)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    linear(x, weight, bias).backward(grad)
    torch.testing.assert_close(x.grad, grad @ weight)
    torch.testing.assert_close(weight.grad, grad.T @ x)
    torch.testing.assert_close(bias.grad, grad.sum(0))


def test_autograd_keeps_only_the_input_and_the_weight():
    x, weight = torch.randn(11, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        linear(x, weight, torch.randn(5, requires_grad=True))
    assert set(kept) == {x.data_ptr(), weight.data_ptr()}


def test_as_precise_as_torch():
    assert_as_precise_as_torch(linear, F.linear, torch.randn(11, 67), torch.randn(7, 67), torch.randn(7))


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_draws_and_names_its_weights_as_torch(bias):
    torch.manual_seed(5)
    ours = Linear(7, 3, bias=bias).state_dict()
    torch.manual_seed(5)
    theirs = nn.Linear(7, 3, bias=bias).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_layer_computes_with_its_weights():
    layer, x = Linear(7, 3), torch.randn(2, 7)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_the_layer_prints_as_torchs():
    for bias in (True, False):
        assert repr(Linear(7, 3, bias)) == repr(nn.Linear(7, 3, bias))


def test_autocast_lowers_it():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(2, 3), torch.randn(5, 3), torch.randn(5)).dtype is torch.bfloat16


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        linear(torch.randn(2, 5), torch.randn(5, 2))


def test_the_ranges_of_the_weights_are_the_rule_that_torch_names_kaiming_uniform_with_a_root_5():
    for in_features in range(1, 5000):  # gain = √(2/(1 + a²)), bound = √3 · gain / √fan_in; compared as float32
        bound = math.sqrt(3) * (math.sqrt(2 / (1 + math.sqrt(5) ** 2)) / math.sqrt(in_features))
        assert torch.tensor(bound) == torch.tensor(1 / math.sqrt(in_features))


# ── embedding ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 7), st.integers(1, 5))
def test_an_embedding_equals_torch(shape, K, D):
    assert_same(embedding, F.embedding, torch.randint(K, shape), torch.randn(K, D))


def test_the_ladder_of_the_embedding_agrees():
    assert_same(embedding_naive, embedding, torch.randint(5, (2, 3)), torch.randn(5, 7))


def test_a_row_read_twice_receives_the_sum_of_two_gradients():
    weight = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], requires_grad=True)
    y = embedding(torch.tensor([2, 0, 2]), weight)
    y.backward(torch.tensor([[1.0, 1.0], [10.0, 10.0], [100.0, 100.0]]))
    assert y.tolist() == [[4, 5], [0, 1], [4, 5]]
    assert weight.grad.tolist() == [[10, 10], [0, 0], [101, 101]]


def test_an_embedding_is_as_precise_as_torch():
    assert_as_precise_as_torch(embedding, F.embedding, torch.randint(5, (3, 31)), torch.randn(5, 7))


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_outside_the_table_is_named(index):
    with pytest.raises(IndexError, match=rf"{index}.*wanted 0 to 4"):
        embedding(torch.tensor([2, index]), torch.randn(5, 3))


def test_the_layer_draws_and_names_its_table_as_torch():
    torch.manual_seed(5)
    ours = Embedding(7, 3)
    torch.manual_seed(5)
    theirs = nn.Embedding(7, 3)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    indices = torch.randint(7, (2, 5))
    assert torch.equal(ours(indices), theirs(indices))
    assert repr(ours) == repr(theirs)


def test_an_embedding_is_a_linear_layer_of_a_one_hot_vector():
    indices, table = torch.randint(5, (2, 3)), torch.randn(5, 7)
    one_hot = F.one_hot(indices, 5)
    assert_same(lambda table: embedding(indices, table), lambda table: linear(one_hot.to(table.dtype), table.T), table)
