"""conv2d against torch.nn.functional.conv2d: definition, im2col and layer, plain and by the plans of ops/fast."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scratch.ops.conv2d import Conv2d, conv2d, conv2d_im2col, conv2d_naive
from scratch.ops.fast.switch import plain_mode
from tests.checks import assert_as_precise_as_torch, assert_same
from tests.ops.convolutions import RESNET, bound, convolutions, random_inputs


@pytest.fixture(params=["fast", "plain"])
def mode(request):
    with plain_mode(request.param == "plain"):
        yield request.param


both_modes = pytest.mark.usefixtures("mode")


@given(convolutions(st.integers(1, 2), grouped=True, largest=2))
def test_the_definition_equals_torch(case) -> None:
    inputs, options = case
    assert_same(bound(conv2d_naive, **options), bound(F.conv2d, **options), *inputs)


@given(convolutions(st.integers(1, 4), grouped=True))
def test_im2col_equals_torch(case) -> None:
    inputs, options = case
    assert_same(bound(conv2d_im2col, **options), bound(F.conv2d, **options), *inputs)


@both_modes
@settings(max_examples=100)
@given(convolutions(st.sampled_from([1, 2, 5, 16, 17]), grouped=True))
def test_conv2d_equals_torch(case) -> None:
    inputs, options = case
    assert_same(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


@both_modes
@pytest.mark.parametrize("name", RESNET)
def test_the_convolutions_of_a_resnet_equal_torch(name: str) -> None:
    kernel, stride, padding, dilation, C = RESNET[name]
    options = dict(stride=stride, padding=padding, dilation=dilation)
    inputs = random_inputs(2, C, 23, (kernel, kernel), (13, 11))
    assert_same(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


@both_modes
def test_a_1x1_convolution_skips_rows_and_columns_apart() -> None:
    assert_same(bound(conv2d, stride=(2, 3)), bound(F.conv2d, stride=(2, 3)),
                *random_inputs(2, 3, 5, (1, 1), (13, 11)))


@both_modes
def test_a_1x1_convolution_of_groups_equals_torch() -> None:
    inputs = random_inputs(2, 2 * 3, 2 * 5, (1, 1), (3, 7), groups=2)
    assert_same(bound(conv2d, groups=2), bound(F.conv2d, groups=2), *inputs)


@both_modes
@pytest.mark.parametrize("name", RESNET)
def test_low_precision_is_as_precise_as_torch(name: str) -> None:
    kernel, stride, padding, dilation, C = RESNET[name]
    options = dict(stride=stride, padding=padding, dilation=dilation)
    inputs = random_inputs(2, C, 23, (kernel, kernel), (13, 11))
    assert_as_precise_as_torch(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


@both_modes
def test_low_precision_of_groups_is_as_precise_as_torch() -> None:
    options = dict(stride=2, padding=1, groups=3)
    inputs = random_inputs(2, 3 * 7, 3 * 5, (3, 3), (13, 11), groups=3)
    assert_as_precise_as_torch(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


@both_modes
def test_a_sum_that_half_precision_cannot_hold_on_the_way_is_right_at_the_end() -> None:
    weight = torch.ones(1, 64, 3, 3, dtype=torch.bfloat16)
    assert conv2d(torch.ones(1, 64, 3, 3, dtype=torch.bfloat16), weight).item() == 576  # bf16 sums of ones stop at 256


@both_modes
def test_an_edge_filter_by_hand() -> None:
    image = torch.tensor([[[[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0]]]])
    edge = torch.tensor([[[[-1.0, 1.0]]]])  # right neighbour minus pixel
    for rung in (conv2d_naive, conv2d_im2col, conv2d):
        assert rung(image, edge).tolist() == [[[[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]]]]


@both_modes
def test_the_gradients_by_hand() -> None:
    x, w = torch.tensor([[[[1.0, 2.0, 3.0]]]], requires_grad=True), torch.tensor([[[[10.0, 20.0]]]], requires_grad=True)
    b = torch.tensor([5.0], requires_grad=True)
    y = conv2d(x, w, b)
    y.backward(torch.tensor([[[[1.0, 100.0]]]]))
    assert y.tolist() == [[[[55.0, 85.0]]]]  # 1·10 + 2·20 + 5, 2·10 + 3·20 + 5
    assert x.grad.tolist() == [[[[10.0, 20.0 + 1000.0, 2000.0]]]]
    assert w.grad.tolist() == [[[[1.0 + 200.0, 2.0 + 300.0]]]]
    assert b.grad.tolist() == [101.0]


@both_modes
@pytest.mark.parametrize("C, options", [
    (2, dict(stride=2, padding=1)), (17, dict(stride=(2, 1), padding=1)), (4, dict(groups=2))])
def test_the_written_backward_is_the_derivative_of_the_forward(C: int, options: dict) -> None:
    inputs = random_inputs(1, C, 2, (2, 3), (3, 4), groups=options.get("groups", 1))
    assert torch.autograd.gradcheck(bound(conv2d, **options), [t.requires_grad_() for t in inputs], fast_mode=True)


@both_modes
def test_weights_kept_channels_last_work_as_well() -> None:
    x, weight = random_inputs(2, 17, 5, (3, 3), (7, 5), bias=False)
    torch.testing.assert_close(conv2d(x, weight.to(memory_format=torch.channels_last)), F.conv2d(x, weight))


@both_modes
@pytest.mark.parametrize("C", [3, 17])
@pytest.mark.parametrize("learns", [(False, True, True), (True, False, False), (False, False, True)])
def test_gradients_are_computed_only_for_what_asks_for_them(C: int, learns: tuple) -> None:
    inputs = random_inputs(2, C, 5, (3, 3), (7, 5))
    for t, needs in zip(inputs, learns):
        t.requires_grad_(needs)
    conv2d(*inputs, padding=1).square().sum().backward()
    ours = [t.grad for t in inputs]
    for t in inputs:
        t.grad = None
    F.conv2d(*inputs, padding=1).square().sum().backward()
    for our, t in zip(ours, inputs):
        assert (our is None) == (t.grad is None)
        if our is not None:
            torch.testing.assert_close(our, t.grad)


@both_modes
@pytest.mark.parametrize("C", [3, 17])
def test_no_images_give_no_results_and_zero_gradients(C: int) -> None:
    x, weight, bias = (t.requires_grad_() for t in random_inputs(0, C, 5, (3, 3), (7, 5)))
    y = conv2d(x, weight, bias, stride=2, padding=1)
    y.sum().backward()
    assert y.shape == (0, 5, 4, 3) and x.grad.shape == x.shape and not weight.grad.any() and not bias.grad.any()


@both_modes
def test_pixels_that_a_stride_leaves_over_have_no_gradient() -> None:
    x, weight = random_inputs(1, 17, 2, (2, 2), (5, 5), bias=False)
    conv2d(x.requires_grad_(), weight, stride=2).sum().backward()
    assert not x.grad[:, :, 4].any() and not x.grad[..., 4].any() and x.grad[:, :, :4, :4].all()


@both_modes
@pytest.mark.parametrize("C", [3, 17])
def test_autocast_computes_in_its_dtype_and_keeps_float32_gradients(C: int) -> None:
    x, weight, bias = (t.float().requires_grad_() for t in random_inputs(2, C, 5, (3, 3), (7, 5)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv2d(x, weight, bias, padding=1)
    y.float().sum().backward()
    expected = conv2d(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), padding=1)
    assert y.dtype == torch.bfloat16 and torch.equal(y, expected)
    assert x.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32


def test_the_figures_of_the_note() -> None:
    assert Conv2d(64, 64, 3, bias=False).weight.numel() == 36_864
    assert round((64 * 56 * 56) ** 2 / 1e9) == 40  # billion weights of a linear layer


@both_modes
def test_the_column_of_the_first_window_in_the_picture_of_the_note() -> None:
    a, b, c, d, e, f = range(1, 7)
    image, identity = torch.tensor([[[[a, b, c], [d, e, f]]]]).double(), torch.eye(9).double().view(9, 1, 3, 3)
    for rung in (conv2d_naive, conv2d_im2col, conv2d):  # nine filters, each of which picks one entry of the column
        assert rung(image, identity, padding=1)[0, :, 0, 0].tolist() == [0, 0, 0, 0, a, b, 0, d, e]


def test_the_layer_starts_from_the_same_draws_as_torch() -> None:
    torch.manual_seed(5)
    ours = Conv2d(6, 4, (3, 5), groups=2)
    torch.manual_seed(5)
    theirs = nn.Conv2d(6, 4, (3, 5), groups=2)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())


@both_modes
@pytest.mark.parametrize("options", [
    dict(), dict(bias=False), dict(stride=2, padding=(1, 2), dilation=(2, 1), groups=2)])
def test_the_layer_computes_what_torchs_layer_computes_with_its_weights(options: dict) -> None:
    ours, theirs = Conv2d(6, 4, 3, **options).double(), nn.Conv2d(6, 4, 3, **options).double()
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()), strict=True)
    x = torch.randn(2, 6, 11, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


@both_modes
@pytest.mark.parametrize("x, weight, bias, options, words", [
    ((1, 4, 5, 5), (2, 3, 3, 3), None, {}, "wanted 3 channels"),
    ((1, 4, 5, 5), (3, 2, 3, 3), None, dict(groups=2), "groups divide"),
    ((1, 4, 5, 5), (2, 4, 3, 3), 3, {}, "each of 2 filters"),
    ((4, 5, 5), (2, 4, 3, 3), None, {}, r"wanted \(B,C,H,W\)"),
    ((1, 4, 5, 5), (2, 4, 3), None, {}, r"wanted \(B,C,H,W\)"),
    ((1, 0, 5, 5), (2, 4, 3, 3), None, dict(groups=0), "in 0 groups"),
    ((1, 4, 5, 5), (2, 4, 7, 3), None, {}, "one large enough for a window"),
    ((1, 4, 5, 5), (2, 4, 3, 3), None, dict(dilation=3), "one large enough for a window"),
    ((1, 4, 5, 5), (2, 4, 3, 3), None, dict(stride=0), "at least 1"),
    ((1, 4, 5, 5), (2, 4, 3, 3), None, dict(padding=-1), "padding at least 0"),
])
def test_shapes_that_do_not_fit_are_named(x, weight, bias, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        conv2d(torch.zeros(x), torch.zeros(weight), None if bias is None else torch.zeros(bias), **options)


@both_modes
def test_mixed_dtypes_are_refused_outside_autocast() -> None:
    with pytest.raises(TypeError, match="bfloat16.*one dtype"):
        conv2d(torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16), torch.zeros(1, 2, 3, 3))


@both_modes
def test_under_autocast_dtypes_may_differ_but_for_float64() -> None:
    x, weight, bias = random_inputs(1, 17, 5, (3, 3), (7, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv2d(x.bfloat16(), weight.float(), bias.float()).dtype == torch.bfloat16
        with pytest.raises(TypeError, match="float64.*one dtype"):
            conv2d(x, weight.float(), bias.float())


@both_modes
def test_shapes_can_be_traced_without_data() -> None:
    with torch.device("meta"):
        x, layer = torch.empty(2, 17, 9, 7, requires_grad=True), Conv2d(17, 5, 3, stride=2)
    y = layer(x)
    y.sum().backward()
    assert y.shape == (2, 5, 4, 3) and x.grad.shape == x.shape


@both_modes
def test_a_second_3x3_layer_sees_5x5_pixels() -> None:
    x = torch.zeros(1, 1, 9, 9, requires_grad=True)
    weight = torch.ones(1, 1, 3, 3)
    conv2d(conv2d(x, weight, padding=1), weight, padding=1)[0, 0, 4, 4].backward()
    seen = torch.zeros(9, 9, dtype=torch.bool)
    seen[2:7, 2:7] = True
    assert torch.equal(x.grad[0, 0] != 0, seen)


@pytest.mark.parametrize("in_channels, out_channels, groups", [(6, 4, 3), (4, 6, 3), (6, 4, 0), (6, 4, -2)])
def test_a_layer_whose_groups_do_not_divide_its_channels_is_refused(in_channels, out_channels, groups) -> None:
    with pytest.raises(ValueError, match=f"{in_channels} → {out_channels} channels in {groups} groups"):
        Conv2d(in_channels, out_channels, 3, groups=groups)


def test_a_layer_keeps_its_filters_channels_last_through_loading_and_moving() -> None:
    layer = Conv2d(6, 4, 3)
    layer.load_state_dict(nn.Conv2d(6, 4, 3).state_dict())
    for weight in (layer.weight, layer.double().weight, copy.deepcopy(layer).weight):
        assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
