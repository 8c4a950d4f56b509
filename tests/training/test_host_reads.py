"""Each step in which CPU and GPU wait for each other is found, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable

import pytest
import torch
from torch import Tensor

from scratch.config import PRESETS, ModelConfig
from scratch.model.build import build_detr
from scratch.ops.fast.switch import for_replay
from scratch.training.cuda_graph import Pass, host_reads
from scratch.training.host_reads import HostReads


def found(code: Callable[[Tensor], Any]) -> list[str]:
    x = torch.arange(6.0).view(2, 3)
    with HostReads() as watch:
        code(x)
    return watch.found


def if_positive(x: Tensor) -> int:
    return 1 if x.sum() > 0 else 0


@pytest.mark.parametrize("code, what", [
    (lambda x: x.sum().item(), "_local_scalar_dense reads numbers"),
    (lambda x: int(torch.randint(2**62, ())), "_local_scalar_dense reads numbers"),
    (if_positive, "_local_scalar_dense reads numbers"),
    (lambda x: x.nonzero(), "nonzero reads numbers"),
    (lambda x: x[x > 2], "index by a mask reads how many are True"),
    (lambda x: torch.equal(x, x + 1), "equal reads numbers"),
    (lambda x: x.unique(), "_unique2 reads numbers"),
    (lambda x: torch.repeat_interleave(torch.tensor([1, 2])), "repeat_interleave reads the length of its result"),
    (lambda x: torch.tensor([1, 2]), "a tensor is made of numbers of the CPU"),
    (lambda x: torch.empty(3).uniform_(generator=torch.Generator().manual_seed(1)),
     "uniform_ draws from a generator of its own"),
    (lambda x: x.to("meta"), "_to_copy copies between cpu and meta"),
    (lambda x: torch.empty(2, 3, device="meta").copy_(x), "copy_ copies between cpu and meta"),
])
def test_a_step_of_the_cpu_is_found_with_its_place(code: Callable[[Tensor], Any], what: str) -> None:
    assert f"{what} (test_host_reads.py:{code.__code__.co_firstlineno + (code is if_positive)} " in found(code)[-1]


@pytest.mark.parametrize("code", [
    lambda x: (x * 2 + 1).relu().sum(), lambda x: x.masked_fill(x > 2, 0), lambda x: torch.where(x > 2, x, 0),
    lambda x: x[:, torch.arange(2)], lambda x: x.topk(2).indices, lambda x: torch.rand_like(x),
    lambda x: x.bernoulli_(0.3), lambda x: x.view(3, 2)[0, 1] + 1.5, lambda x: torch.full((3,), 7, device=x.device),
])
def test_what_a_graph_can_repeat_is_not_found(code: Callable[[Tensor], Any]) -> None:
    assert found(code) == []


def test_a_planted_item_in_a_backward_is_found() -> None:
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:
            return grad * grad.sum().item()

    assert found(lambda x: Reads.apply(x.requires_grad_()).sum().backward()) == [
        found(lambda x: Reads.backward(None, x))[0]]


# -- the model -----------------------------------------------------------------------------------------------------


def small(preset: str, **changed: Any) -> ModelConfig:
    return replace(PRESETS[preset].model, backbone="resnet_tiny", hidden_dim=16, nheads=2, dim_feedforward=24,
                   enc_layers=1, dec_layers=2, num_queries=7, num_classes=3, **{"dropout": 0.1, **changed})


def in_training(config: ModelConfig) -> list[str]:
    model = build_detr(config).train()
    images, pad_mask = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    return host_reads(Pass(model), images, pad_mask)


@pytest.mark.parametrize("config", [
    small("tiny"), small("tiny_vanilla"), small("detr_r50"), small("detr_r50_dc5"), small("detr_141m_fast"),
    small("tiny", groups=3), small("tiny", queries="anchor"), small("tiny", norm="group"),
], ids=lambda config: f"{config.queries}-{config.norm}-{config.groups}")
def test_the_cpu_takes_no_part_in_the_forward_and_backward_of_a_model(config: ModelConfig) -> None:
    assert in_training(config) == []


def test_a_planted_item_in_the_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import scratch.model.transformer as transformer

    relu = transformer.relu
    monkeypatch.setattr(transformer, "relu", lambda x: relu(x) * (1 if x.amax().item() > -1 else 2))
    assert "_local_scalar_dense reads numbers (test_host_reads.py" in in_training(small("tiny_vanilla"))[0]


def test_dropout_in_tiles_draws_a_seed_on_the_cpu_and_not_for_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scratch.ops.fast.attention._MOST_WEIGHTS", 10)
    assert any("tiled_attention.py" in line for line in in_training(small("tiny")))
    with for_replay():
        assert in_training(small("tiny")) == []
