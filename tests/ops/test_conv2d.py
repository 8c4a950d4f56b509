"""conv2d against torch.nn.functional.conv2d: every rung of the ladder, every plan, every gradient."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from scratch.model.backbone import ResNet
from scratch.ops.fast import columns as conv2d_columns, rows as conv2d_rows, shifted as conv2d_fast
from scratch.ops.fast import winograd as conv2d_winograd
from scratch.ops.conv2d import Conv2d, _windows, _winograd_pays, conv2d, conv2d_im2col, conv2d_naive
from scratch.ops.fast.columns import Columns, _backwards, _columns
from scratch.ops.fast.shifted import Shifted, layout_of, straddling, taps_of
from scratch.ops.fast.rows import Rows
from scratch.ops.fast.winograd import Winograd, evaluate, evaluate_transposed, interpolate_transposed
from scratch.ops.linear import linear
from tests.checks import assert_as_precise_as_torch, assert_same


def random_inputs(B: int, C: int, O: int, kernel: tuple, size: tuple, groups: int = 1,
                  bias: bool = True) -> list[Tensor]:
    x = torch.randn(B, C, *size, dtype=torch.float64)
    weight = torch.randn(O, C // groups, *kernel, dtype=torch.float64)
    return [x, weight, torch.randn(O, dtype=torch.float64)] if bias else [x, weight]


@st.composite
def convolutions(draw, channels: st.SearchStrategy, grouped: bool, largest: int = 4):
    """Inputs and options of one convolution whose window fits, with rows and columns drawn apart."""
    groups = draw(st.integers(1, 3)) if grouped else 1
    small = st.integers(1, 3)
    axes = []
    for _ in range(2):
        kernel, stride, padding, dilation = draw(st.integers(1, 3)), draw(small), draw(st.integers(0, 3)), draw(small)
        needed = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        axes.append((kernel, stride, padding, dilation, needed + draw(st.integers(0, largest))))
    kernel, stride, padding, dilation, size = zip(*axes)
    C, O = groups * draw(channels), groups * draw(small)
    inputs = random_inputs(draw(small), C, O, kernel, size, groups, draw(st.booleans()))
    return inputs, dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


def bound(function, **options):
    return lambda *inputs: function(*inputs, **options)


@given(convolutions(st.integers(1, 2), grouped=True, largest=2))
def test_the_definition_equals_torch(case) -> None:
    inputs, options = case
    assert_same(bound(conv2d_naive, **options), bound(F.conv2d, **options), *inputs)


@given(convolutions(st.integers(1, 4), grouped=True))
def test_im2col_equals_torch(case) -> None:
    inputs, options = case
    assert_same(bound(conv2d_im2col, **options), bound(F.conv2d, **options), *inputs)


@settings(max_examples=100)
@given(convolutions(st.sampled_from([1, 2, 5, 16, 17]), grouped=True))
def test_the_fast_convolution_equals_torch(case) -> None:
    inputs, options = case
    assert_same(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


@settings(max_examples=100)
@given(convolutions(st.integers(1, 5), grouped=False, largest=7), st.sampled_from([Columns, Shifted, Rows]))
def test_every_plan_is_right_for_any_shape(case, plan) -> None:
    inputs, options = case
    if plan is Rows:
        options["dilation"] = 1  # the only one that it is for

    def planned(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return plan.apply(x, weight, bias, _windows(x, weight, bias, **options))

    assert_same(planned, bound(F.conv2d, **options), *inputs)


RESNET = {  # what a ResNet asks for: kernel, stride, padding, dilation, channels
    "stem": (7, 2, 3, 1, 3), "3x3": (3, 1, 1, 1, 19), "3x3 stride 2": (3, 2, 1, 1, 19), "3x3 dilated": (3, 1, 2, 2, 19),
    "1x1": (1, 1, 0, 1, 19), "1x1 stride 2": (1, 2, 0, 1, 19),
}


@pytest.mark.parametrize("name", RESNET)
def test_the_convolutions_of_a_resnet_equal_torch(name: str) -> None:
    kernel, stride, padding, dilation, C = RESNET[name]
    options = dict(stride=stride, padding=padding, dilation=dilation)
    inputs = random_inputs(2, C, 23, (kernel, kernel), (13, 11))
    assert_same(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_1x1_convolution_is_a_linear_layer_at_every_pixel(dtype: torch.dtype, stride: int) -> None:
    x, weight, bias = (t.to(dtype).requires_grad_() for t in random_inputs(2, 19, 23, (1, 1), (13, 11)))
    y = conv2d(x, weight, bias, stride)
    assert torch.equal(y, linear(x.permute(0, 2, 3, 1)[:, ::stride, ::stride], weight[..., 0, 0], bias)
                       .permute(0, 3, 1, 2))
    assert y.grad_fn.name() == "PermuteBackward0"


def test_a_1x1_convolution_skips_rows_and_columns_apart() -> None:
    assert_same(bound(conv2d, stride=(2, 3)), bound(F.conv2d, stride=(2, 3)),
                *random_inputs(2, 3, 5, (1, 1), (13, 11)))


def test_a_1x1_convolution_of_groups_equals_torch() -> None:
    inputs = random_inputs(2, 2 * 3, 2 * 5, (1, 1), (3, 7), groups=2)
    assert_same(bound(conv2d, groups=2), bound(F.conv2d, groups=2), *inputs)


def test_the_columns_of_a_1x1_convolution_are_the_pixels_and_nothing_is_added_up() -> None:
    x, weight = random_inputs(2, 3, 5, (1, 1), (3, 7), bias=False)
    columns = torch.randn(1, 2 * 3 * 7, 3, dtype=torch.float64)
    folded = conv2d_columns._fold(columns, x, _windows(x, weight, None, 1, 0, 1, 1))
    assert folded.data_ptr() == columns.data_ptr()
    assert torch.equal(folded, columns.view(2, 3, 7, 3).permute(0, 3, 1, 2))


def test_two_of_three_convolutions_of_a_resnet_50_are_1x1() -> None:
    kernels = [m.weight.shape[2] for m in ResNet("resnet50").modules() if isinstance(m, Conv2d)]
    assert round(3 * kernels.count(1) / len(kernels)) == 2


@pytest.mark.parametrize("name", RESNET)
def test_low_precision_is_as_precise_as_torch(name: str) -> None:
    kernel, stride, padding, dilation, C = RESNET[name]
    options = dict(stride=stride, padding=padding, dilation=dilation)
    inputs = random_inputs(2, C, 23, (kernel, kernel), (13, 11))
    assert_as_precise_as_torch(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


def test_low_precision_of_groups_is_as_precise_as_torch() -> None:
    options = dict(stride=2, padding=1, groups=3)
    inputs = random_inputs(2, 3 * 7, 3 * 5, (3, 3), (13, 11), groups=3)
    assert_as_precise_as_torch(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


def test_a_sum_that_half_precision_cannot_hold_on_the_way_is_right_at_the_end() -> None:
    weight = torch.ones(1, 64, 3, 3, dtype=torch.bfloat16)
    assert conv2d(torch.ones(1, 64, 3, 3, dtype=torch.bfloat16), weight).item() == 576  # bf16 sums of ones stop at 256


def test_an_edge_filter_by_hand() -> None:
    image = torch.tensor([[[[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0]]]])
    edge = torch.tensor([[[[-1.0, 1.0]]]])  # right neighbour minus pixel
    for rung in (conv2d_naive, conv2d_im2col, conv2d):
        assert rung(image, edge).tolist() == [[[[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]]]]


def test_the_gradients_by_hand() -> None:
    x, w = torch.tensor([[[[1.0, 2.0, 3.0]]]], requires_grad=True), torch.tensor([[[[10.0, 20.0]]]], requires_grad=True)
    b = torch.tensor([5.0], requires_grad=True)
    y = conv2d(x, w, b)
    y.backward(torch.tensor([[[[1.0, 100.0]]]]))
    assert y.tolist() == [[[[55.0, 85.0]]]]  # 1·10 + 2·20 + 5, 2·10 + 3·20 + 5
    assert x.grad.tolist() == [[[[10.0, 20.0 + 1000.0, 2000.0]]]]
    assert w.grad.tolist() == [[[[1.0 + 200.0, 2.0 + 300.0]]]]
    assert b.grad.tolist() == [101.0]


@pytest.mark.parametrize("C, options", [
    (2, dict(stride=2, padding=1)), (17, dict(stride=(2, 1), padding=1)), (4, dict(groups=2))])
def test_the_written_backward_is_the_derivative_of_the_forward(C: int, options: dict) -> None:
    inputs = random_inputs(1, C, 2, (2, 3), (3, 4), groups=options.get("groups", 1))
    assert torch.autograd.gradcheck(bound(conv2d, **options), [t.requires_grad_() for t in inputs], fast_mode=True)


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


def test_weights_kept_channels_last_work_as_well() -> None:
    x, weight = random_inputs(2, 17, 5, (3, 3), (7, 5), bias=False)
    torch.testing.assert_close(conv2d(x, weight.to(memory_format=torch.channels_last)), F.conv2d(x, weight))


def test_only_image_and_weight_are_kept_for_the_backward() -> None:
    kept: list[Tensor] = []
    x, weight, bias = (t.requires_grad_() for t in random_inputs(2, 17, 5, (3, 3), (7, 5)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        conv2d(x, weight, bias, padding=1)
    assert [t.data_ptr() for t in kept] == [x.data_ptr(), weight.data_ptr()]


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


@pytest.mark.parametrize("C", [3, 17])
def test_no_images_give_no_results_and_zero_gradients(C: int) -> None:
    x, weight, bias = (t.requires_grad_() for t in random_inputs(0, C, 5, (3, 3), (7, 5)))
    y = conv2d(x, weight, bias, stride=2, padding=1)
    y.sum().backward()
    assert y.shape == (0, 5, 4, 3) and x.grad.shape == x.shape and not weight.grad.any() and not bias.grad.any()


def test_pixels_that_a_stride_leaves_over_have_no_gradient() -> None:
    x, weight = random_inputs(1, 17, 2, (2, 2), (5, 5), bias=False)
    conv2d(x.requires_grad_(), weight, stride=2).sum().backward()
    assert not x.grad[:, :, 4].any() and not x.grad[..., 4].any() and x.grad[:, :, :4, :4].all()


@pytest.mark.parametrize("C", [3, 17])
def test_autocast_computes_in_its_dtype_and_keeps_float32_gradients(C: int) -> None:
    x, weight, bias = (t.float().requires_grad_() for t in random_inputs(2, C, 5, (3, 3), (7, 5)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv2d(x, weight, bias, padding=1)
    y.float().sum().backward()
    expected = conv2d(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), padding=1)
    assert y.dtype == torch.bfloat16 and torch.equal(y, expected)
    assert x.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32


@pytest.mark.parametrize("C", [3, 17])
def test_a_backward_inside_autocast_is_the_backward_outside(C: int) -> None:
    inputs = [t.float().requires_grad_() for t in random_inputs(2, C, 5, (3, 3), (7, 5))]
    y = conv2d(*inputs, padding=1)
    outside = torch.autograd.grad(y, inputs, torch.ones_like(y), retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = torch.autograd.grad(y, inputs, torch.ones_like(y))
    assert all(torch.equal(a, b) for a, b in zip(inside, outside))


def test_the_figures_of_the_note() -> None:
    assert Conv2d(64, 64, 3, bias=False).weight.numel() == 36_864
    assert round((64 * 56 * 56) ** 2 / 1e9) == 40  # billion weights of a linear layer


def test_the_column_of_the_first_window_in_the_picture_of_the_note() -> None:
    a, b, c, d, e, f = range(1, 7)
    image, identity = torch.tensor([[[[a, b, c], [d, e, f]]]]).double(), torch.eye(9).double().view(9, 1, 3, 3)
    for rung in (conv2d_naive, conv2d_im2col, conv2d):  # nine filters, each of which picks one entry of the column
        assert rung(image, identity, padding=1)[0, :, 0, 0].tolist() == [0, 0, 0, 0, a, b, 0, d, e]


def test_the_columns_of_the_picture_in_conv2d_columns() -> None:
    a, b, c, d, e, f = range(1, 7)
    image, weight = torch.tensor([[[[a, b, c], [d, e, f]]]]).float(), torch.ones(1, 1, 2, 2)
    columns = _columns(image, _windows(image, weight, None, 1, 0, 1, 1))
    assert columns.tolist() == [[[a, b, d, e], [b, c, e, f]]]


def test_pytorch_refuses_to_change_the_result_in_place_while_its_gradient_is_wanted() -> None:
    x, weight = random_inputs(1, 3, 2, (2, 2), (2, 2), bias=False)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        conv2d(x.requires_grad_(), weight).add_(1)


def laid_out(size: tuple, kernel: int, stride: int, padding: int, dilation: int):
    x, weight = torch.zeros(1, 17, *size), torch.zeros(1, 17, kernel, kernel)
    windows = _windows(x, weight, None, stride, padding, dilation, 1)
    return layout_of(x, windows), taps_of(windows, layout_of(x, windows))


def test_the_picture_of_the_note_has_four_pixels_to_a_row_and_windows_that_see_runs_of_three() -> None:
    layout, taps = laid_out((2, 3), 3, 1, 1, 1)
    assert (layout.run, layout.q, layout.h, layout.w) == (3, 3, 2 + 1, 3 + 1)
    assert layout.N == 3 * 4  # windows of all rows, a multiple of q
    assert layout.length == 12 + (2 * 4 + 3) + 2  # what lies below the last windows, the rest of their runs
    assert taps == [(0, 0), (0, 4), (0, 8)]  # three rows, each a row of four pixels further on
    pixels = torch.arange(layout.length).view(-1, 1)
    starts = [conv2d_fast._runs(pixels, taps[0], r, 12, _windows(
        torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 3, 3), None, 1, 1, 1, 1), layout)[:, 0].tolist() for r in range(3)]
    assert starts == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]  # windows 0, 3, …; 1, 4, …; 2, 5, …


def test_where_padding_covers_the_lower_taps_an_image_takes_as_many_rows_as_it_has_windows() -> None:
    assert [laid_out((2, 3), 3, 1, padding, 1)[0].h for padding in (1, 2)] == [2 + 1, 4]


@pytest.mark.parametrize("kernel, stride, dilation, products, lists", [
    (3, 1, 1, 9, 1), (3, 2, 1, 6, 2), (7, 2, 1, 28, 2), (3, 1, 2, 9, 1), (3, 3, 1, 3, 3)])
def test_a_plan_makes_k_times_q_products(kernel: int, stride: int, dilation: int, products: int, lists: int) -> None:
    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
            called.append(str(operator))
            return operator(*arguments, **(keywords or {}))

    called: list[str] = []
    x, weight = torch.randn(1, 17, 24, 24), torch.randn(5, 17, kernel, kernel)
    with Counted():
        Shifted.apply(x, weight, None, _windows(x, weight, None, stride, kernel // 2, dilation, 1))
    assert (called.count("aten.addmm_.default"), called.count("aten.new_zeros.default")) == (products, lists)


def test_the_taps_of_a_dilated_window_lie_as_far_apart_as_its_pixels() -> None:
    layout, taps = laid_out((8, 8), 3, 1, 2, 2)
    assert layout.run == layout.q == 1 and layout.w == 8 + 2
    assert [tap.shift for tap in taps] == [2 * u * 10 + 2 * v for u in range(3) for v in range(3)]


def test_tiles_are_of_one_size_and_hold_whole_steps() -> None:
    weight = torch.zeros(1)
    assert conv2d_fast.tiles(100, weight, 10, 340, 4) == [(0, 36), (36, 72), (72, 100)]
    assert conv2d_fast.tiles(100, weight, 10, 1000) == [(0, 100)]
    assert conv2d_fast.tiles(3, weight, 10, 1) == [(0, 1), (1, 2), (2, 3)]
    assert conv2d_fast.tiles(0, weight, 10, 1) == []
    assert conv2d_fast.tiles(100, weight.to("meta"), 10, 340) == [(0, 100)]  # a GPU's list is one tile


def test_both_ways_the_wider_side_of_a_row_fills_a_tile(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(conv2d_fast, "tiles", lambda N, weight, width, *rest: asked.append(width) or [(0, N)])
    x, weight = (t.requires_grad_() for t in random_inputs(1, 17, 5, (3, 3), (42, 42), bias=False))
    conv2d(x, weight, padding=1).sum().backward()
    conv2d(torch.randn(1, 17, 42, 42), torch.randn(19, 17, 3, 3), padding=1)
    assert asked == [17, 17, 19]


def test_the_bytes_of_a_tile_in_float32_are_those_of_the_comments() -> None:
    assert [4 * n / 2**20 for n in (conv2d_fast.TILE, conv2d_rows.TILE, conv2d_winograd.SLAB)] == [2, 4, 8]


@pytest.mark.parametrize("channels, plan", [(15, "Rows"), (16, "Shifted")])
def test_an_image_of_fewer_than_sixteen_channels_takes_rows(channels: int, plan: str) -> None:
    x, weight = (t.requires_grad_() for t in random_inputs(1, channels, 2, (3, 3), (42, 42), bias=False))
    assert conv2d(x, weight).grad_fn.name() == f"{plan}Backward"


@pytest.mark.parametrize("stride, padding", [(2, 0), (3, 1)])
def test_rows_and_columns_of_an_image_that_a_stride_leaves_unseen_are_left_out_of_the_runs(stride, padding) -> None:
    inputs, options = random_inputs(2, 3, 5, (3, 3), (6, 6)), dict(stride=stride, padding=padding)
    windows = _windows(*inputs, **options, dilation=1, groups=1)
    assert conv2d_rows._framed(windows, inputs[0])[1][1] == 5  # of six columns
    assert_same(lambda *xs: Rows.apply(*xs, windows), bound(F.conv2d, **options), *inputs)


@pytest.mark.parametrize("rows", [8191, 8192, 16385])
def test_a_tall_product_in_parts_is_the_product(rows: int) -> None:
    a, b = torch.randn(rows, 2, dtype=torch.float64), torch.randn(rows, 3, dtype=torch.float64)
    torch.testing.assert_close(conv2d_rows._tall_product(a, b), a.T @ b)


@pytest.mark.parametrize("rows, parts", [(1, 1), (8192, 1), (16383, 1), (16384, 2), (16385, 2)])
def test_a_tall_product_is_cut_by_rows_of_a_part(rows: int, parts: int, monkeypatch) -> None:
    batches, product = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: batches.append(len(a)) or product(a, b))
    conv2d_rows._tall_product(torch.ones(rows, 2), torch.ones(rows, 3))
    assert batches == [parts]


# ── Winograd ────────────────────────────────────────────────────────────────────────────────────────────────────────

@st.composite
def winograd_cases(draw):
    rows = draw(st.integers(1, 4))
    padding = (draw(st.integers(0, rows - 1)), draw(st.integers(0, 2)))
    smallest = (max(1, rows - 2 * padding[0]), max(1, 3 - 2 * padding[1]))
    size = (smallest[0] + draw(st.integers(0, 7)), smallest[1] + draw(st.integers(0, 9)))
    inputs = random_inputs(draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4)), (rows, 3), size,
                           bias=draw(st.booleans()))
    return inputs, dict(padding=padding), draw(st.sampled_from([1, 60, 300, 2**21]))


@settings(max_examples=150)
@given(winograd_cases())
def test_winograd_is_right_for_any_size_padding_and_slab(case) -> None:
    inputs, options, slab = case

    def planned(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return Winograd.apply(x, weight, bias, _windows(x, weight, bias, 1, options["padding"], 1, 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv2d_winograd, "SLAB", slab)
        assert_same(planned, bound(F.conv2d, **options), *inputs)


@pytest.mark.parametrize("list_rows, slabs", [
    (23, [(0, 2, 0, 10), (2, 3, 0, 10)]), (11, [(b, b + 1, 0, 10) for b in range(3)]),
    (7, [(b, b + 1, *rows) for b in range(3) for rows in ((0, 5), (5, 10))]),
    (4, [(b, b + 1, *rows) for b in range(3) for rows in ((0, 4), (4, 8), (8, 10))])])
def test_slabs_are_whole_images_or_equal_parts_of_one(list_rows: int, slabs: list, monkeypatch) -> None:
    x = torch.zeros(3, 4, 10, 6)
    windows = _windows(x, torch.zeros(4, 4, 3, 3), None, 1, 1, 1, 1)
    monkeypatch.setattr(conv2d_winograd, "SLAB", list_rows * 5 * 2 * 4)  # five planes of two tiles of four channels
    found = conv2d_winograd._slabs(len(x), windows, 4)  # an image takes 11 rows of the list
    assert [(images.start, images.stop, rows.start, rows.stop) for images, rows in found] == slabs


def test_a_slab_is_listed_from_its_first_row_to_its_last_and_those_below() -> None:
    assert conv2d_winograd._listed(slice(1, 3), slice(2, 5), 11, 2) == slice(1 * 11 + 2, 2 * 11 + 5 + 2)


def test_five_products_give_three_windows() -> None:
    x, w = torch.randn(5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    pixels, filters = torch.empty(5, 1, 1).double(), torch.empty(5, 1, 1).double()
    interpolate_transposed(x.view(5, 1, 1), pixels.unbind())
    evaluate(w.view(3, 1, 1), filters.unbind())
    y = torch.empty(3, 1, 1).double()
    products = conv2d_winograd._divided(pixels * filters)  # to divide them by n is as good as to divide the filters
    evaluate_transposed(products.unbind(), y.unbind())
    torch.testing.assert_close(y.flatten(), torch.stack([w @ x[i:i + 3] for i in range(3)]))


def test_the_transforms_are_the_matrices_of_the_note() -> None:
    points = [0.5, -0.5, 1.25, -1.25]
    E = torch.empty(5, 1, 3).double()
    evaluate(torch.eye(3).double()[:, None].unbind(), E.unbind())
    assert E[:, 0].tolist() == [*([1, p, p * p] for p in points), [0, 0, 1]]
    E_transposed = torch.empty(3, 1, 5).double()
    evaluate_transposed(torch.eye(5).double()[:, None].unbind(), E_transposed.unbind())
    assert E_transposed[:, 0].tolist() == E[:, 0].T.tolist()
    D = torch.empty(5, 1, 5).double()
    interpolate_transposed(torch.eye(5).double()[:, None].unbind(), D.unbind())
    M = torch.tensor([(0.5 * 1.25) ** 2, 0, -(0.5**2 + 1.25**2), 0, 1]).double()  # (t² − a²)(t² − b²)
    torch.testing.assert_close(D[4, 0], M)
    for row, p in zip(D[:4, 0], points):  # the coefficients of M(t)/(t − p), over p: times t − p they are those of M
        times = torch.zeros(5).double()
        times[1:] += row[:4] * p
        times -= row * p * p
        torch.testing.assert_close(times, M)


def rms_errors(x: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Per column of the image, of Winograd and of torch.nn for images channels last, all in float32."""
    x, weight = (t.float().contiguous(memory_format=torch.channels_last) for t in (x, weight))
    truth = F.conv2d(x.double(), weight.double(), padding=1)
    found = {"ours": Winograd.apply(x, weight, None, _windows(x, weight, None, 1, 1, 1, 1)),
             "theirs": F.conv2d(x, weight, padding=1)}
    return {side: (y.double() - truth).square().mean((0, 1, 2)).sqrt() for side, y in found.items()} | {
        "truth": truth.square().mean().sqrt()}


