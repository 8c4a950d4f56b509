"""Values of the wrong type: read as what was meant everywhere, or refused in words; never taken for something else."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from scratch.data.annotations import read_annotations
from scratch.data.coco import CocoDetection
from scratch.data.transforms import Augmentation

SHOW = Augmentation("none", 23, 37)


def opened(coco_set, split="train", **arguments) -> CocoDetection:
    root = coco_set.write()
    return CocoDetection(root / split, root / "annotations" / f"instances_{split}.json", SHOW, **arguments)


@pytest.mark.parametrize("value", [0, 0.0, False, None, "0", "False", "false", ""])
def test_a_box_that_is_no_crowd_is_learnt_however_no_is_written(value, coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["annotations"][0]["iscrowd"] = value
    dataset = opened(coco_set)
    assert dataset.cleaning == {} and len(dataset[(0, 0)][1]["boxes"]) == 1


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "True", "true"])
def test_a_crowd_is_left_out_however_yes_is_written(value, coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, [0, 0, 30, 20], iscrowd=value)
    dataset = opened(coco_set)
    assert dataset.cleaning == {"crowd box": 1} and len(dataset[(0, 0)][1]["boxes"]) == 1


@pytest.mark.parametrize("value", [2, -1, 0.5, "yes", "no", [], [1], {}])
def test_a_crowd_mark_that_is_neither_is_refused(value, coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["annotations"][0]["iscrowd"] = value
    with pytest.raises(ValueError, match="malformed entry: .* of 0001.png: iscrowd is .*, wanted 0 or 1"):
        opened(coco_set)


def test_a_class_that_is_called_by_a_number_has_its_text_as_name(coco_set):
    coco_set.image("train", 1)
    for category, name in zip(coco_set.split("train")["categories"], (0, 1.5)):
        category["name"] = name
    assert opened(coco_set).classes.names == ("0", "1.5")


def test_box_values_and_areas_as_text_are_numbers(coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, ["1.5", " 2 ", "6", "5e0"], area="17.5")
    truth = opened(coco_set).ground_truth()["annotations"][1]
    assert truth["bbox"] == [1.5, 2.0, 6.0, 5.0] and truth["area"] == 17.5


@pytest.mark.parametrize("bbox", [["1", "2", "3", "x"], ["nan", 1, 2, 3], ["1,5", 1, 2, 3], [True, 1, 2, 3],
                                  [[1], [2], [3], [4]], [[1, 2], [3, 4]], {"x": 1, "y": 2, "width": 3, "height": 4},
                                  "1 2 3 4", [1, 2, 3, 4, 5], [], None, 5, [1, 2, 3, {}], ["", 1, 2, 3]])
def test_box_values_that_are_no_numbers_are_malformed(bbox, coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, bbox)
    with pytest.raises(ValueError, match="1 to be put right:\n  malformed entry: .* bbox is "):
        opened(coco_set)


def test_a_segmentation_alone_is_said_to_lack_its_box(coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, None, segmentation=[[1, 2, 3, 4, 5, 6]])
    with pytest.raises(ValueError, match="malformed entry: .*it has a segmentation and no bbox"):
        opened(coco_set)


@pytest.mark.parametrize("area", [True, "large", -1, None, "nan", [], 1e300, 10**400])
def test_an_area_that_cannot_be_one_is_the_boxes(area, coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, [1, 2, 6, 5], area=area)
    assert opened(coco_set).ground_truth()["annotations"][1]["area"] == 30


@pytest.mark.parametrize("kind", [str, float, lambda id: f" {id}.0 "])
@pytest.mark.parametrize("where", ["image", "image_id", "category", "category_id", "all"])
def test_an_id_means_the_same_however_it_is_written(where, kind, coco_set):
    coco_set.image("train", 5)
    document = coco_set.split("train")
    document["annotations"].append({**document["annotations"][0], "id": 9, "category_id": 7, "bbox": [1, 1, 5, 5]})
    for name, entries, key in (("image", "images", "id"), ("image_id", "annotations", "image_id"),
                               ("category", "categories", "id"), ("category_id", "annotations", "category_id")):
        document[entries] = [{**entry, key: kind(entry[key])} if where in (name, "all") else entry
                             for entry in document[entries]]
    dataset = opened(coco_set)
    assert dataset.classes.ids == (3, 7) and dataset.annotations.image_ids.tolist() == [5]
    assert [(a["image_id"], a["category_id"]) for a in dataset.ground_truth()["annotations"]] == [(5, 3), (5, 7)]


def test_one_id_as_number_and_as_text_is_one_id(coco_set):
    coco_set.image("train", 5)
    coco_set.split("train")["images"].append({**coco_set.split("train")["images"][0], "id": "5", "file_name": "b.png"})
    with pytest.raises(ValueError, match="duplicate image id: .*image 5: 0005.png and b.png"):
        opened(coco_set)


@pytest.mark.parametrize("id", [True, "one", 1.5, [1], {"a": 1}, None, 2**63, 10**30, float("nan")])
def test_an_image_id_of_another_kind_is_refused_once_and_not_again_for_its_boxes(id, coco_set):
    coco_set.image("train", 1)
    coco_set.image("train", 2)
    document = coco_set.split("train")
    document["images"][1]["id"] = id
    document["annotations"][1]["image_id"] = id
    with pytest.raises(ValueError, match="1 to be put right:\n  malformed entry: .*0002.png: got the id .*wanted a "):
        opened(coco_set)


@pytest.mark.parametrize("id", [True, "x", 1.5, [1], None])
def test_an_id_that_names_no_image_is_refused_with_what_it_was(id, coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["annotations"][0]["image_id"] = id
    with pytest.raises(ValueError, match="unknown image id: .*image_id .* is no image of the file"):
        opened(coco_set)


def test_an_annotation_without_an_image_id_is_refused_as_such(coco_set):
    coco_set.image("train", 1)
    del coco_set.split("train")["annotations"][0]["image_id"]
    with pytest.raises(ValueError, match="unknown image id: .*: it has no image_id"):
        opened(coco_set)


@pytest.mark.parametrize("id", [True, "x", 1.5, [1], None])
def test_a_category_id_of_another_kind_is_refused(id, coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["annotations"][0]["category_id"] = id
    with pytest.raises(ValueError, match="unknown category id: .*category_id .* is not among the file's 2 categories"):
        opened(coco_set)


@pytest.mark.parametrize("name", [True, None, [], {"en": "cat"}])
def test_a_class_name_that_is_no_text_is_refused_once_and_not_again_for_its_boxes(name, coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["categories"][0]["name"] = name
    with pytest.raises(ValueError, match="1 to be put right:\n  malformed entry: .*category 3 has the name .*a text"):
        opened(coco_set)


@pytest.mark.parametrize("size", [{"width": "37", "height": "23"}, {"width": 37.0, "height": "23.0"}])
def test_a_size_as_text_is_a_size(size, coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["images"][0].update(size)
    dataset = opened(coco_set)
    assert dataset.cleaning == {} and dataset.annotations.sizes.tolist() == [[37, 23]]


@pytest.mark.parametrize("size", [{"width": -1, "height": -1}, {"width": 0, "height": 0}, {"width": None},
                                  {"height": "23px"}, {"width": True}, {"width": [37]}, {"width": 37.5},
                                  {"height": 10**30}])
def test_a_size_that_is_none_is_taken_from_the_picture_and_told(size, coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["images"][0].update(size)
    dataset = opened(coco_set)
    assert dataset.cleaning == {"size taken from the picture": 1}
    assert dataset.annotations.sizes.tolist() == [[37, 23]] and len(dataset[(0, 0)][1]["boxes"]) == 1


def test_a_size_from_a_turned_photograph_is_the_upright_one(coco_set):
    exif = Image.Exif()
    exif[274] = 6
    coco_set.image("train", 1, Image.new("RGB", (37, 23), "teal"), "jpg", exif=exif)
    del coco_set.split("train")["images"][0]["width"]
    assert opened(coco_set).annotations.sizes.tolist() == [[23, 37]]


def test_a_size_that_neither_the_annotation_nor_the_file_tells_is_refused_and_its_boxes_are_not(coco_set):
    path = coco_set.image("train", 1)
    coco_set.image("train", 2)
    path.write_bytes(b"no picture")
    del coco_set.split("train")["images"][0]["height"]
    with pytest.raises(ValueError, match="1 to be put right:\n  malformed entry: .*0001.png: it has no usable width"):
        opened(coco_set)
    found = read_annotations(coco_set.root / "annotations" / "instances_train.json")  # no folder of pictures is known
    assert [problem.kind for problem in found.problems if problem.severity == "refused"] == ["malformed entry"]


def test_only_images_in_use_are_opened_for_their_sizes(coco_set):
    for id in (1, 2):
        path = coco_set.image("train", id)
        coco_set.split("train")["images"][-1].update(width=0)
    path.unlink()
    assert opened(coco_set, limit=1).cleaning == {"size taken from the picture": 1}


@pytest.mark.parametrize("name, said", [("a" * 1025, "1,025 letters"), ("a\0b.png", "NUL"), ("", "and a file_name"),
                                        (7, "and a file_name"), (None, "and a file_name")])
def test_a_file_name_that_no_file_can_have_is_refused_once(name, said, coco_set):
    coco_set.image("train", 1)
    coco_set.image("train", 2)
    coco_set.split("train")["images"][0]["file_name"] = name
    with pytest.raises(ValueError, match=f"malformed entry: .*{said}") as error:
        opened(coco_set)
    assert "1 to be put right" in str(error.value) and len(str(error.value)) < 600


def test_numbers_out_of_floats_are_judged_like_any_box(coco_set):
    coco_set.image("train", 1)
    path = coco_set.write() / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = "BOX"
    for text, kind in (("[1e308, 1, 1e308, 5]", "box outside the image"), ("[1, 1, 1e308, 1e308]", "box out of range"),
                       ("[-1e308, 1, 1e308, 5]", "box outside the image"), ("[1e999, 1, 2, 5]", "NaN box"),
                       ("[1, 1, NaN, 5]", "NaN box"), ("[1, 1, -Infinity, 5]", "NaN box")):
        path.write_text(json.dumps(document).replace('"BOX"', text))
        assert kind in [problem.kind for problem in read_annotations(path).problems]
