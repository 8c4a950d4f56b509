"""RoIAlign: two matrix products are the definition's loops, and torch's bilinear reading."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn.functional import avg_pool2d, grid_sample

from scratch.ops.beyond.roi_align import POINTS, SIZE, hats, points_between, roi_align, roi_align_definition

STRIDE = 16.0
# Ordinary, over the edge, far outside on two sides, within one cell.
BOXES = torch.tensor([[13.0, 7.0, 101.0, 71.0], [-20.0, -9.0, 60.0, 50.0], [60.0, 40.0, 300.0, 260.0],
                      [33.0, 33.0, 37.0, 35.0]], dtype=torch.float64)


def features() -> torch.Tensor:
    return torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("size, points", [(7, 2), (2, 3), (5, 1)])
def test_the_matrix_products_equal_the_definition(size: int, points: int) -> None:
    x = features()
    expected = torch.stack([roi_align_definition(x, box, STRIDE, size, points) for box in BOXES])
    torch.testing.assert_close(roi_align(x, BOXES, STRIDE, size, points), expected, rtol=1e-10, atol=1e-10)


def by_grid_sample(x: torch.Tensor, box: torch.Tensor, size: int, points: int) -> torch.Tensor:
    """torch's own bilinear reading at the same points; its grid is −1 … 1 over the whole image."""
    height, width = x.shape[1] * STRIDE, x.shape[2] * STRIDE
    offsets = (torch.arange(size * points, dtype=x.dtype) + 0.5) / (size * points)
    u = box[0] + (box[2] - box[0]) * offsets
    v = box[1] + (box[3] - box[1]) * offsets
    grid = torch.stack(torch.meshgrid(2 * v / height - 1, 2 * u / width - 1, indexing="ij")[::-1], dim=-1)
    read = grid_sample(x[None], grid[None], align_corners=False, padding_mode="border")
    return avg_pool2d(read, points)[0]


def test_value_and_gradients_equal_those_of_grid_sample() -> None:
    x, boxes = features().requires_grad_(), BOXES[[0, 3]].clone().requires_grad_()
    ours = roi_align(x, boxes, STRIDE, 5, 2)
    theirs = torch.stack([by_grid_sample(x, box, 5, 2) for box in boxes])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    seed = torch.randn(ours.shape, generator=torch.Generator().manual_seed(7), dtype=ours.dtype)
    for mine, other in zip(torch.autograd.grad(ours, (x, boxes), seed), torch.autograd.grad(theirs, (x, boxes), seed)):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


def test_each_output_is_a_mean_over_the_cells() -> None:
    low, high = BOXES[:2, 1] / STRIDE - 0.5, BOXES[:2, 3] / STRIDE - 0.5
    at, near = points_between(low, high, 5, torch.full_like(low, 7))
    torch.testing.assert_close(hats(at, near, 7).sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_a_ramp_is_read_at_the_middle_of_each_part() -> None:
    ramp = (torch.arange(9, dtype=torch.float64) + 0.5).expand(1, 9, 9)  # each cell's value is its centre, in cells
    box = torch.tensor([[2.0, 1.0, 6.0, 5.0]], dtype=torch.float64)  # stride 1: from column 2 to 6
    read = roi_align(ramp, box, 1.0, size=2)[0, 0, 0]
    torch.testing.assert_close(read, torch.tensor([3.0, 5.0], dtype=torch.float64))


def test_the_docstring_counts_the_multiplications_of_both_ways() -> None:
    note = roi_align.__doc__
    r, h, w = map(int, re.search(r"For a (\d+)×\1 map of a (\d+)×(\d+) grid", note).groups())
    ours, theirs = r * (h * w + r * w), 4 * (r * POINTS) ** 2
    assert f"that is {r} · ({h * w} + {r * w}) against {theirs}: ten times as much" in note
    assert r == SIZE and ours / theirs == pytest.approx(10, abs=0.5)


def test_points_more_than_a_cell_outside_read_nothing() -> None:
    far = torch.tensor([[1000.0, 1000.0, 1100.0, 1100.0]], dtype=torch.float64)
    assert roi_align(features(), far, STRIDE).count_nonzero() == 0


@pytest.mark.parametrize("row, column, is_read", [
    (-1.0, 3.0, True), (7.0, 3.0, True), (3.0, -1.0, True), (3.0, 11.0, True),
    (-1.01, 3.0, False), (7.01, 3.0, False), (3.0, -1.01, False), (3.0, 11.01, False)])
def test_a_point_a_cell_outside_is_read_at_the_edge_and_one_further_out_is_not(row, column, is_read) -> None:
    """One point, in the middle of a box; 7 rows and 11 columns of cells, whose middles are at 0, 1 …"""
    x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
    box = torch.tensor([x - 4, y - 4, x + 4, y + 4], dtype=torch.float64)
    edge = features()[:, min(max(int(row), 0), 6), min(max(int(column), 0), 10)]
    for read in (roi_align_definition(features(), box, STRIDE, 1, 1), roi_align(features(), box[None], STRIDE, 1, 1)[0]):
        torch.testing.assert_close(read[:, 0, 0], edge * is_read, rtol=1e-10, atol=1e-10)
