"""A JPEG that is shown small is decoded smaller: the same boxes and Views, and nearly the same pixels."""

from __future__ import annotations

import random
from dataclasses import astuple, dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

import scratch.data.coco
from scratch.config import PRESETS, DataConfig
from scratch.data.coco import CocoDetection, find_splits
from scratch.data.images import read_image, read_reduced
from scratch.data.mosaic import compose
from scratch.data.transforms import Augmentation, View

TINY = Augmentation("flip", 144, 1333, square=True)


@dataclass(frozen=True)
class Whole(Augmentation):
    """The same augmentation, for which every pixel is decoded."""

    def reduction(self, height: int, width: int) -> int:
        return 1


def _photograph(width: int = 640, height: int = 427) -> Image.Image:
    """Smooth shades of all colours, with a dark disc off the middle."""
    y, x = np.mgrid[:height, :width]
    shades = np.stack([x / width, y / height, (x + y) / (width + height)], axis=-1)
    shades[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 5) ** 2] *= 0.3
    return Image.fromarray((255 * shades).round().astype(np.uint8))


def _saved(path, picture, orientation: int = 1, **options):
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(path, exif=exif, quality=95, **options)
    return path


def _apart(one, other) -> np.ndarray:
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


# -- which reduction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation, size, reduction", [
    (Augmentation("flip", 800, 1333), (480, 640), 1),   # enlarged
    (Augmentation("flip", 800, 1333), (1600, 2400), 2),
    (Augmentation("flip", 800, 1333), (1599, 2400), 1),  # a line short
    (Augmentation("none", 100, 1333), (480, 640), 1),   # as it is judged
    (Augmentation("flip", 100, 1333), (480, 640), 4),
    (Augmentation("flip", 100, 1333), (9000, 9000), 8),  # and no more: JPEG's blocks are 8×8
    (TINY, (288, 640), 2), (TINY, (287, 640), 1),
    (Augmentation("zoom", 144, 1333, square=True), (480, 640), 1),           # half of 480 pixels become 144
    (Augmentation("zoom", 120, 1333, square=True), (480, 640), 2),
    (Augmentation("paper", 800, 1333), (2499, 3200), 1),                     # 384 of 600 pixels become 800, of 1250 all
    (Augmentation("paper", 800, 1333), (2500, 3200), 2),
    (replace(TINY, mosaic=0.4), (431, 640), 1), (replace(TINY, mosaic=0.4), (432, 640), 2),  # up to 1.5 · 144
    (replace(TINY, mixup=0.1), (431, 640), 1)])
def test_the_reduction_is_the_largest_that_leaves_every_view_its_pixels(augmentation, size, reduction):
    assert augmentation.reduction(*size) == reduction


def _views(augmentation, sizes, rng):
    """The Views that a sample of pictures of these (height, width) shows of each."""
    pictures = [(_Blank(*size), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)) for size in sizes]
    compose(augmentation, pictures[0], lambda: rng.choice(pictures), rng)
    return [(picture[0], box, size) for picture in pictures for size, box in picture[0].asked]


class _Blank:
    """A picture that remembers what was asked of it."""

    def __init__(self, height, width):
        self.height, self.width, self.asked = height, width, []

    def resize(self, size, resample, box):
        self.asked.append((size, box))
        return Image.new("RGB", size)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("chances", [{}, {"mosaic": 0.7}, {"mixup": 0.7}, {"mosaic": 0.5, "mixup": 0.5, "turns": True}])
@pytest.mark.parametrize("kind", ["paper", "zoom", "flip", "none"])
def test_no_view_shows_more_than_the_largest_scale_allows(kind, chances, square):
    augmentation = Augmentation(kind, 31, 53, square=square, **chances)
    close = 0.0
    for seed in range(400):
        rng = random.Random(seed)
        sizes = [(rng.randint(1, 700), rng.randint(1, 700)) for _ in range(3)]
        for picture, (x0, y0, x1, y1), (w, h) in _views(augmentation, sizes, rng):
            scale = max(w / (x1 - x0), h / (y1 - y0))
            most = augmentation._largest_scale(picture.height, picture.width)
            assert scale <= most * (1 + 1e-9)
            close = max(close, scale / most)
    assert close > 0.85  # and it allows little more than is drawn


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction, size", [(1, (641, 427)), (2, (321, 214)), (4, (161, 107)), (8, (81, 54))])
def test_odd_sizes_are_rounded_up_and_the_whole_size_is_remembered(reduction, size, tmp_path):
    picture = read_reduced(_saved(tmp_path / "x.jpg", _photograph(641)), (641, 427), reduction)
    assert (picture.pixels.size, picture.by) == (size, reduction)
    assert (picture.size, picture.width, picture.height) == ((641, 427), 641, 427)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(640, 424), (641, 427), (642, 426)])
def test_what_a_view_shows_lies_where_it_does_in_the_whole_picture(size, orientation, tmp_path):
    path = _saved(tmp_path / "x.jpg", _photograph(*size), orientation)
    whole, reduced = read_image(path), read_reduced(path, None, 4)
    assert reduced.size == whole.size
    width, height = whole.size
    for region in ((0, 0, width, height), (width - 201.3, 0, width, 180.7), (31.1, height - 222.2, 250.9, height)):
        view = View(region, (40, 50), False)
        apart = _apart(view.of_image(reduced), view.of_image(whole))
        assert apart.mean() < 0.45 and apart.max() <= 24  # shifted by 2 of the file's pixels: 0.6, by 3: 0.9


