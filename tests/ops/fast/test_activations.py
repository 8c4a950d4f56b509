"""The activations written by hand: what they keep for the backward, what they write over, where they differ."""

from __future__ import annotations

import math

import pytest
import torch

from scratch.ops.activations import log_softmax, relu, relu_, softmax

pytestmark = pytest.mark.usefixtures("fast_mode")

PAIRS = {"softmax": softmax, "log_softmax": log_softmax}
inf = math.inf


def test_relu_keeps_its_output_and_nothing_else():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = relu(torch.randn(7, requires_grad=True))
    assert [t.data_ptr() for t in kept] == [y.data_ptr()]


def test_relu_in_place_writes_over_what_nobody_else_reads_and_refuses_the_rest():
    x = torch.randn(7, requires_grad=True)
    fresh = x + 0
    y = relu_(fresh)
    assert y.data_ptr() == fresh.data_ptr() and torch.equal(y, torch.relu(x))
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        relu_(x)
    square = fresh.square()  # its gradient needs what relu_ is about to overwrite
    relu_(fresh)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()


def test_an_infinite_gradient_does_not_vanish_in_a_dead_unit_as_it_does_in_torch():
    gradients = torch.tensor([inf, 1.0])
    x, expected = (torch.tensor([-1.0, 1.0], requires_grad=True) for _ in range(2))
    relu(x).backward(gradients)
    torch.relu(expected).backward(gradients)
    assert x.grad[0].isnan() and x.grad[1] == 1
    assert expected.grad.tolist() == [0, 1]


@pytest.mark.parametrize("name", PAIRS)
def test_softmaxes_keep_their_output_and_nothing_else(name):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = PAIRS[name](torch.randn(3, 5, requires_grad=True), -1)
    assert [t.data_ptr() for t in kept] == [y.data_ptr()]
