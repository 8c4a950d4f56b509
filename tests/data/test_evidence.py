"""What all boxes of a set look like together; real and sound sets are never refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.annotations import read_annotations
from scratch.data.coco import CocoDetection, find_splits
from scratch.data.evidence import best_ap, judge, same_boxes, sizes_as_corners, turned
from scratch.data.transforms import Augmentation
from scratch.evaluation.coco_eval import CocoEvaluator
from tests.conftest import SHARED


def sound(n: int, size=(640, 480), seed: int = 0, small: float = 0.05, large: float = 0.4):
    """N boxes anywhere in images of one size, whole pixels."""
    draw = np.random.default_rng(seed)
    size = np.array(size, dtype=float)
    sides = np.ceil(size * draw.uniform(small, large, (n, 2)))
    corners = np.floor((size - sides) * draw.uniform(0, 1, (n, 2)))
    return np.concatenate((corners, sides), axis=1), np.tile(size, (n, 1))


FORMS = {
    "normalised": lambda boxes, sizes: (boxes / np.tile(sizes, 2), sizes),
    "normalised, centres": lambda boxes, sizes: (np.concatenate(
        (boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]), axis=1) / np.tile(sizes, 2), sizes),
    "corners": lambda boxes, sizes: (np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1), sizes),
    "centres": lambda boxes, sizes: (np.concatenate((boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]), axis=1), sizes),
    "turned": lambda boxes, sizes: (boxes, sizes[:, ::-1]),
    "larger picture": lambda boxes, sizes: (4 * boxes, sizes),
}


@pytest.mark.parametrize("n", [40, 100, 3000])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form, words", [
    ("normalised", "normalised"), ("normalised, centres", "normalised"), ("corners", "fit as x0 y0 x1 y1"),
    ("centres", "with x y as the centre"), ("turned", "fit it turned"), ("larger picture", "on a larger picture")])
def test_boxes_in_another_form_are_certain(form, words, seed, n):
    found = judge(*FORMS[form](*sound(n, seed=seed)))
    assert found and found.certain and words in found.words


def test_a_question_is_followed_by_an_example_and_not_by_a_full_stop(coco_set):
    for id in range(1, 9):
        coco_set.image("train", id, Image.new("RGB", (50, 40)))
        coco_set.box("train", id, [60 + id, 50, 20, 20])
    with pytest.raises(ValueError, match=r"another one\? Such as \["):
        root = coco_set.write()
        CocoDetection(root / "train", root / "annotations" / "instances_train.json", Augmentation("none", 40, 66))


@pytest.mark.parametrize("form", ["normalised", "normalised, centres", "corners"])
@pytest.mark.parametrize("seed", range(4))
def test_a_dozen_boxes_are_enough_for_some(form, seed):
    assert judge(*FORMS[form](*sound(12, seed=seed))).certain


@pytest.mark.parametrize("n", [1, 2, 5, 12, 100, 3000])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size, small, large", [((640, 480), 0.05, 0.4), ((480, 640), 0.01, 0.1),
                                                ((640, 480), 0.7, 1.0), ((64, 64), 0.02, 0.9),
                                                ((4000, 3000), 0.001, 0.01), ((9, 9), 0.1, 0.5)])
def test_sound_boxes_of_all_sizes_are_never_doubted(size, small, large, seed, n):
    assert judge(*sound(n, size, seed, small, large)) is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slip", [1, 5, 12])
def test_boxes_that_overlap_the_border_by_a_hands_slip_are_not_certain_to_be_another_form(slip, seed):
    boxes, sizes = sound(300, seed=seed)
    boxes[:, :2] += np.random.default_rng(seed).uniform(-slip, slip, (300, 2))
    found = judge(boxes, sizes)
    assert found is None or not found.certain


@pytest.mark.parametrize("seed", range(4))
def test_centres_are_certain_where_few_boxes_are_near_a_border(seed):
    boxes, sizes = sound(1000, seed=seed, small=0.01, large=0.12)  # as in photographs of something in their middle
    boxes[:, :2] = 0.85 * boxes[:, :2] + 0.075 * sizes
    boxes[-25:, :2] = sizes[-25:] - boxes[-25:, 2:]                # but for some in a corner
    assert judge(boxes, sizes) is None
    found = judge(*FORMS["centres"](boxes, sizes))
    assert found and found.certain and "with x y as the centre" in found.words


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("leaving", [15, 60, 90])
def test_whole_people_who_leave_a_still_cameras_picture_below_are_not_certain_to_be_centres(leaving, seed):
    boxes, sizes = sound(2000, (1280, 720), seed, small=0.02, large=0.15)
    boxes[:, :2] = 0.8 * boxes[:, :2] + 0.15 * sizes
    boxes[:leaving, 1] = sizes[:leaving, 1] - 0.7 * boxes[:leaving, 3]
    found = judge(boxes, sizes)
    assert found is None or not found.certain


@pytest.mark.parametrize("seed", range(4))
def test_small_objects_at_one_border_are_not_certain_to_be_centres(seed):
    boxes, sizes = sound(5000, (4000, 3000), seed, small=0.001, large=0.01)
    boxes[:12, 0] = sizes[:12, 0] - 0.5 * boxes[:12, 2]
    found = judge(boxes, sizes)
    assert found is None or not found.certain


def test_one_box_far_outside_among_many_is_a_slip():
    boxes, sizes = sound(100)
    boxes[3] = [600, 400, 900, 900]
    assert judge(boxes, sizes) is None


def test_boxes_of_one_whole_pixel_in_the_corner_may_be_meant():
    found = judge(np.tile([0.0, 0, 1, 1], (5, 1)), np.tile([64.0, 64], (5, 1)))
    assert found and not found.certain


def test_a_single_normalised_box_is_certain():
    assert judge(np.array([[0.2, 0.3, 0.4, 0.5]]), np.array([[640, 480]])).certain


def test_a_set_that_is_normalised_in_part_is_likely_and_by_half_certain():
    boxes, sizes = sound(100)
    some = boxes.copy()
    some[:10] /= np.tile(sizes[:10], 2)
    assert judge(some, sizes).certain is False
    some[:50] = boxes[:50] / np.tile(sizes[:50], 2)
    assert judge(some, sizes).certain is True


def test_percent_is_likely_at_best():
    boxes, sizes = sound(200)
    found = judge(100 * boxes / np.tile(sizes, 2), sizes)
    assert found and not found.certain and "percent" in found.words


def test_a_few_corners_are_not_enough_to_be_certain():
    found = judge(*FORMS["corners"](*sound(4, seed=1)))
    assert found is None or not found.certain


def test_the_finding_points_at_a_box_that_shows_it():
    boxes, sizes = FORMS["corners"](*sound(50))
    shown = boxes[judge(boxes, sizes).example]
    assert shown[0] + shown[2] > 640 or shown[1] + shown[3] > 480


def test_pictures_that_a_camera_turned_need_less_evidence():
    boxes, sizes = np.array([[10.0, 400, 50, 200], [10, 500, 50, 100], [300, 10, 40, 40], [5, 5, 9, 9]]), \
        np.tile([640.0, 480], (4, 1))
    assert turned(boxes, sizes).certain and not judge(boxes, sizes).certain


@pytest.mark.parametrize("n", [12, 100, 3000])
@pytest.mark.parametrize("seed", range(4))
def test_sizes_under_the_names_of_corners_are_certain_and_corners_in_any_order_are_not(n, seed):
    boxes, sizes = sound(n, seed=seed)
    assert f"of {n:,} boxes are the wrong way round, and {n:,} boxes" in sizes_as_corners(boxes, sizes)
    corners = FORMS["corners"](boxes, sizes)[0]
    corners[::2] = corners[::2][:, [2, 1, 0, 3]]
    assert sizes_as_corners(corners, sizes) is None


def test_two_swapped_pairs_or_a_few_among_many_are_slips():
    boxes, sizes = np.tile([9.0, 9, 20, 20], (100, 1)), np.tile([640.0, 480], (100, 1))
    boxes[:9, 0] = 40
    assert sizes_as_corners(boxes, sizes) is None and sizes_as_corners(boxes[7:12], sizes[7:12]) is None
    boxes[9, 1] = 40
    assert sizes_as_corners(boxes, sizes)


def test_real_sets_are_not_doubted(bccd_dir, coco_dir):
    beside = [root for root in (SHARED / "data" / "coco_tiny", SHARED / "data" / "bccd") if root.exists()]  # whole sets
    for root in (bccd_dir, coco_dir, *beside):
        for folder, file in find_splits(DataConfig(data=str(root))).values():
            assert not [p for p in read_annotations(file).problems if p.kind.startswith("boxes ")]


def test_the_generated_shapes_are_not_doubted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = check_dataset(DataConfig(shapes_train=20, shapes_val=5), 100, decode=False)
    assert not [p for p in report.problems if p.severity != "note"]


# -- what stands there twice ---------------------------------------------------------------------------------------


def test_the_same_box_is_that_of_the_same_image_class_and_place():
    rows = np.array([0, 0, 0, 1, 0, 0])
    labels = np.array([0, 0, 1, 0, 0, 0])
    boxes = np.array([[1.0, 2, 3, 4]] * 4 + [[1.004, 2, 3, 4], [1.1, 2, 3, 4]])
    assert same_boxes(rows, labels, boxes).tolist() == [0, 0, 2, 3, 0, 5]


def test_of_no_boxes_none_is_the_same():
    assert same_boxes(np.empty(0, int), np.empty(0, int), np.empty((0, 4))).tolist() == []
    assert best_ap(np.empty(0, int), np.empty(0, int), np.empty(0, int), 100) is None


def test_the_best_ap_is_what_the_evaluator_gives_perfect_detections():
    draw = np.random.default_rng(7)
    rows, labels = np.repeat([0, 1, 2], [41, 7, 13]), draw.integers(0, 3, 61)
    boxes = np.stack([10.0 * np.arange(61), np.full(61, 5.0), np.full(61, 8.0), np.full(61, 9.0)], axis=1)
    for twin in (3, 11, 19, 44):  # the same box again
        rows, labels = np.append(rows, rows[twin]), np.append(labels, labels[twin])
        boxes = np.concatenate((boxes, boxes[twin:twin + 1]))
    first = same_boxes(rows, labels, boxes)
    entries = [{"image_id": int(row), "category_id": int(label) + 1, "bbox": box}
               for row, label, box in zip(rows, labels, boxes.tolist())]
    truth = {"images": [{"id": id} for id in range(3)], "annotations": entries}
    for most in (100, 5):
        evaluator = CocoEvaluator(truth, (1, 2, 3), ("a", "b", "c"), most)
        evaluator.results = [{**entry, "score": 0.5} for k, entry in enumerate(entries) if first[k] == k]
        assert evaluator.summary()["AP"] == pytest.approx(best_ap(rows, labels, first, most), abs=1e-12)
