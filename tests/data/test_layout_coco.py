"""COCO's files in other places: which of them are taken, with which pictures, and Roboflow's category that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.check import check_dataset
from scratch.data.coco import find_layout, find_splits
from scratch.data.layout_coco import coco_files
from scratch.data.listing import doubts, list_folder, split_of
from tests.layouts import CLASSES, document, draw, roboflow, write


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json.dumps({"images": [{"id": 1, "file_name": "é 1.jpg"}]}).encode()
                         if name.endswith(".json") else b"")
    return root


@pytest.mark.parametrize("train, val", [
    (("train/_annotations.coco.json", "train/é 1.jpg"), ("valid/_annotations.coco.json", "valid/é 1.jpg")),
    (("annotations/instances_Train.json", "images/Train/é 1.jpg"),
     ("annotations/instances_Validation.json", "images/Validation/é 1.jpg")),
    (("annotations/instances_train.json", "images/train/é 1.jpg"),
     ("annotations/instances_val.json", "images/val/é 1.jpg")),
    (("train.json", "images/é 1.jpg"), ("val.json", "images/é 1.jpg")),
    (("a b/labels_train.json", "a b/pictures/é 1.jpg"), ("a b/labels_val.json", "a b/pictures/é 1.jpg")),
])
def test_a_file_is_found_with_the_folder_of_its_pictures(train, val, tmp_path):
    root = put(tmp_path / "my set", *train, *val)
    assert coco_files(list_folder(root)).pairs == {
        split: ((root / picture).parent, root / file) for split, (file, picture) in (("train", train), ("val", val))}


@pytest.mark.parametrize("below", ["data", "images", "images/default"])
def test_pictures_of_the_same_names_are_those_nearest_to_their_file(below, tmp_path):
    names = ("labels.json", f"{below}/é 1.jpg")
    root = put(tmp_path, *(f"{split}/{name}" for split in ("train", "val") for name in names))
    assert coco_files(list_folder(root)).pairs == {
        split: (root / split / below, root / split / "labels.json") for split in ("train", "val")}
    (root / "val").rename(root / "other")
    (root / "train").rename(root / "another")
    root = root / "other"
    assert coco_files(list_folder(root)).pairs == {"all": (root / below, root / "labels.json")}


@pytest.mark.parametrize("folders, order", [(2, "spread"), (3, "spread"), (5, "spread"), (2, "in turn")])
def test_pictures_in_several_folders_are_found_by_their_names_alone(folders, order, tmp_path):
    pictures = draw(90)
    for k, p in enumerate(pictures):
        p.save(tmp_path / "pics" / f"camera {k % folders if order == 'spread' else k * folders // 90}")
    write(tmp_path / "all.json", document(pictures))
    splits = find_splits(DataConfig(data=str(tmp_path)))
    assert [folder for folder, _ in splits.values()] == [tmp_path / "pics"] * 2
    report = check_dataset(DataConfig(data=str(tmp_path)), 100, decode=False)
    assert not [p for p in report.problems if p.severity == "refused"]


def test_pictures_in_two_folders_beside_masks_of_their_names_are_all_found(tmp_path):
    pictures = draw(12)
    for k, p in enumerate(pictures):
        for kind in ("images", "masks"):
            p.save(tmp_path / "data" / f"{'train' if k < 9 else 'val'}_{kind}")
    write(tmp_path / "annotations" / "annotations.json", document(pictures))
    report = check_dataset(DataConfig(data=str(tmp_path)), 100, decode=False)
    assert not [p for p in report.problems if p.severity == "refused"]
    assert {p.kind for p in report.problems} >= {"file name that nearly matches"}


def test_a_folder_of_a_json_file_a_picture_does_not_hide_the_set(tmp_path):
    root = put(tmp_path, *(f"a/{k}.json" for k in range(40)), "pics/é 1.jpg", "z/labels.json")
    for k in range(40):
        write(root / f"a/{k}.json", {})
    assert coco_files(list_folder(root)).pairs == {"all": (root / "pics", root / "z/labels.json")}


def test_of_several_sets_none_is_taken_but_one_around_the_others_is(tmp_path):
    names = ("annotations/instances_default.json", "images/default/é 1.jpg")
    root = put(tmp_path, *(f"{task}/{name}" for task in ("task 1", "task 2") for name in names))
    with pytest.raises(FileNotFoundError, match="Did you mean .*task 1.* or .*task 2"):
        find_layout(DataConfig(data=str(root)))
    put(root, *names)
    found = coco_files(list_folder(root))
    assert found.pairs == {"all": (root / "images/default", root / names[0])} and len(found.more) == 2


def test_of_cocos_own_files_those_with_boxes_are_taken(tmp_path):
    root = put(tmp_path, "annotations/captions_train.json", "annotations/instances_train.json",
               "annotations/image_info_test.json", "annotations/person_keypoints_train.json", "pics/é 1.jpg")
    assert {split: file.name for split, (_, file) in coco_files(list_folder(root)).pairs.items()} == {
        "train": "instances_train.json"}


def test_of_two_files_without_a_split_one_is_read_and_the_other_named(tmp_path):
    pictures = draw(8)
    for p in pictures:
        p.save(tmp_path / "images")
    write(tmp_path / "annotations.json", document(pictures))
    write(tmp_path / "annotations_old.json", document(pictures[:4]))
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert "annotations.json; not read: annotations_old.json" in layout.line()


def test_a_file_whose_pictures_come_last_is_found_too(tmp_path):
    pictures = draw(3)
    for p in pictures:
        p.save(tmp_path / "images")
    content = document(pictures)
    long = [{**content["annotations"][0], "note": "x" * 1000}] * 1500  # more than is read of the beginning
    write(tmp_path / "set.json", json.dumps({"annotations": long, "categories": content["categories"],
                                             "images": content["images"]}))
    assert find_layout(DataConfig(data=str(tmp_path))).name == "one COCO file"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"file_name": "\\u0000"}', b'{"file_name": 7}', b"[" * 9999,
                                     b'{"file_name": "../outside.jpg"}', b'[{"file_name": "a.jpg"}]',
                                     b'{"file_name": "' + b"a" * 9999 + b'"}'])
def test_nothing_in_a_json_file_stops_the_search(content, tmp_path):
    put(tmp_path / "set", "images/a.jpg")
    put(tmp_path, "outside.jpg")
    (tmp_path / "set" / "x.json").write_bytes(content)
    assert not coco_files(list_folder(tmp_path / "set")).pairs


@pytest.mark.parametrize("name, split", [
    ("train", "train"), ("Training", "train"), ("instances_Train", "train"), ("val2017", "val"), ("valid", "val"),
    ("Validation", "val"), ("test-dev", "test"), ("dev", "val"), ("device", None),
    ("validate", "val"), ("eval", None), ("evaluation", None), ("retrieval", None),
    ("testing", "test"), ("trainval", None), ("latest", None),
    ("strain", None), ("train_val", None), ("images", None)])
def test_a_name_says_of_which_split_it_is(name, split):
    assert split_of(name) == split


# -- Roboflow's category 0 -----------------------------------------------------------------------------------------


def classes_of(root: Path) -> tuple[str, ...]:
    folder, source = find_splits(DataConfig(data=str(root)))["train"]
    return read_annotations(source, folder=folder).classes.names


def changed(root: Path, split: str, change) -> Path:
    file = root / split / "_annotations.coco.json"
    content = json.loads(file.read_text())
    change(content)
    write(file, content)
    return root


def test_roboflows_category_0_is_no_class(tmp_path):
    assert classes_of(roboflow(tmp_path, {"train": draw(4), "val": draw(3, 1)})) == CLASSES


@pytest.mark.parametrize("split", ["train", "valid"])
def test_it_is_one_where_a_box_of_any_split_uses_it(split, tmp_path):
    root = roboflow(tmp_path, {"train": draw(4), "val": draw(3, 1)})
    changed(root, split, lambda content: content["annotations"][0].update(category_id=0))
    assert classes_of(root) == ("insects", *CLASSES)


def test_a_class_0_that_is_no_ones_supercategory_stays(tmp_path):
    root = roboflow(tmp_path, {"train": draw(4), "val": draw(3, 1)})
    for split in ("train", "valid"):
        changed(root, split, lambda content: [c.update(supercategory="none") for c in content["categories"]])
    assert classes_of(root) == ("insects", *CLASSES)


def test_ids_that_are_one_number_written_in_two_ways_stay_together(tmp_path):
    pictures = draw(16)
    for p in pictures:
        p.save(tmp_path / "images")
    content = document(pictures)
    for k, annotation in enumerate(content["annotations"]):
        annotation["image_id"] = (str, float, "{}.0".format)[k % 3](annotation["image_id"])
    write(tmp_path / "result.json", content)
    read = [read_annotations(source, folder=folder) for folder, source in
            find_splits(DataConfig(data=str(tmp_path))).values()]
    assert [len(a) > 0 for a in read] == [True, True]
    assert sum(len(a.labels) for a in read) == len(content["annotations"])


def test_in_a_divided_set_what_is_no_entry_is_told_once(tmp_path):
    pictures = draw(12)
    for p in pictures:
        p.save(tmp_path / "images")
    content = document(pictures)
    content["images"].insert(3, "nonsense")
    content["annotations"].insert(2, {"id": 99, "image_id": 12345, "category_id": 1, "bbox": [1, 1, 2, 2]})
    write(tmp_path / "result.json", content)
    problems = [problem for folder, source in find_splits(DataConfig(data=str(tmp_path))).values()
                for problem in read_annotations(source, folder=folder).problems if problem.severity == "refused"]
    assert sorted(problem.kind for problem in problems) == ["malformed entry", "unknown image id"]


def test_what_a_detector_found_is_read_only_where_there_is_nothing_else(tmp_path):
    pictures = draw(6)
    for p in pictures:
        p.save(tmp_path / "data")
    content = document(pictures)
    for k, annotation in enumerate(content["annotations"]):
        annotation["score"] = 0.9 / (k + 1)
    write(tmp_path / "detections.json", content)
    assert "one COCO file (detections.json)" in find_layout(DataConfig(data=str(tmp_path))).line()
    write(tmp_path / "labels.json", document(pictures))
    assert "one COCO file (labels.json; not read: detections.json)" in find_layout(DataConfig(data=str(tmp_path))).line()


def test_keypoints_have_boxes_which_are_read_where_no_other_file_has_them(tmp_path):
    root = put(tmp_path, "annotations/person_keypoints_default.json", "annotations/captions_default.json", "pics/é 1.jpg")
    assert coco_files(list_folder(root)).pairs == {
        "all": (root / "pics", root / "annotations/person_keypoints_default.json")}
    (root / "annotations/person_keypoints_default.json").unlink()
    assert not coco_files(list_folder(root)).pairs


def test_two_such_folders_are_told_and_none_is_taken(tmp_path):
    pictures = draw(3)
    for p in pictures:
        p.save(tmp_path / "left")
        p.save(tmp_path / "right")
    write(tmp_path / "annotations.json", document(pictures))
    with pytest.raises(ValueError, match=r"annotations.json are in left/ and in right/: take the folder that is not meant"):
        find_splits(DataConfig(data=str(tmp_path)))


def test_pictures_that_were_converted_are_told(tmp_path):
    pictures = draw(6)
    for p in pictures:
        p.save(tmp_path / "set" / "images", Path(p.name).stem + ".png")
    write(tmp_path / "set" / "labels.json", document(pictures, name=lambda name: Path(name).stem + ".jpg"))
    with pytest.raises(FileNotFoundError, match="labels.json names pictures, but none of the .* in another format .*"
                                                "If the pictures were converted, change the names"):
        find_splits(DataConfig(data=str(tmp_path / "set")))


@pytest.mark.parametrize("file", ["annotations.json", "annotations/instances_default.json"])
@pytest.mark.parametrize("meant, other", [("images", "annotated"), ("rgb", "depth"), ("frames", "masks"), ("data", "a"),
                                          ("images/train", "masks/train"), ("rgb/train", "depth/train"),
                                          ("frames", "annotated/images"), ("", "resized"), ("visible", "masks")])
def test_originals_are_known_by_any_folder_of_their_path_and_by_their_nearness(meant, other, file, tmp_path):
    pictures = draw(3)
    for p in pictures:
        p.save(tmp_path / meant)
        p.save(tmp_path / other)
    write(tmp_path / file, document(pictures))
    assert [folder for folder, _ in coco_files(list_folder(tmp_path)).pairs.values()] == [tmp_path / meant]


def test_visible_and_infrared_pictures_are_both_originals():
    assert doubts("visible") == doubts("infrared") == doubts("division") == doubts("unlabelled") == (False, True)
    assert doubts("data/vis") == (True, False) and doubts("x/Images/train") == (False, False)


def test_what_a_detector_found_is_no_splits_truth(tmp_path):
    root = put(tmp_path, "images/é 1.jpg")
    write(root / "instances_train.json", {"images": [{"file_name": "é 1.jpg"}]})
    for scores, splits in ((0.5, 0.7), ["train"]), ((1, 1), ["train", "val"]):  # always the same: no detector's
        annotations = [{"score": score} for score in scores]
        write(root / "val_results.json", {"images": [{"file_name": "é 1.jpg"}], "annotations": annotations})
        found = coco_files(list_folder(root))
        assert list(found.pairs) == splits and found.more == (root / "val_results.json",) * (splits == ["train"])
