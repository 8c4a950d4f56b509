from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.shapes import (_CONTRAST, OUTLINES, _area, _background, _colour_against, _fill, _workplace,
                                 draw_scene, shapes_dataset)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shapes_dataset(tmp_path_factory.mktemp("made"), train=60, val=12, seed=3)


def _documents(folder):
    return [json.loads((folder / "annotations" / f"instances_{split}.json").read_text()) for split in ("train", "val")]


def _fingerprints(folder, split):
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted((folder / split).iterdir())]


def test_the_set_passes_its_own_check(folder):
    assert check_dataset(DataConfig(data=str(folder)), 40, decode=True).problems == ()


def test_it_has_the_images_asked_for_and_five_classes(folder):
    train, val = _documents(folder)
    assert (len(train["images"]), len(val["images"])) == (60, 12)
    assert [c["name"] for c in train["categories"]] == ["ellipse", "rectangle", "triangle", "star", "cross"]
    assert {a["category_id"] for a in train["annotations"]} == {1, 2, 3, 4, 5}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(folder, tmp_path):
    again = shapes_dataset(tmp_path, train=60, val=12, seed=3)
    other = shapes_dataset(tmp_path, train=2, val=1, seed=4)
    assert _fingerprints(again, "train") == _fingerprints(folder, "train")
    assert not set(_fingerprints(other, "train")) & set(_fingerprints(folder, "train"))


def test_no_two_images_are_equal_and_ids_are_disjoint(folder):
    files = _fingerprints(folder, "train") + _fingerprints(folder, "val")
    train, val = _documents(folder)
    assert len(set(files)) == 72
    assert not {i["id"] for i in train["images"]} & {i["id"] for i in val["images"]}


def test_a_larger_set_begins_with_the_smaller_one(folder, tmp_path):
    small = shapes_dataset(tmp_path, train=3, val=2, seed=3)
    assert _fingerprints(small, "train") == _fingerprints(folder, "train")[:3]


def test_a_finished_set_is_not_drawn_again(folder):
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert shapes_dataset(folder.parent, train=60, val=12, seed=3) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_a_folder_that_is_not_the_set_is_refused(tmp_path):
    made = shapes_dataset(tmp_path, train=1, val=1)
    (made / "manifest.json").unlink()
    with pytest.raises(FileExistsError, match="is not the set that its name says; remove it"):
        shapes_dataset(tmp_path, train=1, val=1)


def test_a_drawing_that_breaks_off_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("scratch.data.shapes.draw_scene", lambda rng: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shapes_dataset(tmp_path, train=1, val=1)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 0 training and 5 validation shapes"):
        shapes_dataset(tmp_path, train=0, val=5)


def test_objects_are_one_to_eight_and_a_tenth_to_a_half_of_the_shorter_side():
    counts = set()
    for seed in range(60):
        image, objects = draw_scene(np.random.default_rng(seed))
        H, W, _ = image.shape
        counts.add(len(objects))
        assert 192 <= H <= 320 and 192 <= W <= 320
        for x, y, w, h in (o["bbox"] for o in objects):
            assert 0.099 <= max(w, h) / min(H, W) <= 0.501
            assert x >= 0 and y >= 0 and x + w <= W + 0.01 and y + h <= H + 0.01
    assert counts == set(range(1, 9))


def test_backgrounds_are_not_uniform():
    assert min(draw_scene(np.random.default_rng(seed))[0].std(axis=(0, 1)).max() for seed in range(20)) > 5


@pytest.mark.parametrize("name", OUTLINES)
def test_a_box_is_tight_around_what_is_drawn(name):
    points = OUTLINES[name] * 30.3 + 40.7
    filled = _fill(points, 82, 82)
    rows, columns = np.flatnonzero(filled.max(1) > 0.02), np.flatnonzero(filled.max(0) > 0.02)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    assert np.abs(np.array([columns[0], columns[-1] + 1]) - (left, right)).max() <= 1.0
    assert np.abs(np.array([rows[0], rows[-1] + 1]) - (top, bottom)).max() <= 1.0


@pytest.mark.parametrize("name", OUTLINES)
def test_an_area_is_that_of_the_pixels_to_a_third_of_a_pixel_along_the_rim(name):
    points = OUTLINES[name] * 30.3 + 40.7
    rim = np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum()
    assert abs(_fill(points, 82, 82).sum() - _area(points)) <= rim / 3


def test_the_area_of_a_rectangle():
    assert _area(np.array([(2, 3), (7, 3), (7, 14), (2, 14)])) == 55


def test_of_every_object_most_stays_in_sight(monkeypatch):
    # Grain and background aside, paint each object with its own number and count what is left of it at the end.
    numbers = iter(range(1, 1000))
    monkeypatch.setattr("scratch.data.shapes._background", lambda H, W, rng: np.zeros((H, W, 3), np.float32))
    monkeypatch.setattr("scratch.data.shapes._colour_against", lambda beneath, rng: np.full(3, next(numbers)))
    monkeypatch.setattr("scratch.data.shapes._shaded", lambda colour, shape, rng: colour)

    class Silent:
        def __init__(self, seed):
            self.inner = np.random.default_rng(seed)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def normal(self, *_, size):
            return np.zeros(size)

    for seed in range(12):
        numbers = iter(range(20, 1000, 20))
        image, objects = draw_scene(Silent(seed))
        for k, o in enumerate(objects):
            visible = (image[..., 0] == 20 * (k + 1)).sum()
            assert visible >= 0.6 * o["area"]  # 70 %, less the mixed pixels of its rim


def test_an_object_can_be_told_from_what_lies_beneath():
    far = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        beneath = _background(64, 64, rng).reshape(-1, 3)
        far += np.percentile(np.linalg.norm(beneath - _colour_against(beneath, rng), axis=1), 15) > _CONTRAST - 15
    assert far >= 38


def test_real_files_open_at_the_size_that_the_annotations_say(folder):
    train, _ = _documents(folder)
    for image in train["images"][:5]:
        assert Image.open(folder / "train" / image["file_name"]).size == (image["width"], image["height"])


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_a_killed_process_left_while_it_drew_is_removed_by_the_next(tmp_path):
    name = ".shapes-1-1-seed0-v1"
    for left in (f"{name}-abcd1234", f"{name}-older"):  # with and without a lock beside it
        (tmp_path / left / "train").mkdir(parents=True)
        (tmp_path / left / "train" / "000001.jpg").touch()
    (tmp_path / f"{name}-abcd1234.lock").touch()
    (tmp_path / f"{name}-efgh.lock").touch()  # killed before there was a folder
    (tmp_path / ".shapes-2-1-seed0-v1-other").mkdir()
    shapes_dataset(tmp_path, 1, 1)
    assert hidden(tmp_path) == [".shapes-2-1-seed0-v1-other"]


def test_what_a_living_process_draws_is_left_to_it(tmp_path):
    folder = tmp_path / "shapes-1-1-seed0-v1"
    with _workplace(folder) as theirs:
        (theirs / "train").mkdir()
        shapes_dataset(tmp_path, 1, 1)
        assert (theirs / "train").is_dir() and len(hidden(tmp_path)) == 2
    assert hidden(tmp_path) == []


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scratch.data.shapes._write_split", full)
    with pytest.raises(OSError, match="shapes-1-1-seed0-v1: No space left on device; free some space"):
        shapes_dataset(tmp_path, 1, 1)
    assert list(tmp_path.iterdir()) == []
