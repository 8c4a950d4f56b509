"""The quick mask: the share that was asked for, independent numbers, and the same again under the same seed."""

from __future__ import annotations

import math

import pytest
import torch

from scratch.ops.fast.dropout import quick_mask


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.1, 0.5, 0.99999, 1.0])
def test_a_quick_mask_drops_in_65536ths_and_enlarges_by_as_much(p):
    mask, scale = quick_mask(torch.empty(3, 70_001), p, torch.Generator().manual_seed(5))
    dropped = round(2**16 * p) / 2**16
    assert mask.shape == (3, 70_001) and mask.dtype is torch.bool
    assert scale == (1 / (1 - dropped) if dropped < 1 else 0)
    assert abs(dropped - p) <= 1 / 131072
    four_sigma = 4 * math.sqrt(dropped * (1 - dropped) / mask.numel())
    assert (~mask).double().mean().item() == pytest.approx(dropped, abs=four_sigma)


def test_the_four_numbers_of_a_draw_are_independent_and_a_generator_begun_anew_draws_them_again():
    x, generator = torch.empty(4 * 50_000), torch.Generator().manual_seed(5)
    first, second = (quick_mask(x, 0.3, generator)[0] for _ in range(2))
    assert torch.equal(quick_mask(x, 0.3, generator.manual_seed(5))[0], first) and not torch.equal(first, second)
    correlations = torch.corrcoef(first.view(-1, 4).T.double())
    assert (correlations - torch.eye(4)).abs().max() < 4 / math.sqrt(50_000)


def test_each_draw_of_a_quick_mask_makes_four_numbers_and_none_is_wasted():
    def masks(*sizes):
        generator = torch.Generator().manual_seed(5)
        return torch.cat([quick_mask(torch.empty(n), 0.3, generator)[0] for n in sizes])

    assert torch.equal(masks(400, 801), masks(1201)) and not torch.equal(masks(399, 802), masks(1201))