@pytest.mark.parametrize("C", [64, 128, 256])
def test_winograds_error_is_not_twice_torchs(C: int) -> None:
    x, weight = random_inputs(2, C, C, (3, 3), (24, 24), bias=False)
    errors = rms_errors(x.relu(), weight / (3 * C**0.5))
    assert errors["ours"].square().mean() < 4 * errors["theirs"].square().mean()
    assert errors["ours"].max() < 5e-7 * errors["truth"]


def test_a_huge_pixel_costs_precision_up_to_two_columns_beyond_the_windows_that_see_it() -> None:
    x, weight = random_inputs(2, 64, 64, (3, 3), (24, 24), bias=False)
    x[..., 10] *= 1e4  # of the tile of windows 9, 10 and 11, and of the one before, which sees pixels 5 to 9, not
    apart = (errors := rms_errors(x, weight / 24))["ours"] > 100 * errors["ours"][0]
    assert apart.nonzero().flatten().tolist() == [9, 10, 11]
    x[..., 11] *= 1e4  # is also the first pixel of the next tile, whose windows 12, 13 and 14 see pixels 11 to 15
    apart = (errors := rms_errors(x, weight / 24))["ours"] > 100 * errors["ours"][0]
    assert apart.nonzero().flatten().tolist() == [9, 10, 11, 12, 13, 14]


