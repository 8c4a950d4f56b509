"""Copies of a picture in another split: saved again, smaller, brighter; and none where pictures only resemble."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.coco import find_splits
from scratch.data.near_duplicates import ALIKE, fingerprint, near_duplicates, scenes
from scratch.data.shapes import draw_scene
from tests.conftest import SHARED


def scene(seed: int) -> Image.Image:
    return Image.fromarray(draw_scene(np.random.default_rng(seed))[0])


def saved(picture: Image.Image, path: Path, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **how)
    return path


@pytest.mark.parametrize("change", [
    lambda picture: picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)),
    lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    lambda picture: picture.convert("L"),
    lambda picture: picture,
    lambda picture: picture.crop((4, 4, picture.width - 4, picture.height - 4)),
])
def test_a_changed_copy_is_found_and_other_pictures_are_not(change, tmp_path):
    train = [saved(scene(seed), tmp_path / f"train/{seed}.png") for seed in range(8)]
    copy = saved(change(scene(5)), tmp_path / "val/copy.jpg", quality=60)
    others = [saved(scene(seed), tmp_path / f"val/{seed}.png") for seed in range(20, 26)]
    found = list(near_duplicates({"train": train, "val": [*others, copy]}))
    assert [(path, split, other, its) for path, split, other, its, _ in found] == [(copy, "val", train[5], "train")]


def test_more_pictures_than_are_compared_at_a_time_find_the_same(tmp_path, monkeypatch):
    train = [saved(scene(seed), tmp_path / f"train/{seed}.png") for seed in range(5)]
    val = [saved(scene(seed), tmp_path / f"val/{seed}.jpg", quality=60) for seed in (3, 20, 0, 4, 21, 1, 2)]
    found = []
    for rows in (256, 2):
        monkeypatch.setattr("scratch.data.near_duplicates.ROWS", rows)
        found.append([(path, other) for path, _, other, _, _ in near_duplicates({"train": train, "val": val})])
    assert found[0] == found[1] == [(path, train[seed]) for path, seed in zip(val, (3, -1, 0, 4, -1, 1, 2)) if seed >= 0]


def test_a_ramp_of_light_over_a_picture_does_not_hide_a_copy_nor_make_one():
    """The mean difference is taken out, so that two pictures do not look alike for being darker on one side."""
    ramp = np.linspace(0, 90, 128)[None, :, None]
    one, other = (np.asarray(scene(seed).resize((128, 128)), dtype=np.float32) * 0.6 for seed in (1, 2))
    lit = [fingerprint(Image.fromarray((picture + ramp).astype(np.uint8))) for picture in (one, other)]
    plain = fingerprint(Image.fromarray(one.astype(np.uint8)))
    assert lit[0] @ plain > ALIKE > lit[0] @ lit[1]


def test_files_that_are_equal_byte_for_byte_and_those_of_one_split_are_left_out(tmp_path):
    one = saved(scene(1), tmp_path / "train/1.png")
    again = saved(scene(1), tmp_path / "train/2.jpg")
    same = saved(scene(1), tmp_path / "val/1.png")
    assert list(near_duplicates({"train": [one, again]})) == []
    assert list(near_duplicates({"train": [one], "val": [same]})) == []


def test_a_scene_is_a_chain_of_pictures_each_of_which_looks_like_the_next(tmp_path):
    film = scene(3).resize((260, 260))
    frames = [film.crop((left, 0, left + 200, 200)) for left in range(0, 60, 4)]
    assert fingerprint(frames[0]) @ fingerprint(frames[-1]) < ALIKE  # by the frames between alone
    paths = [saved(scene(seed), tmp_path / f"{seed}.png") for seed in (30, 31)]
    paths[1:1] = [saved(frame, tmp_path / f"film{k}.png") for k, frame in enumerate(frames)]
    paths.append(saved(Image.new("RGB", (40, 30), "grey"), tmp_path / "grey.png"))
    names = [path.name for path in paths]
    assert scenes(paths, names) == ([0, *[1] * len(frames), len(frames) + 1, len(frames) + 2], 1)
    names[0] = names[4]  # copies of one picture, one of them turned, say
    assert scenes(paths, names) == ([0, *[0] * len(frames), len(frames) + 1, len(frames) + 2], 1)
    assert scenes([], []) == ([], 0)


def test_scenes_that_meet_late_are_one(tmp_path, monkeypatch):
    monkeypatch.setattr("scratch.data.near_duplicates.ROWS", 3)  # of which the last picture of a block joins two of the first
    seeds = [1, 2, 1, 3, 2, 4, 1, 3]
    paths = [saved(scene(seed), tmp_path / f"{k}.jpg", quality=60 + k) for k, seed in enumerate(seeds)]
    names = [f"{k}" for k in range(7)] + ["1"]  # the last looks like scene 3, and is a copy of one of scene 2
    assert scenes(paths, names) == ([0, 1, 0, 1, 1, 5, 0, 1], 0)


def test_a_picture_of_one_shade_looks_like_none(tmp_path):
    assert fingerprint(Image.new("RGB", (40, 30), "grey")) is None
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    flat = saved(Image.new("RGB", (40, 30), "grey"), tmp_path / "flat.png")
    assert list(near_duplicates({"train": [flat, broken], "val": [flat, broken]})) == []


def test_the_correlation_is_that_of_the_differences(tmp_path):
    rng = np.random.default_rng(0)
    greys = [rng.integers(0, 256, (13, 13)).astype(np.uint8) for _ in range(2)]
    greys[1] = (0.7 * greys[0] + 0.3 * greys[1]).astype(np.uint8)
    a, b = (saved(Image.fromarray(g), tmp_path / name) for g, name in zip(greys, ("a.png", "b.png")))
    fields = [np.concatenate([d - d.mean() for d in (np.diff(g.astype(float), axis=1)[:12].ravel(),
                                                     np.diff(g.astype(float), axis=0)[:, :12].ravel())]) for g in greys]
    wanted = np.corrcoef(*fields)[0, 1]
    ((_, _, _, _, alike),) = near_duplicates({"train": [a], "val": [b]})
    assert abs(alike - wanted) < 1e-5 and 0.8 < wanted < 0.99


def test_check_data_reports_them_with_their_number(coco_set):
    for seed in range(4):
        coco_set.image("train", seed, scene(seed))
    for id, seed in ((10, 1), (11, 2), (12, 50)):
        coco_set.image("val", id, scene(seed).resize((150, 150)), "jpg")
    config = DataConfig(data=str(coco_set.write()))
    (of_kind,) = [[p for p in check_dataset(config, 100, decode=True).problems if p.kind.startswith("similar")]]
    assert len(of_kind) == 2 and all(f"val/00{id}.jpg" in p.where for p, id in zip(of_kind, (10, 11)))
    assert "looks like" in of_kind[0].detail and "train/0001.png of train" in of_kind[0].detail
    assert not [p for p in check_dataset(config, 100, decode=False).problems if p.kind.startswith("similar")]


def _leakage(report):
    return [(p.where, p.detail) for p in report.problems if p.kind == "leakage between splits"]


@pytest.mark.parametrize("copies, pictures, told", [(4, 6, False), (5, 6, True), (5, 50, True), (5, 51, False)])
def test_leakage_is_told_from_five_pictures_and_a_tenth_of_a_split_on(copies, pictures, told, coco_set):
    for seed in range(6):
        coco_set.image("train", seed, scene(seed))
    for seed in range(pictures):
        coco_set.image("val", 100 + seed, scene(seed if seed < copies else 50 + seed).resize((160, 160)))
    report = check_dataset(DataConfig(data=str(coco_set.write())), 100, decode=True)
    assert _leakage(report) == told * [(
        "val", f"{copies} of its {pictures} pictures look like one of train; the split came with the data: to divide anew, "
        "put all of it into one folder without a split")]


def test_equal_files_leak_as_well_and_what_is_like_val_alone_does_not(coco_set):
    for seed in range(8):
        coco_set.image("train", seed, scene(seed))
        coco_set.image("val", 100 + seed, scene(seed + 50))
        coco_set.image("test", 200 + seed, scene(seed + 50), "jpg")
    for seed in range(5):
        shutil.copy(coco_set.root / "train" / f"{seed:04d}.png", coco_set.root / "val" / f"{100 + seed:04d}.png")
    for decode in (False, True):
        report = check_dataset(DataConfig(data=str(coco_set.write()), as_is=True), 100, decode)
        assert [where for where, _ in _leakage(report)] == ["val"]
        assert "5 of its 8 pictures" in _leakage(report)[0][1]


def test_a_picture_that_is_like_one_of_train_and_one_of_val_counts_for_train(tmp_path):
    film = scene(3)
    of = {"train": [saved(film.resize((150, 150)), tmp_path / "a.png")], "val": [saved(film, tmp_path / "b.png")],
          "test": [saved(film, tmp_path / "c.jpg", quality=95)]}
    assert [(split, its) for _, split, _, its, _ in near_duplicates(of)] == [("val", "train"), ("test", "train")]


def test_of_photographs_those_that_differ_do_not_look_alike():
    root = SHARED / "data" / "coco_tiny"
    if not root.exists():
        pytest.skip("the data set coco_tiny, of many megabytes, is not beside this checkout (set DETR_SHARED)")
    splits = {split: sorted(folder.glob("*.jpg")) for split, (folder, _) in
              find_splits(DataConfig(data=str(root))).items()}
    assert list(near_duplicates(splits)) == []
