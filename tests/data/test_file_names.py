"""A file name in the annotations that nearly is one in the folder: taken where it can mean one file, else told."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.coco import CocoDetection
from scratch.data.file_names import find_files
from scratch.data.transforms import Augmentation


def _folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def _found(root: Path, name: str) -> str:
    return find_files(root, [name]).paths[0]


@pytest.mark.parametrize("name", ["0001.jpg", "./0001.jpg", "cam1//../0001.jpg", "cam 1/día/7.jpg", "#1 [x] 猫 🐈.png"])
def test_an_exact_name_is_found_and_nothing_is_told(name, tmp_path):
    found = find_files(_folder(tmp_path, os.path.normpath(name)), [name])
    assert found.paths == [os.path.normpath(name)] and not found.missing and not found.told


@pytest.mark.parametrize("name, there, words", [
    ("images\\0001.jpg", "0001.jpg", "with / for \\, without the folder in front"),
    ("cam1\\0001.jpg", "cam1/0001.jpg", "with / for \\"),
    ("C:\\Users\\anna\\0001.jpg", "0001.jpg", "with / for \\, without the folder in front"),
    ("train/0001.jpg", "0001.jpg", "without the folder in front"),
    ("/home/anna/train/0001.jpg", "0001.jpg", "without the folder in front"),
    ("../0001.jpg", "0001.jpg", "below the folder"),
    ("0001.jpg", "images/0001.jpg", "in a folder below"),
    ("old/0001.jpg", "new/0001.jpg", "in another folder"),
    ("caf%C3%A9%201.jpg", "café 1.jpg", "decoded from their URL form"),
    ("data/local-files/?d=images/0001.jpg", "0001.jpg", "without the folder in front"),
    ("https://host/a/0001.jpg?token=x%20y", "0001.jpg", "without the address in front, without the folder in front"),
    (unicodedata.normalize("NFC", "café.jpg"), unicodedata.normalize("NFD", "café.jpg"), "in another Unicode form"),
    ("0001.jpg", "0001.JPG", "in other capitals"),
    ("Hund.PNG", "hund.png", "in other capitals"),
    (" 0001.jpg ", "0001.jpg", "without regard to spaces"),
    ("a  b.jpg", "a b.jpg", "without regard to spaces"),
    ("caf%25C3%25A9.jpg", "café.jpg", "decoded from their URL form"),
    ("cats &amp; dogs.jpg", "cats & dogs.jpg", "decoded from their HTML form"),
    ("Ｆｏｔｏ１.jpg", "Foto1.jpg", "in another Unicode form"),
    ("\ufeff0001.jpg", "0001.jpg", "without invisible signs"),
    ("a+b.jpg", "a b.jpg", "with a space for +"),
    ("8d1f0c2a-cat.jpg", "cat.jpg", "without Label Studio's prefix"),
    ("my_cat_1.jpg", "my cat 1.jpg", "with _ for a space"),
    ("139.jpg", "000000000139.jpg", "with other zeros in front of numbers"),
    ("cam1/img_07.jpg", "cam01/img_7.jpg", "with other zeros in front of numbers"),
    ("0001.jpg.jpg", "0001.jpg", "with another ending"),
    ("0001", "0001.jpg", "with another ending"),
    ("0001.jpeg", "0001.jpg", "with another ending"),
    ("scan.TIF", "scan.tiff", "with another ending"),
])
def test_a_name_that_can_mean_one_file_is_taken_to_mean_it_and_the_difference_is_told(name, there, words, tmp_path):
    found = find_files(_folder(tmp_path, there, "other.png"), [name], "instances.json")
    assert found.paths == [there] and not found.missing
    assert [problem.kind for problem in found.told] == ["file name that nearly matches"]
    assert found.told[0].detail.startswith(f"the file name is found {words}: ")


def test_a_file_that_differs_in_an_usual_way_comes_before_one_that_does_not(tmp_path):
    assert _found(_folder(tmp_path, "1.JPG", "01.jpg", "a b.JPG", "a+b.JPG"), "1.jpg") == "1.JPG"
    assert _found(tmp_path, "a b.jpg") == "a b.JPG"
    assert _found(tmp_path, "001.jpg") == ""  # two differ alike


def test_one_line_tells_of_all_names_that_differ_alike(tmp_path):
    names = [f"{i:04d}.jpg" for i in range(12)]
    found = find_files(_folder(tmp_path, *names), [f"images/{name}" for name in names], "instances_train.json")
    assert found.paths == names
    assert [str(problem) for problem in found.told] == [
        "file name that nearly matches: instances_train.json: all 12 file names are found without the folder in front: "
        "images/0000.jpg is taken to mean 0000.jpg"]
    assert found.told[0].times == 12


def test_the_folder_that_the_name_says_decides_between_files_of_one_name(tmp_path):
    _folder(tmp_path, "cam1/7.jpg", "cam2/7.jpg")
    assert _found(tmp_path, "images/cam2/7.JPG") == "cam2/7.jpg"


def test_a_mask_of_a_pictures_name_is_not_taken_for_it(tmp_path):
    _folder(tmp_path, "train_images/1.jpg", "train_masks/1.jpg", "val_images/2.jpg", "val_masks/2.jpg")
    assert _found(tmp_path, "1.jpg") == "train_images/1.jpg" and _found(tmp_path, "2.jpg") == "val_images/2.jpg"
    assert _found(tmp_path, "val_masks/2.JPG") == "val_masks/2.jpg"
    assert _found(_folder(tmp_path / "two", "ir/1.jpg", "vis/1.jpg"), "1.jpg") == ""
    found = find_files(_folder(tmp_path / "called so", "a/images1.jpg", "b/images1.jpg"), ["images1.jpg"])
    assert "2 are called nearly so" in found.missing[0].detail


def test_two_files_for_one_name_are_both_told_and_neither_is_taken(tmp_path):
    found = find_files(_folder(tmp_path, "cam1/7.jpg", "cam2/7.jpg"), ["7.jpg"])
    assert found.paths == [""]
    assert found.missing[0].detail == "no such file; 2 are called nearly so (cam1/7.jpg, cam2/7.jpg): which one?"


def test_two_names_for_one_file_are_neither_taken(tmp_path):
    found = find_files(_folder(tmp_path, "7.jpg", "8.jpg"), ["cam1/7.jpg", "cam2/7.jpg", "8.jpg", "8.JPG"])
    assert found.paths == ["", "", "8.jpg", ""] and list(found.missing) == [0, 1, 3]
    assert "but other names say that, too" in found.missing[0].detail


def test_one_near_name_under_two_image_ids_is_one_name(tmp_path):
    assert find_files(_folder(tmp_path, "7.JPG"), ["7.jpg", "7.jpg"]).paths == ["7.JPG", "7.JPG"]


def test_another_format_is_told_but_not_taken_for_it_may_be_a_mask(tmp_path):
    found = find_files(_folder(tmp_path, "7.png"), ["7.jpg"])
    assert found.paths == [""] and found.missing[0].detail == "no such file; 7.png is there, of another format"


@pytest.mark.parametrize("name", ["../secret.jpg", "../../secret.jpg", "a/../../secret.jpg", "{outside}/secret.jpg",
                                  ".", "..", "/", "a\0.jpg", "/dev/zero", "..\\secret.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused_though_the_file_is_there(name, tmp_path):
    _folder(tmp_path, "secret.jpg")
    found = find_files(_folder(tmp_path / "images", "a/0001.jpg"), [name.format(outside=tmp_path)])
    assert found.paths == [""]
    assert found.missing[0].kind in ("file name outside its folder", "missing image")
    assert (found.missing[0].kind == "missing image") == ("\\" in name)  # there it is a letter like any other


def test_an_absolute_name_within_the_folder_is_that_file(tmp_path):
    _folder(tmp_path / "real", "0001.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert _found(tmp_path / "link", str(tmp_path / "link" / "0001.jpg")) == "0001.jpg"
    assert _found(tmp_path / "link", str(tmp_path / "real" / "0001.jpg")) == "0001.jpg"


def test_links_in_the_users_own_folder_are_followed(tmp_path):
    _folder(tmp_path / "elsewhere", "0001.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0001.jpg").symlink_to(tmp_path / "elsewhere" / "0001.jpg")
    (tmp_path / "images" / "part").symlink_to(tmp_path / "elsewhere")
    assert [_found(tmp_path / "images", name) for name in ("0001.jpg", "part/0001.jpg")] == ["0001.jpg",
                                                                                             "part/0001.jpg"]


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "\udcff.jpg", "\ud800.jpg", "a\n\x1b[2J.jpg", "%FF%00.jpg", "",
                                  "%"])
def test_a_name_that_no_file_can_have_is_missing_and_shown_on_one_short_line(name, tmp_path):
    found = find_files(_folder(tmp_path, "0001.jpg"), [name])
    text = str(found.missing[0])
    assert found.paths == [""] and text.isprintable() and len(text) < 700


def test_a_folder_with_none_of_the_pictures_is_told_in_one_line(tmp_path):
    found = find_files(_folder(tmp_path, "x.jpg", "y.jpg"), [f"{i}.png" for i in range(7)])
    (problem,) = set(found.missing.values())
    assert problem.times == 7
    assert problem.detail == ("none of the 7 pictures is in this folder, nor one of nearly such a name; it holds 2 "
                              "pictures, such as x.jpg, and the annotations name 0.png: are these annotations of these "
                              "images?")


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert find_files(tmp_path / "nowhere", ["0001.jpg"]).paths == [""]


def test_check_training_and_the_sheet_read_the_file_that_is_meant(coco_set):
    path = coco_set.image("train", 1)
    coco_set.image("val", 2)
    path.rename(path.with_suffix(".PNG"))
    coco_set.split("val")["images"][0]["file_name"] = "val\\0002.png"
    root = coco_set.write()
    report = check_dataset(DataConfig(data=str(root)), 10, decode=True)
    report.refuse()
    assert {problem.kind for problem in report.problems} == {"file name that nearly matches"}
    dataset = CocoDetection(root / "train", root / "annotations" / "instances_train.json", Augmentation("none", 23, 37))
    assert dataset.file_of(0) == path.with_suffix(".PNG")
    assert dataset[(0, 0)][0].shape == (3, 23, 37)
    assert dataset.ground_truth()["images"][0]["file_name"] == "0001.png"  # as its owner calls it


def test_a_picture_that_is_nowhere_is_said_by_name_when_it_is_read(coco_set):
    coco_set.image("train", 1).unlink()
    root = coco_set.write()
    dataset = CocoDetection(root / "train", root / "annotations" / "instances_train.json", Augmentation("none", 23, 37))
    with pytest.raises(FileNotFoundError, match="there is no picture 0001.png in .*train"):
        dataset[(0, 0)]


def test_check_refuses_a_name_that_leads_out_of_the_folder_before_it_is_touched(coco_set, tmp_path):
    coco_set.image("val", 2)
    coco_set.image("train", 1).rename(coco_set.root / "0001.png")
    coco_set.split("train")["images"][0]["file_name"] = "../0001.png"
    report = check_dataset(DataConfig(data=str(coco_set.write())), 10, decode=True)
    with pytest.raises(ValueError, match="file name outside its folder: ../0001.png: it is no path below the folder"):
        report.refuse()


def test_pictures_that_were_converted_are_told_from_those_of_another_set(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number:04d}.jpg").touch()
    found = find_files(tmp_path, [f"{number:04d}.png" for number in range(5)])
    assert {problem.detail.partition(":")[0] for problem in found.missing.values()} == {
        "none of the 5 pictures is in this folder, but files of their names in another format are"}


def test_two_folders_of_the_same_names_are_told_as_that(tmp_path):
    for folder in ("a", "b"):
        for k in range(5):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{k}.jpg").touch()
    (missing,) = set(find_files(tmp_path, [f"{k}.jpg" for k in range(5)]).missing.values())
    assert "0.jpg may be a/0.jpg or b/0.jpg: take the folder that is not meant out" in missing.detail
