from __future__ import annotations

import itertools
import math
import pickle
import random
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
import torch
from PIL import Image

import scratch.data.coco
from scratch.config import DataConfig
from scratch.data.coco import CocoDetection, find_splits, most_kept
from scratch.data.colour import jittered, recoloured
from scratch.data.loader import make_loader
from scratch.data.mosaic import compose, mixup, mosaic
from scratch.data.transforms import Augmentation

FULL = Augmentation("zoom", 101, 173, turns=True, colour=0.3, mosaic=0.5, mixup=0.5)

# -- colour --------------------------------------------------------------------------------------------------------

NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 7, 11), dtype=np.uint8))
MIDDLING = NOISE // 4 + 96  # far enough from black and white that nothing is cut off


def _pixel(r, g, b):
    return torch.tensor([r, g, b], dtype=torch.uint8).view(3, 1, 1)


def test_dials_at_rest_change_no_pixel():
    assert torch.equal(recoloured(NOISE, 1, 1, 1, 0), NOISE)


def test_a_third_of_a_turn_of_the_hue_makes_red_green_and_green_blue_and_blue_red():
    assert recoloured(_pixel(251, 13, 101), 1, 1, 1, 1 / 3).flatten().tolist() == [101, 251, 13]


def test_without_saturation_a_pixel_is_the_mean_of_its_channels():
    assert recoloured(_pixel(30, 60, 150), 1, 1, 0, 0).flatten().tolist() == [80, 80, 80]


def test_contrast_moves_pixels_away_from_the_mean_of_the_picture():
    pixels = torch.cat((_pixel(80, 80, 80), _pixel(120, 120, 120)), dim=2)          # mean 100
    assert recoloured(pixels, 1, 1.5, 1, 0)[0].flatten().tolist() == [70, 130]


def test_brightness_multiplies_and_what_is_brighter_than_white_is_white():
    assert recoloured(_pixel(20, 100, 200), 1.5, 1, 1, 0).flatten().tolist() == [30, 150, 255]


def test_one_product_does_what_four_steps_do():
    p = MIDDLING.double()
    grey, red_to_green = p.mean(0), p.roll(1, 0)
    hue_turned = red_to_green  # by a third
    saturated = grey + 0.7 * (hue_turned - grey)
    contrasted = p.mean() + 1.2 * (saturated - p.mean())
    difference = recoloured(MIDDLING, 0.9, 1.2, 0.7, 1 / 3).double() - 0.9 * contrasted
    assert difference.abs().max() <= 0.5001


@pytest.mark.parametrize("hue", [0.05, 0.1, -0.23])
def test_turning_the_hue_keeps_each_pixels_grey_and_the_strength_of_its_colour(hue):
    before, after = MIDDLING.double(), recoloured(MIDDLING, 1, 1, 1, hue).double()
    assert (after.mean(0) - before.mean(0)).abs().max() < 0.5
    torch.testing.assert_close((after - after.mean(0)).norm(dim=0), (before - before.mean(0)).norm(dim=0),
                               atol=1.0, rtol=0)


def test_jitter_keeps_the_bytes_and_shape_and_changes_the_pixels():
    shown = jittered(NOISE, 0.3, random.Random(0))
    assert shown.dtype == torch.uint8 and shown.shape == NOISE.shape and (shown != NOISE).float().mean() > 0.9


def test_the_strength_bounds_each_factor():
    plain = torch.full((3, 2, 5), 100, dtype=torch.uint8)  # a grey without contrast shows brightness alone
    values = [jittered(plain, 0.3, random.Random(seed))[0, 0, 0].item() for seed in range(300)]
    assert 70 <= min(values) < 73 and 127 < max(values) <= 130


def test_the_hue_turns_by_at_most_a_quarter_of_the_strength():
    angles = []
    for seed in range(300):
        r, g, b = jittered(_pixel(160, 100, 100), 0.3, random.Random(seed)).double().flatten()
        angles.append(torch.atan2(math.sqrt(3) * (g - b), 2 * r - g - b).item() / (2 * math.pi))
    assert np.abs(angles).max() < 0.075 + 0.005 and np.ptp(angles) > 0.14


def test_without_colour_nothing_is_drawn_but_the_view():
    augmentation, shown, drawn = Augmentation("zoom", 13, 29, turns=True), random.Random(5), random.Random(5)
    augmentation(Image.new("RGB", (11, 7)), torch.zeros(0, 4), shown)
    augmentation.draw(7, 11, drawn)
    assert shown.getstate() == drawn.getstate()


