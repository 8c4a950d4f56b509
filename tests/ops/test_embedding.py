"""embedding: the rows of a table, and their gradients added where they were read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scratch.ops.embedding import Embedding, embedding, embedding_naive
from tests.checks import assert_as_precise_as_torch, assert_same


@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 7), st.integers(1, 5))
def test_equals_torch(shape, K, D):
    assert_same(embedding, F.embedding, torch.randint(K, shape), torch.randn(K, D))


def test_the_ladder_agrees():
    assert_same(embedding_naive, embedding, torch.randint(5, (2, 3)), torch.randn(5, 7))


def test_a_row_read_twice_receives_the_sum_of_two_gradients():
    weight = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], requires_grad=True)
    y = embedding(torch.tensor([2, 0, 2]), weight)
    y.backward(torch.tensor([[1.0, 1.0], [10.0, 10.0], [100.0, 100.0]]))
    assert y.tolist() == [[4, 5], [0, 1], [4, 5]]
    assert weight.grad.tolist() == [[10, 10], [0, 0], [101, 101]]


def test_as_precise_as_torch():
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
