"""place_encoding: the formula's encoding of any number, and the centres of cells."""

from __future__ import annotations

import math

import torch

from scratch.ops.beyond.place_encoding import cell_centres, sine_of
from scratch.ops.sine_encoding import sine_code_naive, sine_encoding


def test_at_a_temperature_of_20_every_pair_moves_more_than_a_tenth_of_a_radian_between_0_and_1():
    assert min(2 * math.pi / 20 ** (2 * i / 128) for i in range(64)) > 0.3


def test_two_cells_have_their_centres_at_one_and_three_quarters():
    assert cell_centres(torch.zeros(1, 1, 2, dtype=torch.bool))[0, :, 0].tolist() == [0.25, 0.75]


def test_the_centres_of_two_rows_and_three_columns_beside_padding():
    pad_mask = torch.tensor([[[False] * 3 + [True]] * 2 + [[True] * 4]])
    centres = cell_centres(pad_mask, torch.float64).view(3, 4, 2)
    torch.testing.assert_close(centres[0, :3, 0], torch.tensor([1, 3, 5]).double() / 6)
    torch.testing.assert_close(centres[:2, 0, 1], torch.tensor([1, 3]).double() / 4)


def test_centres_of_a_picture_that_is_all_padding_are_finite():
    assert cell_centres(torch.ones(1, 2, 3, dtype=torch.bool)).isfinite().all()


def test_the_code_of_two_numbers_is_that_of_each_one_after_the_other():
    numbers = torch.rand(5, 2, dtype=torch.float64)
    expected = [sine_code_naive(x * 2 * math.pi, 6, 20.0) + sine_code_naive(y * 2 * math.pi, 6, 20.0)
                for x, y in numbers.tolist()]
    torch.testing.assert_close(sine_of(numbers, 6), torch.tensor(expected, dtype=torch.float64))


def test_a_cells_code_is_detrs_own_at_half_a_cell_less():
    pad_mask = torch.zeros(1, 3, 5, dtype=torch.bool)
    detrs = sine_encoding(pad_mask, 8, temperature=20.0, dtype=torch.float64)  # counts from 1: a cell's far edge
    edges = cell_centres(pad_mask, torch.float64) + torch.tensor([0.5 / 5, 0.5 / 3], dtype=torch.float64)
    x, y = sine_of(edges, 8).flatten(0, 1).T.view(2, 8, 3, 5)
    torch.testing.assert_close(torch.cat((y, x))[None], detrs, rtol=0, atol=1e-5)  # DETR adds 1e-6 to its divisor


def test_the_one_cell_of_an_image_has_its_centre_in_the_middle() -> None:
    assert cell_centres(torch.zeros(1, 1, 1, dtype=torch.bool)).flatten().tolist() == [0.5, 0.5]