def test_a_turned_file_is_reduced_as_far_as_its_size_can_be_divided(tmp_path):
    for size, by in (((640, 424), 8), ((644, 428), 4), ((642, 426), 2), ((641, 426), 1)):
        assert read_reduced(_saved(tmp_path / "x.jpg", _photograph(*size), 6), None, 8).by == by
    path = _saved(tmp_path / "x.jpg", _photograph(641, 427), 6)
    assert read_reduced(path, (641, 427), 8).by == 8  # its boxes were drawn on the picture as stored


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_greys_and_inks_keep_their_colours(mode, tmp_path):
    path = _saved(tmp_path / "x.jpg", _photograph(640, 424).convert(mode))
    reduced = read_reduced(path, (640, 424), 4).pixels
    assert (reduced.mode, reduced.size) == ("RGB", (160, 106))
    assert _apart(reduced, read_image(path).reduce(4)).mean() < 1


def test_a_progressive_file_is_reduced_as_well(tmp_path):
    path = _saved(tmp_path / "x.jpg", _photograph(640, 424), progressive=True)
    assert _apart(read_reduced(path, None, 2).pixels, read_image(path).reduce(2)).mean() < 1


def test_a_png_keeps_every_pixel(tmp_path):
    _photograph().save(tmp_path / "x.png")
    picture = read_reduced(tmp_path / "x.png", (640, 427), 8)
    assert picture.by == 1 and _apart(picture.pixels, _photograph()).max() == 0


@pytest.mark.parametrize("wrong", [(641, 428), (320, 214), (2, 3)])
def test_the_annotated_size_is_that_of_the_whole_file(wrong, tmp_path):
    path = _saved(tmp_path / "x.jpg", _photograph())
    with pytest.raises(ValueError, match=f"x.jpg is 640×427, but its annotation says {wrong[0]}×{wrong[1]}"):
        read_reduced(path, wrong, 2)


def test_a_file_smaller_than_its_annotation_is_refused_and_not_divided_by(tmp_path):
    with pytest.raises(ValueError, match="x.jpg is 5×3, but its annotation says 640×427"):
        read_reduced(_saved(tmp_path / "x.jpg", _photograph(5, 3)), (640, 427), 8)


@pytest.mark.parametrize("reduction", [2, 8])
def test_a_truncated_file_is_reduced_as_far_as_it_goes(reduction, tmp_path):
    path = _saved(tmp_path / "x.jpg", Image.effect_noise((640, 427), 80).convert("RGB"))
    whole = read_reduced(path, (640, 427), reduction).pixels
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half = read_reduced(path, (640, 427), reduction)
    assert half.by == reduction and half.damage.missing == pytest.approx(0.5, abs=0.05)
    assert _apart(half.pixels, whole)[:160 // reduction].max() == 0


# -- in the data set -----------------------------------------------------------------------------------------------


def _both(images, annotations, augmentation):
    """The data set as it is, and as it would be if every pixel were decoded."""
    return (CocoDetection(images, annotations, transform, seed=2)
            for transform in (augmentation, Whole(*astuple(augmentation))))


def _check_samples(reduced, whole, epochs: int, mean: float) -> None:
    for key in [(epoch, index) for epoch in range(epochs) for index in range(len(whole))]:
        (some, target), (all_, expected) = reduced[key], whole[key]
        assert target.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(value, target[name]) if isinstance(value, torch.Tensor) else value == target[name]
        assert _apart(some, all_).mean() < mean


@pytest.mark.parametrize("augmentation", [
    TINY, Augmentation("flip", 72, 120), Augmentation("zoom", 61, 103, turns=True, mosaic=0.5, mixup=0.3),
    Augmentation("paper", 100, 167)])
def test_samples_are_those_of_the_whole_pictures_but_for_a_shade(augmentation, coco_set):
    for id, (width, height) in enumerate([(640, 427), (427, 641), (801, 639)], start=1):
        coco_set.image("train", id, _photograph(width, height), suffix="jpg", quality=95)
        coco_set.box("train", id, [100.3, 50.7, 211.1, 307.9])
    root = coco_set.write()
    reduced, whole = _both(root / "train", root / "annotations" / "instances_train.json", augmentation)
    _check_samples(reduced, whole, epochs=4, mean=0.5)
    assert {picture.by for picture in whole._kept.values()} == {1} and max(p.by for p in reduced._kept.values()) > 1


def test_photographs_of_cells_are_shown_as_they_were_but_for_a_shade(bccd_dir):
    config = replace(PRESETS["tiny"].data, data=str(bccd_dir), short_side=144)
    reduced, whole = _both(*find_splits(config)["val"], Augmentation.for_training(config))
    _check_samples(reduced, whole, epochs=1, mean=0.5)
    assert {picture.by for picture in reduced._kept.values()} == {2}


def test_photographs_of_everything_are_shown_as_they_were_but_for_two_shades(coco_tiny_dir):
    config = DataConfig(data=str(coco_tiny_dir))
    reduced, whole = _both(*find_splits(config)["val"], TINY)
    _check_samples(reduced, whole, epochs=1, mean=2)


def test_what_is_kept_is_weighed_as_it_is_decoded(coco_set, monkeypatch):
    coco_set.image("train", 1, _photograph(641, 427), suffix="jpg")
    coco_set.image("train", 2, _photograph(641, 427), suffix="png")
    root = coco_set.write()
    needed = 4 * (321 * 214 + 641 * 427)
    for limit, keeps in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(scratch.data.coco, "most_kept", lambda workers: limit)
        dataset = CocoDetection(root / "train", root / "annotations" / "instances_train.json", TINY)
        dataset[(0, 0)], dataset[(0, 1)]
        assert len(dataset._kept) == 2 * keeps
