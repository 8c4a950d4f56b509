"""batch_norm against torch.nn.functional.batch_norm: training, evaluation, and frozen."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scratch.ops.batch_norm import BatchNorm2d, FrozenBatchNorm2d, batch_norm, batch_norm_naive
from tests.checks import assert_as_precise_as_torch, assert_same

pytestmark = pytest.mark.usefixtures("mode")  # by its own arithmetic and through its door (conftest.py)


def random_inputs(B: int, C: int, H: int, W: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(B, C, H, W).double(), torch.randn(C).double(), torch.randn(C).double()


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """A running mean and a running variance that differ from channel to channel."""
    ramp = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
    return ramp / 4 - 1, ramp / 2 + 0.5


def normalising(function, training: bool):
    return lambda x, weight, bias: function(x, *statistics(x), weight, bias, training=training)


images = st.tuples(st.integers(2, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))


@given(images)
def test_the_definition_equals_torch_in_training(shape) -> None:
    assert_same(batch_norm_naive, normalising(F.batch_norm, True), *random_inputs(*shape))


@given(images, st.booleans())
def test_batch_norm_equals_torch(shape, training: bool) -> None:
    assert_same(normalising(batch_norm, training), normalising(F.batch_norm, training), *random_inputs(*shape))


@pytest.mark.parametrize("training", [True, False])
def test_low_precision_is_as_precise_as_torch(training: bool) -> None:
    inputs = random_inputs(3, 5, 7, 11)
    assert_as_precise_as_torch(normalising(batch_norm, training), normalising(F.batch_norm, training), *inputs)


def test_far_from_zero_it_is_as_precise_as_torch() -> None:
    x, weight, bias = random_inputs(3, 5, 7, 11)
    assert_as_precise_as_torch(normalising(batch_norm, True), normalising(F.batch_norm, True), x + 1e4, weight, bias,
                               dtypes=[torch.float32])


def test_what_rounding_the_mean_leaves_over_is_made_good_in_value_and_gradients() -> None:
    """Between 2²⁴ and 2²⁴ + 2 float32 has no number: the mean is off by one standard deviation."""
    x = torch.tensor([0.0, 2.0, 2.0, 0.0, 0.0, 0.0, 2.0, 2.0]).view(2, 1, 2, 2) + 2.0**24
    weight, bias, g = torch.tensor([3.0]), torch.tensor([5.0]), torch.randn(2, 1, 2, 2)
    answers = []
    for function, dtype in ((batch_norm, torch.float32), (F.batch_norm, torch.float64)):
        inputs = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
        y = normalising(function, True)(*inputs)
        answers.append([y, *torch.autograd.grad(y, inputs, g.to(dtype))])
    for ours, theirs in zip(*answers):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)


def test_what_rounding_the_mean_leaves_over_is_in_the_running_mean_too() -> None:
    """The mean is 2²⁴ + 1, which float32 does not have: its nearest numbers are 2²⁴ and 2²⁴ + 2."""
    x = torch.tensor([0.0, 2.0, 2.0, 0.0, 0.0, 0.0, 2.0, 2.0]).view(2, 1, 2, 2) + 2.0**24
    mean = torch.zeros(1)
    batch_norm(x, mean, torch.ones(1), torch.ones(1), torch.zeros(1), training=True, momentum=1.0)
    assert mean.item() in (2**24, 2**24 + 2)


def test_the_layers_tell_their_numbers() -> None:
    assert repr(BatchNorm2d(5, momentum=0.2)) == "BatchNorm2d(5, eps=1e-05, momentum=0.2)"
    assert repr(FrozenBatchNorm2d(5)) == "FrozenBatchNorm2d(5, eps=1e-05)"


def test_two_pixels_by_hand() -> None:
    x = torch.tensor([[[[1.0, 5.0]]]], dtype=torch.float64)  # mean 3, variance 4; unbiased 8
    running_mean, running_var = torch.zeros(1).double(), torch.ones(1).double()
    weight, bias = torch.tensor([10.0]).double(), torch.tensor([7.0]).double()
    y = batch_norm(x, running_mean, running_var, weight, bias, training=True, momentum=0.5, eps=0.0)
    assert y.tolist() == [[[[-3.0, 17.0]]]]
    assert (running_mean.item(), running_var.item()) == (1.5, 4.5)
    mean, variance = torch.tensor([3.0]).double(), torch.tensor([4.0]).double()
    assert batch_norm(x, mean, variance, weight, bias, eps=0.0).tolist() == y.tolist()


def test_the_backward_is_the_derivative_of_the_forward() -> None:
    inputs = [t.requires_grad_() for t in random_inputs(2, 3, 2, 3)]
    assert torch.autograd.gradcheck(normalising(batch_norm, True), inputs)


def test_the_gradient_of_training_can_neither_shift_nor_scale_a_channel() -> None:
    x, weight, bias = random_inputs(3, 5, 7, 11)
    batch_norm(x.requires_grad_(), *statistics(x), weight, bias, training=True, eps=0.0).sin().sum().backward()
    nothing = torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(x.grad.sum((0, 2, 3)), nothing, rtol=0, atol=1e-12)
    torch.testing.assert_close((x.grad * x).sum((0, 2, 3)), nothing, rtol=0, atol=1e-12)


def test_after_ten_batches_a_third_of_the_running_statistics_is_still_their_start() -> None:
    running_mean, running_var = torch.zeros(1).double(), torch.ones(1).double()
    x = torch.zeros(2, 1, 3, 5).double() + 7  # of mean 7 and variance 0
    for _ in range(10):
        batch_norm(x, running_mean, running_var, torch.ones(1).double(), torch.zeros(1).double(), training=True)
    assert round(running_var.item(), 2) == 0.35 and running_mean.item() == pytest.approx(7 * (1 - 0.9 ** 10))


def test_running_statistics_follow_torch_over_several_steps_and_serve_evaluation() -> None:
    ours, theirs = BatchNorm2d(5).double(), nn.BatchNorm2d(5).double()
    for step in range(4):
        x = torch.randn(3, 5, 7, 2, dtype=torch.float64) * (step + 1) + step
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-10, atol=1e-10)


def test_evaluation_leaves_the_statistics_alone() -> None:
    layer = BatchNorm2d(5).eval()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    layer(torch.randn(3, 5, 7, 2))
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


@pytest.mark.parametrize("layer", [BatchNorm2d(5), BatchNorm2d(5).eval(), FrozenBatchNorm2d(5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_result_and_gradient_keep_the_memory_layout(layer: nn.Module, layout) -> None:
    x = torch.randn(3, 5, 7, 2).to(memory_format=layout).requires_grad_()
    y = layer(x)
    grad_x, = torch.autograd.grad(y, x, torch.randn_like(y))
    assert y.is_contiguous(memory_format=layout) and grad_x.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layer, theirs", [
    (BatchNorm2d(5), nn.BatchNorm2d(5)), (BatchNorm2d(5).eval(), nn.BatchNorm2d(5).eval())])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_images_under_float32_parameters_stay_half(layer, theirs, dtype) -> None:
    x = torch.randn(3, 5, 7, 2).to(dtype).requires_grad_()
    x_wide = x.detach().float().requires_grad_()
    y, truth = layer(x), theirs(x_wide)
    y.float().square().sum().backward()
    truth.square().sum().backward()
    assert y.dtype == x.grad.dtype == dtype and layer.weight.grad.dtype == torch.float32
    assert (y.float() - truth).abs().max() <= torch.finfo(dtype).eps * truth.abs().max()
    torch.testing.assert_close(layer.weight.grad, theirs.weight.grad, rtol=8 * torch.finfo(dtype).eps, atol=0.0)


def test_autocast_leaves_the_dtype_of_the_image() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            for layer in (BatchNorm2d(5), FrozenBatchNorm2d(5)):
                assert layer(torch.randn(3, 5, 7, 2, dtype=dtype)).dtype == dtype


def test_the_layer_has_torchs_names_shapes_and_defaults() -> None:
    ours, theirs = BatchNorm2d(5).state_dict(), nn.BatchNorm2d(5).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[k], v) and ours[k].dtype == v.dtype for k, v in theirs.items())


def test_a_frozen_layer_learns_nothing_and_takes_an_ordinary_layers_weights() -> None:
    theirs = nn.BatchNorm2d(5)
    theirs(torch.randn(3, 5, 7, 2) * 3 + 1)
    frozen = FrozenBatchNorm2d(5)
    frozen.load_state_dict(theirs.state_dict(), strict=True)
    assert not list(frozen.parameters())
    assert list(frozen.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    frozen.double(), theirs.double().eval()
    assert_same(frozen.train(), theirs, torch.randn(3, 5, 7, 2))


def test_a_frozen_layer_is_the_official_multiply_add() -> None:
    x, weight, bias = random_inputs(3, 5, 7, 2)
    frozen = FrozenBatchNorm2d(5).double()
    running_mean, running_var = statistics(x)
    frozen.load_state_dict(dict(weight=weight, bias=bias, running_mean=running_mean, running_var=running_var))
    scale = weight * (running_var + 1e-5).rsqrt()
    expected = x * scale.view(1, 5, 1, 1) + (bias - running_mean * scale).view(1, 5, 1, 1)
    torch.testing.assert_close(frozen(x), expected, rtol=1e-12, atol=1e-12)


def test_a_constant_channel_stays_finite() -> None:
    x = torch.full((2, 3, 2, 2), 7.0, requires_grad=True)
    y = BatchNorm2d(3)(x)
    y.sum().backward()
    assert not y.any() and not x.grad.any()


@pytest.mark.parametrize("shape, C, words", [((1, 5, 1, 1), 5, "at least 2 values"),
                                             ((0, 5, 3, 3), 5, "at least 2 values"),
                                             ((2, 5), 5, r"\(B,C,H,W\)"), ((2, 4, 3, 3), 5, "each of 4 channels")])
def test_shapes_that_do_not_fit_are_named(shape: tuple, C: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BatchNorm2d(C)(torch.zeros(shape))
