"""fp16 loses hardly any of the first steps of the default run on a GPU; measured with a GPU's rounding, on a CPU."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch

from benchmarks.half_start import RoundedOnce, shapes, start
from scratch.config import PRESETS, RESNETS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_product_is_computed_in_float32_and_rounded_once(dtype):
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(shape, generator=generator).to(dtype) for shape in ((3, 301), (301, 5), (3, 5)))
    with RoundedOnce():
        product, with_sum = a @ b, torch.addmm(c, a, b, beta=0.5)
        wide = a.float() @ b.float()
    assert torch.equal(product, wide.to(dtype)) and wide.dtype is torch.float32
    assert torch.equal(with_sum, torch.addmm(c.float(), a.float(), b.float(), beta=0.5).to(dtype))


def test_the_pictures_are_squares_with_boxes_inside():
    batch = shapes(3, 64, seed=0)
    assert batch.images.shape == (3, 3, 64, 64) and not batch.pad_mask.any()
    boxes = torch.cat([target["boxes"] for target in batch.targets])
    assert len(boxes) >= 3 and (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-5).all()
    assert (boxes[:, :2] + boxes[:, 2:] / 2 < 1 + 1e-5).all()


@pytest.mark.slow
def test_of_the_first_30_steps_at_most_two_are_skipped_in_a_backbone_of_fifty_blocks(tmp_path):
    """A quarter as wide as the preset's, for a CPU; the depth is what makes gradients overflow."""
    config = PRESETS["detr_141m_fast"]
    block, depths, _ = RESNETS[config.model.backbone]
    config = replace(config, model=replace(config.model, hidden_dim=192))
    with mock.patch.dict(RESNETS, {config.model.backbone: (block, depths, 16)}):
        result = start(config, side=64, batch_size=2, steps=30, directory=tmp_path)
    assert len(result.skipped) <= 2 and len(result.losses) == 30 and sum(depths) == 50
    assert all(torch.tensor(result.losses).isfinite())
