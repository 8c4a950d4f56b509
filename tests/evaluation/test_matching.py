"""What is matched, and every AP that is made of it, is COCO's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratch.evaluation.coco_eval import CocoEvaluator, coco_results
from scratch.evaluation.matching import average_precision, coco_evaluation, matches_of, precision_curves
from tests.evaluation.test_coco_eval import CATEGORY_IDS, NAMES, predictions_for, truth_of

IOUS = tuple((50 + 5 * i) / 100 for i in range(10))


def results_for(truth: dict[str, Any], ids: tuple[int, ...] = CATEGORY_IDS, **options: Any) -> list[dict[str, Any]]:
    """`predictions_for` as COCO entries."""
    return [entry for image, found in predictions_for(truth, **options).items()
            for entry in coco_results(image, found, ids)]


def split_of(boxes: dict[int, list[tuple]], said: dict[int, list[tuple]],
             categories: tuple[int, ...] = (3, 7)) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results from {image: [(category, box[, crowd])]} and {image: [(category, box, score)]}."""
    annotations = [{"image_id": image, "category_id": entry[0], "bbox": list(map(float, entry[1])),
                    "iscrowd": int(len(entry) > 2)} for image, entries in boxes.items() for entry in entries]
    truth = {"images": [{"id": image, "file_name": f"{image}.png", "width": 100, "height": 100}
                        for image in sorted({*boxes, *said})],
             "categories": [{"id": i, "name": name} for i, name in zip(categories, ("ant", "bee", "cat"))],
             "annotations": annotations}
    return truth, [{"image_id": image, "category_id": category, "bbox": list(map(float, box)), "score": score}
                   for image, entries in said.items() for category, box, score in entries]


def pictures_of_coco(folder: Path, most: int = 20) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The first pictures of COCO's validation split, and the ids of its 80 categories."""
    truth = json.loads((folder / "annotations/instances_val2017.json").read_text())
    images = truth["images"][:most]
    known = {image["id"] for image in images}
    return ({**truth, "images": images, "annotations": [a for a in truth["annotations"] if a["image_id"] in known]},
            tuple(sorted(category["id"] for category in truth["categories"])))


@pytest.mark.parametrize("jitter, extra", [(0.0, 0), (0.1, 0), (0.25, 30)])
def test_ap_is_that_of_the_evaluator(jitter: float, extra: int) -> None:
    truth = truth_of()
    results = results_for(truth, jitter=jitter, extra=extra)
    evaluator = CocoEvaluator(truth, CATEGORY_IDS, NAMES)
    evaluator.results = results
    summary = evaluator.summary()
    for name, ious in (("AP", IOUS), ("AP50", (0.5,)), ("AP75", (0.75,))):
        curves = precision_curves(coco_evaluation(truth, results, ious))
        assert average_precision(curves) == pytest.approx(summary[name], abs=1e-12)
        if name != "AP75":
            assert [curves[i].mean() for i in CATEGORY_IDS] == pytest.approx(
                [summary["per_class"][n][name] for n in NAMES], abs=1e-12)


def test_ap_of_eighty_classes_with_crowds_is_that_of_the_evaluator(coco_dir: Path) -> None:
    truth, ids = pictures_of_coco(coco_dir)
    assert any(annotation["iscrowd"] for annotation in truth["annotations"])
    results = results_for(truth, ids, jitter=0.1, extra=4, crowds=True)
    evaluator = CocoEvaluator(truth, ids, tuple(map(str, ids)))
    evaluator.results = results
    curves = precision_curves(coco_evaluation(truth, results, IOUS))
    assert 0 < average_precision(curves) == pytest.approx(evaluator.summary()["AP"], abs=1e-12)


def test_the_detection_of_highest_score_matches_the_object_and_a_second_one_is_false() -> None:
    truth, results = split_of({1: [(3, (0, 0, 10, 10)), (3, (50, 50, 10, 10))]},
                              {1: [(3, (50, 50, 10, 9), 0.7), (3, (0, 0, 10, 8), 0.8), (3, (0, 0, 10, 10), 0.6),
                                   (7, (50, 50, 10, 10), 0.9)]})
    matches = matches_of(coco_evaluation(truth, results))
    assert matches.right.tolist() == [True, True, False, False]  # 0.6 fits better than 0.8, and comes too late
    assert matches.false.tolist() == [False, False, True, True]
    assert matches.object_of.tolist() == [1, 0, -1, -1]
    assert matches.found.tolist() == [True, True] and matches.scores.tolist() == [0.7, 0.8, 0.6, 0.9]


