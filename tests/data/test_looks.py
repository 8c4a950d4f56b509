"""What was seen on pictures before is told again, word for word, and only of pictures that have not changed."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from scratch.config import DataConfig
from scratch.data import check, looks
from scratch.data.check import check_dataset
from scratch.kept_arrays import ENDING


@pytest.fixture
def many(coco_set, tmp_path, monkeypatch):
    """A set that counts as large: ordinary JPEGs, and of each other kind a few."""
    monkeypatch.setenv("DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(looks, "MANY", 2)
    monkeypatch.setattr(looks, "_AT_A_TIME", 3)
    for id in range(1, 12):
        coco_set.image("train", id, suffix="jpg")
    for id, mode, suffix in ((20, "L", "jpg"), (21, "P", "png"), (22, "RGBA", "png"), (23, "RGB", "png")):
        coco_set.image("train", id, Image.effect_noise((37, 23), 90).convert("RGB").convert(mode), suffix)
    coco_set.image("train", 24, Image.fromarray(np.linspace(0, 65535, 851).astype(np.uint16).reshape(23, 37)))
    cut = coco_set.image("train", 25, Image.effect_noise((197, 161), 60).convert("RGB"), "jpg")
    cut.write_bytes(cut.read_bytes()[:-1500])
    coco_set.image("val", 40, suffix="jpg")
    coco_set.image("val", 41, suffix="jpg")
    return coco_set


@pytest.fixture
def opened(monkeypatch):
    """The names of the pictures that were opened, in their order."""
    names = []
    look = check.look_at_image

    def counted(path, *arguments, **more):
        names.append(path.name)
        return look(path, *arguments, **more)
    monkeypatch.setattr(check, "look_at_image", counted)
    return names


def checked(coco_set, decode=False, **fields):
    report = check_dataset(DataConfig(data=str(coco_set.root), **fields), 10, decode)
    return report.table(None), report.problems


def test_ordinary_jpegs_are_not_opened_and_others_once(many, opened):
    many.write()
    wanted = checked(many, remember=False)
    first, opened[:] = sorted(opened), []
    assert first == ["0020.jpg", "0021.png", "0022.png", "0023.png", "0024.png", "0025.jpg"]
    assert checked(many) == wanted and sorted(opened) == first
    opened.clear()
    assert checked(many) == wanted
    assert opened == ["0024.png"]  # of 16 bits: more is told of it than one line


def test_every_picture_is_decoded_where_that_is_asked_for_whatever_was_seen_before(many, opened):
    many.write()
    checked(many)
    opened.clear()
    checked(many, decode=True)
    assert len(opened) == 19
    opened.clear()
    checked(many, leave_out_broken=True)
    assert len(opened) == 19


def test_a_picture_that_has_changed_is_looked_at_again_even_with_its_old_length_and_time(many):
    many.write()
    before = checked(many)
    path = many.root / "train" / "0003.jpg"
    times, content = os.stat(path), path.read_bytes()
    path.write_bytes(content[:-2] + b"\0\0")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = checked(many)
    assert before != after and "0003.jpg" in after[0]
    path.write_bytes(content)
    assert checked(many) == before


def test_a_picture_that_was_refused_is_looked_at_each_time(many, opened):
    (many.root / "train" / "0004.jpg").write_bytes(b"no picture")
    many.write()
    wanted = checked(many)
    assert "unreadable image" in wanted[0]
    opened.clear()
    assert checked(many) == wanted and "0004.jpg" in opened


def test_a_picture_that_has_gone_is_missed(many):
    many.write()
    checked(many)
    (many.root / "train" / "0005.jpg").unlink()
    assert "missing image" in checked(many)[0]


def test_another_annotated_size_is_compared_anew(many):
    many.write()
    checked(many)
    many.split("train")["images"][2].update(width=38)
    many.write()
    assert "size differs" in checked(many)[0]


@pytest.mark.parametrize("fields", [{"sixteen_bit": "range"}, {"max_megapixels": 0.0006}])
def test_pictures_are_looked_at_anew_where_they_are_read_in_another_way(fields, many):
    many.write()
    wanted = checked(many, **fields, remember=False)
    checked(many)
    assert checked(many, **fields) == wanted


def test_pictures_that_come_and_go_keep_what_was_seen_on_the_others(many, opened):
    many.write()
    checked(many)
    many.image("train", 2_000, suffix="jpg")
    many.split("train")["images"].pop(12)  # 0021.png
    many.split("train")["annotations"].pop(12)
    many.write()
    wanted = checked(many, remember=False)
    opened.clear()
    assert checked(many) == wanted and opened == ["0024.png"]


def test_a_run_on_a_few_pictures_leaves_what_was_seen_on_all(many, opened):
    many.write()
    checked(many)
    kept = sorted(many.root.rglob(f".*{ENDING}"))
    times = [os.stat(path).st_mtime_ns for path in kept]
    (many.root / "train" / "0001.jpg").touch()
    checked(many, limit_train=3)
    assert [os.stat(path).st_mtime_ns for path in kept] == times and len(kept) == 2


def test_a_copy_of_a_set_is_looked_at_anew(many, opened, tmp_path):
    many.write()
    checked(many)
    shutil.copytree(many.root, tmp_path / "copy")
    opened.clear()
    report = check_dataset(DataConfig(data=str(tmp_path / "copy")), 10, decode=False)
    assert len(opened) == 6 and all(str(tmp_path / "copy") in problem.where for problem in report.problems
                                    if problem.kind.endswith("image"))


def test_small_splits_and_who_does_not_want_it_keep_nothing(many, monkeypatch):
    many.write()
    checked(many, remember=False)
    monkeypatch.setattr(looks, "MANY", 100)
    checked(many)
    assert not list(many.root.rglob(f".*{ENDING}"))


def test_files_of_one_content_are_found_where_nothing_is_opened(many):
    shutil.copy(many.root / "train" / "0006.jpg", many.root / "val" / "0040.jpg")
    os.remove(many.root / "val" / "0041.jpg")
    os.link(many.root / "train" / "0007.jpg", many.root / "val" / "0041.jpg")
    many.write()
    for _ in range(2):
        told = [problem.detail for problem in checked(many)[1] if problem.kind == "same image in two splits"]
        assert told == [f"equals {many.root / 'val' / name} of val" for name in ("0040.jpg", "0041.jpg")]


def test_a_pipe_among_the_pictures_is_not_waited_for(many):
    path = many.root / "train" / "0006.jpg"
    path.unlink()
    os.mkfifo(path)
    many.write()
    for _ in range(2):
        assert "it is a pipe, wanted a file" in checked(many)[0]


def test_an_ordinary_jpeg_of_too_many_pixels_is_refused_at_a_quick_look_too(many):
    many.write()
    _, problems = checked(many, max_megapixels=0.0005)  # 500 pixels, where each picture has 851 and more
    assert len([problem for problem in problems if problem.kind == "too large image"]) == 19


def test_where_an_entrys_time_is_that_of_its_making_nothing_is_remembered(many, opened, monkeypatch):
    many.write()
    checked(many)
    opened.clear()
    monkeypatch.setattr(looks, "CHANGES_ARE_TOLD", False)
    checked(many)
    assert "0020.jpg" in opened
