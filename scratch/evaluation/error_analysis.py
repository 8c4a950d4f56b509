"""error_analysis: how much of AP50 does each kind of error cost?

    Cls   ┏━━━┓ 0.9 dog        Loc   ┌┄┄┄┐               Both  ┌┄┄┄┐
          ┃   ┃ right box,           ┊ ┏━┿━┓ 0.3 cat           ┊ ┏━┿━┓ 0.3 dog
          ┗━━━┛ wrong class          └┄╂┄┘ ┃ poor box          └┄╂┄┘ ┃ neither is right
                                       ┗━━━┛                     ┗━━━┛
    Dupe  ┏━━━┓ 0.9 cat        Bkg   ┌┄┄┄┐ ┏━━━┓ 0.0     Miss  ┌┄┄┄┐
          ┃ ┏━┻━┓ 0.6 cat            ┊   ┊ ┃   ┃ cat           ┊   ┊ no detection
          ┗━┫   ┃ one too many       └┄┄┄┘ ┗━━━┛               └┄┄┄┘
            ┗━━━┛                    ┌┄┐ a cat, ┏━┓ a detection, with its IoU with the cat

AP is average precision. Counts mislead: a thousand false detections with a score of 0.01 cost
nothing, ten with 0.9 do. So each kind is fixed alone, with the help of the ground truth, and its
cost is the gain of AP50:

    Cls, Loc          the class (the box) becomes the object's; of several the one with the highest score, others go
    Both, Dupe, Bkg   they go (with Both it is not clear which of the two to fix)
    Miss              the object is not asked for, as if it were found as surely as others are

The costs do not add up to 1 − AP50: fixed together, the gains interact. Two more stand beside
them: FP, the cost of all false detections (they go), and FN, that of all objects not found (none is
asked for). Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors",
arXiv 2008.08115; the tests come in the order of its code. Each AP is pycocotools'. Worked by hand
in tests/evaluation/test_error_analysis.py.
Read: find_errors (which kind) → fixed (one kind) → analyse_errors (the costs)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from pycocotools import mask
from pycocotools.cocoeval import COCOeval

from scratch.evaluation.matching import Matches, Results, Truth, coco_evaluation, matches_of, precision_curves

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU: from the one on a box is right, below the other it is of nothing
KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
SPECIAL = ("FP", "FN")


@dataclass(frozen=True)
class Errors:
    """The kind of every false detection, and the objects that no kind but Miss explains."""

    kinds: np.ndarray   # (D,) str: one of the first five KINDS; "" for what is not false
    goal: np.ndarray    # (D,) int64, of Cls and Loc: the place of the object that was meant; −1 elsewhere
    missed: np.ndarray  # (M,) bool: not found, and no goal either

    def counts(self) -> dict[str, int]:
        """How often each kind occurs."""
        of = Counter(self.kinds.tolist())
        return {kind: of[kind] for kind in KINDS[:-1]} | {"Miss": int(self.missed.sum())}


def find_errors(truth: Truth, results: Results, matches: Matches) -> Errors:
    """Give every false detection its kind. `matches` are those of these results at an IoU of FOREGROUND.

    s = the largest IoU with an object of the detection's class, o = with one of another class; crowds are no objects.
    """
    kinds, goal = np.full(len(results), "", dtype="<U4"), np.full(len(results), -1)
    objects_of, false_of = defaultdict(list), defaultdict(list)
    for place in np.flatnonzero(matches.wanted).tolist():
        objects_of[truth["annotations"][place]["image_id"]].append(place)
    for place in np.flatnonzero(matches.false).tolist():
        false_of[results[place]["image_id"]].append(place)
    for image_id, false in false_of.items():
        objects = objects_of[image_id]
        if not objects:
            kinds[false] = "Bkg"
            continue
        there = [truth["annotations"][place] for place in objects]
        said = [results[place] for place in false]
        # pycocotools' own, to the last bit: an IoU of exactly 0.5 must not be one thing there and another here.
        iou = mask.iou([d["bbox"] for d in said], [o["bbox"] for o in there], [0] * len(there))  # (false, objects)
        same = np.array([[d["category_id"] == o["category_id"] for o in there] for d in said])
        iou_same, iou_other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
        s, o = iou_same.max(1), iou_other.max(1)
        loc = (s >= BACKGROUND) & (s < FOREGROUND)
        cls = ~loc & (o >= FOREGROUND)
        kinds[false] = np.select([loc, cls, s >= FOREGROUND, o < BACKGROUND], ["Loc", "Cls", "Dupe", "Bkg"], "Both")
        goals = np.array(objects)[np.where(loc, iou_same.argmax(1), iou_other.argmax(1))]
        goal[false] = np.where(loc | cls, goals, -1)
    missed = matches.wanted & ~matches.found
    missed[goal[goal >= 0]] = False
    return Errors(kinds, goal, missed)


def fixed(truth: Truth, results: Results, matches: Matches, errors: Errors, kind: str) -> tuple[Truth, Results]:
    """The truth and the results with all errors of one of KINDS or SPECIAL fixed; neither argument is changed.

    Results that count for nothing (in a crowd, or beyond the 100 best) are left out: they must not move up where others
    leave.
    """
    annotations, counted = truth["annotations"], matches.right | matches.false
    if kind in ("Miss", "FN"):
        gone = errors.missed if kind == "Miss" else matches.wanted & ~matches.found
        kept = [annotation for annotation, leaves in zip(annotations, gone) if not leaves]
        return {**truth, "annotations": kept}, [result for result, counts in zip(results, counted) if counts]
    wrong = matches.false if kind == "FP" else errors.kinds == kind                 # (D,)
    better: dict[int, dict[str, Any]] = {}
    if kind in ("Cls", "Loc"):
        claimed, field = matches.found, "category_id" if kind == "Cls" else "bbox"
        for place in np.flatnonzero(wrong)[np.argsort(-matches.scores[wrong], kind="stable")].tolist():
            goal = int(errors.goal[place])
            if not claimed[goal]:
                claimed[goal] = True
                better[place] = {**results[place], field: annotations[goal][field]}
    return truth, [better.get(place, result) for place, result in enumerate(results)
                   if counted[place] and (place in better or not wrong[place])]


def analyse_errors(truth: Truth, results: Results, evaluation: Optional[COCOeval] = None) -> dict[str, Any]:
    """AP50, and for each of KINDS and SPECIAL what it would gain.

    AP50        None where there is nothing to find; then no cost is measured either
    cost        {kind: ΔAP50}
    share       {kind: the part of the six KINDS' costs}; {} where nothing costs anything
    count       {kind: how many}, at any score
    per_class   {category id: {kind: ΔAP50 of this class}}; a cost is the mean over the classes

    evaluation   a `coco_evaluation` of the two, if there is one already; its first IoU is FOREGROUND
    A class counts as perfect if fixing takes away all of its objects.
    """
    def ap50(evaluation: COCOeval) -> dict[int, float]:
        return {category: float(curve[0].mean()) for category, curve in precision_curves(evaluation).items()}

    evaluation = evaluation or coco_evaluation(truth, results, (FOREGROUND,))
    matches, before = matches_of(evaluation), ap50(evaluation)
    errors = find_errors(truth, results, matches)
    per_class: dict[int, dict[str, float]] = {category: {} for category in before}
    for kind in (*KINDS, *SPECIAL) if before else ():
        # What counts is chosen already: a fixed class must not push its own 101st detection out.
        after = ap50(coco_evaluation(*fixed(truth, results, matches, errors, kind), (FOREGROUND,),
                                     most=max(1, len(results))))
        for category, value in before.items():
            per_class[category][kind] = after.get(category, 1.0) - value
    cost = {kind: float(np.mean([of[kind] for of in per_class.values()])) for kind in (*KINDS, *SPECIAL) if per_class}
    total = sum(cost[kind] for kind in KINDS) if cost else 0.0
    return {"AP50": float(np.mean(list(before.values()))) if before else None, "cost": cost,
            "share": {kind: cost[kind] / total for kind in KINDS} if total > 0 else {},
            "count": errors.counts(), "per_class": per_class}
