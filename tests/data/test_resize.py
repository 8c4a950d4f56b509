"""resize: the formula, PyTorch's antialiased bilinear interpolation, and what antialiasing is for."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from scratch.data.resize import resize, resize_naive, triangle_weights

SIZES = [(11, 19), (5, 29), (40, 31), (1, 1), (17, 29), (34, 10)]


def test_six_pixels_to_four_by_hand() -> None:
    by_hand = torch.tensor([[5 / 8, 3 / 8, 0, 0, 0, 0], [0, 3 / 9, 5 / 9, 1 / 9, 0, 0], [0, 0, 1 / 9, 5 / 9, 3 / 9, 0],
                            [0, 0, 0, 0, 3 / 8, 5 / 8]], dtype=torch.float64)
    torch.testing.assert_close(triangle_weights(6, 4, by_hand), by_hand)


@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradient_are_pytorchs(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 17, 29, dtype=torch.float64, requires_grad=True)
    ours, theirs = resize(x, size), interpolate(x, size=size, mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs)), rtol=0,
                               atol=1e-12)


@pytest.mark.parametrize("length, size", [(1, 1), (1, 5), (7, 3), (7, 7), (7, 20)])
def test_a_row_is_the_formulas(length: int, size: int) -> None:
    row = torch.rand(1, length, dtype=torch.float64)
    torch.testing.assert_close(resize(row, (1, size))[0], torch.tensor(resize_naive(row[0].tolist(), size)).double())


def test_an_even_grey_stays() -> None:
    torch.testing.assert_close(resize(torch.full((2, 9, 9), 0.3), (4, 20)), torch.full((2, 4, 20), 0.3))


def test_stripes_of_one_pixel_become_grey_where_two_nearest_pixels_would_show_stripes() -> None:
    stripes = (torch.arange(90) % 2).double().expand(3, 90)
    smaller = resize(stripes, (3, 30))[:, 2:-2]
    aliased = interpolate(stripes[None, None], size=(3, 30), mode="bilinear")[0, 0, :, 2:-2]
    assert (smaller - 0.5).abs().max() < 0.1 < 0.4 < (aliased - 0.5).abs().max()


@pytest.mark.parametrize("shape, size", [((3,), (2, 2)), ((3, 4, 4), (0, 2)), ((3, 4, 4), (2, -1))])
def test_what_has_no_rows_or_no_size_is_refused(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="wanted two sides of 1 or more"):
        resize(torch.zeros(shape), size)
