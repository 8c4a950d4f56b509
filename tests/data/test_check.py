from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands.check_data import CheckDataArguments, check_data
from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.classes import Classes
from scratch.data.problems import KINDS, Problem, count, refuse
from scratch.data.split import SPLITS
from scratch.printable import command
from tests.layouts import WITH_SPLITS, WITHOUT, draw, roboflow


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
    path = sound.image("train", 5, Image.effect_noise((37, 23), 90).convert("RGB").convert(mode), suffix)
    report = _check(sound, decode=decode)
    report.refuse()
    assert _kinds(report) == [kind] and report.problems[0].where == str(path)


def _sixteen_bits(low, high):
    return Image.fromarray(np.linspace(low, high, 23 * 37).round().astype(np.uint16).reshape(23, 37))


def test_sixteen_bits_are_listed_with_the_range_of_the_set(sound):
    sound.image("train", 5, _sixteen_bits(100, 40000))
    sound.image("train", 6, _sixteen_bits(300, 65000))
    report = _check(sound)
    assert _kinds(report) == ["16-bit image"] * 2 + ["16-bit range"]
    assert "its values are 100..40,000 of 0..65,535" in report.table()
    assert "2 of them, with values 100..65,000 of 0..65,535" in report.table()
    assert "--sixteen-bit range" not in report.table()


@pytest.mark.parametrize("low, high, shades", [(0, 4095, "0..16"), (20720, 21480, "81..84")])
def test_sixteen_bits_that_become_one_shade_are_told_with_the_way_out(low, high, shades, sound):
    sound.image("train", 5, _sixteen_bits(low, high))
    report = _check(sound)
    assert _kinds(report) == ["16-bit image", "16-bit range", "image of one shade"]
    assert f"{shades} of the greys" in report.table() and "1 of them are then nearly black" in report.table()
    assert "--sixteen-bit range stretches" in report.table()
    assert _kinds(_check(sound, sixteen_bit="range")) == ["16-bit image", "16-bit range"]


def test_eight_bits_of_one_shade_are_noted_once_they_are_decoded(sound):
    sound.image("train", 5, Image.new("RGB", (37, 23), "teal"))
    assert _kinds(_check(sound)) == []
    assert _kinds(_check(sound, decode=True)) == ["image of one shade"]


def test_a_picture_without_a_defined_white_is_refused_or_stretched(sound):
    sound.image("train", 5, Image.fromarray(np.linspace(-3, 9, 23 * 37).astype(np.float32).reshape(23, 37)), "tif")
    assert "--sixteen-bit range stretches" in _check(sound).table() and _kinds(_check(sound)) == ["unreadable image"]
    assert _kinds(_check(sound, sixteen_bit="range")) == ["stretched image"]


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
@pytest.mark.parametrize("decode", [False, True])
def test_a_truncated_image_is_told_with_what_is_missing_and_coped_with(decode, share, suffix, sound):
    path = sound.image("train", 5, Image.effect_noise((197, 161), 60).convert("RGB"), suffix)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    report = _check(sound, decode=decode)
    report.refuse()
    assert _kinds(report) == ["truncated image"]
    said = report.problems[0].detail.partition("%")[0]
    missing = 0.0 if said == "less than 1" else int(said) / 100
    assert missing == pytest.approx(1 - share, abs=0.15) and not said == "0"


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_bars_of_a_film_are_not_counted_as_missing(suffix, sound):
    film = Image.new("RGB", (197, 320))
    film.paste(Image.effect_noise((197, 80), 60).convert("RGB"), (0, 220))  # and 220 black rows above it
    path = sound.image("train", 5, film, suffix)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.9)])
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == ["truncated image"] and int(report.problems[0].detail.partition("%")[0]) < 25


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_an_image_of_which_hardly_anything_is_left_is_refused(suffix, sound):
    path = sound.image("train", 5, Image.effect_noise((97, 200), 60).convert("RGB"), suffix)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.2)])
    report = _check(sound)
    assert _kinds(report) == ["unreadable image"] and "of its rows can be decoded" in report.problems[0].detail


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
    (lambda s: s.split("train")["images"].append({**s.split("train")["images"][0], "width": 5}), "duplicate image id"),
    (lambda s: s.split("train")["categories"].append({"id": 3, "name": "cow"}), "duplicate category id"),
    (lambda s: s.split("val").update(categories=[{"id": 3, "name": "cow"}]), "category renamed"),
    (lambda s: s.box("train", 1, "here"), "malformed entry"),
])
def test_wrong_ids_and_entries_are_refused(spoil, kind, sound):
    spoil(sound)
    report = _check(sound)
    assert set(_kinds(report)) == {kind}
    with pytest.raises(ValueError, match=kind):
        report.refuse()