def test_colour_leaves_the_geometry_alone():
    picture, boxes = Image.fromarray(NOISE.permute(1, 2, 0).numpy()), torch.tensor([[1.0, 2, 5, 6]])
    plain = Augmentation("zoom", 13, 29, turns=True)
    dull, seen, keep = plain(picture, boxes, random.Random(5))
    vivid, seen_too, keep_too = replace(plain, colour=0.4)(picture, boxes, random.Random(5))
    assert dull.shape == vivid.shape and not torch.equal(dull, vivid)
    assert torch.equal(seen, seen_too) and torch.equal(keep, keep_too)


# -- mosaic and mixup ----------------------------------------------------------------------------------------------

# Label k has the colour whose channels are the bits of k + 1, on black: red, green, yellow, blue, magenta.
SIZES = ((149, 211), (173, 127), (101, 103), (67, 199), (223, 227))


def _picture(label, rng):
    """A picture (height, width as in SIZES) of one rectangle in its label's colour."""
    height, width = SIZES[label]
    x0, y0 = rng.randint(0, width - 40), rng.randint(0, height - 40)
    x1, y1 = rng.randint(x0 + 30, width), rng.randint(y0 + 30, height)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y0:y1, x0:x1] = [255 * (label + 1 >> channel & 1) for channel in range(3)]
    return Image.fromarray(pixels), torch.tensor([[x0, y0, x1, y1]], dtype=torch.float64), torch.tensor([label])


def _mask(pixels, label, threshold):
    """Where the pixels have the label's colour, (h,w)."""
    return ((pixels > threshold) == torch.tensor([bool(label + 1 >> channel & 1) for channel in range(3)])
            [:, None, None]).all(0)


def _bounds(mask):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return torch.stack((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def _sample(augmentation, seed):
    rng = random.Random(seed)
    pictures = [_picture(label, rng) for label in range(5)]
    others = cycle(pictures[1:])
    return compose(augmentation, pictures[0], lambda: next(others), rng)


@pytest.mark.parametrize("augmentation", [
    Augmentation("flip", 131, 211, mosaic=1.0), Augmentation("zoom", 131, 211, turns=True, mosaic=1.0),
    Augmentation("none", 307, 503, mosaic=1.0)])
def test_each_box_of_a_mosaic_bounds_its_own_labels_colour(augmentation):
    met = 0
    for seed in range(60):
        pixels, boxes, labels = _sample(augmentation, seed)
        assert len(boxes) == len(labels) == len(set(labels.tolist()))
        for (cx, cy, w, h), label in zip((boxes * torch.tensor(pixels.shape[:0:-1] * 2)).tolist(), labels.tolist()):
            if min(w, h) >= 3:  # a thinner strip need not be bright anywhere
                met += 1
                bounds = _bounds(_mask(pixels, label, 127))
                assert (bounds - torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])).abs().max() <= 1.0
    assert met > 100


def test_the_boxes_of_a_mixup_bound_the_colours_of_both_pictures():
    met = 0
    for seed in range(60):
        # Red alone and green alone: their mixture is dim, and yellow only where they overlap.
        pixels, boxes, labels = _sample(Augmentation("zoom", 131, 211, turns=True, mixup=1.0), seed)
        for (cx, cy, w, h), label in zip((boxes * torch.tensor(pixels.shape[:0:-1] * 2)).tolist(), labels.tolist()):
            if min(w, h) >= 4:
                met += 1
                bounds = _bounds(pixels[label] > 50)
                assert (bounds - torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])).abs().max() <= 1.0
    assert met > 60


def test_a_mosaic_is_as_large_as_its_first_picture_at_evaluation():
    augmentation = Augmentation("zoom", 131, 211, turns=True, mosaic=1.0, mixup=0.5)
    at_evaluation = (3, *augmentation.evaluation_size(*SIZES[0]))
    assert {_sample(augmentation, seed)[0].shape for seed in range(30)} == {at_evaluation}