def test_a_convolution_that_takes_winograd_equals_torch() -> None:
    inputs = random_inputs(2, 64, 64, (3, 3), (50, 52))
    assert conv2d(*[t.requires_grad_() for t in inputs], padding=1).grad_fn.name() == "WinogradBackward"
    assert_same(bound(conv2d, padding=1), bound(F.conv2d, padding=1), *inputs)


def test_winograd_is_for_a_cpu_and_not_for_torch_compile(monkeypatch) -> None:
    x, weight = torch.empty(2, 64, 50, 52), torch.empty(64, 64, 3, 3)
    windows = _windows(x, weight, None, 1, 1, 1, 1)
    assert _winograd_pays(x, weight, windows) and not _winograd_pays(x.to("meta"), weight, windows)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not _winograd_pays(x, weight, windows)


@pytest.mark.parametrize("C, size", [(64, (30, 40)), (128, (20, 27)), (256, (16, 16)), (512, (15, 20))])
def test_winograd_is_as_precise_as_torch(C: int, size: tuple) -> None:
    torch.manual_seed(0)
    x, weight, bias = random_inputs(2, C, C, (3, 3), size)
    windows = _windows(x, weight, bias, 1, 1, 1, 1)
    assert_as_precise_as_torch(lambda *inputs: Winograd.apply(*inputs, windows), bound(F.conv2d, padding=1),
                               x.relu(), weight / (3 * C**0.5), bias, dtypes=[torch.float32])