def test_an_image_and_a_class_that_are_written_twice_alike_are_read_once(sound):
    for part in ("images", "categories"):
        sound.split("train")[part].append(dict(sound.split("train")[part][0]))
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == ["entry given twice"] * 2 and [line.split()[1] for line in report.splits] == ["2", "1"]


def test_of_classes_that_are_left_out_nothing_is_counted_and_nothing_refused(sound):
    sound.box("train", 1, [1, 1, 0, 0], category_id=7)
    sound.box("train", 2, [5, 5, 4, 4], category_id=7)
    sound.split("val")["categories"].append({"id": 9, "name": "owl"})
    sound.box("val", 3, [5, 5, 4, 4], category_id=9)
    assert set(_kinds(_check(sound))) == {"unknown category id", "zero-size box", "class that is not judged"}
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
    sound.box("train", 2, [1, 1, 2, 2], id="5")
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
    assert _kinds(report) == ["crowd box", "image without boxes", "more boxes than can be found"]
    assert "image 1: 2 boxes, 1 found at most" in report.table()


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
    told = [problem.where for problem in _check(sound).problems if problem.kind == "same image in two splits"]
    assert told == [str(sound.root / "train" / f"{id:04d}.png") for id in range(10, 22)]


def test_one_picture_under_two_names_is_noted_where_every_picture_is_decoded(sound):
    sound.image("train", 9, Image.open(sound.root / "train" / "0001.png"))
    assert _kinds(_check(sound, decode=True)) == ["same picture twice"] and _kinds(_check(sound)) == []


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


# -- the set as a whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil, why", [
    (lambda a: a.clear(), "no annotation of 2 classes in 2 images"),
    (lambda a: [entry.update(iscrowd=1) for entry in a], "none of the 2 annotations .* is left: 2 are crowds, 0 were"),
    (lambda a: [entry.update(bbox=[1, 1, 0, 0]) for entry in a], ".* is left: 0 are crowds, 2 were dropped"),
    (lambda a: [entry.update(bbox=[1, 1, -3, 2]) for entry in a], ".* is left: 0 are crowds, 2 were dropped"),
    (lambda a: [entry.update(bbox=[90, 90, 3, 2]) for entry in a], ".* is left: 0 are crowds, 2 were dropped"),
])
def test_a_training_split_without_a_box_is_refused(spoil, why, sound):
    spoil(sound.split("train")["annotations"])
    with pytest.raises(ValueError, match=f"no box to learn from: instances_train.json: {why}"):
        _check(sound).refuse()


def test_classes_and_limits_that_leave_no_box_are_refused(sound):
    for fields in ({"classes": "dog"}, {"limit_train": 1}):
        sound.split("train")["annotations"][0]["category_id"] = 3
        sound.split("train")["annotations"][0]["iscrowd"] = 1
        with pytest.raises(ValueError, match="no box to learn from"):
            _check(sound, **fields).refuse()


