"""The kinds of mistakes and their costs, worked by hand; each cost is a difference of pycocotools' own AP50."""

from __future__ import annotations

import copy
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.error_analysis import KINDS, SPECIAL, Errors, analyse_errors, find_errors, fixed
from scratch.evaluation.matching import Matches, coco_evaluation, matches_of
from tests.evaluation.test_coco_eval import CATEGORY_IDS, truth_of
from tests.evaluation.test_matching import pictures_of_coco, results_for, split_of

ANT, BEE = 3, 7
WHOLE = (0, 0, 10, 10)  # where the one object of each image is; (0, 0, 10, n) overlaps it with an IoU of n/10

# One object an image, ants in 1, 2, 5, 7 and bees in 3, 4, 6, 8. Every kind of mistake occurs.
THERE = {1: [(ANT, WHOLE)], 2: [(ANT, WHOLE)], 3: [(BEE, WHOLE)], 4: [(BEE, WHOLE)], 5: [(ANT, WHOLE)],
         6: [(BEE, WHOLE)], 7: [(ANT, WHOLE)], 8: [(BEE, WHOLE)]}
SAID = {1: [(ANT, WHOLE, 0.9),              # right
            (ANT, (0, 0, 10, 8), 0.8)],     # Dupe
        2: [(ANT, (0, 0, 10, 4), 0.7)],     # Loc of ant 2
        3: [(ANT, WHOLE, 0.6)],             # Cls of bee 3
        4: [(ANT, (0, 0, 10, 3), 0.5),      # Both: bee 4 is missed
            (ANT, (50, 50, 9, 9), 0.95)],   # Bkg
        6: [(BEE, WHOLE, 0.4)],             # right
        7: [(ANT, WHOLE, 0.3)]}             # right; ant 5 and bee 8 are missed
KIND_OF = {0.9: "", 0.8: "Dupe", 0.7: "Loc", 0.6: "Cls", 0.5: "Both", 0.95: "Bkg", 0.4: "", 0.3: ""}

# Ants, by falling score:  .95 F  .9 R  .8 F  .7 F  .6 F  .5 F  .3 R    precision 1/2 at recall 1/4, 2/7 at recall 2/4.
# Of the 101 recalls 26 are ≤ 1/4 and 25 more ≤ 2/4, so the ants' AP is (26·1/2 + 25·2/7)/101.
# Bees:  .4 R                                                           precision 1 at recall 1/4: 26/101.
ANTS, BEES = (26 * F(1, 2) + 25 * F(2, 7)) / 101, F(26, 101)
# One false ant less before the second right one: 2/7 becomes 2/6.
ONE_LESS = (26 * F(1, 2) + 25 * F(2, 6)) / 101
MENDED = {  # what the ants' and the bees' AP becomes
    "Cls": (ONE_LESS, F(51, 101)),                                    # bee 3 is found, before bee 6
    "Loc": ((51 * F(1, 2) + 25 * F(3, 7)) / 101, BEES),               # R at ranks 2, 4, 7; 2/4 is 1/2 up to recall 2/4
    "Both": (ONE_LESS, BEES),
    "Dupe": (ONE_LESS, BEES),
    "Bkg": ((26 * F(1) + 25 * F(2, 6)) / 101, BEES),                  # the first ant has nothing before it
    "Miss": ((34 * F(1, 2) + 33 * F(2, 7)) / 101, F(51, 101)),        # 3 ants and 2 bees: recalls 1/3, 2/3 and 1/2
    "FP": (F(51, 101), BEES),                                         # R R, of 4
    "FN": ((51 * F(1, 2) + 50 * F(2, 7)) / 101, F(1)),                # 2 ants and 1 bee: recalls 1/2, 1 and 1
}


def errors_of(boxes: dict[int, list[tuple]], said: dict[int, list[tuple]]) -> Errors:
    truth, results = split_of(boxes, said)
    return find_errors(truth, results, matches_of(coco_evaluation(truth, results)))


# -- worked by hand ----------------------------------------------------------------------------------------------------