@pytest.mark.parametrize("learns", [(False, True, True), (True, False, False), (False, False, True)])
def test_winograd_computes_gradients_only_for_what_asks_for_them(learns: tuple) -> None:
    inputs = [t.requires_grad_(needs) for t, needs in zip(random_inputs(2, 3, 5, (3, 3), (7, 5)), learns)]
    windows, asked = _windows(*inputs, 1, 1, 1, 1), [t for t in inputs if t.requires_grad]
    cotangent = torch.randn(2, 5, 7, 5, dtype=torch.float64)
    context = Winograd.apply(*inputs, windows).grad_fn
    assert [g is not None for g in context.apply(cotangent)[:3]] == list(learns)
    ours = torch.autograd.grad(Winograd.apply(*inputs, windows), asked, cotangent)
    torch.testing.assert_close(ours, torch.autograd.grad(F.conv2d(*inputs, padding=1), asked, cotangent))


def test_winograds_backward_inside_autocast_is_the_backward_outside() -> None:
    inputs = [t.float().requires_grad_() for t in random_inputs(2, 5, 7, (3, 3), (7, 5))]
    y = Winograd.apply(*inputs, _windows(*inputs, 1, 1, 1, 1))
    outside = torch.autograd.grad(y, inputs, torch.ones_like(y), retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = torch.autograd.grad(y, inputs, torch.ones_like(y))
    assert all(torch.equal(a, b) for a, b in zip(inside, outside))


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


def test_the_layer_starts_from_the_same_draws_as_torch() -> None:
    torch.manual_seed(5)
    ours = Conv2d(6, 4, (3, 5), groups=2)
    torch.manual_seed(5)
    theirs = nn.Conv2d(6, 4, (3, 5), groups=2)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())


