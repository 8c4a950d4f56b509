"""The layer norm written by hand: what it keeps for the backward."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scratch.ops.fast.layer_norm import _on_a_gpu
from scratch.ops.layer_norm import layer_norm
from tests.checks import LOW_PRECISIONS, assert_as_precise_as_torch, assert_same

pytestmark = pytest.mark.usefixtures("fast_mode")


def test_only_one_tensor_of_the_size_of_x_is_kept_for_the_backward() -> None:
    kept: list[Tensor] = []
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((3, 7, 61), (61,), (61,)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer_norm(x, 61, weight, bias)
    assert sum(t.numel() == x.numel() for t in kept) == 1


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1], weight, bias)


def theirs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias)


@pytest.fixture
def as_on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr("scratch.ops.fast.layer_norm._on_a_gpu", lambda x: True)


@pytest.mark.parametrize("shape", [(3, 7, 61), (1, 5), (11, 2)])
def test_the_version_with_few_passes_is_layer_norm(shape: tuple, as_on_a_gpu) -> None:
    assert_same(ours, theirs, torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape[-1]))


@pytest.mark.parametrize("shift, dtypes", [(0.0, LOW_PRECISIONS), (1e4, [torch.float32])])
def test_the_version_with_few_passes_is_as_precise_as_torch(shift: float, dtypes, as_on_a_gpu) -> None:
    generator = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((7, 13, 61), (61,), (61,)))
    assert_as_precise_as_torch(ours, theirs, x + shift, weight, bias, dtypes=dtypes)


def test_under_autocast_the_version_with_few_passes_multiplies_in_float32(as_on_a_gpu) -> None:
    gradients = []
    for autocast in (False, True):
        x, weight, bias = (t.requires_grad_() for t in (torch.ones(3, 5).cumsum(1), torch.ones(5), torch.zeros(5)))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ours(x, weight, bias).square().cumsum(1).sum().backward()
        gradients.append((x.grad, weight.grad))
    for exact, lowered in zip(*gradients):
        assert torch.equal(exact, lowered)


@pytest.mark.parametrize("is_cuda, compiling, few", [(True, False, True), (True, True, False), (False, False, False)])
def test_few_passes_are_for_a_gpu_and_not_for_torch_compile(monkeypatch, is_cuda: bool, compiling: bool, few: bool) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    assert _on_a_gpu(SimpleNamespace(is_cuda=is_cuda)) is few
