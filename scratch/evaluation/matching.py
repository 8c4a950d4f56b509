"""matching: which detection found which object, and which found nothing?

    image by image and class by class, by falling score:
        the unclaimed object that it overlaps most, if IoU ≥ t       ─▶ right; the object is found
        else a crowd that covers its area to a share of at least t   ─▶ neither right nor false
        else                                                         ─▶ false

    score      0.9   0.8    0.7   0.6        ┌──────┐    two cats, four detections:
               right false  right false      │ 0.9  ├──┐
    precision  1     1/2    2/3   1/2        └─┬────┘  │ 0.8 comes too late for the first cat,
    recall     1/2   1/2    1     1            └───────┘     which 0.9 has claimed: a duplicate

IoU is the intersection over union. The match of a detection depends only on those with a higher
score: a threshold on the score does not change the matches above it. An object without a match is
missed. pycocotools matches and averages, so that every figure that rests on this file is COCO's own
(Lin et al. 2014, arXiv 1405.0312); held against CocoEvaluator's in
tests/evaluation/test_matching.py.
Read: coco_evaluation (pycocotools, at a few IoUs) → Matches (its answer) → average_precision
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any, Iterable, Optional, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Truth = dict[str, Any]  # "images", "categories" and "annotations", as in a COCO file
Results = list[dict[str, Any]]  # "image_id", "category_id", "bbox" (x, y, width, height) and "score"


def coco_evaluation(truth: Truth, results: Results, thresholds: Sequence[float] = (0.5,),
                    image_ids: Optional[Iterable[int]] = None, most: int = 100) -> COCOeval:
    """pycocotools, evaluated and accumulated at these IoUs, over objects of all sizes.

    image_ids   only these images; None: all of the truth's
    most        this number of detections of a class in an image count, the best ones; 100 in COCO
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_indexed(truth, truth["annotations"]), _indexed(truth, results), "bbox")
        wanted = evaluation.params
        wanted.iouThrs, wanted.maxDets = np.array(thresholds, dtype=np.float64), [most]
        wanted.areaRng, wanted.areaRngLbl = [[0, 1e10]], ["all"]
        if image_ids is not None:
            wanted.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _indexed(truth: Truth, entries: list[dict[str, Any]]) -> COCO:
    """A COCO index over copies of `entries`, numbered from 1: 0 is pycocotools' word for "unmatched"."""
    index = COCO()
    index.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": [
        {"iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3], **entry, "id": number}
        for number, entry in enumerate(entries, start=1)]}
    index.createIndex()
    return index


@dataclass(frozen=True)
class Matches:
    """What came of D detections and M annotations at one IoU; places are those in the lists of results and annotations.

    A detection that is neither right nor false lies in a crowd, or is not among those that COCO looks at.
    """

    scores: np.ndarray     # (D,) float64
    right: np.ndarray      # (D,) bool: it found an object
    false: np.ndarray      # (D,) bool: it found none
    object_of: np.ndarray  # (D,) int64: the place of the object that it found, −1 without
    wanted: np.ndarray     # (M,) bool: an object and no crowd

    @property
    def found(self) -> np.ndarray:
        """(M,) bool: which objects a right detection claimed."""
        found = np.zeros(len(self.wanted), dtype=bool)
        found[self.object_of[self.right]] = True
        return found

    def shown(self, threshold: float) -> "Matches":
        """As if only the detections that score at least `threshold` had been made."""
        kept = self.scores >= threshold
        return replace(self, right=self.right & kept, false=self.false & kept,
                       object_of=np.where(kept, self.object_of, -1))


def matches_of(evaluation: COCOeval, at: int = 0) -> Matches:
    """The matches of a `coco_evaluation` at its IoU number `at`."""
    objects, detections = (index.dataset["annotations"] for index in (evaluation.cocoGt, evaluation.cocoDt))
    right, false = np.zeros((2, len(detections)), dtype=bool)
    object_of = np.full(len(detections), -1)
    for image in evaluation.evalImgs:
        if image is None or not image["dtIds"]:
            continue
        places, matched = np.array(image["dtIds"]) - 1, image["dtMatches"][at].astype(np.int64)
        counted = ~image["dtIgnore"][at].astype(bool)
        right[places], false[places] = counted & (matched > 0), counted & (matched == 0)
        object_of[places] = np.where(counted, matched - 1, -1)
    return Matches(scores=np.array([d["score"] for d in detections], dtype=np.float64), right=right, false=false,
                   object_of=object_of, wanted=np.array([not o["iscrowd"] for o in objects], dtype=bool))


def precision_curves(evaluation: COCOeval) -> dict[int, np.ndarray]:
    """Category id → precision (T,101) at T IoUs and the recalls 0, 0.01 … 1; a class without objects is left out."""
    precision = evaluation.eval["precision"][..., 0, 0]                             # (T,101,K)
    return {int(category): precision[..., k] for k, category in enumerate(evaluation.params.catIds)
            if (precision[..., k] > -1).all()}


def average_precision(curves: dict[int, np.ndarray]) -> Optional[float]:
    """The mean over classes, IoUs and recalls: COCO's AP at these IoUs; None where there is nothing to find."""
    return float(np.mean([curve.mean() for curve in curves.values()])) if curves else None
