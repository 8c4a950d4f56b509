"""The batch norm written by hand: what torch.compile is given, and what is kept for the backward."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from scratch.analysis.primitives import record_primitives
from scratch.ops.batch_norm import BatchNorm2d, batch_norm
from scratch.ops.fast.batch_norm import (
    _BatchNorm, _HalfBatchNorm, _multiply_add, fast_batch_norm, statistics_at_the_end)
from scratch.ops.fast.switch import plain_mode
from tests.checks import assert_same
from tests.ops.test_batch_norm import normalising, random_inputs, statistics

pytestmark = pytest.mark.usefixtures("fast_mode")


@pytest.mark.parametrize("training", [True, False])
def test_what_torch_compile_is_given_computes_the_same(training: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_same(normalising(batch_norm, training), normalising(F.batch_norm, training), *random_inputs(2, 5, 3, 7))


def test_only_the_image_and_a_few_numbers_a_channel_are_kept_for_the_backward() -> None:
    kept: list[torch.Tensor] = []
    x, weight, bias = (t.requires_grad_() for t in random_inputs(3, 5, 7, 11))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        batch_norm(x, *statistics(x.detach()), weight, bias, training=True)
    assert [t.data_ptr() for t in kept if t.numel() > 5] == [x.data_ptr()]


def in_half(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Training as on a GPU, whatever the device and the dtype."""
    return _HalfBatchNorm.apply(x, weight, bias, 1e-5)[0]


@pytest.mark.parametrize("shape", [(2, 5, 3, 7), (3, 1, 5, 2), (7, 11, 1, 1)])
def test_the_version_for_half_precision_is_batch_norm(shape: tuple) -> None:
    assert_same(in_half, normalising(F.batch_norm, True), *random_inputs(*shape))


def far_from_zero(ratio: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Channels of σ = 1 and mean ± `ratio`."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(4, 7, 23, 19, generator=generator)
    x += ratio * torch.randn(1, 7, 1, 1, generator=generator).sign()
    weight, bias = torch.rand(7, generator=generator) + 0.5, torch.randn(7, generator=generator)
    return x.to(dtype), weight, bias


def distance(ours: torch.Tensor, truth: torch.Tensor) -> float:
    return ((ours.double() - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 5.0, 30.0])
def test_in_half_precision_values_and_gradients_of_the_image_are_as_near_as_torchs(dtype, ratio) -> None:
    """And the gradient of the weight is off by what rounding x has cost already: an ε for each σ of the mean."""
    x, weight, bias = far_from_zero(ratio, dtype)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(6)).to(dtype)
    answers = {}
    for name, function, kind in (("truth", normalising(F.batch_norm, True), torch.float64), ("ours", in_half, dtype),
                                 ("theirs", normalising(F.batch_norm, True), dtype)):
        image = x.to(kind).requires_grad_()
        of = torch.float64 if kind is torch.float64 else torch.float32
        scale, shift = weight.to(of).requires_grad_(), bias.to(of).requires_grad_()
        if name == "theirs":
            y = F.batch_norm(image, torch.zeros(7), torch.ones(7), scale, shift, training=True)
        else:
            y = function(image, scale, shift)
        answers[name] = [y.detach(), *torch.autograd.grad(y, (image, scale, shift), g.to(kind))]
    epsilon = torch.finfo(dtype).eps
    for ours, theirs, truth in zip(*(answers[name][:2] for name in ("ours", "theirs", "truth"))):
        assert distance(ours, truth) <= (1.1 if ratio <= 5 else 1.5) * distance(theirs, truth)
    assert distance(answers["ours"][2], answers["truth"][2]) <= epsilon * (1 + ratio)
    assert distance(answers["ours"][3], answers["truth"][3]) <= 1e-5
    assert answers["ours"][0].dtype == answers["ours"][1].dtype == dtype