def _plain_pictures(*values, size=(61, 47)):
    return [(Image.new("RGB", size, (value, value, value)), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
            for value in values]


def test_the_four_pictures_of_a_mosaic_meet_in_its_middle_half_and_the_first_is_above_on_the_left():
    corners = []
    for seed in range(200):
        first, *others = _plain_pictures(10, 20, 30, 40)
        pixels = mosaic(Augmentation("none", 47, 97), first, iter(others).__next__, random.Random(seed))[0][0]
        y, x = int((pixels[:, 0] == 10).sum()), int((pixels[0] == 10).sum())
        quarters = pixels[:y, :x], pixels[:y, x:], pixels[y:, :x], pixels[y:, x:]
        assert [quarter.unique().tolist() for quarter in quarters] == [[10], [20], [30], [40]]
        corners.append((y / 47, x / 61))
    assert np.abs(np.array(corners) - 0.5).max() < 0.26 and np.ptp(corners, axis=0).min() > 0.45


def test_a_mosaic_one_pixel_high_has_two_pictures():
    first, *others = _plain_pictures(10, 20, 30, 40, size=(619, 2))
    pixels, boxes, labels = mosaic(Augmentation("none", 1, 31), first, iter(others).__next__, random.Random(0))
    assert pixels.shape == (3, 1, 31) and pixels.unique().tolist() == [10, 20] and len(boxes) == len(labels) == 0


def test_a_mixup_worked_by_hand():
    one = _pixel(100, 0, 7), torch.tensor([[0.2, 0.3, 0.1, 0.1]]), torch.tensor([5])
    other = _pixel(200, 250, 7), torch.tensor([[0.5, 0.5, 1.0, 0.3], [0.7, 0.8, 0.1, 0.2]]), torch.tensor([3, 2])
    pixels, boxes, labels = mixup(one, other, 0.3)
    # 0.3·100 + 0.7·200 = 170; 0.7·250 = 175
    assert pixels.dtype == torch.uint8 and pixels.flatten().tolist() == [170, 175, 7]
    assert labels.tolist() == [5, 3, 2] and torch.equal(boxes, torch.cat((one[1], other[1])))


def test_a_mixup_shows_three_to_seven_tenths_of_each_picture():
    first, other = _plain_pictures(0, 200)
    augmentation = Augmentation("none", 47, 97, mixup=1.0)
    samples = [compose(augmentation, first, lambda: other, random.Random(seed)) for seed in range(300)]
    values = [pixels.unique().item() for pixels, _, _ in samples]
    assert 60 <= min(values) < 63 and 137 < max(values) <= 140


@pytest.mark.parametrize("name, read_with_it", [("mosaic", 3), ("mixup", 1)])
def test_a_chance_is_how_often_other_pictures_are_read(name, read_with_it):
    first, other = _plain_pictures(0, 200)
    augmentation = Augmentation("none", 47, 97, **{name: 0.3})
    reads = []
    for seed in range(1000):
        compose(augmentation, first, lambda: reads.append(seed) or other, random.Random(seed))
    assert 250 < len(reads) / read_with_it < 350 and len(reads) == read_with_it * len(set(reads))


# -- in the data set -----------------------------------------------------------------------------------------------


def _dataset(coco_set, augmentation):
    for id in range(1, 14):
        coco_set.image("train", id, Image.new("RGB", (37 + id, 53), (18 * id, 0, 0)))
    root = coco_set.write()
    return CocoDetection(root / "train", root / "annotations" / "instances_train.json", augmentation, seed=2)


def _same(one, other):
    return torch.equal(one[0], other[0]) and one[1].keys() == other[1].keys() and all(
        torch.equal(value, other[1][key]) if isinstance(value, torch.Tensor) else value == other[1][key]
        for key, value in one[1].items())


def test_a_sample_follows_from_its_key_alone(coco_set):
    dataset = _dataset(coco_set, FULL)
    fresh = pickle.loads(pickle.dumps(dataset))
    keys = [(epoch, index) for epoch in (3, 1) for index in range(13)]
    samples = [dataset[key] for key in keys]
    assert all(_same(fresh[key], sample) for key, sample in reversed(list(zip(keys, samples))))
    assert not any(_same(samples[index], samples[index + 13]) for index in range(13))


def test_composed_batches_do_not_depend_on_the_number_of_workers(coco_set):
    dataset = _dataset(coco_set, FULL)
    alone, helped = (list(make_loader(dataset, 3, workers=workers, seed=2, train=True, device_type="cpu")[0])
                     for workers in (0, 2))
    assert len(alone) == 4 and all(torch.equal(a.images, b.images) for a, b in zip(alone, helped, strict=True))


def test_a_target_is_named_after_the_picture_that_was_asked_for(coco_set):
    dataset = _dataset(coco_set, replace(FULL, mosaic=1.0, mixup=1.0))
    for index in range(13):
        pixels, target = dataset[(0, index)]
        assert (target["image_id"], target["orig_size"]) == (index + 1, (53, 38 + index))
        assert target["size"] == pixels.shape[1:] and len(target["boxes"]) == len(target["labels"])


def test_the_other_pictures_come_from_the_whole_split(coco_set):
    dataset = _dataset(coco_set, Augmentation("none", 53, 97, mosaic=1.0))
    reds = torch.cat([dataset[(epoch, 4)][0][0].unique() for epoch in range(40)]).unique()
    assert reds.tolist() == [18 * id for id in range(1, 14)]


@pytest.mark.parametrize("kind", ["paper", "zoom", "flip", "none"])
def test_without_other_pictures_a_sample_is_its_view_drawn_from_seed_epoch_and_index(kind, coco_set):
    dataset = _dataset(coco_set, Augmentation(kind, 40, 66))
    for index in range(13):
        pixels, target = dataset[(5, index)]
        picture, boxes = Image.new("RGB", (38 + index, 53), (18 * index + 18, 0, 0)), torch.tensor([[2.0, 3, 13, 10]])
        expected, seen, keep = Augmentation(kind, 40, 66)(picture, boxes, random.Random(f"2 5 {index}"))
        assert torch.equal(pixels, expected) and torch.equal(target["boxes"], seen)
        assert target["labels"].tolist() == [0] * int(keep.sum())


def test_a_small_split_is_decoded_once(coco_set):
    dataset = _dataset(coco_set, Augmentation("none", 40, 66))
    before = dataset[(0, 3)]
    (dataset.images / "0004.png").unlink()
    assert _same(dataset[(0, 3)], before)


def test_few_workers_keep_more_each_and_many_together_more():
    assert [most_kept(workers) // 2**20 for workers in (0, 1, 2, 3, 4, 16)] == [1024, 1024, 512, 341, 256, 256]


def test_a_split_larger_than_the_memory_for_it_is_decoded_anew(coco_set, monkeypatch):
    pixels = sum(53 * (37 + id) for id in range(1, 14))
    monkeypatch.setattr(scratch.data.coco, "most_kept", lambda workers: 4 * pixels - 1)
    dataset = _dataset(coco_set, Augmentation("none", 40, 66))
    dataset[(0, 3)]
    (dataset.images / "0004.png").unlink()
    with pytest.raises(FileNotFoundError):
        dataset[(0, 3)]


def test_real_photographs_keep_their_boxes_within_the_picture_under_everything_at_once(bccd_dir):
    config = DataConfig(data=str(bccd_dir), short_side=61, max_size=103, augment="zoom", turns=True, colour=0.3,
                        mosaic=0.5, mixup=0.5)
    dataset = CocoDetection(*find_splits(config)["train"], Augmentation.for_training(config))
    assert len(dataset) == 5
    for epoch, index in itertools.product(range(5), range(5)):
        pixels, target = dataset[(epoch, index)]
        corners = torch.cat((target["boxes"][:, :2] - target["boxes"][:, 2:] / 2,
                             target["boxes"][:, :2] + target["boxes"][:, 2:] / 2))
        assert min(pixels.shape[1:]) == 61 and len(target["boxes"]) == len(target["labels"]) > 0
        assert -1e-6 < corners.min() and corners.max() < 1 + 1e-6 and target["boxes"][:, 2:].min() > 0


# -- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, value, wanted", [
    ("mosaic", -0.1, "wanted a chance: 0 .never. to 1 .always."), ("mosaic", 1.1, "wanted a chance"),
    ("mixup", 2, "wanted a chance"), ("mixup", math.nan, "wanted a chance"),
    ("colour", 1, "wanted 0 .off. or more and less than 1"), ("colour", -0.1, "wanted 0"),
    ("colour", math.nan, "wanted 0")])
def test_a_chance_or_strength_out_of_range_is_refused_by_name(name, value, wanted):
    with pytest.raises(ValueError, match=f"got {name} = {value}, {wanted}"):
        DataConfig(**{name: value})


def test_the_ends_of_each_range_are_fine_and_everything_is_off_by_default():
    config = DataConfig(mosaic=1.0, mixup=1, colour=0.99)
    assert replace(config, mosaic=0.0, mixup=0, colour=0.0) == DataConfig() and not DataConfig().turns
