"""summary: a data set in a few numbers, and whether its pictures have an up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scratch.data.annotations import read_annotations
from scratch.data.summary import looks_the_same_turned, summarise


def boxes_all_over(count: int, width: float = 20, height: float = 20) -> tuple[np.ndarray, np.ndarray]:
    """Boxes on a lattice over pictures of 400×300, and the size of the picture of each."""
    u = (np.arange(count) + 0.5) / count                                            # (M,)
    v = (np.arange(count) * 0.6180339887) % 1
    boxes = np.stack((u * (400 - width), v * (300 - height), np.full(count, width), np.full(count, height)), axis=1)
    return boxes, np.tile([400.0, 300.0], (count, 1))


def test_a_split_of_three_pictures_by_hand(coco_set: Any) -> None:
    for id in (1, 2, 3):
        coco_set.image("train", id)  # 37×23, with a box of 11×7
    coco_set.box("train", 2, [0, 0, 8, 8], category_id=7)
    coco_set.box("train", 2, [5, 5, 9, 9], iscrowd=1)
    summary = summarise(read_annotations(coco_set.write() / "annotations" / "instances_train.json"))
    assert (summary.pictures, summary.classes, summary.boxes) == (3, 2, 4)
    assert summary.most_objects == 2
    # No class has twenty boxes, so they are taken together; three of the four have √77 pixels, one has 8.
    assert summary.small_object == pytest.approx((8 + 0.75 * (77**0.5 - 8)) / (37 * 23)**0.5)
    assert not summary.turnable


def test_the_class_of_the_smallest_objects_says_what_is_small(coco_set: Any) -> None:
    coco_set.image("train", 1)
    for _ in range(60):
        coco_set.box("train", 1, [0, 0, 16, 16])
    for _ in range(20):
        coco_set.box("train", 1, [0, 0, 4, 4], category_id=7)
    assert summarise(read_annotations(coco_set.write() / "annotations" / "instances_train.json")).small_object == pytest.approx(
        4 / (37 * 23)**0.5)


def test_a_class_of_a_few_boxes_does_not_say_what_is_small(coco_set: Any) -> None:
    coco_set.image("train", 1)
    for _ in range(60):
        coco_set.box("train", 1, [0, 0, 16, 16])
    coco_set.box("train", 1, [0, 0, 2, 2], category_id=7)
    assert summarise(read_annotations(coco_set.write() / "annotations" / "instances_train.json")).small_object == pytest.approx(
        16 / (37 * 23)**0.5)


def test_a_split_without_a_box_is_summarised_too(coco_set: Any) -> None:
    coco_set.image("train", 1)
    coco_set.split("train")["annotations"].clear()
    summary = summarise(read_annotations(coco_set.write() / "annotations" / "instances_train.json"))
    assert (summary.boxes, summary.small_object, summary.most_objects) == (0, 0.0, 0)


def test_square_boxes_all_over_the_picture_look_the_same_turned() -> None:
    assert looks_the_same_turned(*boxes_all_over(400), 40)


@pytest.mark.parametrize("width, height", [(20, 25), (25, 20)])
def test_boxes_that_are_taller_or_wider_have_an_up(width: float, height: float) -> None:
    assert not looks_the_same_turned(*boxes_all_over(400, width, height), 40)


def test_boxes_along_a_horizon_have_an_up() -> None:
    boxes, sides = boxes_all_over(400)
    boxes[:, 1] = 140 + (boxes[:, 1] - 140) / 3
    assert not looks_the_same_turned(boxes, sides, 40)


def test_boxes_of_the_lower_half_have_an_up() -> None:
    boxes, sides = boxes_all_over(400)
    boxes[:, 1] += 30
    assert not looks_the_same_turned(boxes, sides, 40)


def changed(boxes: np.ndarray, axis: int, spread: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """The boxes with their centres spread and shifted along an axis, in shares of a picture of 400×300."""
    side = (400.0, 300.0)[axis]
    centres = (boxes[:, axis] + boxes[:, axis + 2] / 2) / side
    centres = centres.mean() + (centres - centres.mean()) * spread + shift
    return np.where(np.arange(4) == axis, centres[:, None] * side - boxes[:, axis + 2, None] / 2, boxes)


@pytest.mark.parametrize("inside", [0.99, 1.01])
@pytest.mark.parametrize("sign", [-1, 1])
def test_how_much_alike_the_sides_must_be(sign: int, inside: float) -> None:
    """On both sides of each threshold: within 10 % in shape and in spread, and 5 % of the height from the middle."""
    boxes, sides = boxes_all_over(400)
    centres = (boxes[:, :2] + boxes[:, 2:] / 2) / sides
    ratio = centres[:, 0].std() / centres[:, 1].std()
    wide = boxes_all_over(400, 20 * np.exp(sign * 0.1 * inside))[0]
    spread = changed(boxes, 0, np.exp(sign * 0.1 * inside) / ratio)
    low = changed(boxes, 1, shift=0.5 - centres[:, 1].mean() + sign * 0.05 * inside)
    assert [looks_the_same_turned(some, sides, 40) for some in (wide, spread, low)] == [inside < 1] * 3


def test_how_many_boxes_tell() -> None:
    boxes, sides = boxes_all_over(400)
    assert looks_the_same_turned(*boxes_all_over(200), 50) and not looks_the_same_turned(*boxes_all_over(199), 49)
    assert looks_the_same_turned(boxes, sides, 100) and not looks_the_same_turned(boxes, sides, 101)


@pytest.mark.filterwarnings("error")  # of a division by the spread of 0
def test_boxes_in_a_row_do_not_tell() -> None:
    boxes, sides = boxes_all_over(400)
    boxes[:, 1] = 140.0
    assert not looks_the_same_turned(boxes, sides, 40)


def test_the_summary_of_a_split_says_whether_its_pictures_have_an_up(coco_set: Any) -> None:
    coco_set.image("train", 1)
    coco_set.split("train")["annotations"].clear()
    for x in range(15):  # over a picture of 37×23
        for y in range(15):
            coco_set.box("train", 1, [1.6 * x + 4, y + 1.5, 6, 6])
    summary = summarise(read_annotations(coco_set.write() / "annotations" / "instances_train.json"))
    assert summary.turnable and summary.boxes == 225


@pytest.mark.filterwarnings("error")
def test_boxes_on_one_spot_do_not_tell() -> None:
    assert not looks_the_same_turned(np.tile([190.0, 140.0, 20, 20], (400, 1)), np.tile([400.0, 300.0], (400, 1)), 40)
