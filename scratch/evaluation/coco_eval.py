"""coco_eval: one number for a detector: COCO's average precision.

    a detection is right when it is the best-scored one that overlaps an unclaimed box of its class with IoU ≥ t
    precision = right / said,  recall = right / there          both grow a curve as the score threshold falls
    AP_t = mean precision at the recalls 0, 0.01 … 1;  AP = mean of AP_t over t = 0.50, 0.55 … 0.95 and the classes

AP50, AP75: one t alone. Small, medium, large: boxes of area < 32², < 96², ≥ 96² pixels of the
original. AR_n: the recall reached with the n best detections of each class and image; of AP, too,
COCO counts the best 100 of a class in an image, which `max_dets` lifts where there are more objects.
Crowd boxes are neither hit nor miss. pycocotools does the counting, so that the figures are the published ones
(Lin et al. 2014, arXiv 1405.0312); tests/evaluation/test_coco_eval.py holds all twelve against
pycocotools run on files.
Read: coco_results (one image) → CocoEvaluator (a split) → evaluate (a model) → format_summary (for people)
"""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any, Callable, ContextManager, Iterable, Optional

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from tqdm import tqdm

from scratch.evaluation.health import QueryHealth
from scratch.evaluation.postprocess import DETECTIONS, postprocess
from scratch.printable import abridged, printable

# The twelve figures in the order of COCOeval.stats. AR_100 keeps its name where another number of detections counts.
METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
           "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")