def test_every_false_detection_has_its_kind() -> None:
    truth, results = split_of(THERE, SAID)
    errors = find_errors(truth, results, matches_of(coco_evaluation(truth, results)))
    assert {result["score"]: str(kind) for result, kind in zip(results, errors.kinds)} == KIND_OF
    assert errors.goal.tolist() == [-1, -1, 1, 2, -1, -1, -1, -1]  # Loc means ant 2, Cls means bee 3
    assert [truth["annotations"][i]["image_id"] for i in np.flatnonzero(errors.missed)] == [4, 5, 8]
    assert errors.counts() == {"Cls": 1, "Loc": 1, "Both": 1, "Dupe": 1, "Bkg": 1, "Miss": 3}


@pytest.mark.parametrize("kind", [*KINDS, *SPECIAL])
def test_the_cost_of_a_kind_is_the_one_worked_by_hand(kind: str) -> None:
    analysis = analyse_errors(*split_of(THERE, SAID))
    ants, bees = MENDED[kind]
    assert analysis["AP50"] == pytest.approx(float((ANTS + BEES) / 2), abs=1e-12)
    assert analysis["per_class"][ANT][kind] == pytest.approx(float(ants - ANTS), abs=1e-12)
    assert analysis["per_class"][BEE][kind] == pytest.approx(float(bees - BEES), abs=1e-12)
    assert analysis["cost"][kind] == pytest.approx(float((ants - ANTS + bees - BEES) / 2), abs=1e-12)


def test_the_shares_are_the_ones_worked_by_hand() -> None:
    costs = {kind: (MENDED[kind][0] - ANTS + MENDED[kind][1] - BEES) / 2 for kind in KINDS}
    # In parts of 1/8484 (= 1/(4·3·7·101)): Cls 1100, Loc 675, Both 50, Dupe 50, Bkg 596, Miss 1314; together 3785.
    assert {kind: 8484 * cost for kind, cost in costs.items()} == {
        "Cls": 1100, "Loc": 675, "Both": 50, "Dupe": 50, "Bkg": 596, "Miss": 1314}
    assert analyse_errors(*split_of(THERE, SAID))["share"] == pytest.approx(
        {"Cls": 1100 / 3785, "Loc": 675 / 3785, "Both": 50 / 3785, "Dupe": 50 / 3785, "Bkg": 596 / 3785,
         "Miss": 1314 / 3785}, abs=1e-12)


# -- where one kind ends and the next begins ---------------------------------------------------------------------------


@pytest.mark.parametrize("category, height, kind", [
    (ANT, 5, ""), (ANT, 4.9, "Loc"), (ANT, 1, "Loc"), (ANT, 0.9, "Bkg"),
    (BEE, 10, "Cls"), (BEE, 5, "Cls"), (BEE, 4.9, "Both"), (BEE, 1, "Both"), (BEE, 0.9, "Bkg")])
def test_an_iou_of_a_half_is_foreground_and_of_less_than_a_tenth_background(
    category: int, height: float, kind: str,
) -> None:
    assert errors_of({1: [(ANT, WHOLE)]}, {1: [(category, (0, 0, 10, height), 0.5)]}).kinds.tolist() == [kind]


def test_a_poor_box_of_the_own_class_comes_before_a_good_one_of_another() -> None:
    there = {1: [(ANT, (0, 0, 10, 4)), (BEE, WHOLE)]}
    errors = errors_of(there, {1: [(ANT, WHOLE, 0.5)]})
    assert errors.kinds.tolist() == ["Loc"] and errors.goal.tolist() == [0] and errors.missed.tolist() == [False, True]


def test_another_class_comes_before_a_duplicate() -> None:
    there = {1: [(ANT, WHOLE), (BEE, (0, 0, 10, 9))]}
    errors = errors_of(there, {1: [(ANT, WHOLE, 0.9), (ANT, WHOLE, 0.8)]})
    assert errors.kinds.tolist() == ["", "Cls"] and errors.goal.tolist() == [-1, 1]


