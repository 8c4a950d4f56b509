"""The threshold, and what is wrong with what is shown, worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scratch.evaluation.matching import Matches, coco_evaluation, matches_of
from scratch.evaluation.operating_point import (
    FALLBACK, best_threshold, confusion_matrix, errors_by_class, errors_by_image,
)
from tests.evaluation.test_matching import pictures_of_coco, results_for, split_of

ANT, BEE = 3, 7
WHOLE, ELSEWHERE = (0, 0, 10, 10), (50, 50, 10, 10)


def fates(said: list[tuple[float, bool]], objects: int) -> Matches:
    """Matches of detections that are right or false as told."""
    right = np.array([r for _, r in said], dtype=bool)
    return Matches(scores=np.array([s for s, _ in said], dtype=float), right=right, false=~right,
                   object_of=np.where(right, np.cumsum(right) - 1, -1), wanted=np.ones(objects, dtype=bool))


def confused(boxes: dict, said: dict, categories: tuple[int, ...] = (ANT, BEE)) -> list[list[int]]:
    truth, results = split_of(boxes, said, categories)
    return confusion_matrix(truth, results, matches_of(coco_evaluation(truth, results)), categories).tolist()


# -- the threshold -----------------------------------------------------------------------------------------------------


def test_the_threshold_is_the_one_worked_by_hand() -> None:
    chosen = best_threshold(fates([(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.5, False)], objects=4))
    assert chosen["score"] == 0.6 and chosen["F1"] == pytest.approx(6 / 8)
    assert (chosen["precision"], chosen["recall"]) == (3 / 4, 3 / 4)
    curve = {round(t, 2): f for t, f in zip(chosen["curve"]["threshold"], chosen["curve"]["F1"])}
    assert [curve[t] for t in (0.91, 0.9, 0.8, 0.7, 0.6, 0.5, 0.0)] == pytest.approx(
        [0, 2 / 5, 4 / 6, 4 / 7, 6 / 8, 6 / 9, 6 / 9])


def test_of_thresholds_with_the_same_f1_the_highest_is_taken() -> None:
    assert best_threshold(fates([(0.555, True), (0.1, False)], objects=1))["score"] == 0.55


def test_detections_of_one_score_are_shown_together() -> None:
    chosen = best_threshold(fates([(0.5, True), (0.5, False), (0.5, False)], objects=1))
    assert chosen["score"] == 0.5 and chosen["F1"] == pytest.approx(2 / 4)


def test_what_lies_in_a_crowd_is_not_counted() -> None:
    truth, results = split_of({1: [(ANT, WHOLE), (ANT, ELSEWHERE, "crowd")]},
                              {1: [(ANT, WHOLE, 0.6), (ANT, ELSEWHERE, 0.9)]})
    chosen = best_threshold(matches_of(coco_evaluation(truth, results)))
    assert chosen["F1"] == 1.0 and chosen["score"] == 0.6


@pytest.mark.parametrize("said, objects", [([], 2), ([(0.9, False)], 2), ([(0.9, False)], 0), ([], 0)])
def test_where_nothing_is_right_no_threshold_is_better_than_another(said: list, objects: int) -> None:
    chosen = best_threshold(fates(said, objects))
    assert chosen["score"] == FALLBACK and chosen["F1"] is chosen["precision"] is chosen["recall"] is None
    assert json.dumps(chosen, allow_nan=False)
    assert chosen["curve"]["recall"] == [0.0 if objects else None] * 101


# -- by class and by image ---------------------------------------------------------------------------------------------

THERE = {1: [(ANT, WHOLE), (BEE, ELSEWHERE)], 2: [(ANT, WHOLE)], 3: [(BEE, WHOLE, "crowd")]}
SAID = {1: [(ANT, WHOLE, 0.9), (ANT, ELSEWHERE, 0.8)], 2: [(ANT, WHOLE, 0.2)], 3: [(BEE, WHOLE, 0.9)],
        4: [(BEE, WHOLE, 0.7)]}


def test_mistakes_are_counted_by_class() -> None:
    truth, results = split_of(THERE, SAID)
    shown = matches_of(coco_evaluation(truth, results)).shown(0.5)
    assert errors_by_class(truth, results, shown) == {
        ANT: {"objects": 2, "right": 1, "missed": 1, "false": 1, "precision": 0.5, "recall": 0.5},
        BEE: {"objects": 1, "right": 0, "missed": 1, "false": 1, "precision": 0.0, "recall": 0.0}}


def test_a_class_that_is_neither_there_nor_said_has_no_precision_and_no_recall() -> None:
    truth, results = split_of(THERE, SAID, (ANT, BEE, 90))
    of = errors_by_class(truth, results, matches_of(coco_evaluation(truth, results)))[90]
    assert of == {"objects": 0, "right": 0, "missed": 0, "false": 0, "precision": None, "recall": None}


def test_the_worst_image_comes_first_and_a_crowd_is_no_mistake() -> None:
    truth, results = split_of(THERE, SAID)
    shown = matches_of(coco_evaluation(truth, results)).shown(0.5)
    assert [(of["image_id"], of["file_name"], of["objects"], of["missed"], of["false"])
            for of in errors_by_image(truth, results, shown)] == [
        (1, "1.png", 2, 1, 1), (2, "2.png", 1, 1, 0), (4, "4.png", 0, 0, 1), (3, "3.png", 0, 0, 0)]


# -- what was taken for what -------------------------------------------------------------------------------------------


def test_the_confusion_matrix_is_the_one_worked_by_hand() -> None:
    there = {1: [(ANT, WHOLE)], 2: [(ANT, WHOLE)], 3: [(ANT, WHOLE)], 4: [(BEE, WHOLE)], 5: []}
    said = {1: [(ANT, WHOLE, 0.9)],                          # right
            2: [(BEE, WHOLE, 0.9)],                          # an ant taken for a bee
            3: [(ANT, (0, 0, 10, 4), 0.9)],                  # too poor a box: said of nothing, and the ant is missed
            4: [(BEE, WHOLE, 0.9), (BEE, WHOLE, 0.8)],       # right, and once too often
            5: [(ANT, WHOLE, 0.9)]}                          # said of nothing
    assert confused(there, said) == [[1, 1, 1],
                                     [0, 1, 0],
                                     [2, 1, 0]]


def test_the_highest_score_takes_the_object_and_each_object_is_taken_once() -> None:
    there = {1: [(ANT, WHOLE)]}
    assert confused(there, {1: [(90, WHOLE, 0.5), (BEE, (0, 0, 10, 9), 0.6)]}, (ANT, BEE, 90)) == [
        [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert confused(there, {1: [(ANT, (0, 0, 10, 6), 0.1), (BEE, WHOLE, 0.9)]}) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_what_is_left_takes_the_object_that_it_overlaps_most() -> None:
    there = {1: [(ANT, WHOLE), (ANT, (0, 0, 10, 8))]}
    truth, results = split_of(there, {1: [(BEE, (0, 0, 10, 7), 0.9)]})
    shown = matches_of(coco_evaluation(truth, results))
    assert confusion_matrix(truth, results, shown, (ANT, BEE)).tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_rows_sum_to_the_objects_and_columns_to_what_was_said(coco_dir: Path) -> None:
    truth, ids = pictures_of_coco(coco_dir)
    results = results_for(truth, ids, jitter=0.2, extra=3, crowds=True)
    shown = matches_of(coco_evaluation(truth, results)).shown(0.3)
    matrix, table = confusion_matrix(truth, results, shown, ids), errors_by_class(truth, results, shown)
    assert matrix[:-1].sum(1).tolist() == [table[i]["objects"] for i in ids]
    assert matrix[:, :-1].sum(0).tolist() == [table[i]["right"] + table[i]["false"] for i in ids]
    assert matrix.diagonal()[:-1].tolist() == [table[i]["right"] for i in ids] and matrix[-1, -1] == 0
    assert sum(of["missed"] for of in errors_by_image(truth, results, shown)) == sum(
        of["missed"] for of in table.values()) > 0
