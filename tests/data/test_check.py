from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.coco import SPLITS, Classes
from scratch.data.problems import KINDS, Problem, refuse


def _check(coco_set, num_queries=10, decode=False, only=SPLITS, **fields):
    return check_dataset(DataConfig(data=str(coco_set.write()), **fields), num_queries, decode, only)


def _kinds(report):
    return sorted(problem.kind for problem in report.problems)


@pytest.fixture
def sound(coco_set):
    """A set without a fault: two training images and one for validation."""
    coco_set.image("train", 1)
    coco_set.image("train", 2, suffix="jpg")
    coco_set.image("val", 3)
    return coco_set


@pytest.mark.parametrize("decode", [False, True])
def test_a_sound_set_has_no_problems_and_is_not_refused(decode, sound):
    report = _check(sound, decode=decode)
    report.refuse()
    assert report.problems == ()
    assert report.table().endswith("0 refused, 0 coped with, 0 to note: training can begin")


@pytest.mark.parametrize("bbox, kind", [([1, 1, 0, 5], "zero-size box"), ([1, 1, math.nan, 5], "NaN box"),
                                        ([-5, 1, 9, 5], "box out of range"), ([90, 1, 9, 5], "box outside the image")])
def test_faulty_boxes_are_listed_by_annotation_and_coped_with(bbox, kind, sound):
    sound.box("val", 3, bbox, id=77)
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == [kind]
    assert report.problems[0].where == "instances_val.json, annotation 77 of 0003.png"


@pytest.mark.parametrize("mode, suffix, kind", [("L", "jpg", "greyscale image"), ("P", "png", "palette image"),
                                                ("CMYK", "jpg", "CMYK image"), ("RGBA", "png", "RGBA image")])
@pytest.mark.parametrize("decode", [False, True])
def test_other_colour_modes_are_listed_by_file_and_coped_with(decode, mode, suffix, kind, sound):
    path = sound.image("train", 5, Image.new("RGB", (37, 23), "teal").convert(mode), suffix)
    report = _check(sound, decode=decode)
    report.refuse()
    assert _kinds(report) == [kind] and report.problems[0].where == str(path)


def test_sixteen_bits_are_listed(sound):
    sound.image("train", 5, Image.fromarray(np.zeros((23, 37), np.uint16)))
    assert _kinds(_check(sound)) == ["16-bit image"]


def test_a_rotated_photograph_is_listed_and_its_size_is_right_either_way(sound):
    exif = Image.Exif()
    exif[274] = 6
    for id in (5, 6):
        sound.image("train", id, Image.effect_noise((37, 23), id).convert("RGB"), "jpg", exif=exif)
    sound.split("train")["images"][-1].update(width=23, height=37)
    assert _kinds(_check(sound)) == ["EXIF-rotated image"] * 2


def test_a_missing_image_is_refused_by_file(sound):
    path = sound.image("train", 5)
    path.unlink()
    with pytest.raises(ValueError, match="missing image: .*0005.png: no such file"):
        _check(sound).refuse()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("share", [0.6, 0.98])
def test_the_quick_pass_refuses_a_truncated_image(share, suffix, sound):
    path = sound.image("train", 5, Image.effect_noise((97, 61), 60).convert("RGB"), suffix)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    report = _check(sound, decode=False)
    assert _kinds(report) == ["truncated image"]
    with pytest.raises(ValueError, match="truncated image"):
        report.refuse()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_bytes_after_an_images_end_are_harmless(suffix, sound):
    path = sound.image("train", 5, suffix=suffix)
    path.write_bytes(path.read_bytes() + b"\0" * 40 + b"camera's own notes")
    assert _check(sound).problems == ()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"])
def test_a_file_that_is_no_image_is_refused(content, sound):
    sound.image("train", 5).write_bytes(content)
    assert _kinds(_check(sound)) == ["unreadable image"]