def coco_results(image_id: int, prediction: dict[str, Tensor], category_ids: tuple[int, ...]) -> list[dict[str, Any]]:
    """One image's detections as COCO result entries: xywh pixel boxes, the data's own category ids, unrounded floats.

    `prediction` is what `postprocess` gives for one image.
    """
    x0, y0, x1, y1 = prediction["boxes"].float().unbind(-1)
    boxes_xywh = torch.stack((x0, y0, x1 - x0, y1 - y0), dim=-1)
    return [{"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
            for label, box, score in zip(prediction["labels"].tolist(), boxes_xywh.tolist(),
                                         prediction["scores"].tolist())]


class CocoEvaluator:
    """Collects detections over a split and measures them against its ground truth.

    `ground_truth` is a COCO dict, `category_ids[k]` and `names[k]` the category behind label k. `results` is a plain
    list of COCO entries: assign it to measure results that were gathered from several processes or read from a file.
    `max_dets` is how many detections of a class in an image count.
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
        # Two categories may share a name, but not a row of figures.
        self.names = tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in zip(category_ids, names))
        self.results: list[dict[str, Any]] = []
        # pycocotools marks an unmatched detection with annotation id 0, so a true id of 0 would never count as found:
        # number from 1. It also insists on area and iscrowd, and writes into the dicts that it is given.
        self._truth = {
            "images": ground_truth["images"],
            "categories": [{"id": i, "name": name} for i, name in zip(category_ids, names)],
            "annotations": [{"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": i}
                            for i, a in enumerate(ground_truth["annotations"], start=1)],
        }
        self._known = {image["id"] for image in ground_truth["images"]}
        self._seen: set[int] = set()

    def update(self, image_ids: list[int], predictions: list[dict[str, Tensor]]) -> None:
        """Take in a batch of `postprocess` output; an image that was taken in before is skipped.

        Raises ValueError for an image that the ground truth does not know.
        """
        for image_id, prediction in zip(image_ids, predictions):
            if image_id not in self._known:
                raise ValueError(f"got detections for image id {image_id}, which is not among the {len(self._known)} "
                                 f"images of the ground truth: evaluate with the split that was predicted")
            if image_id not in self._seen:
                self._seen.add(image_id)
                self.results += coco_results(image_id, prediction, self.category_ids)

    def summary(self) -> dict[str, Any]:
        """The twelve COCO figures by name, `max_dets`, and `per_class`: {name: {"AP", "AP50"}}.

        A figure is None where there is nothing to find (pycocotools' −1: no box of that size, no box of that class),
        and 0.0 where there is something and no detection found it.
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
        per_class = {name: {"AP": _measured(columns[i].mean()), "AP50": _measured(columns[i][0].mean())}
                     for i, name in zip(self.category_ids, self.names)}
        figures = dict(zip(METRICS, map(_measured, _stats(evaluation))))
        return {**figures, "max_dets": self.max_dets, "per_class": per_class}


def _stats(evaluation: COCOeval) -> list[np.floating]:
    """The twelve of COCOeval.summarize, which gives AP for 100 detections alone."""
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


def _measured(value: np.floating) -> Optional[float]:
    return None if value < 0 else float(value)


def evaluate(
    model: nn.Module, loader: Iterable, criterion: Optional[Any], evaluator: CocoEvaluator, device: torch.device,
    autocast: Callable[[], ContextManager] = contextlib.nullcontext,
    gather: Callable[[list], list] = lambda items: items, progress: bool = True,
    health: Optional[QueryHealth] = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run `model` over the Batches of `loader`; return its figures and every detection as COCO results.

    The figures are `evaluator.summary()`, `images_per_second`, `losses`: each entry of the criterion and their weighted
    total as "loss", as means over the images ({} without a criterion), and `health`: what `QueryHealth` tells of the
    queries. (Give one that knows the matching of the evaluation before, and it will know this one's.) `gather` joins
    the lists of all processes, in the order of their ranks; an image that two processes saw is then counted once. The
    model keeps the mode that it came in. `progress` shows a bar where a person watches (on a terminal).
    """
    health = health or QueryHealth()
    was_training = model.training
    model.eval()
    sums: dict[str, Tensor] = {}
    images, start = 0, time.perf_counter()
    try:
        with torch.no_grad():
            for batch in tqdm(loader, desc="evaluate", unit="batch", leave=False, disable=None if progress else True):
                batch = batch.to(device)
                with autocast():
                    outputs = model(batch.normalised(), batch.pad_mask)
                B = len(batch.targets)
                images += B
                matching = []
                if criterion is not None:
                    matching = criterion.matching(outputs, batch.targets)
                    losses = criterion(outputs, batch.targets, matching=matching)
                    for name, value in {"loss": criterion.total(losses), **losses}.items():
                        sums[name] = sums.get(name, 0) + B * value.float()
                health.update(batch.targets, outputs["pred_boxes"], matching)
                last_layer = {name: outputs[name].cpu() for name in ("pred_logits", "pred_boxes")}
                orig_sizes = torch.tensor([target["orig_size"] for target in batch.targets])       # (B,2)
                found = postprocess(last_layer, orig_sizes, model.config.classification, evaluator.max_dets)
                evaluator.update([target["image_id"] for target in batch.targets], found)
    finally:
        model.train(was_training)
    seconds = time.perf_counter() - start

    mean_parts = {name: float(value) for name, value in sums.items()}
    ranks = gather([(evaluator.results, mean_parts, images, seconds, health.seen)])
    evaluator.results, seen = [], set()
    for results, *_ in ranks:  # a sampler that pads gives an image to two ranks: the first one's results count
        evaluator.results += [r for r in results if r["image_id"] not in seen]
        seen |= {r["image_id"] for r in results}
    health.seen = [part for *_, parts in ranks for part in parts]
    images = sum(count for _, _, count, _, _ in ranks)
    names = dict.fromkeys(name for _, rank_sums, *_ in ranks for name in rank_sums)
    means = {name: sum(rank_sums.get(name, 0.0) for _, rank_sums, *_ in ranks) / images for name in names}
    return {**evaluator.summary(), "losses": means, "health": health.summary(),
            "images_per_second": images / max(seconds for _, _, _, seconds, _ in ranks)}, evaluator.results


def three_decimals(value: Optional[float]) -> str:
    """A figure to print: "–" where there was nothing to find."""
    return "–" if value is None else f"{value:.3f}"


def format_summary(summary: dict[str, Any], most_classes: int = 20) -> str:
    """A summary as a small table: precision, recall, then the classes from the best AP to the worst."""
    def row(name: str, values: Iterable[Optional[float]]) -> str:
        return name + "".join(f"{three_decimals(value):>8}" for value in values)

    most, per_class_of = summary.get("max_dets", DETECTIONS), summary.get("per_class", {})  # an older one has neither
    measured = ((ap["AP"], _short(name), ap["AP50"]) for name, ap in per_class_of.items() if ap["AP"] is not None)
    per_class = sorted(measured, key=lambda entry: (-entry[0], entry[1]))
    width = max([6, *(len(name) for _, name, _ in per_class[:most_classes])])
    lines = [" " * width + "     all   IoU.5  IoU.75   small  medium   large",
             row(f"{'AP':{width}}", (summary.get(name) for name in METRICS[:6])),
             " " * width + f"   top 1  top 10{f'top {most}':>8}   small  medium   large",
             row(f"{'AR':{width}}", (summary.get(name) for name in METRICS[6:]))]
    if per_class:
        lines.append(f"{'class':{width}}      AP    AP50")
    lines += [row(f"{name:{width}}", (ap, ap50)) for ap, name, ap50 in per_class[:most_classes]]
    hidden, absent = len(per_class[most_classes:]), len(per_class_of) - len(per_class)
    if hidden:
        lines.append(f"… and {hidden} more classes, each with an AP of at most {per_class[most_classes][0]:.3f}")
    if most != DETECTIONS:
        lines.append(f"the best {most:,} detections of a class in an image count; COCO's figures are of {DETECTIONS}")
    if absent:
        lines.append(f"{absent} of {len(per_class_of)} classes have no box to find here")
    return "\n".join(lines)


def _short(name: str) -> str:
    """A class's name, which came from a stranger's file, on one line of a table."""
    if not name.strip():
        return f'"{printable(name)}"'
    return abridged(name, 40)