def test_a_validation_split_without_a_box_is_told_and_not_refused(sound):
    sound.split("val")["annotations"].clear()
    report = _check(sound)
    report.refuse()
    assert "no box to find" in _kinds(report) and "shows – where an AP would be" in report.table()
    assert "no box to find: instances_val.json" in report.told("no box to find")


def test_a_trained_detector_may_be_judged_on_a_training_split_without_a_box(sound):
    sound.split("train")["annotations"].clear()
    report = check_dataset(DataConfig(data=str(sound.write()), eval_split="train"), 10, False, ("train",),
                           Classes((3, 7), ("cat", "dog")))
    report.refuse()
    assert "no box to find" in _kinds(report)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_split_that_training_needs_is_refused_and_the_other_is_looked_at(missing, sound):
    sound.splits.pop(missing)
    sound.box("val" if missing == "train" else "train", 99, [1, 1, 2, 2])
    report = check_dataset(DataConfig(data=str(sound.write())), 10, False, need=("train", "val"))
    assert _kinds(report) == ["missing split", "unknown image id"]
    with pytest.raises(ValueError, match=f"missing split: the split '{missing}': .*instances_{missing}2017.json"):
        report.refuse()


def test_a_split_whose_folder_has_another_name_is_found_by_its_pictures(sound):
    (sound.write() / "val").rename(sound.root / "valid")
    report = check_dataset(DataConfig(data=str(sound.root)), 10, False, need=("train", "val"))
    assert not report.problems and len(report.splits) == 2


def test_boxes_in_another_form_are_refused_unless_they_are_taken_as_they_are(sound):
    for document in sound.splits.values():
        for entry in document["annotations"]:
            x, y, w, h = entry["bbox"]
            entry["bbox"] = [x / 37, y / 23, w / 37, h / 23]
    with pytest.raises(ValueError, match="boxes in another form: instances_train.json, 2 boxes: .*normalised.*--as-is|"
                                         "normalised") as error:
        _check(sound).refuse()
    assert "such as [0.054, 0.13, 0.297, 0.304] in 0001.png, 37×23" in str(error.value).replace("Such", "such")
    report = _check(sound, as_is=True)
    report.refuse()
    assert set(_kinds(report)) == {"boxes perhaps in another form"}


def test_sizes_as_stored_beside_upright_boxes_are_refused_in_some_pictures_too(coco_set):
    exif = Image.Exif()
    exif[274] = 6
    for id in range(1, 41):
        coco_set.image("train", id)
    for id in range(41, 45):  # upright 23×37, the size of the pixels as stored 37×23
        coco_set.image("train", id, Image.effect_noise((37, 23), id).convert("RGB"), "jpg", exif=exif)
        coco_set.split("train")["annotations"][-1]["bbox"] = [3, 20, 11, 15]
    with pytest.raises(ValueError, match="the 4 pictures with a camera's EXIF note: .*fit it turned by a quarter"):
        _check(coco_set, only=("train",)).refuse()


def test_one_file_under_two_ids_is_told_with_what_it_costs(sound):
    images = sound.split("val")["images"]
    images.append({**images[0], "id": 33, "file_name": "./0003.png"})
    sound.box("val", 33, [20, 3, 11, 7])
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == ["best possible AP", "same file twice"]
    assert "0003.png: images 3, 33" in report.table() and "of the 4 detections that find every object" in report.table()
    assert "2 count as right" in report.table()


def test_the_same_box_twice_is_told_with_the_ap_that_is_left(sound):
    sound.box("val", 3, [2, 3, 11, 7], id=99)
    sound.box("val", 3, [2, 3, 11, 7], id=100, category_id=7)  # another class: another object
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == ["best possible AP", "class that is not learnt", "same box twice"]
    assert "instances_val.json, 0003.png: cat at [2, 3, 11, 7]" in report.table()
    assert "1 of 3 boxes stand there twice" in report.table()
    assert "a detector that finds every object once has an AP of 0.752" in report.table()


