from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scratch.data.transforms import Augmentation, View, resized

PAPER = Augmentation("paper", 800, 1333)
NO_BOXES = torch.zeros(0, 4)


def _official_size(width, height, size, max_size=None):
    """get_size_with_aspect_ratio of the official DETR's datasets/transforms.py, returning (height, width)."""
    if max_size is not None:
        low, high = float(min(width, height)), float(max(width, height))
        if high / low * size > max_size:
            size = int(round(max_size * low / high))
    if (width <= height and width == size) or (height <= width and height == size):
        return height, width
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


@given(st.integers(17, 997), st.integers(17, 997), st.integers(31, 809))
def test_sizes_are_the_official_ones(height, width, size):
    assert resized(height, width, size) == _official_size(width, height, size)


@given(st.integers(17, 997), st.integers(17, 997), st.integers(31, 809))
def test_limited_sizes_are_the_official_ones_cut_to_the_limit(height, width, size):
    limit = size * 5 // 3
    official = _official_size(width, height, size, limit)
    assert resized(height, width, size, limit) == tuple(min(side, limit) for side in official)


def test_the_longer_side_never_exceeds_its_limit_even_by_rounding():
    assert _official_size(800, 100, 800, 1333) == (167, 1336)
    assert resized(100, 800, 800, 1333) == (167, 1333)


def test_a_sliver_keeps_a_pixel():
    assert resized(1, 5000, 800, 1333) == (1, 1333)


def test_evaluation_shows_the_whole_image_as_the_paper_says():
    view = Augmentation("none", 800, 1333).draw(480, 640, random.Random(0))
    assert view == View((0, 0, 640, 480), (800, 1066), False)


def _views(augmentation: Augmentation, height: int, width: int, draws: int = 600) -> list[View]:
    return [augmentation.draw(height, width, random.Random(seed)) for seed in range(draws)]


def test_half_of_the_views_are_mirrored_and_half_are_cropped():
    views = _views(PAPER, 480, 640)
    cropped = [view.region != (0, 0, 640, 480) for view in views]
    assert 0.43 < np.mean([view.mirrored for view in views]) < 0.57
    assert 0.43 < np.mean(cropped) < 0.57


def test_shorter_sides_are_the_papers_eleven_scales():
    sides = {min(view.size) for view in _views(PAPER, 700, 700)}
    assert sides == {480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800}


def test_crops_are_384_to_600_pixels_of_the_image_resized_to_400_500_or_600():
    for view in _views(PAPER, 500, 500):
        x0, y0, x1, y1 = view.region
        if view.region != (0, 0, 500, 500):
            sides = [[round(side * short / 500, 6) for side in (x1 - x0, y1 - y0)] for short in (400, 500, 600)]
            assert any(384 <= w <= 600 and 384 <= h <= 600 and w == int(w) and h == int(h) for w, h in sides)
            assert 0 <= x0 < x1 <= 500 and 0 <= y0 < y1 <= 500


def test_a_smaller_preset_scales_every_number():
    sides = {min(view.size) for view in _views(Augmentation("paper", 128, 213), 500, 500)}
    assert sides == {77, 82, 87, 92, 97, 102, 108, 113, 118, 123, 128}


def test_flip_mirrors_half_and_does_nothing_else():
    views = _views(Augmentation("flip", 800, 1333), 480, 640, 200)
    assert {(view.region, view.size) for view in views} == {((0, 0, 640, 480), (800, 1066))}
    assert 0.4 < np.mean([view.mirrored for view in views]) < 0.6


def test_boxes_worked_by_hand():
    # The right half of a 100×60 image, mirrored: x' = 1 − (x − 50)/50.
    view = View((50, 0, 100, 60), (120, 100), True)
    boxes = torch.tensor([[60.0, 15, 80, 45], [40, 0, 55, 30], [10, 10, 50, 20]])
    seen, keep = view.of_boxes(boxes)
    # [60,80] → [0.2,0.6] → [0.4,0.8]; [50,55] → [0,0.1] → [0.9,1]; the third only touches the crop
    assert keep.tolist() == [True, True, False]
    torch.testing.assert_close(seen, torch.tensor([[0.6, 0.5, 0.4, 0.5], [0.95, 0.25, 0.1, 0.5]]))


def test_an_image_without_boxes_stays_without_boxes():
    _, boxes, keep = PAPER(Image.new("RGB", (53, 41)), NO_BOXES, random.Random(3))
    assert boxes.shape == (0, 4) and keep.shape == (0,)


@pytest.mark.parametrize("augmentation", [
    Augmentation("paper", 200, 333), Augmentation("flip", 101, 173), Augmentation("none", 211, 307)])
def test_a_box_bounds_its_bright_rectangle_after_any_augmentation(augmentation):
    met = 0
    for seed in range(150):
        rng = random.Random(seed)
        width, height = rng.randint(120, 400), rng.randint(120, 400)
        x0, y0 = rng.randint(0, width - 30), rng.randint(0, height - 30)
        x1, y1 = rng.randint(x0 + 20, width), rng.randint(y0 + 20, height)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[y0:y1, x0:x1] = 255
        image, boxes, keep = augmentation(Image.fromarray(pixels), torch.tensor([[x0, y0, x1, y1]]), rng)
        _, h, w = image.shape
        bright = image[0] > 127
        if not keep.item():
            assert not bright.any()
            continue
        cx, cy, bw, bh = (boxes[0] * torch.tensor([w, h, w, h])).tolist()
        if min(bw, bh) < 2:
            continue  # a strip too thin to be bright
        met += 1
        rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
        bounds = [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]
        assert np.abs(np.array(bounds) - (cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2)).max() <= 1.0
        assert boxes.min() >= 0 and boxes.max() <= 1
    assert met > 120


def test_one_resampling_shows_what_resize_crop_resize_shows():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    photograph = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    bilinear = Image.Resampling.BILINEAR
    thrice = photograph.resize((533, 400), bilinear).crop((31, 7, 31 + 401, 7 + 389)).resize((618, 600), bilinear)
    x, y = 640 / 533, 480 / 400
    once = View((31 * x, 7 * y, 432 * x, 396 * y), (600, 618), False).of_image(photograph)
    difference = np.abs(once.permute(1, 2, 0).numpy().astype(int) - np.asarray(thrice).astype(int))
    assert difference.mean() < 0.5 and difference.max() <= 4


def test_images_are_bytes_with_channels_first():
    image, _, _ = Augmentation("none", 20, 40)(Image.new("RGB", (53, 41), (1, 2, 3)), NO_BOXES, random.Random(0))
    assert image.dtype == torch.uint8 and image.shape == (3, 20, 25) and image[:, 7, 9].tolist() == [1, 2, 3]


def test_the_same_generator_state_draws_the_same_view_and_no_global_state_is_used():
    before = random.getstate(), torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    assert PAPER.draw(480, 640, random.Random(5)) == PAPER.draw(480, 640, random.Random(5))
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    assert np.array_equal(np.random.get_state()[1], before[2])


def test_an_augmentation_travels_to_another_process():
    assert pickle.loads(pickle.dumps(PAPER)) == PAPER
