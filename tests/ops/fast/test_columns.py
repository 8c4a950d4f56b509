"""columns: the rows of the matrix, its backward, and half images copied four numbers at a time."""

from __future__ import annotations

import pytest
import torch

from scratch.ops.conv2d import _windows, conv2d
from scratch.ops.fast import columns
from scratch.ops.fast.columns import _backwards, _columns
from scratch.ops.windows import Windows
from scratch.ops.fast.switch import plain_mode
from tests.ops.convolutions import random_inputs


@pytest.fixture(autouse=True)
def through_the_door():
    """By the plans, also where the suite runs in plain mode."""
    with plain_mode(False):
        yield


def test_the_columns_of_the_picture_of_the_note() -> None:
    a, b, c, d, e, f = range(1, 7)
    image, weight = torch.tensor([[[[a, b, c], [d, e, f]]]]).float(), torch.ones(1, 1, 2, 2)
    found = _columns(image, _windows(image, weight, None, 1, 0, 1, 1))
    assert found.tolist() == [[[a, b, d, e], [b, c, e, f]]]


def test_the_columns_of_a_1x1_convolution_are_the_pixels_and_nothing_is_added_up() -> None:
    x, weight = random_inputs(2, 3, 5, (1, 1), (3, 7), bias=False)
    copies = torch.randn(1, 2 * 3 * 7, 3, dtype=torch.float64)
    folded = columns._fold(copies, x, _windows(x, weight, None, 1, 0, 1, 1))
    assert folded.data_ptr() == copies.data_ptr()
    assert torch.equal(folded, copies.view(2, 3, 7, 3).permute(0, 3, 1, 2))


@pytest.mark.parametrize("padding, dilation", [(0, 1), (1, 1), (2, 1), (2, 2), (4, 2)])
def test_the_gradient_of_an_image_is_a_convolution_of_the_results(padding: int, dilation: int) -> None:
    inputs = random_inputs(2, 3, 5, (3, 3), (11, 7), bias=False)
    windows = _windows(*inputs, None, 1, padding, dilation, 1)
    assert _backwards(windows, inputs[0]) == windows._replace(padding=(2 * dilation - padding,) * 2, size=(11, 7))
    assert _backwards(windows._replace(stride=(2, 1)), inputs[0]) is None
    assert _backwards(windows._replace(padding=(5, 0)), inputs[0]) is None  # a pixel of padding alone has no place in x


@pytest.mark.parametrize("stride", [1, 2])
def test_half_images_copied_in_words_give_the_same_columns(monkeypatch, stride: int) -> None:
    image = torch.randn(2, 20, 11, 7).bfloat16().contiguous(memory_format=torch.channels_last)
    windows = _windows(image, torch.zeros(1, 20, 3, 3).bfloat16(), None, stride, 1, 1, 1)
    in_words = _columns(image, windows)
    monkeypatch.setattr(columns, "_in_words", lambda image, groups: False)
    assert torch.equal(in_words, _columns(image, windows))


def test_only_whole_half_images_of_one_group_and_a_multiple_of_four_channels_go_in_words(monkeypatch) -> None:
    half = torch.zeros(1 + 2 * 3 * 5 * 8, dtype=torch.float16)
    image = half[:-1].view(2, 3, 5, 8)
    others = [(image.float(), 1), (image, 2), (image[..., :6].contiguous(), 1), (image[..., :4], 1),
              (half[1:].view(2, 3, 5, 8), 1)]
    assert columns._in_words(image, 1) and not any(columns._in_words(*case) for case in others)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not columns._in_words(image, 1)


def test_a_half_image_that_begins_between_two_words_is_copied_number_by_number() -> None:
    buffer = torch.randn(1 + 7 * 5 * 20).bfloat16()
    image = buffer[1:].view(1, 7, 5, 20).permute(0, 3, 1, 2)
    weight = torch.randn(3, 20, 3, 3).bfloat16()
    assert torch.equal(conv2d(image, weight), conv2d(image.clone(memory_format=torch.channels_last), weight))


def test_the_windows_backwards_of_a_kernel_with_two_sides_padding_and_dilation() -> None:
    windows = Windows((2, 4), (1, 1), (1, 2), (2, 3), 1, (9, 9))
    assert _backwards(windows, torch.zeros(1, 1, 8, 14)).padding == (2 * (2 - 1) - 1, 3 * (4 - 1) - 2)


def test_an_image_that_wants_no_gradient_costs_none(monkeypatch) -> None:
    monkeypatch.setattr(columns, "_backwards", lambda *_: pytest.fail("the image's gradient is computed"))
    x, weight = torch.randn(2, 3, 5, 7), torch.randn(4, 3, 3, 3, requires_grad=True)
    columns.Columns.apply(x, weight, None, _windows(x, weight, None, 1, 1, 1, 1)).sum().backward()
    assert weight.grad is not None
