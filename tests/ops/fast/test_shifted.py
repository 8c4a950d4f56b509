"""shifted: how the list of pixels is laid out, which products it makes, and tile by tile the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from scratch.ops.conv2d import _windows, conv2d
from scratch.ops.fast import shifted
from scratch.ops.fast.shifted import Shifted, layout_of, taps_of
from scratch.ops.fast.switch import plain_mode
from tests.checks import assert_same
from tests.ops.convolutions import bound, random_inputs


@pytest.fixture(autouse=True)
def through_the_door():
    """By the plans, also where the suite runs in plain mode."""
    with plain_mode(False):
        yield


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
    starts = [shifted._runs(pixels, taps[0], r, 12, _windows(
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
    assert shifted.tiles(100, weight, 10, 340, 4) == [(0, 36), (36, 72), (72, 100)]
    assert shifted.tiles(100, weight, 10, 1000) == [(0, 100)]
    assert shifted.tiles(3, weight, 10, 1) == [(0, 1), (1, 2), (2, 3)]
    assert shifted.tiles(0, weight, 10, 1) == []
    assert shifted.tiles(100, weight.to("meta"), 10, 340) == [(0, 100)]  # a GPU's list is one tile


def test_both_ways_the_wider_side_of_a_row_fills_a_tile(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(shifted, "tiles", lambda N, weight, width, *rest: asked.append(width) or [(0, N)])
    x, weight = (t.requires_grad_() for t in random_inputs(1, 17, 5, (3, 3), (42, 42), bias=False))
    conv2d(x, weight, padding=1).sum().backward()
    conv2d(torch.randn(1, 17, 42, 42), torch.randn(19, 17, 3, 3), padding=1)
    assert asked == [17, 17, 19]


@pytest.mark.parametrize("places", [100, 1, 0])
def test_a_list_gone_through_in_tiles_gives_the_same(monkeypatch, places: int) -> None:
    inputs, options = random_inputs(2, 17, 5, (3, 3), (42, 13)), dict(stride=(1, 2), padding=1)
    monkeypatch.setattr(shifted, "TILE", 17 * places + 16)  # so many of the list at a time, but one at least
    assert_same(bound(conv2d, **options), bound(F.conv2d, **options), *inputs)