def test_in_training_alone_a_box_that_stands_there_twice_costs_no_ap(sound):
    sound.box("train", 1, [2, 3, 11, 7], id=99)
    assert _kinds(_check(sound)) == ["same box twice"]


def test_more_boxes_than_coco_counts_are_told_with_the_ap_that_is_left(sound):
    sound.split("val")["annotations"] = []
    for k in range(300):
        sound.box("val", 3, [k % 20, k // 20, 10, 8])
    report = _check(sound, num_queries=300)
    report.refuse()
    assert _kinds(report) == ["more boxes than COCO counts"]
    assert "at most 300, cat in 0003.png" in report.table() and "perfect ones have an AP of 0.337" in report.table()
    assert _check(sound, num_queries=300, max_dets=300).problems == ()


def test_a_class_of_val_alone_is_named_and_counted(sound):
    sound.split("val")["categories"].append({"id": 9, "name": "owl"})
    for _ in range(3):
        sound.box("val", 3, [5, 5, 4, 4 + _], category_id=9)
    report = _check(sound)
    assert len(report.problems) == 1 and report.problems[0].times == 3
    with pytest.raises(ValueError, match="3 to be put right(.|\n)*category_id 9 is 'owl', which is not in train: the "
                                         "labels count its 2 classes .3 boxes"):
        report.refuse()


def test_a_class_that_has_another_id_in_val_is_named_with_both(sound):
    sound.split("val")["categories"].append({"id": 9, "name": "dog"})
    sound.box("val", 3, [5, 5, 4, 4], category_id=9)
    with pytest.raises(ValueError, match="category_id 9 is 'dog', .*where 'dog' has the id 7"):
        _check(sound).refuse()


@pytest.mark.parametrize("name, why", [("", "is blank"), (" ", "is blank"), ("dog\n", "signs that cannot be shown"),
                                       ("\x1b[2J", "signs that cannot be shown"), ("red\udc80", "cannot be shown"),
                                       ("c\u202eat", "cannot be shown"), ("a" * 101, "has 101 letters"),
                                       (" owl", "has blanks around it")])
def test_an_odd_class_name_is_told_once_and_shown_harmless(name, why, sound):
    for document in sound.splits.values():
        document["categories"] = [{"id": 3, "name": "cat"}, {"id": 7, "name": name}]
    report = _check(sound)
    report.refuse()
    assert _kinds(report) == ["odd class name"] and why in report.table()
    assert report.table().isprintable() or all(letter == "\n" or letter.isprintable() for letter in report.table())


@pytest.mark.parametrize("names", [("cat", "cat"), ("cat", "Cat"), ("cat", "cat ")])
def test_classes_of_one_name_are_told(names, sound):
    for document in sound.splits.values():
        document["categories"] = [{"id": 3, "name": names[0]}, {"id": 7, "name": names[1]}]
    assert "classes alike" in _kinds(_check(sound))


# -- floods --------------------------------------------------------------------------------------------------------


def test_of_many_faults_the_first_are_kept_and_the_others_counted(sound):
    for id in range(3000):
        sound.box("train", 1, [1, 1, 0, 0], id=10**6 + id)
    report = _check(sound)
    assert len(report.problems) == 1001 and count(report.problems)["zero-size box"] == 3000
    assert len(report.table(examples=10)) < 3000 and "… and 2,990 more" in report.table(examples=10)
    assert "3,000 coped with" in report.table()


def test_of_many_refused_faults_the_number_is_right(sound):
    for id in range(3000):
        sound.box("train", 99, [1, 1, 2, 2], id=10**6 + id)
    with pytest.raises(ValueError, match="3,000 to be put right(.|\n)*and 2,980 more") as error:
        _check(sound).refuse()
    assert len(str(error.value)) < 4000


def test_check_data_writes_every_fault_to_a_file(sound, tmp_path, capsys):
    for id in range(2000):
        sound.box("train", 1, [1, 1, 0, 0], id=10**6 + id)
    root = sound.write()
    check_data(CheckDataArguments(root, DataConfig()))
    printed = capsys.readouterr().out
    assert "… and 1,990 more" in printed and "--all FILE writes every one" in printed
    check_data(CheckDataArguments(root, DataConfig(), all=tmp_path / "all.txt"))
    lines = (tmp_path / "all.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2000
    assert lines[-1] == ("coped: zero-size box: instances_train.json, annotation 1001999 of 0001.png: "
                         "bbox is [1, 1, 0, 0]")


@pytest.mark.parametrize("make, kind", [(Path.mkdir, "a folder"), (getattr(os, "mkfifo", None), "a device or a pipe")])
def test_what_has_the_name_of_a_file_of_annotations_and_is_none_is_said(make, kind, sound):
    if make is None:
        pytest.skip("this system has no pipes with names")
    root = sound.write()
    file = root / "annotations" / "instances_val.json"
    file.unlink()
    make(file)
    problem, = check_dataset(DataConfig(data=str(root)), 100, decode=False, need=("train", "val")).problems
    assert f"{file} is there, but it is {kind}" in str(problem)


def test_check_data_shows_paths_below_the_folder_and_names_the_next_command(sound, tmp_path, capsys):
    folder = sound.write()
    (folder / "train" / "0001.png").unlink()
    with pytest.raises(SystemExit):
        check_data(CheckDataArguments(folder, DataConfig()))
    printed = capsys.readouterr().out
    assert f" train{os.sep}0001.png: no such file" in printed and "Next: " not in printed
    assert str(folder) not in printed.split("\n", 1)[1]  # the first line names it
    sound.image("train", 1)
    sound.splits["train"]["images"].pop()
    sound.splits["train"]["annotations"].pop()
    moved = sound.write().rename(tmp_path / "my set")
    check_data(CheckDataArguments(moved, DataConfig()))
    last = f"Next: {command('python', 'detr_scratch.py', 'train', '--data', moved)}"
    assert capsys.readouterr().out.splitlines()[-1] == last
    check_data(CheckDataArguments(moved, DataConfig(limit_train=2)))
    assert capsys.readouterr().out.splitlines()[-2:] == [last, "      with the flags given here"]


@pytest.mark.parametrize("root", ["data", "data/", ".", "se+t (1) [a] \\d $x", "/there/my set"])
def test_of_a_path_below_the_folder_the_folder_is_left_out_and_nothing_else(root):
    path, other = str(Path(root) / "a" / "b.png"), str(Path(root) / "c.png")
    kind = "similar image in two splits"
    assert Problem(kind, path, f"of val, looks like {other} of train").line(root) == (
        f"a{os.sep}b.png: of val, looks like c.png of train")
    assert Problem(kind, path, f"equals {other} of val").line(root) == f"a{os.sep}b.png: equals c.png of val"
    for where, detail in (("mydata/data/a.png", "no such file"), ("cat", "1 box"),
                          ("labels.json", "data/1.png is taken to mean pics/1.png"), ("odd", "called data/cup")):
        assert Problem(kind, where, detail).line(root) == f"{where}: {detail}"


def test_a_long_folder_does_not_hide_the_names_below_it():
    root = "/there/" + 30 * "a long name/"
    assert Problem("missing image", root + "train/1.png", "no such file").line(root) == "train/1.png: no such file"


@pytest.mark.parametrize("split", ["train", "val"])
def test_check_data_refuses_what_training_refuses_for_a_missing_split(split, sound, capsys):
    sound.splits.pop(split)
    with pytest.raises(SystemExit) as end:
        check_data(CheckDataArguments(sound.write(), DataConfig()))
    assert end.value.code == 1 and "missing split: " in capsys.readouterr().out


def test_a_file_name_of_300_letters_is_a_missing_image_and_is_shown_short(sound):
    sound.split("train")["images"][0]["file_name"] = "ä" * 300 + ".png"
    report = _check(sound)
    assert _kinds(report) == ["missing image"] and all(len(line) < 400 for line in report.table().splitlines())


@pytest.mark.parametrize("value", [[[[[["deep"]]]]], "x" * 10**6, list(range(10**5)), 10**4000,
                                   {str(k): k for k in range(999)}])
@pytest.mark.parametrize("where", ["bbox", "image_id", "category_id", "id", "iscrowd"])
def test_a_huge_value_is_told_shortly(where, value, sound):
    sound.split("train")["annotations"][0][where] = value
    report = _check(sound)
    assert all(len(line) < 700 for line in report.table().splitlines()) and "\x00" not in report.table()


def test_texts_of_the_file_cannot_act_on_a_terminal(sound):
    sound.split("train")["images"][0]["file_name"] = "\x1b[2J\x07\n.png"
    sound.split("train")["categories"].append({"id": "\x1b]0;title\x07", "name": "\x1b[31m"})
    sound.split("train")["annotations"][0].update(bbox="\x1b[2J", id="\x9b2J")
    table = _check(sound).table()
    assert all(letter == "\n" or letter.isprintable() for letter in table) and "\\x1b[2J" in table


def test_every_kind_says_how_bad_it_is_and_what_training_does():
    assert {severity for severity, _ in KINDS.values()} == {"refused", "coped", "note"}
    assert Problem("NaN box", "x", "y").severity == "coped"
    refuse([Problem("NaN box", "x", "y"), Problem("crowd box", "x", "y")])


def test_blood_cells_can_be_trained_on_with_two_boxes_dropped(bccd_dir):
    report = check_dataset(DataConfig(data=str(bccd_dir)), 40, decode=True)
    report.refuse()
    assert _kinds(report) == ["zero-size box"] * 2 and len(report.splits) == 3


def test_pictures_that_no_coco_file_names_are_counted(tmp_path):
    root = roboflow(tmp_path / "set", {split: draw(6, k) for k, split in enumerate(SPLITS)})
    for name in ("x.jpg", "y.png"):
        draw(1)[0].save(root / "train", name)
    (root / "train" / "notes.txt").write_text("of no picture")
    (problem,) = [p for p in check_dataset(DataConfig(data=str(root)), 100, decode=True).problems
                  if p.kind == "picture without annotations"]
    assert "train/x.jpg: no COCO file that is read names it; the same is true of 1 other" in str(problem) and problem.times == 2
    few = check_dataset(DataConfig(data=str(root), limit_train=2), 100, decode=True)
    assert "picture without annotations" not in _kinds(few)  # what a limit leaves out is named in the file


@pytest.mark.parametrize("kind", ["cvat", "label_studio", "coco"])
def test_a_picture_of_another_split_is_named(kind, tmp_path):
    make = {**WITHOUT, **WITH_SPLITS}[kind]
    root = make(tmp_path / "set", {"all": draw(6)} if kind == "label_studio" else {
        split: draw(4, k) for k, split in enumerate(SPLITS)})
    report = check_dataset(DataConfig(data=str(root)), 100, decode=True)
    assert not [p for p in report.problems if p.kind == "picture without annotations"]


@pytest.mark.parametrize("train, val, told", [(30, 2, True), (30, 4, False), (2, 1, False)])
def test_a_split_of_hardly_any_pictures_is_noted(train, val, told, coco_set):
    for k in range(train):
        coco_set.image("train", k + 1)
    for k in range(val):
        coco_set.image("val", 100 + k)
    problems = [p for p in _check(coco_set).problems if p.kind == "few pictures to judge by"]
    assert [str(p.detail) for p in problems] == ([f"{val} images beside {train} to learn from"] if told else [])
    assert not [p for p in _check(coco_set, limit_val=1).problems if p.kind == "few pictures to judge by"]
