"""rows: what a stride leaves unseen is not copied, and a tall product in parts is the product."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scratch.ops.conv2d import _windows
from scratch.ops.fast import rows
from scratch.ops.fast.rows import Rows
from tests.checks import assert_same
from tests.ops.convolutions import bound, random_inputs


@pytest.mark.parametrize("stride, padding", [(2, 0), (3, 1)])
def test_rows_and_columns_of_an_image_that_a_stride_leaves_unseen_are_left_out_of_the_runs(stride, padding) -> None:
    inputs, options = random_inputs(2, 3, 5, (3, 3), (6, 6)), dict(stride=stride, padding=padding)
    windows = _windows(*inputs, **options, dilation=1, groups=1)
    assert rows._framed(windows, inputs[0])[1][1] == 5  # of six columns
    assert_same(lambda *xs: Rows.apply(*xs, windows), bound(F.conv2d, **options), *inputs)


@pytest.mark.parametrize("count", [8191, 8192, 16385])
def test_a_tall_product_in_parts_is_the_product(count: int) -> None:
    a, b = torch.randn(count, 2, dtype=torch.float64), torch.randn(count, 3, dtype=torch.float64)
    torch.testing.assert_close(rows._tall_product(a, b), a.T @ b)


@pytest.mark.parametrize("count, parts", [(1, 1), (8192, 1), (16383, 1), (16384, 2), (16385, 2)])
def test_a_tall_product_is_cut_by_rows_of_a_part(count: int, parts: int, monkeypatch) -> None:
    batches, product = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: batches.append(len(a)) or product(a, b))
    rows._tall_product(torch.ones(count, 2), torch.ones(count, 3))
    assert batches == [parts]
