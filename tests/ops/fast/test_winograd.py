"""winograd: five products give three windows, for any size and slab, as precise as the note says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scratch.ops.conv2d import _windows, conv2d
from scratch.ops.fast import winograd
from scratch.ops.fast.switch import plain_mode
from scratch.ops.fast.winograd import Winograd, evaluate, evaluate_transposed, interpolate_transposed
from tests.checks import assert_as_precise_as_torch, assert_same
from tests.ops.convolutions import bound, random_inputs


@pytest.fixture(autouse=True)
def through_the_door():
    """By the plans, also where the suite runs in plain mode."""
    with plain_mode(False):
        yield


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
        patch.setattr(winograd, "SLAB", slab)
        assert_same(planned, bound(F.conv2d, **options), *inputs)


@pytest.mark.parametrize("list_rows, slabs", [
    (23, [(0, 2, 0, 10), (2, 3, 0, 10)]), (11, [(b, b + 1, 0, 10) for b in range(3)]),
    (7, [(b, b + 1, *rows) for b in range(3) for rows in ((0, 5), (5, 10))]),
    (4, [(b, b + 1, *rows) for b in range(3) for rows in ((0, 4), (4, 8), (8, 10))])])
def test_slabs_are_whole_images_or_equal_parts_of_one(list_rows: int, slabs: list, monkeypatch) -> None:
    x = torch.zeros(3, 4, 10, 6)
    windows = _windows(x, torch.zeros(4, 4, 3, 3), None, 1, 1, 1, 1)
    monkeypatch.setattr(winograd, "SLAB", list_rows * 5 * 2 * 4)  # five planes of two tiles of four channels
    found = winograd._slabs(len(x), windows, 4)  # an image takes 11 rows of the list
    assert [(images.start, images.stop, rows.start, rows.stop) for images, rows in found] == slabs


def test_a_slab_is_listed_from_its_first_row_to_its_last_and_those_below() -> None:
    assert winograd._listed(slice(1, 3), slice(2, 5), 11, 2) == slice(1 * 11 + 2, 2 * 11 + 5 + 2)


def test_five_products_give_three_windows() -> None:
    x, w = torch.randn(5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    pixels, filters = torch.empty(5, 1, 1).double(), torch.empty(5, 1, 1).double()
    interpolate_transposed(x.view(5, 1, 1), pixels.unbind())
    evaluate(w.view(3, 1, 1), filters.unbind())
    y = torch.empty(3, 1, 1).double()
    products = winograd._divided(pixels * filters)  # to divide them by n is as good as to divide the filters
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
    J = torch.empty(5, 1, 5).double()
    interpolate_transposed(torch.eye(5).double()[:, None].unbind(), J.unbind())
    M = torch.tensor([(0.5 * 1.25) ** 2, 0, -(0.5**2 + 1.25**2), 0, 1]).double()  # (t² − a²)(t² − b²)
    torch.testing.assert_close(J[4, 0], M)
    for row, p in zip(J[:4, 0], points):  # the coefficients of M(t)/(t − p), over p: times t − p they are those of M
        times = torch.zeros(5).double()
        times[1:] += row[:4] * p
        times -= row * p * p
        torch.testing.assert_close(times, M)


def test_the_product_of_two_polynomials_takes_the_same_five_multiplications_transposed() -> None:
    w = torch.randn(3).double()
    W = torch.zeros(5, 3).double()
    for j in range(5):
        for i in range(3):
            if 0 <= j - i < 3:
                W[j, i] = w[j - i]
    E, J, values = torch.empty(5, 1, 3).double(), torch.empty(5, 1, 5).double(), torch.empty(5, 1, 1).double()
    evaluate(torch.eye(3).double()[:, None].unbind(), E.unbind())
    interpolate_transposed(torch.eye(5).double()[:, None].unbind(), J.unbind())
    evaluate(w.view(3, 1, 1).unbind(), values.unbind())
    values, E, J = winograd._divided(values).flatten(), E[:, 0], J[:, 0]
    torch.testing.assert_close(J.T @ values.diag() @ E, W)
    torch.testing.assert_close(E.T @ values.diag() @ J, W.T)


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


@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_a_pixel_that_is_no_number_reaches_all_windows_of_its_tiles(number: float) -> None:
    x, weight = random_inputs(1, 2, 3, (3, 3), (24, 24), bias=False)
    x[..., 11] = number
    y = Winograd.apply(x, weight, None, _windows(x, weight, None, 1, 1, 1, 1))
    assert y.isfinite().logical_not().any(0).all(0).any(0).nonzero().flatten().tolist() == [9, 10, 11, 12, 13, 14]
    assert F.conv2d(x, weight, padding=1).isfinite().all((0, 1, 2)).logical_not().nonzero().flatten().tolist() == [
        10, 11, 12]


def test_a_convolution_that_takes_winograd_equals_torch() -> None:
    inputs = random_inputs(2, 64, 64, (3, 3), (50, 52))
    assert conv2d(*[t.requires_grad_() for t in inputs], padding=1).grad_fn.name() == "WinogradBackward"
    assert_same(bound(conv2d, padding=1), bound(F.conv2d, padding=1), *inputs)


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