def test_the_version_for_half_precision_writes_no_wider_image() -> None:
    x, weight, bias = far_from_zero(1.0, torch.float16)
    images = []

    class Images(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            images.extend(t for t in [result] if isinstance(t, torch.Tensor) and t.numel() == x.numel())
            return result

    x.requires_grad_(), weight.requires_grad_()
    with Images():
        in_half(x, weight, bias).backward(torch.ones_like(x))
    assert len(images) > 3 and {image.dtype for image in images} == {torch.float16}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_evaluation_of_a_half_image_rounds_once_and_its_gradient_too(dtype) -> None:
    x, weight, bias = far_from_zero(5.0, dtype)
    running = statistics(weight[None, :, None, None])
    answers = []
    for plain in (False, True):
        image = x.clone().requires_grad_()
        with plain_mode(plain):
            y = batch_norm(image, *running, weight, bias)
        answers.append((y.detach(), *torch.autograd.grad(y, image, torch.ones_like(y))))
    for ours, theirs in zip(*answers):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=torch.finfo(dtype).eps, atol=0.0)


def layers_after(steps: int, together: bool) -> dict[str, torch.Tensor]:
    """The state of three layers, the last used twice a step, after some steps of training."""
    layers = torch.nn.ModuleList([BatchNorm2d(3), BatchNorm2d(3, momentum=0.3), BatchNorm2d(3)]).double()
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        x = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64)
        with statistics_at_the_end() if together else nullcontext():
            for layer in (*layers, layers[2]):
                x = layer(2 * x + 1)
    return layers.state_dict()


def test_running_statistics_that_move_at_the_end_are_those_that_move_at_once() -> None:
    ours, expected = layers_after(3, True), layers_after(3, False)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12)
    assert not torch.equal(ours["0.running_mean"], torch.zeros(3).double())


def test_running_statistics_stay_where_a_forward_pass_fails() -> None:
    layer, x = BatchNorm2d(3), torch.randn(2, 3, 5, 7)
    with pytest.raises(ZeroDivisionError), statistics_at_the_end():
        layer(x)
        raise ZeroDivisionError
    assert not layer.running_mean.any()
    layer(x)  # and what comes later is not held back
    assert layer.running_mean.any()


def test_the_statistics_of_all_layers_move_by_three_calls() -> None:
    layers, x = [BatchNorm2d(3) for _ in range(11)], torch.randn(2, 3, 5, 7)

    def forward() -> None:
        with statistics_at_the_end():
            for layer in layers:
                layer(x)

    counts = record_primitives(forward)
    assert counts["_foreach_lerp_"] == 2 and counts["_foreach_mul"] == 1 and counts["lerp_"] == 0


def test_a_backward_makes_no_zeros_for_the_statistics() -> None:
    x, weight, bias = (t.requires_grad_() for t in random_inputs(2, 3, 5, 7))
    y = batch_norm(x, *statistics(x.detach()), weight, bias, training=True)
    g = torch.ones_like(y)
    assert not {"zeros", "zeros_like", "new_zeros"} & set(record_primitives(lambda: y.backward(g)))


def test_running_statistics_are_measured_and_not_learned() -> None:
    x, weight, bias = (t.requires_grad_() for t in random_inputs(2, 5, 3, 7))
    y, mean, variance = _BatchNorm.apply(x, weight, bias, 1e-5)
    assert y.requires_grad and not mean.requires_grad and not variance.requires_grad


@pytest.mark.parametrize("weight_learns, bias_learns", [(True, False), (False, True)])
def test_a_half_image_is_evaluated_in_one_pass_only_where_neither_weight_nor_bias_learns(
        weight_learns: bool, bias_learns: bool) -> None:
    x, weight, bias = torch.randn(2, 5, 3, 7).half(), torch.ones(5), torch.zeros(5)
    numbers = (torch.zeros(5), torch.ones(5))
    assert fast_batch_norm(x, *numbers, weight, bias, False, 0.1, 1e-5) is not None
    weight.requires_grad_(weight_learns), bias.requires_grad_(bias_learns)
    assert fast_batch_norm(x, *numbers, weight, bias, False, 0.1, 1e-5) is None


def test_what_torch_compile_fuses_has_the_dtype_of_the_memory_that_it_does_without(monkeypatch) -> None:
    shift, x, scale = torch.tensor(1.0), torch.tensor([2.0, 3.0]), torch.tensor(5.0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    y = _multiply_add(shift, x, scale, torch.empty(2, dtype=torch.float16))
    assert y.dtype is torch.float16 and y.tolist() == [11.0, 16.0]
