"""The doors between the notes and ops/fast: open, a backward written by hand; closed, autograd alone."""

from __future__ import annotations

from typing import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from scratch.ops.activations import log_softmax, relu, relu_, sigmoid, softmax
from scratch.ops.batch_norm import BatchNorm2d
from scratch.ops.fast.hungarian import fast_assignment
from scratch.ops.fast.switch import plain, plain_mode
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.windows import MaxPool2d

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # each a function of images (2,4,6,6)
    "relu": relu, "relu_": lambda x: relu_(x + 0), "sigmoid": sigmoid, "softmax": lambda x: softmax(x, 1),
    "log_softmax": lambda x: log_softmax(x, 1), "layer_norm": LayerNorm(6), "batch_norm": BatchNorm2d(4),
    "max_pool": MaxPool2d(3, 2, 1)}


def nodes(y: Tensor) -> Iterator[object]:
    """All nodes of the graph that autograd has recorded for y."""
    waiting, seen = [y.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [parent for parent, _ in node.next_functions]


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_backward_written_by_hand_is_recorded_with_the_doors_open_alone(name: str) -> None:
    for plain, by_hand in ((False, 1), (True, 0)):
        with plain_mode(plain):
            y = OPERATIONS[name](torch.randn(2, 4, 6, 6, requires_grad=True))
        assert sum(isinstance(node, BackwardCFunction) for node in nodes(y)) == by_hand


def test_the_door_of_the_assignment() -> None:
    cost = [[3.0, 1.0, 2.0], [2.0, 1.0, 5.0]]
    with plain_mode(False):
        assert fast_assignment(cost) == [1, 0]
    with plain_mode(True):
        assert fast_assignment(cost) is None


def test_plain_mode_is_on_unless_it_is_told_otherwise() -> None:
    with plain_mode(False):
        with plain_mode():
            assert plain()
        assert not plain()
