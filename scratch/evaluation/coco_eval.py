"""coco_eval: how good is a detector? COCO's average precision (AP), one number for a data set.

    postprocess: per query q, with l = pred_logits of one image
      label[q] = argmax_{k<K} l[q,k]     the best real class; "no object" (index K) is left out
      score[q] = softmax(l[q])[label] = 1 / Σ_{k≤K} exp(l[q,k] − l[q,label])
      box[q]   = (cx − w/2, cy − h/2, cx + w/2, cy + h/2) · (W, H, W, H)    pixels of the original
    pred_logits (B,Q,K+1), pred_boxes (B,Q,4) in [0,1], orig_sizes (B,2) → scores (Q,), boxes (Q,4)

    IoU = intersection over union; detections by falling score; t = 0.50, 0.55 … 0.95
    true positive (TP) = IoU ≥ t with an object of its class that no earlier one has taken
    precision = TP / detections so far, recall = TP / objects
    AP_t = mean over r = 0, 0.01 … 1 of the largest precision at a recall ≥ r;  AP = mean over t, classes

AP50, AP75: t = 0.5, 0.75 only. Small, medium, large: annotated area < 32², < 96², ≥ 96² pixels. AR_n:
mean recall with the n best detections of each class and image; AP counts 100 (`max_dets`). Crowd boxes
(a group as one box) are ignored. pycocotools computes all figures, so that they can be compared with
published ones (Lin et al. 2014, arXiv 1405.0312).

Same as the official PostProcess, and as pycocotools run on files; proven in
tests/evaluation/test_postprocess.py and tests/evaluation/test_coco_eval.py.
Read: postprocess → coco_results (one image) → CocoEvaluator (a split). With a model: evaluate.py.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from typing import Any, Optional

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from scratch.evaluation.sigmoid_scores import best_of_all_classes
from scratch.ops.boxes import box_cxcywh_to_xyxy

# The twelve figures in the order of COCOeval.stats. AR_100 is AR_max_dets if max_dets is not 100.
METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
           "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")
DETECTIONS = 100  # of a class in an image, as COCO counts them


@torch.no_grad()
def postprocess(outputs: dict[str, Tensor], orig_sizes: Tensor,
                classification: str = "softmax", most: int = DETECTIONS) -> list[dict[str, Tensor]]:
    """The model's output dict → detections in pixels of the original images, one dict for each image.

    `orig_sizes` (B,2) holds the (height, width) of each original. A dict holds `scores` (Q,) float32 in [0,1], `labels`
    (Q,) int64 in 0..K−1, `boxes` (Q,4) float32 xyxy in pixels, and `queries` (Q,) int64, the query of each detection;
    nothing is sorted, dropped or clipped. With focal classification (sigmoid_scores.py) there are N = min(Q·K,
    max(Q, `most`)) of each, sorted by score. Raises ValueError if `orig_sizes` has another shape.
    """
    logits, boxes_cxcywh = outputs["pred_logits"].float(), outputs["pred_boxes"].float()
    B, Q, _ = logits.shape
    if tuple(orig_sizes.shape) != (B, 2):
        raise ValueError(f"got orig_sizes of shape {tuple(orig_sizes.shape)}, wanted ({B}, 2): "
                         f"one (height, width) for each image of the batch")

    if classification == "focal":
        scores, labels, queries = best_of_all_classes(logits, max(Q, most))          # (B,N) each
        boxes_cxcywh = boxes_cxcywh.gather(1, queries[..., None].expand(-1, -1, 4))  # (B,N,4)
    else:
        best, labels = logits[..., :-1].max(dim=-1)                                  # (B,Q), (B,Q)
        # Only the probability of the best class is needed: one sum instead of a whole softmax. Only the exponent of
        # "no object" can be positive; where its exp overflows, 1/∞ = 0 is what a float32 softmax rounds to as well.
        scores = 1 / (logits - best[..., None]).exp().sum(dim=-1)
        queries = torch.arange(Q, device=logits.device).expand(B, Q)

    # The boxes are relative to the unpadded image, so the size of the original is all that is needed.
    height, width = orig_sizes.to(boxes_cxcywh).unbind(dim=1)
    scale = torch.stack((width, height, width, height), dim=1)                       # (B,4)
    boxes = box_cxcywh_to_xyxy(boxes_cxcywh) * scale[:, None]                        # (B,Q,4)
    return [{"scores": s, "labels": k, "boxes": b, "queries": q} for s, k, b, q in zip(scores, labels, boxes, queries)]


def coco_results(image_id: int, prediction: dict[str, Tensor], category_ids: tuple[int, ...]) -> list[dict[str, Any]]:
    """One image's detections, as `postprocess` gives them, as COCO result entries: xywh pixel boxes, the data's own
    category ids, unrounded floats.
    """
    x0, y0, x1, y1 = prediction["boxes"].float().unbind(-1)
    boxes_xywh = torch.stack((x0, y0, x1 - x0, y1 - y0), dim=-1)
    return [{"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
            for label, box, score in zip(prediction["labels"].tolist(), boxes_xywh.tolist(),
                                         prediction["scores"].tolist())]


class CocoEvaluator:
    """Collects the detections of a split and evaluates them against its ground truth.

    `ground_truth` is a COCO dict, `category_ids[k]` and `names[k]` the category of label k. `results` is a plain list
    of COCO entries: assign it to evaluate results that were gathered from several processes or read from a file.
    `max_dets` is the number of detections of a class in an image that count.
    """

    def __init__(self, ground_truth: dict[str, Any], category_ids: tuple[int, ...], names: tuple[str, ...],
                 max_dets: int = DETECTIONS) -> None:
        if max_dets < 1:
            raise ValueError(f"got max_dets = {max_dets}, wanted 1 or more detections of a class in an image")
        self.max_dets = max_dets
        if len(category_ids) != len(names):
            raise ValueError(f"got {len(category_ids)} category ids and {len(names)} names, wanted one name for each "
                             "id")
        self.category_ids = tuple(category_ids)
        # Two categories may have the same name, but each needs a row of its own.
        self.names = tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in zip(category_ids, names))
        self.results: list[dict[str, Any]] = []
        # pycocotools marks an unmatched detection with annotation id 0, so an object with id 0 would never count as
        # found: number from 1. It also requires area and iscrowd, and writes into the dicts that it is given.
        self._truth = {
            "images": ground_truth["images"],
            "categories": [{"id": i, "name": name} for i, name in zip(category_ids, names)],
            "annotations": [{"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": i}
                            for i, a in enumerate(ground_truth["annotations"], start=1)],
        }
        self._known = {image["id"] for image in ground_truth["images"]}
        self._seen: set[int] = set()

    def update(self, image_ids: list[int], predictions: list[dict[str, Tensor]]) -> None:
        """Add the `postprocess` output of a batch; an image that was added before is skipped.

        Raises ValueError for an image that is not in the ground truth.
        """
        for image_id, prediction in zip(image_ids, predictions):
            if image_id not in self._known:
                raise ValueError(f"got detections for image id {image_id}, which is not among the {len(self._known)} "
                                 f"images of the ground truth: evaluate with the split that was predicted")
            if image_id not in self._seen:
                self._seen.add(image_id)
                self.results += coco_results(image_id, prediction, self.category_ids)

    def summary(self) -> dict[str, Any]:
        """The twelve COCO figures by name, `max_dets`, and `per_class`: {name: {"AP", "AP50", "objects"}}.

        A figure is None where there is no object (pycocotools' −1: no box of that size, or of that class), and 0.0
        where there are objects and no detection found one. A crowd is no object.
        """
        detections = {**self._truth, "annotations": [
            {**r, "id": i, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0}
            for i, r in enumerate(self.results, start=1)]}
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(_indexed(self._truth), _indexed(detections), "bbox")
            evaluation.params.maxDets = [1, min(10, self.max_dets), self.max_dets]  # evaluate() sorts them
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0, -1]  # (10 IoUs, 101 recalls, K): all areas, max_dets
        columns = {i: precision[..., k] for k, i in enumerate(evaluation.params.catIds)}
        objects = Counter(a["category_id"] for a in self._truth["annotations"] if not a["iscrowd"])
        per_class = {name: {"AP": _or_none(columns[i].mean()), "AP50": _or_none(columns[i][0].mean()),
                            "objects": objects[i]} for i, name in zip(self.category_ids, self.names)}
        figures = dict(zip(METRICS, map(_or_none, _stats(evaluation))))
        return {**figures, "max_dets": self.max_dets, "per_class": per_class}


def _stats(evaluation: COCOeval) -> list[np.floating]:
    """The twelve figures of COCOeval.summarize, which computes AP for 100 detections only."""
    precision, recall = (evaluation.eval[name] for name in ("precision", "recall"))  # (10,101,K,4,3), (10,K,4,3)

    def mean(values: np.ndarray) -> np.floating:
        return np.mean(values[values > -1]) if (values > -1).any() else np.float64(-1)

    # Areas: all, small, medium, large. IoU number 0 is 0.5, number 5 is 0.75. Counts: 1, 10, max_dets.
    return [mean(precision[..., 0, -1]), mean(precision[0, ..., 0, -1]), mean(precision[5, ..., 0, -1]),
            *(mean(precision[..., area, -1]) for area in (1, 2, 3)),
            *(mean(recall[..., 0, most]) for most in (0, 1, 2)), *(mean(recall[..., area, -1]) for area in (1, 2, 3))]


def _indexed(dataset: dict[str, Any]) -> COCO:
    """A COCO index over copies of the annotations."""
    index = COCO()
    index.dataset = {**dataset, "annotations": [dict(a) for a in dataset["annotations"]]}
    index.createIndex()
    return index


def _or_none(value: np.floating) -> Optional[float]:
    return None if value < 0 else float(value)