def test_where_there_is_no_object_every_detection_is_background() -> None:
    assert errors_of({1: [(ANT, WHOLE)]}, {1: [(ANT, WHOLE, 0.5)], 2: [(ANT, WHOLE, 0.9), (BEE, WHOLE, 0.8)]}
                     ).kinds.tolist() == ["", "Bkg", "Bkg"]


def test_a_crowd_is_no_object_that_could_be_meant_or_missed() -> None:
    errors = errors_of({1: [(ANT, WHOLE, "crowd")]}, {1: [(ANT, (1, 1, 5, 5), 0.9), (BEE, (0, 0, 10, 4), 0.8)]})
    assert errors.kinds.tolist() == ["", "Bkg"] and errors.counts()["Miss"] == 0


# -- the oracles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, said", [
    ("Loc", [(ANT, (0, 0, 10, 4), 0.5), (ANT, (0, 0, 10, 3), 0.6)]), ("Cls", [(BEE, WHOLE, 0.5), (BEE, WHOLE, 0.6)])])
def test_of_two_mistakes_about_one_object_the_one_of_higher_score_is_fixed_and_the_other_goes(kind: str, said: list) -> None:
    truth, results = split_of({1: [(ANT, WHOLE)]}, {1: said})
    matches = matches_of(coco_evaluation(truth, results))
    assert fixed(truth, results, matches, find_errors(truth, results, matches), kind) == (
        truth, [{"image_id": 1, "category_id": ANT, "bbox": [0, 0, 10, 10], "score": 0.6}])


def test_a_mistake_about_an_object_that_is_found_anyway_goes() -> None:
    truth, results = split_of({1: [(ANT, WHOLE)]},
                              {1: [(ANT, WHOLE, 0.5), (BEE, WHOLE, 0.9), (ANT, (0, 0, 10, 4), 0.8)]})
    matches = matches_of(coco_evaluation(truth, results))
    errors = find_errors(truth, results, matches)
    assert errors.kinds.tolist() == ["", "Cls", "Loc"] and not errors.missed.any()
    assert fixed(truth, results, matches, errors, "Cls")[1] == [results[0], results[2]]
    assert fixed(truth, results, matches, errors, "Loc")[1] == [results[0], results[1]]


def test_nobody_moves_up_when_a_detection_goes() -> None:
    # The 101st of its class is right, and COCO does not look at it; nor may it when 100 false ones are gone.
    truth, results = split_of({1: [(ANT, WHOLE)]}, {1: [(ANT, (50, 50, 9, 9), 0.9)] * 100 + [(ANT, WHOLE, 0.1)]})
    analysis = analyse_errors(truth, results)
    assert analysis["AP50"] == analysis["cost"]["FP"] == analysis["cost"]["Bkg"] == 0.0


def test_fixing_changes_neither_truth_nor_results() -> None:
    truth, results = split_of(THERE, SAID)
    before = copy.deepcopy((truth, results))
    analyse_errors(truth, results)
    assert (truth, results) == before


# -- the edges ---------------------------------------------------------------------------------------------------------


def test_where_nothing_was_said_everything_is_missed_and_costs_all() -> None:
    analysis = analyse_errors(*split_of(THERE, {}))
    assert analysis["AP50"] == 0.0 and analysis["count"]["Miss"] == 8
    assert analysis["cost"] == {**dict.fromkeys((*KINDS, "FP"), 0.0), "Miss": 1.0, "FN": 1.0}


def test_where_nothing_is_there_nothing_costs_anything() -> None:
    analysis = analyse_errors(*split_of({}, SAID))
    assert analysis["AP50"] is None and analysis["cost"] == {} and analysis["share"] == {}
    assert analysis["count"] == {"Cls": 0, "Loc": 0, "Both": 0, "Dupe": 0, "Bkg": 8, "Miss": 0}


def test_where_all_is_right_nothing_costs_anything_and_there_are_no_shares() -> None:
    analysis = analyse_errors(*split_of({1: [(ANT, WHOLE)]}, {1: [(ANT, WHOLE, 0.5)]}))
    assert analysis["AP50"] == pytest.approx(1.0) and set(analysis["cost"].values()) == {0.0}
    assert analysis["share"] == {}


