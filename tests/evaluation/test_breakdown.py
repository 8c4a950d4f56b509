"""The parts of a split have the AP that pycocotools gives to each part alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scratch.evaluation.breakdown import CURVE_IOUS, by_class, by_number, by_size
from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.matching import coco_evaluation
from tests.evaluation.test_coco_eval import CATEGORY_IDS, NAMES, truth_of
from tests.evaluation.test_matching import results_for, split_of

WHOLE = (0, 0, 10, 10)


def summary(truth: dict, results: list) -> dict:
    evaluator = CocoEvaluator(truth, CATEGORY_IDS, NAMES)
    evaluator.results = results
    return evaluator.summary()


def test_the_area_below_a_curve_is_the_classes_ap() -> None:
    truth = truth_of()
    results = results_for(truth, jitter=0.1, extra=2)
    table, figures = by_class(coco_evaluation(truth, results, CURVE_IOUS)), summary(truth, results)
    for i, name in zip(CATEGORY_IDS, NAMES):
        assert table[i]["AP50"] == pytest.approx(figures["per_class"][name]["AP50"], abs=1e-12)
        assert np.mean(table[i]["curves"]["0.75"]) == table[i]["AP75"] < table[i]["AP50"]
        assert len(table[i]["curves"]["0.5"]) == 101
    assert np.mean([of["AP75"] for of in table.values()]) == pytest.approx(figures["AP75"], abs=1e-12)


def test_a_class_without_objects_has_no_curve() -> None:
    truth, results = split_of({1: [(3, WHOLE)]}, {1: [(7, WHOLE, 0.9)]})
    assert by_class(coco_evaluation(truth, results, CURVE_IOUS)).keys() == {3}


def test_sizes_are_cocos_and_crowds_are_not_counted() -> None:
    truth, results = split_of({1: [(3, (0, 0, 31, 32)), (3, (0, 0, 32, 32)), (3, (0, 0, 95, 96)), (3, (0, 0, 96, 96)),
                                   (3, WHOLE, "crowd")]}, {})
    rows = by_size(truth, {"AP_small": 0.25, "AP_medium": None, "AP_large": 0.5})
    assert rows == [{"name": "small", "objects": 1, "AP": 0.25}, {"name": "medium", "objects": 2, "AP": None},
                    {"name": "large", "objects": 1, "AP": 0.5}]


def test_the_area_of_an_object_is_the_annotated_one() -> None:
    truth, _ = split_of({1: [(3, (0, 0, 40, 40))]}, {})
    truth["annotations"][0]["area"] = 900.0  # of its outline
    assert [row["objects"] for row in by_size(truth, dict.fromkeys(("AP_small", "AP_medium", "AP_large")))] == [1, 0, 0]


def test_images_are_grouped_by_doublings_of_their_objects() -> None:
    boxes = {n: [(3, (0, i, 10, 10)) for i in range(n)] for n in (0, 1, 2, 3, 4, 7, 8, 16)}
    truth, results = split_of(boxes, {})
    truth["annotations"].append({"image_id": 3, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    assert [(row["name"], row["images"], row["objects"]) for row in by_number(truth, results)] == [
        ("0", 1, 0), ("1", 1, 1), ("2-3", 2, 5), ("4-7", 2, 11), ("8-15", 1, 8), ("16-31", 1, 16)]


def test_the_ap_of_a_group_is_that_of_its_images_alone() -> None:
    truth = truth_of(images=9)
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] > 3 or a["id"] % 2]
    results = results_for(truth, jitter=0.1, extra=2)
    number = Counter(a["image_id"] for a in truth["annotations"] if not a["iscrowd"])
    rows = by_number(truth, results)
    assert [row["name"] for row in rows] == ["2-3", "4-7"]
    for row, (low, high) in zip(rows, ((2, 3), (4, 7))):
        ids = {image["id"] for image in truth["images"] if low <= number[image["id"]] <= high}
        alone = summary({**truth, "images": [i for i in truth["images"] if i["id"] in ids],
                         "annotations": [a for a in truth["annotations"] if a["image_id"] in ids]},
                        [r for r in results if r["image_id"] in ids])
        assert (row["AP"], row["AP50"]) == pytest.approx((alone["AP"], alone["AP50"]), abs=1e-12)


def test_images_without_objects_have_no_ap() -> None:
    truth, results = split_of({1: [(3, WHOLE, "crowd")]}, {1: [(3, WHOLE, 0.5)], 2: [(3, WHOLE, 0.5)]})
    assert by_number(truth, results) == [{"name": "0", "images": 2, "objects": 0, "AP": None, "AP50": None}]
