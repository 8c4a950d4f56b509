"""progressive: which size when, what a smaller batch is, and that a training step sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scratch.config import PRESETS
from scratch.data.batch import Batch
from scratch.training.checkpoint import load_checkpoint
from scratch.training.content import check_content, run_config
from scratch.training.loop import train_step
from scratch.training.progressive import share_of_side, smaller
from tests.training.test_content import changed
from tests.training.test_loop import make_run, random_batch, small_config


@pytest.mark.parametrize("grow, progress, share", [
    (0.8, 0.0, 0.5), (0.8, 0.39, 0.5), (0.8, 0.4, 0.75), (0.8, 0.79, 0.75), (0.8, 0.8, 1.0), (0.8, 1.0, 1.0),
    (1.0, 0.99, 0.75), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 1.0)])
def test_the_side_grows_in_two_equal_parts_of_the_growth(grow: float, progress: float, share: float) -> None:
    assert share_of_side(grow, progress) == share


def batch_of(height: int, width: int) -> Batch:
    """Two pictures: the first fills the batch, the second its left half; the right half of that is padding."""
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    pad_mask = torch.zeros(2, height, width, dtype=torch.bool)
    pad_mask[1, :, width // 2:] = True
    targets = [{"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]]), "image_id": i}
               for i in range(2)]
    return Batch(images.masked_fill(pad_mask[:, None], 0), pad_mask, targets)


@pytest.mark.parametrize("share, size", [(0.5, (96, 160)), (0.75, (144, 240))])
def test_pictures_shrink_and_boxes_stay_shares_of_them(share: float, size: tuple[int, int]) -> None:
    whole = batch_of(192, 320)
    small = smaller(whole, share)
    assert small.images.shape == (2, 3, *size) and small.images.dtype == torch.uint8
    assert small.targets is whole.targets
    assert torch.equal(small.pad_mask[1], (torch.arange(size[1]) >= size[1] // 2).expand(size))
    assert not small.pad_mask[0].any()
    normal = small.normalised()
    assert (normal[1, :, :, size[1] // 2:] == 0).all() and (normal[0] != 0).any()


def test_at_half_the_side_four_equal_pixels_keep_their_value() -> None:
    blocks = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    images = blocks.repeat_interleave(16, -1).repeat_interleave(16, -2)
    small = smaller(Batch(images, torch.zeros(1, 64, 64, dtype=torch.bool), [{}]), 0.5)
    inner = torch.arange(32) % 8  # the triangle of a pixel at a block's edge reaches into the next block
    inside = (inner > 0) & (inner < 7)
    expected = blocks.repeat_interleave(8, -1).repeat_interleave(8, -2)
    assert torch.equal(small.images[..., inside, :][..., inside], expected[..., inside, :][..., inside])


@pytest.mark.parametrize("side, sizes", [(144, (64, 112)), (16, (16, 16)), (10, (10, 10)), (192, (96, 144))])
def test_sides_are_multiples_of_the_encoders_stride(side: int, sizes: tuple[int, int]) -> None:
    batch = Batch(torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.zeros(1, side, side, dtype=torch.bool), [{}])
    assert tuple(smaller(batch, share).images.shape[-1] for share in (0.5, 0.75)) == sizes
    assert smaller(batch, 1.0) is batch


def test_a_training_step_sees_pictures_of_the_size_of_its_progress(tmp_path: Path) -> None:
    config = small_config(max_steps=10)
    run = make_run(replace(config, data=replace(config.data, grow=0.8)), tmp_path)
    run.batches_per_epoch = 1000
    sizes: list[tuple[int, ...]] = []

    def note(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert inputs[0].shape[-2:] == inputs[1].shape[-2:]
        sizes.append(tuple(inputs[0].shape[-2:]))

    run.model.register_forward_pre_hook(note)
    batch = random_batch(2)
    H, W = batch.images.shape[-2:]
    for step in range(10):
        train_step(run, [batch])
        run.advance(1)
    of = {share: tuple(max(16, 16 * round(share * side / 16)) for side in (H, W)) for share in (0.5, 0.75)}
    assert sizes == [of[0.5]] * 4 + [of[0.75]] * 4 + [(H, W)] * 2


def test_weights_are_judged_and_kept_with_the_size_that_they_have_learnt_from(tmp_path: Path) -> None:
    config = small_config(max_steps=10)
    config = replace(config, data=replace(config.data, short_side=192, max_size=320, grow=0.8))
    run = make_run(config, tmp_path)
    run.batches_per_epoch = 1000
    sides = []
    for step in range(10):
        train_step(run, [random_batch(2)])
        run.advance(1)
        run.save()
        state = load_checkpoint(tmp_path / "last.pt")
        used = check_content(state, training=True)
        assert run_config(state) == config
        assert run.as_shown(batch_of(192, 320)).images.shape[-2:] == (used.data.short_side, used.data.max_size)
        sides.append(used.data.short_side)
    assert sides == [96] * 4 + [144] * 4 + [192] * 2

    other = make_run(config, tmp_path)
    other.load_state_dict(changed(state, "size/share", 0.5))
    assert other.as_shown(batch_of(192, 320)).images.shape[-2:] == (96, 160)
    assert other.config == config


def test_published_presets_do_not_grow() -> None:
    assert {name for name, preset in PRESETS.items() if preset.data.grow} == {"tiny"}