def test_a_class_without_objects_has_no_part_in_the_mean() -> None:
    with_cats = split_of(THERE, {**SAID, 9: [(90, WHOLE, 0.99)]}, (ANT, BEE, 90))
    assert analyse_errors(*with_cats)["per_class"].keys() == {ANT, BEE}
    assert analyse_errors(*with_cats)["cost"] == analyse_errors(*split_of(THERE, SAID))["cost"]


# -- held against another way ------------------------------------------------------------------------------------------


def ap_of(decided: list[tuple[float, bool]], objects: int) -> float:
    """AP of one class from the fates of its detections alone: the definition, with 101 recalls."""
    decided, right, points = sorted(decided, key=lambda d: -d[0]), 0, []
    for said, (_, is_right) in enumerate(decided, 1):
        right += is_right
        points.append((right / objects, right / said))
    return sum(max((p for r, p in points if r >= i / 100 - 1e-12), default=0.0) for i in range(101)) / 101


def costs_without_matching_again(truth: dict[str, Any], results: list[dict[str, Any]], matches: Matches,
                                 errors: Errors, kind: str) -> dict[int, float]:
    """AP50 by class, after a kind is fixed by declaring detections right, moving or leaving them out."""
    decided: dict[int, list] = {i: [] for i in CATEGORY_IDS}
    claimed = set(np.flatnonzero(matches.found).tolist())
    for place in np.argsort(-matches.scores, kind="stable").tolist():
        score, category = results[place]["score"], results[place]["category_id"]
        if matches.right[place]:
            decided[category].append((score, True))
        elif matches.false[place] and kind == errors.kinds[place] and kind in ("Cls", "Loc"):
            goal = int(errors.goal[place])
            if goal not in claimed:
                claimed.add(goal)
                decided[truth["annotations"][goal]["category_id"]].append((score, True))
        elif matches.false[place] and kind not in (errors.kinds[place], "FP"):
            decided[category].append((score, False))
    gone = errors.missed if kind == "Miss" else matches.wanted & ~matches.found & (kind == "FN")
    there = [a["category_id"] for a, wanted, leaves in zip(truth["annotations"], matches.wanted, gone)
             if wanted and not leaves]
    return {i: ap_of(decided[i], there.count(i)) for i in CATEGORY_IDS}


@pytest.mark.parametrize("kind", [*KINDS, *SPECIAL])
def test_matching_the_fixed_detections_again_moves_no_other_one(kind: str) -> None:
    truth = truth_of(images=17)
    twice = results_for(truth, jitter=0.1) + results_for(truth, jitter=0.25, extra=6)  # two answers for an object
    results = [result for result in twice if result["image_id"] > 2]
    for i, result in enumerate(results[::5]):
        result["category_id"] = CATEGORY_IDS[i % 3]
    matches = matches_of(coco_evaluation(truth, results))
    errors, analysis = find_errors(truth, results, matches), analyse_errors(truth, results)
    assert min(errors.counts().values()) > 0
    before = costs_without_matching_again(truth, results, matches, errors, "none")
    after = costs_without_matching_again(truth, results, matches, errors, kind)
    assert {i: of[kind] for i, of in analysis["per_class"].items()} == pytest.approx(
        {i: after[i] - before[i] for i in CATEGORY_IDS}, abs=1e-9)
    assert analysis["cost"][kind] > 0


def test_ap50_is_the_evaluators_and_no_fixing_costs_anything_on_real_pictures_of_coco(coco_dir: Path) -> None:
    truth, ids = pictures_of_coco(coco_dir)
    results = results_for(truth, ids, jitter=0.2, extra=3)
    evaluator = CocoEvaluator(truth, ids, tuple(map(str, ids)))
    evaluator.results = results
    analysis = analyse_errors(truth, results)
    assert analysis["AP50"] == pytest.approx(evaluator.summary()["AP50"], abs=1e-12)
    assert min(cost for of in analysis["per_class"].values() for cost in of.values()) > -1e-12