def test_an_iou_of_exactly_one_half_is_right_and_below_it_none() -> None:
    for height, right in ((5, True), (4.99, False)):
        truth, results = split_of({1: [(3, (0, 0, 10, 10))]}, {1: [(3, (0, 0, 10, height), 0.5)]})
        assert matches_of(coco_evaluation(truth, results)).right.tolist() == [right]


def test_matches_at_a_stricter_iou_are_those_of_that_iou() -> None:
    truth, results = split_of({1: [(3, (0, 0, 10, 10))]}, {1: [(3, (0, 0, 10, 6), 0.5)]})
    evaluation = coco_evaluation(truth, results, (0.5, 0.75))
    assert matches_of(evaluation, 0).right.tolist() == [True]
    assert matches_of(evaluation, 1).right.tolist() == [False] and matches_of(evaluation, 1).false.tolist() == [True]


def test_a_detection_in_a_crowd_is_neither_right_nor_false_and_a_crowd_is_not_wanted() -> None:
    truth, results = split_of({1: [(3, (0, 0, 50, 50), "crowd")]},
                              {1: [(3, (10, 10, 5, 5), 0.9), (3, (70, 70, 9, 9), 0.8), (7, (10, 10, 5, 5), 0.7)]})
    matches = matches_of(coco_evaluation(truth, results))
    assert not matches.right.any() and matches.false.tolist() == [False, True, True]
    assert not matches.wanted.any() and not matches.found.any()


def test_a_detection_beyond_the_hundred_best_of_its_class_counts_for_nothing() -> None:
    truth, results = split_of({1: [(3, (0, 0, 10, 10))]}, {1: [(3, (50, 50, 9, 9), 1 - i / 1000) for i in range(100)]
                                                           + [(3, (0, 0, 10, 10), 0.1)]})
    matches = matches_of(coco_evaluation(truth, results))
    assert not matches.right.any() and matches.false.sum() == 100 and not matches.false[-1]
    assert matches_of(coco_evaluation(truth, results, most=101)).right[-1]


def test_what_scores_less_does_not_change_the_matches_of_what_scores_more() -> None:
    truth = truth_of()
    results = results_for(truth, jitter=0.15, extra=10)
    threshold = results[7]["score"]  # what scores exactly so much is shown
    shown = matches_of(coco_evaluation(truth, results)).shown(threshold)
    places = np.array([result["score"] >= threshold for result in results])
    alone = matches_of(coco_evaluation(truth, [result for result, keeps in zip(results, places) if keeps]))
    assert (shown.right[places] == alone.right).all() and (shown.false[places] == alone.false).all()
    assert not (shown.right | shown.false)[~places].any() and (shown.found == alone.found).all() and alone.found.any()


def test_nothing_said_and_nothing_there_are_no_trouble() -> None:
    truth, results = split_of({1: [(3, (0, 0, 10, 10))]}, {2: []})
    matches = matches_of(coco_evaluation(truth, results))
    assert len(matches.right) == 0 and matches.found.tolist() == [False]
    assert average_precision(precision_curves(coco_evaluation(truth, results))) == 0.0
    nothing = {**truth, "annotations": []}
    assert average_precision(precision_curves(coco_evaluation(nothing, results))) is None
    assert precision_curves(coco_evaluation(truth, results)).keys() == {3}  # 7 does not occur


def test_a_part_of_the_images_is_judged_alone() -> None:
    truth, results = split_of({1: [(3, (0, 0, 10, 10))], 2: [(3, (0, 0, 10, 10))]}, {1: [(3, (0, 0, 10, 10), 0.5)]})
    assert average_precision(precision_curves(coco_evaluation(truth, results, image_ids=[1]))) == pytest.approx(1.0)
    assert average_precision(precision_curves(coco_evaluation(truth, results, image_ids=[2]))) == 0.0
