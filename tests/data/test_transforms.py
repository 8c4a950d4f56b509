from __future__ import annotations

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scratch.config import DataConfig
from scratch.data.transforms import LEAST_SEEN, Augmentation, View, resized

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


def test_evaluation_augments_nothing_whatever_training_does():
    config = DataConfig(augment="zoom", turns=True, colour=0.3, mosaic=0.7, mixup=0.2, short_side=101, max_size=173)
    assert Augmentation.for_training(config) == Augmentation("zoom", 101, 173, False, True, 0.3, 0.7, 0.2)
    assert Augmentation.for_evaluation(config) == Augmentation("none", 101, 173)
    assert Augmentation.for_evaluation(replace(config, square=True)) == Augmentation("none", 101, 173, square=True)


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


@pytest.mark.parametrize("kind, seed, view, next_draw", [
    ("paper", 2, View((0, 0, 640, 480), (77, 102), False), 0.09158478740507359),
    ("paper", 7, View((230, 30, 550, 355), (124, 123), True), 0.057998924774706806),
    ("flip", 1, View((0, 0, 640, 480), (128, 170), True), 0.8474337369372327),
    ("none", 1, View((0, 0, 640, 480), (128, 170), False), 0.13436424411240122)])
def test_what_is_drawn_without_turns_is_what_always_was(kind, seed, view, next_draw):
    rng = random.Random(seed)
    assert Augmentation(kind, 128, 213).draw(480, 640, rng) == view and rng.random() == next_draw


# -- zoom ----------------------------------------------------------------------------------------------------------

ZOOM = Augmentation("zoom", 128, 213)


def test_zoom_crops_one_half_and_mirrors_another():
    views = _views(ZOOM, 480, 640)
    assert 0.43 < np.mean([view.region != (0, 0, 640, 480) for view in views]) < 0.57
    assert 0.43 < np.mean([view.mirrored for view in views]) < 0.57


def test_zoom_crops_half_to_all_of_each_side_independently_and_anywhere():
    corners = np.array([view.region for view in _views(ZOOM, 479, 641) if view.region != (0, 0, 641, 479)])
    x0, y0, x1, y1 = corners.T / [[641], [479], [641], [479]]
    for low, high in ((x0, x1), (y0, y1)):
        assert low.min() >= 0 and high.max() <= 1 and low.max() > 0.35 and high.min() < 0.65
        assert 0.5 <= (high - low).min() < 0.53 and 0.97 < (high - low).max() <= 1
    assert abs(np.corrcoef(x1 - x0, y1 - y0)[0, 1]) < 0.15


def test_zoom_shows_every_view_at_the_size_of_evaluation():
    assert {view.size for view in _views(ZOOM, 480, 640)} == {resized(480, 640, 128, 213)}


# -- turns ---------------------------------------------------------------------------------------------------------

SYMMETRIES = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]


@pytest.mark.parametrize("mirrored, turns", SYMMETRIES)
def test_each_symmetry_of_the_square_moves_pixels_as_pillow_does(mirrored, turns):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    view = View((0, 0, 11, 7), (7, 11), mirrored).turned(turns)
    shown = view.of_image(Image.fromarray(pixels))
    expected = Image.fromarray(pixels)
    for step in mirrored * [Image.Transpose.FLIP_LEFT_RIGHT] + turns * [Image.Transpose.ROTATE_90]:
        expected = expected.transpose(step)
    assert shown.shape[1:] == view.size and shown.is_contiguous()
    np.testing.assert_array_equal(shown.permute(1, 2, 0), expected)