@pytest.mark.parametrize("options", [
    dict(), dict(bias=False), dict(stride=2, padding=(1, 2), dilation=(2, 1), groups=2)])
def test_the_layer_computes_what_torchs_layer_computes_with_its_weights(options: dict) -> None:
    ours, theirs = Conv2d(6, 4, 3, **options).double(), nn.Conv2d(6, 4, 3, **options).double()
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()), strict=True)
    x = torch.randn(2, 6, 11, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("x, weight, bias, options, words", [
    ((1, 4, 5, 5), (2, 3, 3, 3), None, {}, "wanted 3 channels"),
    ((1, 4, 5, 5), (3, 2, 3, 3), None, dict(groups=2), "groups divide"),
    ((1, 4, 5, 5), (2, 4, 3, 3), 3, {}, "each of 2 filters"),
    ((4, 5, 5), (2, 4, 3, 3), None, {}, r"wanted \(B,C,H,W\)"),
    ((1, 4, 5, 5), (2, 4, 3), None, {}, r"wanted \(B,C,H,W\)"),
    ((1, 0, 5, 5), (2, 4, 3, 3), None, dict(groups=0), "in 0 groups"),
    ((1, 4, 5, 5), (2, 4, 7, 3), None, {}, "room for one window"),
    ((1, 4, 5, 5), (2, 4, 3, 3), None, dict(dilation=3), "room for one window"),
    ((1, 4, 5, 5), (2, 4, 3, 3), None, dict(stride=0), "at least 1"),
    ((1, 4, 5, 5), (2, 4, 3, 3), None, dict(padding=-1), "padding at least 0"),
])
def test_shapes_that_do_not_fit_are_named(x, weight, bias, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        conv2d(torch.zeros(x), torch.zeros(weight), None if bias is None else torch.zeros(bias), **options)


def test_mixed_dtypes_are_refused_outside_autocast() -> None:
    with pytest.raises(TypeError, match="bfloat16.*one dtype"):
        conv2d(torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16), torch.zeros(1, 2, 3, 3))


@pytest.mark.parametrize("in_channels, out_channels, groups", [(6, 4, 3), (4, 6, 3), (6, 4, 0), (6, 4, -2)])
def test_a_layer_whose_groups_do_not_divide_its_channels_is_refused(in_channels, out_channels, groups) -> None:
    with pytest.raises(ValueError, match=f"{in_channels} → {out_channels} channels in {groups} groups"):
        Conv2d(in_channels, out_channels, 3, groups=groups)


@pytest.mark.parametrize("places", [100, 1, 0])
def test_a_list_gone_through_in_tiles_gives_the_same(monkeypatch, places: int) -> None:
    inputs, options = random_inputs(2, 17, 5, (3, 3), (42, 13)), dict(stride=(1, 2), padding=1)
    monkeypatch.setattr(conv2d_fast, "TILE", 17 * places + 16)  # so many of the list at a time, but one at least
    assert_same(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)


@pytest.mark.parametrize("stride", [1, 2])
def test_half_images_copied_in_words_give_the_same_columns(monkeypatch, stride: int) -> None:
    image = torch.randn(2, 20, 11, 7).bfloat16().contiguous(memory_format=torch.channels_last)
    windows = _windows(image, torch.zeros(1, 20, 3, 3).bfloat16(), None, stride, 1, 1, 1)
    in_words = _columns(image, windows)
    monkeypatch.setattr(conv2d_columns, "_in_words", lambda image, groups: False)
    assert torch.equal(in_words, _columns(image, windows))


def test_only_whole_half_images_of_one_group_and_a_multiple_of_four_channels_go_in_words(monkeypatch) -> None:
    half = torch.zeros(1 + 2 * 3 * 5 * 8, dtype=torch.float16)
    image = half[:-1].view(2, 3, 5, 8)
    others = [(image.float(), 1), (image, 2), (image[..., :6].contiguous(), 1), (image[..., :4], 1),
              (half[1:].view(2, 3, 5, 8), 1)]
    assert conv2d_columns._in_words(image, 1) and not any(conv2d_columns._in_words(*case) for case in others)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not conv2d_columns._in_words(image, 1)


def test_a_half_image_that_begins_between_two_words_is_copied_number_by_number() -> None:
    buffer = torch.randn(1 + 7 * 5 * 20).bfloat16()
    image = buffer[1:].view(1, 7, 5, 20).permute(0, 3, 1, 2)
    weight = torch.randn(3, 20, 3, 3).bfloat16()
    assert torch.equal(conv2d(image, weight), conv2d(image.clone(memory_format=torch.channels_last), weight))


@pytest.mark.parametrize("padding, dilation", [(0, 1), (1, 1), (2, 1), (2, 2), (4, 2)])
def test_the_gradient_of_an_image_is_a_convolution_of_the_results(padding: int, dilation: int) -> None:
    inputs = random_inputs(2, 3, 5, (3, 3), (11, 7), bias=False)
    windows = _windows(*inputs, None, 1, padding, dilation, 1)
    assert _backwards(windows, inputs[0]) == windows._replace(padding=(2 * dilation - padding,) * 2, size=(11, 7))
    assert _backwards(windows._replace(stride=(2, 1)), inputs[0]) is None
    assert _backwards(windows._replace(padding=(5, 0)), inputs[0]) is None  # a pixel of padding alone has no place in x


def test_a_layer_keeps_its_filters_channels_last_through_loading_and_moving() -> None:
    layer = Conv2d(6, 4, 3)
    layer.load_state_dict(nn.Conv2d(6, 4, 3).state_dict())
    for weight in (layer.weight, layer.double().weight, copy.deepcopy(layer).weight):
        assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize("C, kernel, size", [(17, 3, 42), (17, 3, 9), (3, 7, 20), (17, 1, 9)])
def test_the_gradient_of_the_filters_lies_as_they_do(C: int, kernel: int, size: int) -> None:
    layer = Conv2d(C, 5, kernel)
    gradient, = torch.autograd.grad(layer(torch.randn(2, C, size, size)).square().sum(), layer.weight)
    assert gradient.stride() == layer.weight.stride()
