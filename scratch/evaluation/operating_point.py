"""operating_point: which score threshold is best, and which errors remain at it?

    F1(s) = 2·R / (S + M)     S detections score ≥ s, R of them are right (IoU ≥ 0.5), of M objects

    score  0.9    0.8    0.7    0.6    0.5       M = 4
           right  right  false  right  false
    F1     0.40   0.67   0.57   0.75   0.67      ─▶ shown from 0.6 on

AP needs no threshold on the score, but the use of a detector does. F1, the harmonic mean of precision
R/S and recall R/M, weighs a false detection like a missed object. All classes share it. If it is chosen
and evaluated on the same split, F1 is a little too high. With a threshold, the errors of a class and
of an image can be counted, and the confusion matrix:

    there ╲ said   cat  dog  nothing     First the right ones (COCO's matches), then each false one,
    cat             7    2     1         by falling score, each takes the free object that it overlaps
    dog             0    5     0         most, of any class, if IoU ≥ 0.5. Else it is counted as
    nothing         3    1               nothing. Objects left at the end are missed

So a row sums to the objects of its class, a column to the detections of its class.
Worked by hand in tests/evaluation/test_operating_point.py.
Read: best_threshold → errors_by_class, errors_by_image → confusion_matrix
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Optional, Sequence

import numpy as np
from pycocotools import mask

from scratch.evaluation.matching import Matches, Results, Truth

FALLBACK = 0.5  # where nothing is right at any score, no threshold is better than another
_STEPS = 100  # two digits, as a person would give them to `predict --threshold`


def best_threshold(matches: Matches) -> dict[str, Any]:
    """The threshold with the highest F1 among 0, 0.01 … 1 (of equals the highest), and the curves over all of them.

    score, F1, precision, recall of the choice, and "curve": {"threshold", "precision", "recall", "F1"}, 101 values each
    Where nothing is right at any score, the score is FALLBACK and its three figures are None. In a curve, a precision
    is None where nothing scores so much, a recall where there are no objects.
    """
    counted = matches.right | matches.false
    order = np.argsort(-matches.scores[counted], kind="stable")
    scores, right = matches.scores[counted][order], matches.right[counted][order]
    objects, thresholds = int(matches.wanted.sum()), np.arange(_STEPS + 1) / _STEPS
    said = np.searchsorted(-scores, -thresholds, side="right")  # how many score at least so much
    hits = np.concatenate(([0], np.cumsum(right)))[said]
    curve = {"threshold": thresholds.tolist(),
             "precision": [_share(int(r), int(s)) for r, s in zip(hits, said)],
             "recall": [_share(int(r), objects) for r in hits],
             "F1": [_share(2 * int(r), int(s) + objects) for r, s in zip(hits, said)]}
    if not hits.any():
        return {"score": FALLBACK, "F1": None, "precision": None, "recall": None, "curve": curve}
    best = max(range(_STEPS + 1), key=lambda i: (curve["F1"][i], i))
    return {"score": curve["threshold"][best], **{name: curve[name][best] for name in ("F1", "precision", "recall")},
            "curve": curve}


def errors_by_class(truth: Truth, results: Results, shown: Matches) -> dict[int, dict[str, Any]]:
    """Category id → objects, right, missed, false, and precision and recall (None without a denominator).

    `shown` are the matches of what a person is shown.
    """
    table = {category["id"]: {"objects": 0, "right": 0, "missed": 0, "false": 0} for category in truth["categories"]}
    for annotation, wanted, found in zip(truth["annotations"], shown.wanted, shown.found):
        of = table[annotation["category_id"]]
        of["objects"] += int(wanted)
        of["missed"] += int(wanted and not found)
    for result, right, false in zip(results, shown.right, shown.false):
        of = table[result["category_id"]]
        of["right"] += int(right)
        of["false"] += int(false)
    for of in table.values():
        of["precision"] = _share(of["right"], of["right"] + of["false"])
        of["recall"] = _share(of["right"], of["objects"])
    return table


def errors_by_image(truth: Truth, results: Results, shown: Matches) -> list[dict[str, Any]]:
    """Every image with its objects, missed and false; the most mistakes first, then in the order of the ids."""
    table = {image["id"]: {"image_id": image["id"], "file_name": image["file_name"], "objects": 0, "missed": 0,
                           "false": 0} for image in truth["images"]}
    for annotation, wanted, found in zip(truth["annotations"], shown.wanted, shown.found):
        table[annotation["image_id"]]["objects"] += int(wanted)
        table[annotation["image_id"]]["missed"] += int(wanted and not found)
    for result, false in zip(results, shown.false):
        table[result["image_id"]]["false"] += int(false)
    return sorted(table.values(), key=lambda of: (-of["missed"] - of["false"], of["image_id"]))


def confusion_matrix(truth: Truth, results: Results, shown: Matches, category_ids: Sequence[int],
                     threshold: float = 0.5) -> np.ndarray:
    """Counts (K+1,K+1): row = what is there, column = what was said, in the order of `category_ids`; last = nothing.

    threshold   the IoU that the matches were made at
    """
    place = {category: k for k, category in enumerate(category_ids)}
    nothing, annotations = len(place), truth["annotations"]
    matrix = np.zeros((nothing + 1, nothing + 1), dtype=np.int64)
    left, false = defaultdict(list), defaultdict(list)
    for number in np.flatnonzero(shown.wanted & ~shown.found).tolist():
        left[annotations[number]["image_id"]].append(number)
    for number in np.flatnonzero(shown.false)[np.argsort(-shown.scores[shown.false], kind="stable")].tolist():
        false[results[number]["image_id"]].append(number)
    for number in shown.object_of[shown.right].tolist():
        k = place[annotations[number]["category_id"]]
        matrix[k, k] += 1
    for image_id in {**left, **false}:
        objects, said = left[image_id], false[image_id]
        iou = np.zeros((len(said), len(objects)))
        if said and objects:
            iou = np.array(mask.iou([results[d]["bbox"] for d in said], [annotations[o]["bbox"] for o in objects],
                                    [0] * len(objects)))                            # (said, objects)
        free = np.ones(len(objects), dtype=bool)
        for d, overlaps in zip(said, iou):
            best = _best(np.where(free, overlaps, 0.0), threshold)
            row = nothing if best is None else place[annotations[objects[best]]["category_id"]]
            matrix[row, place[results[d]["category_id"]]] += 1
            if best is not None:
                free[best] = False
        for o, missed in zip(objects, free):
            matrix[place[annotations[o]["category_id"]], nothing] += int(missed)
    return matrix


def _best(overlaps: np.ndarray, threshold: float) -> Optional[int]:
    return int(overlaps.argmax()) if len(overlaps) and overlaps.max() >= threshold else None


def _share(part: int, whole: int) -> Optional[float]:
    return part / whole if whole else None
