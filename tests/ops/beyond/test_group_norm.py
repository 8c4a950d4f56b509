"""group_norm against torch.nn.functional.group_norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scratch.ops.beyond.group_norm import GroupNorm, group_norm, group_norm_naive
from scratch.ops.fast.switch import plain_mode
from scratch.ops.layer_norm import layer_norm
from tests.checks import assert_as_precise_as_torch, assert_same


def random_inputs(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    C = shape[1]
    return torch.randn(shape).double(), torch.randn(C).double(), torch.randn(C).double()


def grouped(function, num_groups: int):
    return lambda x, weight, bias: function(x, num_groups, weight, bias, 1e-5)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_every_rung_equals_torch(B: int, G: int, c: int, pixels: list[int]) -> None:
    pixels[0] += 1  # a group of one value has no variance: torch and we would compare noise
    for rung in (group_norm_naive, group_norm):
        assert_same(grouped(rung, G), grouped(F.group_norm, G), *random_inputs(B, G * c, *pixels))


@pytest.mark.parametrize("offset", [0.0, 1e2])
def test_low_precision_is_as_precise_as_torch(offset: float) -> None:
    x, weight, bias = random_inputs(3, 10, 7, 11)
    assert_as_precise_as_torch(grouped(group_norm, 2), grouped(F.group_norm, 2), x + offset, weight, bias)


def test_at_mean_ten_thousand_float32_is_right() -> None:
    x, weight, bias = random_inputs(2, 6, 7, 11)
    x = (x + 1e4).float()
    ours, truth = group_norm(x, 3, weight.float(), bias.float()), F.group_norm(x.double(), 3, weight, bias)
    torch.testing.assert_close(ours.double(), truth, rtol=0, atol=2e-6)


def test_one_group_of_two_channels_by_hand() -> None:
    x = torch.tensor([[[[1.0]], [[5.0]]]])  # mean 3, variance 4
    y = group_norm(x, 1, torch.tensor([10.0, 20.0]), torch.tensor([0.0, 7.0]), eps=0.0)
    assert y.flatten().tolist() == [-10.0, 27.0]


def test_one_group_is_a_layer_norm_of_the_whole_image() -> None:
    x, ones, zeros = torch.randn(2, 6, 5, 3).double(), torch.ones(6, 5, 3).double(), torch.zeros(6, 5, 3).double()
    torch.testing.assert_close(group_norm(x, 1, ones[:, 0, 0], zeros[:, 0, 0]), layer_norm(x, (6, 5, 3), ones, zeros))


def test_an_image_does_not_depend_on_the_rest_of_its_batch() -> None:
    x, weight, bias = random_inputs(3, 6, 5, 7)
    other = torch.cat((x[:1], 1e3 * torch.randn_like(x[1:])))
    assert torch.equal(group_norm(x, 2, weight, bias)[:1], group_norm(other, 2, weight, bias)[:1])
    torch.testing.assert_close(group_norm(x, 2, weight, bias)[:1], group_norm(x[:1], 2, weight, bias))


def test_the_written_backward_is_the_derivative_of_the_forward() -> None:
    assert torch.autograd.gradcheck(grouped(group_norm, 2), [t.requires_grad_() for t in random_inputs(2, 4, 2, 3)])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_result_and_gradient_keep_the_memory_layout(layout) -> None:
    x = torch.randn(3, 6, 7, 2).to(memory_format=layout).requires_grad_()
    y = GroupNorm(2, 6)(x)
    grad_x, = torch.autograd.grad(y, x, torch.randn_like(y))
    assert y.is_contiguous(memory_format=layout) and grad_x.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_images_under_float32_parameters_stay_half_and_are_rounded_once(dtype) -> None:
    layer, x = GroupNorm(2, 6), torch.randn(3, 6, 7, 2).to(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype and layer.weight.grad.dtype == torch.float32
    assert torch.equal(y, layer(x.detach().float()).to(dtype))


def test_autocast_returns_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert GroupNorm(2, 6)(torch.randn(3, 6, 7, 2).bfloat16()).dtype == torch.float32


def test_a_constant_group_stays_finite() -> None:
    x = torch.full((2, 6, 2, 2), 7.0, requires_grad=True)
    y = GroupNorm(2, 6)(x)
    y.sum().backward()
    assert not y.any() and not x.grad.any()


def test_the_layer_has_torchs_names_shapes_and_defaults() -> None:
    ours, theirs = GroupNorm(2, 6).state_dict(), nn.GroupNorm(2, 6).state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], v) for k, v in theirs.items())


def test_rows_of_channels_without_pixels_are_normalised_group_by_group() -> None:
    x, weight, bias = torch.randn(5, 6), torch.randn(6), torch.randn(6)
    assert_same(grouped(group_norm, 2), grouped(F.group_norm, 2), x, weight, bias)
    assert_same(grouped(group_norm, 2), grouped(group_norm_naive, 2), x, weight, bias)


def test_no_images_give_no_results() -> None:
    assert GroupNorm(2, 6)(torch.zeros(0, 6, 3, 3)).shape == (0, 6, 3, 3)


def test_shapes_that_do_not_fit_are_named() -> None:
    one = torch.ones(6)
    with pytest.raises(ValueError, match="divide the channels"):
        group_norm(torch.zeros(1, 6, 2, 2), 4, one, one)
    with pytest.raises(ValueError, match="divide the channels"):
        GroupNorm(4, 6)
    with pytest.raises(ValueError, match="each of 4 channels"):
        group_norm(torch.zeros(1, 4, 2, 2), 2, one, one)
    with pytest.raises(ValueError, match=r"at least \(B,C\)"):
        group_norm(torch.zeros(6), 2, one, one)


@pytest.mark.parametrize("weight, bias", [(4, 6), (6, 4)])
def test_a_weight_or_a_bias_of_another_length_is_refused(weight: int, bias: int) -> None:
    with pytest.raises(ValueError, match="each of 6 channels"):
        group_norm(torch.zeros(1, 6, 2, 2), 2, torch.ones(weight), torch.zeros(bias))


@pytest.mark.parametrize("function", [group_norm_naive, group_norm])
def test_without_an_eps_it_is_torchs(function) -> None:
    x, weight, bias = random_inputs(2, 6, 5, 3)
    x = x * 1e-3  # a variance of 10⁻⁶, to which 10⁻⁵ is added
    torch.testing.assert_close(function(x, 2, weight, bias), F.group_norm(x, 2, weight, bias))


def test_the_layer_may_have_one_group() -> None:
    x = torch.randn(2, 6, 5, 3)
    torch.testing.assert_close(GroupNorm(1, 6)(x), nn.GroupNorm(1, 6)(x))


@pytest.mark.parametrize("groups", [0, -2, 4])
def test_groups_that_do_not_divide_the_channels_are_refused_by_function_and_layer(groups: int) -> None:
    with pytest.raises(ValueError, match=f"6 channels in {groups} groups"):
        group_norm(torch.zeros(2, 6, 3, 3), groups, torch.ones(6), torch.zeros(6))
    with pytest.raises(ValueError, match=f"6 channels in {groups} groups"):
        GroupNorm(groups, 6)


@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (3, 6), (0, 6, 2, 2)])
def test_in_plain_mode_autograd_derives_it(shape: tuple) -> None:
    inputs = random_inputs(*shape)
    with plain_mode():
        assert_same(grouped(group_norm, 2), grouped(F.group_norm, 2), *inputs)
        y = group_norm(inputs[0].requires_grad_(), 2, *inputs[1:])
    assert "GroupNorm" not in type(y.grad_fn).__name__
