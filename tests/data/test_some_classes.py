"""--classes: a detector of some of the data's classes, labelled in the order in which they were named."""

from __future__ import annotations

import pytest

from scratch.data.annotations import read_annotations
from scratch.data.classes import Classes
from scratch.data.coco import CocoDetection
from scratch.data.transforms import Augmentation

SHOW = Augmentation("none", 23, 37)
ANIMALS = Classes((3, 7, 9), ("cat", "dog", "traffic light"))


def opened(coco_set, split="train", **arguments) -> CocoDetection:
    root = coco_set.write()
    return CocoDetection(root / split, root / "annotations" / f"instances_{split}.json", SHOW, **arguments)


def test_classes_are_labelled_in_the_order_given():
    assert ANIMALS.only("traffic light, cat") == Classes((9, 3), ("traffic light", "cat"))


@pytest.mark.parametrize("names, words", [
    ("cat,dgo", "got 'dgo' among the classes.*did you mean dog"), ("", "got ''"), ("cat,", "got ''"),
    ("cat,dog,cat", "'cat' among the classes 2 times"),
])
def test_an_unknown_class_is_refused_with_near_ones(names, words):
    with pytest.raises(ValueError, match=words):
        ANIMALS.only(names)


ODD = Classes((1, 2, 3, 4, 5, 6), ("cup, mug", "a/b", "a\\b", "cat", "cat", "dog\n"))


@pytest.mark.parametrize("names, ids", [
    ("cup\\, mug", (1,)), ("cup, mug", (1,)), ("a/b,cup\\, mug", (2, 1)), ("a\\b", (3,)), ("a\\\\b,a/b", (3, 2)),
    ("cat (5)", (5,)), ("cat (4), cat (5)", (4, 5)), ("dog", (6,)), ("dog\n", (6,)),
])
def test_every_class_can_be_chosen_whatever_its_name(names, ids):
    chosen = ODD.only(names)
    assert chosen.ids == ids and chosen.names == tuple(dict(zip(ODD.ids, ODD.names))[id] for id in ids)


def test_a_blank_class_can_be_chosen():
    assert Classes((1, 2), ("", "cat")).only("").ids == (1,)


def test_a_name_of_two_classes_is_refused_with_both():
    with pytest.raises(ValueError, match="got 'cat' among the classes, which 2 classes are called; wanted 'cat .4.' or "
                                         "'cat .5.'"):
        ODD.only("cat")


def test_names_that_are_near_are_shown_as_they_are_to_be_typed():
    with pytest.raises(ValueError, match=r"did you mean cup\\, mug\?"):
        ODD.only("cup\\, mut")


def test_it_is_told_how_a_comma_is_written_where_there_is_one():
    with pytest.raises(ValueError, match=r"got 'cup' among .*a comma in a name is written as \\,"):
        ODD.only("cup,a/b")


def test_of_a_detectors_classes_some_are_judged_and_labelled_as_it_learnt_them(coco_set):
    coco_set.image("val", 1)  # a cat
    coco_set.box("val", 1, [5, 5, 4, 4], category_id=7)
    dataset = opened(coco_set, "val", classes=Classes((3, 7), ("cat", "dog")), only="dog")
    assert dataset.classes.names == ("cat", "dog") and dataset[(0, 0)][1]["labels"].tolist() == [1]


def test_a_class_that_a_detector_does_not_know_is_refused_with_near_ones(coco_set):
    coco_set.image("val", 1)
    with pytest.raises(ValueError, match="got 'dgo' among the classes.*did you mean dog"):
        opened(coco_set, "val", classes=Classes((3, 7), ("cat", "dog")), only="dgo")


def test_boxes_of_other_classes_are_left_out_and_their_images_stay(coco_set):
    coco_set.image("train", 1)  # a cat
    coco_set.image("train", 2)
    coco_set.box("train", 2, [5, 5, 4, 4], category_id=7)
    dataset = opened(coco_set, only="dog")
    assert dataset.classes == Classes((7,), ("dog",)) and len(dataset) == 2
    assert [dataset[(0, i)][1]["labels"].tolist() for i in (0, 1)] == [[], [0]]
    assert [a["category_id"] for a in dataset.ground_truth()["annotations"]] == [7]
    assert dataset.cleaning == {"image without boxes": 1}


def test_another_split_leaves_out_the_same(coco_set):
    coco_set.image("val", 1)
    coco_set.box("val", 1, [5, 5, 4, 4], category_id=7)
    dataset = opened(coco_set, "val", classes=Classes((7,), ("dog",)), only="dog")
    assert dataset[(0, 0)][1]["labels"].tolist() == [0] and len(dataset.ground_truth()["annotations"]) == 1


def test_a_class_that_no_category_of_the_file_names_stays_a_problem(coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, [5, 5, 4, 4], category_id=8)
    with pytest.raises(ValueError, match="unknown category id: .*category_id 8 is not among the file's 2 categories "):
        opened(coco_set, only="dog")


def test_without_a_choice_a_class_that_the_labels_do_not_count_is_refused_as_before(coco_set):
    coco_set.image("val", 1)
    root = coco_set.write()
    found = read_annotations(root / "annotations" / "instances_val.json", Classes((7,), ("dog",)))
    assert [problem.kind for problem in found.problems][0] == "unknown category id"