@pytest.mark.parametrize("mirrored, turns", SYMMETRIES)
def test_each_symmetry_of_the_square_moves_boxes_with_their_pixels(mirrored, turns):
    pixels = np.zeros((7, 11, 3), dtype=np.uint8)
    pixels[1:3, 2:7] = 255
    view = View((0, 0, 11, 7), (7, 11), mirrored).turned(turns)
    rows, columns = view.of_image(Image.fromarray(pixels))[0].nonzero().unbind(1)
    (y0, x0), (y1, x1) = (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)
    expected = torch.tensor([[(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]]) / torch.tensor(view.size[::-1] * 2)
    torch.testing.assert_close(view.of_boxes(torch.tensor([[2, 1, 7, 3]]))[0], expected)


def test_two_turns_are_made_one_after_the_other():
    view = View((0, 0, 11, 7), (7, 11), True)
    assert view.turned(3).turned(2) == view.turned(1) and view.turned(1).turned(3) == view


@pytest.mark.parametrize("kind", ["paper", "zoom", "flip"])
def test_all_eight_symmetries_are_equally_likely(kind):
    views = _views(Augmentation(kind, 128, 213, turns=True), 480, 640, 1600)
    counts = [sum((view.mirrored, view.quarter_turns) == symmetry for view in views) for symmetry in SYMMETRIES]
    assert sum(counts) == 1600 and 160 < min(counts) and max(counts) < 240


def test_an_odd_number_of_turns_swaps_height_and_width():
    views = _views(Augmentation("flip", 128, 213, turns=True), 480, 640)
    assert {(view.quarter_turns % 2, view.size) for view in views} == {(0, (128, 170)), (1, (170, 128))}


# -- part of a larger picture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(61, 83), (128, 170), (113, 29)])
def test_a_part_is_filled_without_stretching_from_within_the_image(size):
    for seed in range(200):
        view = Augmentation("zoom", 128, 213, turns=True).draw_part(480, 640, size, random.Random(seed))
        x0, y0, x1, y1 = view.region
        h, w = size[::-1] if view.quarter_turns % 2 else size
        assert view.size == size and (x1 - x0) / (y1 - y0) == pytest.approx(w / h, rel=0.01)  # 170 stands for 170.7
        assert 0 <= x0 < x1 <= 640 and 0 <= y0 < y1 <= 480


def _scales(size):
    views = (ZOOM.draw_part(480, 640, size, random.Random(seed)) for seed in range(400))
    return [size[0] / (view.region[3] - view.region[1]) / (128 / 480) for view in views]


def test_a_part_is_shown_at_half_to_one_and_a_half_of_the_scale_of_evaluation():
    scales = _scales((61, 83))
    assert 0.5 <= min(scales) < 0.51 and 1.49 < max(scales) <= 1.5 and np.mean(scales) == pytest.approx(1, abs=0.05)


def test_a_part_that_is_larger_than_the_image_at_that_scale_enlarges_it():
    scales = _scales((61, 149))
    assert min(scales) == pytest.approx(149 / 170, rel=0.01) and np.mean(np.array(scales) < 149 / 170 + 0.01) > 0.3


# -- what is shown of an image -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen, kept", [(0.19, False), (0.21, True)])
def test_a_box_is_dropped_where_less_than_a_fifth_of_it_is_left(seen, kept):
    boxes = torch.tensor([[50 - 20 * seen, 10, 50 + 20 * (1 - seen), 30]])  # 20×20 across the right side, x = 50
    assert View((0, 0, 50, 60), (60, 50), False, least_seen=LEAST_SEEN).of_boxes(boxes)[1].tolist() == [kept]
    assert View((0, 0, 50, 60), (60, 50), False).of_boxes(boxes)[1].tolist() == [True]


def test_what_zoom_and_parts_cut_to_less_than_a_fifth_they_drop_and_the_paper_keeps():
    cropped = [view for view in _views(ZOOM, 480, 640) if view.region != (0, 0, 640, 480)]
    assert {view.least_seen for view in cropped} == {ZOOM.draw_part(480, 640, (61, 83), random.Random(0)).least_seen}
    assert cropped[0].least_seen == 0.2 and {view.least_seen for view in _views(PAPER, 480, 640)} == {0}


def test_boxes_worked_by_hand():
    # The right half of a 100×60 image, mirrored: x' = 1 − (x − 50)/50.
    view = View((50, 0, 100, 60), (120, 100), True)
    boxes = torch.tensor([[60.0, 15, 80, 45], [40, 0, 55, 30], [10, 10, 50, 20]])
    seen, keep = view.of_boxes(boxes)
    # [60,80] → [0.2,0.6] → [0.4,0.8]; [50,55] → [0,0.1] → [0.9,1]; the third only touches the crop
    assert keep.tolist() == [True, True, False]
    torch.testing.assert_close(seen, torch.tensor([[0.6, 0.5, 0.4, 0.5], [0.95, 0.25, 0.1, 0.5]]))


def test_a_quarter_turn_worked_by_hand():
    # Anticlockwise, what was at the right is at the top: x' = y, y' = 1 − x.
    seen, _ = View((0, 0, 100, 60), (60, 100), False).turned(1).of_boxes(torch.tensor([[80.0, 6, 90, 30]]))
    # x [0.8,0.9], y [0.1,0.5] → x' [0.1,0.5], y' [0.1,0.2]
    torch.testing.assert_close(seen, torch.tensor([[0.3, 0.15, 0.4, 0.1]]))


def test_an_image_without_boxes_stays_without_boxes():
    _, boxes, keep = PAPER(Image.new("RGB", (53, 41)), NO_BOXES, random.Random(3))
    assert boxes.shape == (0, 4) and keep.shape == (0,)


@pytest.mark.parametrize("augmentation", [
    Augmentation("paper", 200, 333), Augmentation("flip", 101, 173), Augmentation("none", 211, 307),
    Augmentation("paper", 200, 333, turns=True), Augmentation("zoom", 131, 211, turns=True)])
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
            assert not bright.any() or augmentation.kind == "zoom"  # it drops thin slices
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
    three_steps = photograph.resize((533, 400), bilinear).crop((31, 7, 31 + 401, 7 + 389)).resize((618, 600), bilinear)
    x, y = 640 / 533, 480 / 400
    once = View((31 * x, 7 * y, 432 * x, 396 * y), (600, 618), False).of_image(photograph)
    difference = np.abs(once.permute(1, 2, 0).numpy().astype(int) - np.asarray(three_steps).astype(int))
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


@pytest.mark.parametrize("kind", ["paper", "zoom", "flip", "none"])
def test_square_shows_every_picture_with_equal_sides(kind):
    augmentation = Augmentation(kind, 128, 213, square=True)
    for height, width in ((480, 640), (640, 480), (300, 300)):
        for seed in range(8):
            h, w = augmentation.draw(height, width, random.Random(seed)).size
            assert h == w <= 128


def test_square_boxes_are_shares_of_the_stretched_picture():
    boxes = torch.tensor([[64.0, 48.0, 320.0, 240.0]])
    image = Image.new("RGB", (640, 480))
    pixels, cxcywh, _ = Augmentation("none", 128, 213, square=True)(image, boxes, random.Random(0))
    assert pixels.shape == (3, 128, 128)
    torch.testing.assert_close(cxcywh, torch.tensor([[0.3, 0.3, 0.4, 0.4]]))
