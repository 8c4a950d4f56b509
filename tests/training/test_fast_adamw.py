"""fast_adamw: the step of all tensors at once is the definition's, in seven calls, in pieces that a cache holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from scratch.ops.fast.switch import plain_mode
from scratch.training import fast_adamw
from scratch.training.fast_adamw import adamw_foreach
from scratch.training.optimizer import AdamW, adamw_definition
from tests.training.test_optimizer import SETTINGS, _assert_equal_for_50_steps, _random, _weights


@given(lr=st.floats(1e-6, 1.0), beta1=st.floats(0.0, 0.99), beta2=st.floats(0.0, 0.9999),
       weight_decay=st.floats(0.0, 1.0), steps=st.lists(st.integers(1, 2000), min_size=4, max_size=4))
def test_the_foreach_version_equals_the_definition(lr, beta1, beta2, weight_decay, steps):
    settings = dict(lr=lr, betas=(beta1, beta2), eps=1e-8, weight_decay=weight_decay)
    weights, gradients, m = ([p.detach().clone() for p in _weights(seed)] for seed in (1, 2, 3))
    v = [p.detach().square() for p in _weights(4)]
    wanted = [adamw_definition(*tensors, **settings) for tensors in zip(weights, gradients, m, v, steps)]
    adamw_foreach(weights, gradients, m, v, steps, **settings)
    for got, want in zip(zip(weights, m, v), wanted):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


class _CountCalls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def test_the_foreach_version_makes_7_calls_for_all_tensors_and_the_definition_16_for_each():
    tensors = [[p.detach() for p in _weights(seed)] for seed in range(3)]
    v = [t.square() for t in tensors[0]]
    with _CountCalls() as all_at_once:
        adamw_foreach(*tensors, v, [1] * 4, **SETTINGS)
    with _CountCalls() as one:
        adamw_definition(tensors[0][0], tensors[1][0], tensors[2][0], v[0], 1, **SETTINGS)
    assert (all_at_once.calls, one.calls) == (7, 16)


def test_the_published_decay_is_less_than_float32_can_see_and_its_call_is_spared():
    weight = torch.randn(1000)
    assert torch.equal(weight * (1 - 1e-4 * 1e-4), weight)  # so that torch.optim.AdamW does not decay either
    assert not torch.equal(weight * (1 - 1e-4 * 1e-2), weight)
    tensors = [[p.detach().float() for p in _weights(seed)] for seed in range(3)]
    calls = []
    for decay in (1e-4, 1e-2):
        with _CountCalls() as counted:
            adamw_foreach(*tensors, [t.square() for t in tensors[0]], [1] * 4, **{**SETTINGS, "lr": 1e-4,
                                                                                 "weight_decay": decay})
        calls.append(counted.calls)
    assert calls[1] - calls[0] == 1


@pytest.mark.parametrize("decay, calls", [(2.0**-13, 6), (2.0**-13 * 1.01, 7)])
def test_the_call_is_spared_up_to_a_decay_of_a_quarter_of_a_unit(decay, calls):
    tensors = [[torch.ones(3)] for _ in range(4)]
    assert 2.0**-12 * 2.0**-13 == torch.finfo(torch.float32).eps / 4
    with _CountCalls() as counted:
        adamw_foreach(*tensors, [1], **{**SETTINGS, "lr": 2.0**-12, "weight_decay": decay})
    assert counted.calls == calls


def test_a_decay_that_one_dtype_cannot_see_is_not_kept_from_another():
    weights = [torch.ones(2, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)]
    zeros = [[torch.zeros_like(weight) for weight in weights] for _ in range(3)]
    adamw_foreach(weights, *zeros, [1, 1], **{**SETTINGS, "lr": 1e-2, "weight_decay": 1e-1})
    assert weights[0].tolist() == [1, 1] and weights[1].tolist() == pytest.approx([0.999, 0.999])


def test_in_plain_mode_the_door_leaves_everything_to_the_definition():
    with plain_mode():
        assert not fast_adamw.fast_adamw([torch.ones(1)], [{"step": 1}], 0.1, (0.9, 0.999), 1e-8, 0.0)
    with plain_mode(False), _CountCalls() as fast:
        _one_step()
    with plain_mode(), _CountCalls() as plain:
        _one_step()
    assert plain.calls > 2 * fast.calls


def _one_step() -> None:
    weights = [nn.Parameter(torch.ones(3)) for _ in range(4)]
    for weight in weights:
        weight.grad = torch.ones(3)
    AdamW(weights).step()


def test_bunches_hold_every_number_once_and_no_more_than_they_should(monkeypatch):
    monkeypatch.setattr(fast_adamw, "BUNCH", 10)
    shapes = [(3,), (4, 2), (5, 7), (2, 3, 2, 2), (1,)]
    four = [[torch.randn(shape) for shape in shapes] for _ in range(4)]
    for tensors in four:
        tensors[3] = tensors[3].contiguous(memory_format=torch.channels_last)
    found = [[] for _ in range(4)]
    for *lists, steps in fast_adamw.bunches(*four, [1, 2, 3, 4, 5]):
        assert 0 < sum(t.numel() for t in lists[0]) <= 10 and all(len(part) == len(steps) for part in lists)
        for numbers, tensors in zip(found, lists):
            numbers += [(t.data_ptr() + 4 * i, step) for t, step in zip(tensors, steps) for i in range(t.numel())]
    for numbers, tensors in zip(found, four):
        assert sorted(numbers) == sorted((t.data_ptr() + 4 * i, step) for step, t in enumerate(tensors, 1)
                                         for i in range(t.numel()))


def test_steps_in_small_bunches_equal_torch(monkeypatch):
    monkeypatch.setattr(fast_adamw, "BUNCH", 4)
    _assert_equal_for_50_steps(_random)


def test_off_the_cpu_there_is_one_bunch():
    tensors = [[torch.empty(2**11, 2**10, device="meta"), torch.empty(3, device="meta")] for _ in range(4)]
    (bunch,) = fast_adamw.bunches(*tensors, [1, 2])
    assert bunch == (*tensors, [1, 2])