@pytest.mark.parametrize("decode", [False, True])
def test_a_gap_inside_a_png_is_found_by_its_checksums_before_the_first_step(decode, sound):
    path = sound.image("train", 5, Image.effect_noise((97, 61), 60).convert("RGB"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] + content[len(content) // 2:])
    assert _kinds(_check(sound, decode=decode)) == ["truncated image"]


def test_a_size_that_differs_from_the_annotation_is_refused(sound):
    sound.split("val")["images"][0]["width"] = 38
    with pytest.raises(ValueError, match="size differs: .*0003.png: the file is 37×23, its annotation says 38×23"):
        _check(sound).refuse()


@pytest.mark.parametrize("spoil, kind", [
    (lambda s: s.box("train", 99, [1, 1, 2, 2]), "unknown image id"),
    (lambda s: s.box("train", 1, [1, 1, 2, 2], category_id=4), "unknown category id"),
    (lambda s: s.split("train")["images"].append(s.split("train")["images"][0]), "duplicate image id"),
    (lambda s: s.split("train").update(categories=s.split("train")["categories"] * 2), "duplicate category id"),
    (lambda s: s.split("val").update(categories=[{"id": 3, "name": "cow"}]), "category renamed"),
    (lambda s: s.box("train", 1, "here"), "malformed entry"),
])
def test_wrong_ids_and_entries_are_refused(spoil, kind, sound):
    spoil(sound)
    report = _check(sound)
    assert set(_kinds(report)) == {kind}
    with pytest.raises(ValueError, match=kind):
        report.refuse()


def test_of_classes_that_are_left_out_nothing_is_counted_and_nothing_refused(sound):
    sound.box("train", 1, [1, 1, 0, 0], category_id=7)
    sound.box("train", 2, [5, 5, 4, 4], category_id=7)
    sound.split("val")["categories"].append({"id": 9, "name": "owl"})
    sound.box("val", 3, [5, 5, 4, 4], category_id=9)
    assert set(_kinds(_check(sound))) == {"unknown category id", "zero-size box"}
    report = _check(sound, classes="cat")
    report.refuse()
    assert _kinds(report) == []
    assert [line.split()[1:7:2] for line in report.splits] == [["2", "2", "1"], ["1", "1", "1"]]  # images boxes classes


def test_a_misspelt_class_is_said_before_any_image_is_looked_at(sound, monkeypatch):
    monkeypatch.setattr("scratch.data.check.look_at_image", lambda *_: pytest.fail("an image was looked at"))
    with pytest.raises(ValueError, match="^got 'cta' among the classes.*did you mean cat"):
        _check(sound, classes="cta")


def test_data_may_lack_a_class_that_a_trained_detector_knows(sound):
    known = Classes((3, 9), ("cat", "owl"))
    data = DataConfig(data=str(sound.write()), classes="cat,owl")
    assert check_dataset(data, 10, decode=False, only=("val",), classes=known).problems == ()


def test_duplicate_annotation_ids_are_coped_with(sound):
    sound.box("train", 1, [1, 1, 2, 2], id=5)
    sound.box("train", 2, [1, 1, 2, 2], id=5)
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == ["duplicate annotation id"]


def test_images_with_no_box_and_with_more_boxes_than_queries_are_listed(sound):
    sound.image("train", 5)
    sound.split("train")["annotations"].pop()
    sound.box("train", 1, [5, 5, 3, 3])
    sound.box("train", 1, [5, 5, 9, 9], iscrowd=1)  # a crowd needs no query
    assert _kinds(_check(sound, num_queries=2)) == ["crowd box", "image without boxes"]
    report = _check(sound, num_queries=1)
    assert _kinds(report) == ["crowd box", "image without boxes", "more boxes than queries"]
    assert "image 1: 2 boxes, 1 queries" in report.table()


def test_a_broken_annotation_file_is_listed_with_its_line(sound):
    root = sound.write()
    (root / "annotations" / "instances_train.json").write_text('{"images": [\n{"id": 1,\n}')
    report = check_dataset(DataConfig(data=str(root)), 10, decode=False)
    assert _kinds(report) == ["broken annotation file"] and "in line 3" in report.table()
    with pytest.raises(ValueError, match="broken annotation file"):
        report.refuse()


def test_one_image_in_two_splits_is_noted_whatever_its_name(sound):
    sound.image("val", 9, Image.open(sound.root / "train" / "0001.png"))
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == ["same image in two splits"]


def test_what_is_in_two_splits_is_told_in_the_order_of_the_annotations(sound):
    for id in range(10, 22):
        sound.image("train", id)
        sound.image("val", 100 + id, Image.open(sound.root / "train" / f"{id:04d}.png"))
    told = [problem.where for problem in _check(sound).problems]
    assert told == [str(sound.root / "train" / f"{id:04d}.png") for id in range(10, 22)]


def test_the_quick_pass_looks_at_the_splits_and_images_that_a_run_uses(sound):
    sound.image("test", 8).unlink()
    sound.image("train", 9).unlink()
    assert _check(sound, only=("train", "val"), limit_train=2).problems == ()
    assert _kinds(_check(sound, only=("train", "val"))) == ["missing image"]
    assert _kinds(_check(sound, only=("test",))) == ["missing image"]
    assert _kinds(_check(sound, decode=True)) == ["missing image"] * 2


def test_a_file_without_categories_is_refused(sound):
    for document in (sound.split("train"), sound.split("val")):
        document.update(categories=[], annotations=[])
    with pytest.raises(ValueError, match="no categories: instances_train.json"):
        _check(sound).refuse()


def test_the_table_counts_each_kind_and_shows_a_few_or_all(sound):
    for id in range(5):
        sound.box("train", 1, [1, 1, 0, 0], id=500 + id)
    report = _check(sound)
    assert "5 × zero-size box: dropped" in report.table()
    assert "… and 3 more" in report.table(examples=2) and "annotation 503" not in report.table(examples=2)
    assert all(f"annotation {id} " in report.table(examples=None) for id in range(500, 505))


def test_every_kind_says_how_bad_it_is_and_what_training_does():
    assert {severity for severity, _ in KINDS.values()} == {"refused", "coped", "note"}
    assert Problem("NaN box", "x", "y").severity == "coped"
    refuse([Problem("NaN box", "x", "y"), Problem("crowd box", "x", "y")])


def test_blood_cells_can_be_trained_on_with_two_boxes_dropped(bccd_dir):
    report = check_dataset(DataConfig(data=str(bccd_dir)), 40, decode=True)
    report.refuse()
    assert _kinds(report) == ["zero-size box"] * 2 and len(report.splits) == 3
