"""Predictions that fit another reading of the truth are found out, and a detector that knows nothing is no witness."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable

import numpy as np
import pytest

from scratch.evaluation.disagreement import (
    FORMS, called, forms_that_fit, objects_found, other_names, seen_in,
)

W, H = 640, 480
CATEGORIES = (1, 2, 3)


def split(images: int = 8, each: int = 4, seed: int = 5) -> dict[str, Any]:
    """Objects of three classes all over pictures of 640 × 480, away from the borders' ends."""
    draw = np.random.default_rng(seed)
    annotations = [{"image_id": i, "category_id": CATEGORIES[k % 3], "iscrowd": 0,
                    "bbox": [*draw.uniform((20, 20), (400, 300)), *draw.uniform(30, 160, 2)]}
                   for i in range(images) for k in range(each)]
    return {"images": [{"id": i, "width": W, "height": H} for i in range(images)], "annotations": annotations,
            "categories": [{"id": c, "name": f"class {c}"} for c in CATEGORIES]}


def detected(truth: dict[str, Any], move: float = 0.05, seed: int = 7) -> list[dict[str, Any]]:
    """A detector that learnt from data like `truth`: every box nearly right, and weaker ones of the other classes."""
    draw, results = np.random.default_rng(seed), []
    for a in truth["annotations"]:
        x, y, w, h = a["bbox"]
        box = (np.array([x, y, w, h]) + move * draw.normal(size=4) * np.array([w, h, w, h])).tolist()
        results += [{"image_id": a["image_id"], "category_id": c, "bbox": box,
                     "score": 0.8 if c == a["category_id"] else 0.1} for c in CATEGORIES]
    return results


def rewritten(truth: dict[str, Any], change: Callable) -> dict[str, Any]:
    """The split with every box changed, as a file in another form is read."""
    boxes = change(np.array([a["bbox"] for a in truth["annotations"]]), np.array([W, H]))
    return {**truth, "annotations": [{**a, "bbox": box} for a, box in zip(truth["annotations"], boxes.tolist())]}


def renamed(truth: dict[str, Any], names: dict[int, int]) -> dict[str, Any]:
    return {**truth, "annotations": [{**a, "category_id": names[a["category_id"]]} for a in truth["annotations"]]}


# A box as a file of another form has it; `clipped` is what a reader makes of it.
WRITTEN = {"corners": lambda b, s: np.concatenate((b[:, :2], b[:, :2] + b[:, 2:]), 1),
           "centres": lambda b, s: np.concatenate((b[:, :2] + b[:, 2:] / 2, b[:, 2:]), 1),
           "shares": lambda b, s: b / np.tile(s, 2), "rows first": lambda b, s: b[:, [1, 0, 3, 2]]}


def clipped(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2], np.minimum(boxes[:, :2] + boxes[:, 2:], size) - boxes[:, :2]), 1)


def test_a_split_that_agrees_is_found_as_it_is():
    seen = seen_in(split(), detected(split()))
    assert objects_found(seen) == 1 and forms_that_fit(seen) is None and other_names(called(seen)) == {}


def test_an_object_is_found_with_an_iou_of_a_half_by_one_of_the_best_detections_of_its_picture():
    truth = {"images": [{"id": 1, "width": W, "height": H}],
             "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100]}]}

    def found(*results: tuple[float, list[float]]) -> float:
        return objects_found(seen_in(truth, [{"image_id": 1, "category_id": 2, "bbox": box, "score": score}
                                             for score, box in results]))
    assert found((0.9, [0, 0, 100, 50])) == 1 and found((0.9, [0, 0, 100, 49])) == 0 and found() == 0
    far = [200, 200, 10, 10]
    assert found((0.9, far), (0.8, [0, 0, 100, 90])) == 1  # twice as many detections as objects are looked at
    assert found((0.9, far), (0.8, [300, 300, 9, 9]), (0.7, [0, 0, 100, 90])) == 0
    assert found((0.9, far), (0.85, far), (0.8, [0, 0, 100, 90])) == 1  # a box with two names is one detection


def test_crowds_and_pictures_beyond_the_first_few_hundred_are_not_looked_at():
    truth = split(images=5)
    truth["annotations"][0]["iscrowd"] = 1
    assert sum(len(picture.boxes) for picture in seen_in(truth, [])) == 19
    assert len(seen_in(truth, [], most=3)) == 3


@pytest.mark.parametrize("form", FORMS)
def test_a_judged_split_in_another_form_is_recognised(form: str):
    truth = rewritten(split(), lambda b, s: clipped(WRITTEN[form](b, s), s))
    found = forms_that_fit(seen_in(truth, detected(split())))
    assert found[:2] == (form, "judged") and found[2] >= 2 * found[3]


@pytest.mark.parametrize("form", FORMS)
def test_a_train_split_in_another_form_is_recognised_by_what_was_learnt(form: str):
    learnt = rewritten(split(), lambda b, s: clipped(WRITTEN[form](b, s), s))
    expected = "judged" if form == "rows first" else "learnt"  # which is its own inverse: either would do
    assert forms_that_fit(seen_in(split(), detected(learnt)))[:2] == (form, expected)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_thrown_at_random_fit_no_form(seed: int):
    draw, truth = np.random.default_rng(seed), split(seed=seed)
    results = [{"image_id": i, "category_id": 1, "score": s, "bbox": [*draw.uniform((0, 0), (400, 300)),
                                                                     *draw.uniform(30, 240, 2)]}
               for i in range(8) for s in draw.uniform(size=40)]
    assert forms_that_fit(seen_in(truth, results)) is None


def test_boxes_that_are_alike_in_all_pictures_are_no_evidence_of_a_form():
    truth = rewritten(split(), lambda b, s: np.tile([100.0, 100, 200, 200], (len(b), 1)))
    results = detected(rewritten(split(), lambda b, s: np.tile([100.0, 100, 300, 300], (len(b), 1))), move=0.01)
    assert objects_found(seen_in(truth, results), learnt=FORMS["corners"][0], iou=0.75) == 1
    assert forms_that_fit(seen_in(truth, results)) is None  # those of any other picture fit as well


@pytest.mark.parametrize("names", [{1: 2, 2: 3, 3: 1}, {1: 2, 2: 1, 3: 3}, {1: 1, 2: 3, 3: 2}, {1: 0, 2: 1, 3: 2}])
def test_ids_that_mean_other_classes_in_the_judged_split_are_recognised(names: dict[int, int]):
    seen = seen_in(renamed(split(), names), detected(split()))
    expected = {now: was for was, now in names.items() if now != was}
    found = other_names(called(seen))
    assert found == ({} if names[1] == 1 else expected)  # class 1 has half of the objects, and the others a quarter


def test_one_name_for_everything_is_no_confusion_of_ids():
    assert other_names({1: Counter({2: 9}), 2: Counter({2: 9}), 3: Counter({2: 9})}) == {}
    assert other_names({1: Counter({2: 9}), 3: Counter({2: 9})}) == {}
    assert other_names({1: Counter({2: 2}), 2: Counter({1: 2})}) == {}  # too few to tell
    assert other_names({1: Counter({2: 5, 1: 4, 3: 4}), 2: Counter({1: 9})}) == {}
    assert other_names({1: Counter({2: 9}), 2: Counter({1: 9})}) == {1: 2, 2: 1}
    assert other_names({}) == {}
