"""The door of conv2d: which plan computes which convolution, and what every plan promises."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scratch.model.backbone import ResNet
from scratch.ops.conv2d import Conv2d, _windows, conv2d, conv2d_im2col
from scratch.ops.fast import convolution, rows, shifted, winograd
from scratch.ops.fast.columns import Columns
from scratch.ops.fast.convolution import fast_convolution, winograd_pays
from scratch.ops.fast.rows import Rows
from scratch.ops.fast.shifted import Shifted, straddling
from scratch.ops.fast.switch import plain_mode
from scratch.ops.linear import linear
from scratch.ops.windows import Windows
from tests.checks import assert_same
from tests.ops.convolutions import RESNET, bound, convolutions, random_inputs


@pytest.fixture(autouse=True)
def through_the_door():
    """By the plans, also where the suite runs in plain mode."""
    with plain_mode(False):
        yield


def test_in_plain_mode_the_door_is_shut_and_im2col_is_what_runs() -> None:
    x, weight = (t.requires_grad_() for t in random_inputs(1, 17, 5, (3, 3), (7, 5), bias=False))
    with plain_mode():
        assert fast_convolution(x, weight, None, _windows(x, weight, None, 1, 0, 1, 1)) is None
        assert torch.equal(conv2d(x, weight), conv2d_im2col(x, weight))
        assert conv2d(x, weight).grad_fn.name() == conv2d_im2col(x, weight).grad_fn.name()


@settings(max_examples=100)
@given(convolutions(st.integers(1, 5), grouped=False, largest=7), st.sampled_from([Columns, Shifted, Rows]))
def test_every_plan_is_right_for_any_shape(case, plan) -> None:
    inputs, options = case
    if plan is Rows:
        options["dilation"] = 1  # the only one that it is for

    def planned(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return plan.apply(x, weight, bias, _windows(x, weight, bias, **options))

    assert_same(planned, bound(F.conv2d, **options), *inputs)


@pytest.mark.parametrize("name, plan", [("stem", Rows), ("3x3", Shifted), ("3x3 stride 2", Shifted),
                                        ("3x3 dilated", Shifted)])
def test_the_plan_goes_by_shape(name: str, plan: type) -> None:
    kernel, stride, padding, dilation, C = RESNET[name]
    x, weight = (t.requires_grad_() for t in random_inputs(1, C, 5, (kernel, kernel), (42, 42), bias=False))
    chosen = conv2d(x, weight, None, stride, padding, dilation).grad_fn.name()
    low = conv2d(x.bfloat16(), weight.bfloat16(), None, stride, padding, dilation).grad_fn.name()
    dilated = conv2d(x[:, :2], weight[:, :2], None, stride, 9, 2).grad_fn.name()
    assert [chosen, low] == [f"{plan.__name__}Backward", "ColumnsBackward"]
    assert dilated == "ColumnsBackward"


@pytest.mark.parametrize("filters, plan", [(64, "Shifted"), (80, "Columns")])
def test_many_filters_on_a_small_image_whose_windows_often_straddle_see_columns(filters: int, plan: str) -> None:
    x, weight = (t.requires_grad_() for t in random_inputs(1, 17, filters, (3, 3), (9, 9), bias=False))
    assert conv2d(x, weight, None, 1, 1).grad_fn.name() == f"{plan}Backward"


def test_of_the_windows_of_a_9x9_image_about_one_in_five_straddles() -> None:
    x = torch.zeros(1, 17, 9, 9)
    assert straddling(x, _windows(x, torch.zeros(1, 17, 3, 3), None, 1, 1, 1, 1)) == pytest.approx(1 - 81 / 100)


@pytest.mark.parametrize("channels, plan", [(15, "Rows"), (16, "Shifted")])
def test_an_image_of_fewer_than_sixteen_channels_takes_rows(channels: int, plan: str) -> None:
    x, weight = (t.requires_grad_() for t in random_inputs(1, channels, 2, (3, 3), (42, 42), bias=False))
    assert conv2d(x, weight).grad_fn.name() == f"{plan}Backward"


@pytest.mark.parametrize("change, plan", [
    ({}, "Winograd"), (dict(C=63), "Shifted"), (dict(O=63), "Shifted"), (dict(stride=2), "Shifted"),
    (dict(padding=2, dilation=2), "Shifted"), (dict(padding=3), "Shifted"), (dict(kernel=(3, 5)), "Shifted"),
    (dict(kernel=(1, 3), padding=(0, 1)), "Winograd"), (dict(size=(70, 69)), "Shifted"),  # 19,783,680 products
    (dict(size=(750, 8)), "Winograd"), (dict(size=(750, 7)), "Shifted"),
    (dict(size=(15, 16), B=2, C=256, O=256), "Winograd"), (dict(size=(15, 16), C=512, O=512), "Columns"),
    (dict(size=(16, 16), C=280, O=280), "Winograd"), (dict(size=(15, 17), C=281, O=281), "Columns")])
def test_winograd_is_for_many_channels_windows_columns_and_products(change: dict, plan: str) -> None:
    case = dict(B=1, C=64, O=64, kernel=(3, 3), size=(72, 72), stride=1, padding=1, dilation=1) | change
    x, weight = random_inputs(case["B"], case["C"], case["O"], case["kernel"], case["size"], bias=False)
    y = conv2d(x.requires_grad_(), weight, None, case["stride"], case["padding"], case["dilation"])
    assert y.grad_fn.name() == f"{plan}Backward"


def test_winograd_is_for_a_cpu_and_not_for_torch_compile(monkeypatch) -> None:
    x, weight = torch.empty(2, 64, 50, 52), torch.empty(64, 64, 3, 3)
    windows = _windows(x, weight, None, 1, 1, 1, 1)
    assert winograd_pays(x, weight, windows) and not winograd_pays(x.to("meta"), weight, windows)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not winograd_pays(x, weight, windows)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_1x1_convolution_is_a_linear_layer_at_every_pixel(dtype: torch.dtype, stride: int) -> None:
    x, weight, bias = (t.to(dtype).requires_grad_() for t in random_inputs(2, 19, 23, (1, 1), (13, 11)))
    y = conv2d(x, weight, bias, stride)
    assert torch.equal(y, linear(x.permute(0, 2, 3, 1)[:, ::stride, ::stride], weight[..., 0, 0], bias)
                       .permute(0, 3, 1, 2))
    assert y.grad_fn.name() == "PermuteBackward0"


def test_two_of_three_convolutions_of_a_resnet_50_are_1x1() -> None:
    kernels = [m.weight.shape[2] for m in ResNet("resnet50").modules() if isinstance(m, Conv2d)]
    assert round(3 * kernels.count(1) / len(kernels)) == 2


@pytest.mark.parametrize("C, kernel", [(3, 7), (17, 3), (17, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_result_and_the_gradient_of_the_image_are_channels_last(C: int, kernel: int, layout) -> None:
    x, weight = random_inputs(2, C, 5, (kernel, kernel), (11, 13), bias=False)
    x = x.to(memory_format=layout).requires_grad_()
    y = conv2d(x, weight, padding=kernel // 2)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=kernel // 2))
    if layout == torch.channels_last:
        assert x.grad.is_contiguous(memory_format=torch.channels_last)


def test_only_image_and_weight_are_kept_for_the_backward() -> None:
    kept: list[Tensor] = []
    x, weight, bias = (t.requires_grad_() for t in random_inputs(2, 17, 5, (3, 3), (7, 5)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        conv2d(x, weight, bias, padding=1)
    assert [t.data_ptr() for t in kept] == [x.data_ptr(), weight.data_ptr()]


@pytest.mark.parametrize("C", [3, 17])
def test_a_backward_inside_autocast_is_the_backward_outside(C: int) -> None:
    inputs = [t.float().requires_grad_() for t in random_inputs(2, C, 5, (3, 3), (7, 5))]
    y = conv2d(*inputs, padding=1)
    outside = torch.autograd.grad(y, inputs, torch.ones_like(y), retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = torch.autograd.grad(y, inputs, torch.ones_like(y))
    assert all(torch.equal(a, b) for a, b in zip(inside, outside))


def test_pytorch_refuses_to_change_the_result_in_place_while_its_gradient_is_wanted() -> None:
    x, weight = random_inputs(1, 3, 2, (2, 2), (2, 2), bias=False)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        conv2d(x.requires_grad_(), weight).add_(1)


def test_the_bytes_of_a_tile_in_float32_are_those_of_the_comments() -> None:
    assert [4 * n / 2**20 for n in (shifted.TILE, rows.TILE, winograd.SLAB)] == [2, 4, 8]


@pytest.mark.parametrize("C, kernel, size", [(17, 3, 42), (17, 3, 9), (3, 7, 20), (17, 1, 9)])
def test_the_gradient_of_the_filters_lies_as_they_do(C: int, kernel: int, size: int) -> None:
    layer = Conv2d(C, 5, kernel)
    gradient, = torch.autograd.grad(layer(torch.randn(2, C, size, size)).square().sum(), layer.weight)
    assert gradient.stride() == layer.weight.stride()


@pytest.mark.parametrize("change, can", [
    ({}, True), ({"kernel": (3, 2)}, False), ({"kernel": (2, 4)}, False), ({"padding": (2, 2)}, False),
    ({"padding": (1, 3)}, False), ({"stride": (1, 2)}, False), ({"dilation": (2, 1)}, False), ({"groups": 2}, False)])
def test_what_winograds_plan_can_do(monkeypatch, change: dict, can: bool) -> None:
    for threshold in ("CHANNELS", "COLUMNS", "WINDOWS", "PRODUCTS"):
        monkeypatch.setattr(convolution, f"_MANY_{threshold}", 0)
    windows = Windows((2, 3), (1, 1), (1, 2), (1, 1), 1, (8, 9))._replace(**change)
    assert winograd_pays(torch.zeros(1, 2, 7, 7), torch.zeros(2, 2, *windows.kernel), windows) is can
