"""matcher: cases and typical mistakes."""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

from exercises.case import Case, Mistyped, boxes, draw, kind, tensor
from scratch.objective.matcher import HungarianMatcher as Note
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou, paired_generalized_box_iou
from scratch.ops.hungarian import linear_sum_assignment

K = 3


def run(matcher_class: type, pred_logits: Tensor, pred_boxes: Tensor, targets: list[dict],
        weights: Sequence[float] = (1.0, 5.0, 2.0)) -> dict:
    pairs = matcher_class(*weights)({"pred_logits": pred_logits, "pred_boxes": pred_boxes}, targets)
    if not isinstance(pairs, (list, tuple)) or len(pairs) != len(targets):
        raise Mistyped(f"wanted a list with (queries, targets) for each of {len(targets)} images, got {kind(pairs)}")
    answers = {}
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(x, Tensor) for x in pair):
            raise Mistyped(f"wanted two tensors (queries, targets) for image {i}, got {kind(pair)}")
        answers |= {f"queries of image {i}": pair[0], f"targets of image {i}": pair[1]}
    return answers


def reference(**inputs: Any) -> dict:
    """The note: torch.nn has no matcher."""
    return run(Note, **inputs)


def objects(*sizes: int, seed: int = 10) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [{"labels": torch.randint(K, (M,), generator=generator), "boxes": boxes(M, seed=seed + i),
             "image_id": 100 + i}
            for i, M in enumerate(sizes)]


def drawn(Q: int, *sizes: int, seed: int = 0, scale: float = 2.0, **more: Any) -> dict:
    return {"pred_logits": draw(len(sizes), Q, K + 1, seed=seed, scale=scale),
            "pred_boxes": boxes(len(sizes), Q, seed=seed + 1), "targets": objects(*sizes, seed=seed + 10), **more}


def in_a_row() -> dict:
    """Equal probabilities, equal sizes: position decides, along x."""
    return {"pred_logits": torch.zeros(1, 2, K + 1, dtype=torch.float64),
            "pred_boxes": tensor([[[0.3, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]]),
            "targets": [{"labels": torch.tensor([2, 2]), "image_id": 1,
                         "boxes": tensor([[0.4, 0.5, 0.5, 0.5], [0.2, 0.5, 0.5, 0.5]])}]}


def by_class() -> dict:
    """All boxes alike: query 1 names the class of the object."""
    logits = torch.zeros(1, 3, K + 1, dtype=torch.float64)
    logits[0, 1, 2] = 1.0
    return {"pred_logits": logits, "pred_boxes": torch.full((1, 3, 4), 0.5, dtype=torch.float64),
            "targets": [{"labels": torch.tensor([2]), "boxes": torch.full((1, 4), 0.5, dtype=torch.float64),
                         "image_id": 1}]}


def pairs(*of_images: tuple) -> dict:
    return {f"{name} of image {i}": torch.tensor(values) for i, image in enumerate(of_images)
            for name, values in zip(("queries", "targets"), image)}


CASES = (
    Case("example", "all boxes alike: the query that names the class gets the object", by_class, pairs(([1], [0]))),
    Case("example", "query 0 is 0.1 from both objects, query 1 is 0.1 from the first and 0.3 from the second", in_a_row,
         pairs(([0, 1], [1, 0]))),
    Case("value", "one image, three objects, five queries", lambda: drawn(5, 3)),
    Case("value", "boxes alone count", lambda: drawn(5, 3, seed=20, weights=(0.0, 1.0, 0.0))),
    Case("value", "overlap alone counts", lambda: drawn(7, 5, seed=30, weights=(0.0, 0.0, 1.0))),
    Case("value", "overlap alone, other boxes", lambda: drawn(7, 5, seed=230, weights=(0.0, 0.0, 1.0))),
    Case("value", "classes alone count", lambda: drawn(7, 5, seed=40, weights=(1.0, 0.0, 0.0))),
    Case("value", "classes alone, other logits", lambda: drawn(7, 5, seed=140, scale=3.0, weights=(1.0, 0.0, 0.0))),
    Case("value", "classes and boxes", lambda: drawn(11, 7, seed=150, weights=(1.0, 1.0, 0.0))),
    Case("value", "boxes and overlap", lambda: drawn(11, 7, seed=160, weights=(0.0, 1.0, 1.0))),
    Case("value", "three images with 2, 3 and 4 objects", lambda: drawn(7, 2, 3, 4, seed=50)),
    Case("value", "many objects", lambda: drawn(13, 11, 7, seed=60)),
    Case("value", "many objects, close calls", lambda: drawn(17, 13, 11, seed=70, scale=1.0)),
    Case("value", "other weights", lambda: drawn(13, 11, 7, seed=80, weights=(3.0, 0.5, 1.0))),
    Case("edges", "an image without objects between two others", lambda: drawn(5, 2, 0, 3, seed=90)),
    Case("edges", "no object in any image", lambda: drawn(5, 0, 0)),
    Case("edges", "more objects than queries", lambda: drawn(2, 5, seed=100)),
    Case("edges", "objects that do not overlap with any query", lambda: {
        **drawn(5, 3, seed=110), "pred_boxes": boxes(1, 5, seed=111) * 0.1}),
    Case("precision", "float32", lambda: {
        name: value.float() if isinstance(value, Tensor) else value for name, value in drawn(11, 7, seed=120).items()}),
)


def flawed(flaws: frozenset) -> type:
    @torch.no_grad()
    def call(self: Note, outputs: dict[str, Tensor], targets: list[dict[str, Any]]) -> list:
        logits, predicted = outputs["pred_logits"], outputs["pred_boxes"]
        weights = (self.cost_class, self.cost_bbox, self.cost_giou)
        if "weights_ignored" in flaws:
            weights = (1.0, 1.0, 1.0)
        axis = 1 if "softmax_over_queries" in flaws else -1
        if "logits_as_probabilities" in flaws:
            p = logits
        elif "sigmoid" in flaws:
            p = logits.sigmoid()
        elif "no_object_left_out" in flaws:
            p = logits[..., :-1].softmax(axis)
        else:
            p = logits.softmax(axis)
        result = []
        for i, target in enumerate(targets):
            labels, true = target["labels"], target["boxes"].to(predicted.dtype)
            if "labels_from_one" in flaws:
                labels = (labels + 1).clamp(max=K)
            q = p[i][:, labels]  # (Q, M)
            class_cost = q if "class_cost_positive" in flaws else -q
            if "class_cost_logarithm" in flaws:
                class_cost = -torch.log(q)
            if "class_ignored" in flaws:
                class_cost = torch.zeros_like(class_cost)
            if "class_right_or_wrong" in flaws:
                class_cost = -(logits[i].argmax(-1)[:, None] == labels).to(q.dtype)
            a, b = predicted[i][:, None], true[None]  # (Q,1,4), (1,M,4)
            corners_a, corners_b = box_cxcywh_to_xyxy(a), box_cxcywh_to_xyxy(b)
            difference = corners_a - corners_b if "l1_of_corners" in flaws else a - b
            l1 = difference.abs().sum(-1)
            if "l1_mean" in flaws:
                l1 = difference.abs().mean(-1)
            if "squared_distance" in flaws:
                l1 = difference.square().sum(-1)
            if "euclidean_distance" in flaws:
                l1 = difference.square().sum(-1).sqrt()
            if "centres_alone" in flaws:
                l1 = difference[..., :2].abs().sum(-1)
            if "l1_ignored" in flaws:
                l1 = torch.zeros_like(l1)
            overlap = paired_box_iou if "iou" in flaws else paired_generalized_box_iou
            giou = overlap(a, b) if "giou_of_cxcywh" in flaws else overlap(corners_a, corners_b)
            if "giou_added" in flaws:
                giou = -giou
            if "giou_ignored" in flaws:
                giou = torch.zeros_like(giou)
            cost = weights[0] * class_cost + weights[1] * l1 - weights[2] * giou  # (Q, M)
            if "most_expensive" in flaws:
                cost = -cost
            (Q, M), table = cost.shape, cost.T.tolist()
            if "nearest_query" in flaws:
                pair = [(min(range(Q), key=row.__getitem__), t) for t, row in enumerate(table)]
            elif "nearest_object" in flaws and M:
                pair = [(query, min(range(M), key=lambda t: table[t][query])) for query in range(Q)]
            elif "greedy" in flaws:
                pair = []
                for t, row in enumerate(table[:Q]):
                    free = [query for query in range(Q) if query not in [used for used, _ in pair]]
                    pair.append((min(free, key=row.__getitem__), t))
            elif "greedy_smallest_first" in flaws:
                pair = []
                for _, t, query in sorted((table[t][query], t, query) for t in range(M) for query in range(Q)):
                    if all(query != used and t != done for used, done in pair):
                        pair.append((query, t))
            elif "in_order" in flaws:
                pair = [(t, t) for t in range(min(Q, M))]
            else:
                found = linear_sum_assignment(table)
                pair = list(zip(found[1], found[0]))
            if "ordered_by_target" in flaws:
                pair.sort(key=lambda each: each[1])
            else:
                pair.sort()
            queries, places = [torch.tensor([each[side] for each in pair], dtype=torch.int64) for side in (0, 1)]
            if "places_in_the_batch" in flaws:
                places = places + sum(len(earlier["labels"]) for earlier in targets[:i])
            result.append((places, queries) if "queries_and_targets_swapped" in flaws else (queries, places))
        return result

    return type("HungarianMatcher", (Note,), {"__call__": call})


MISTAKES = {
    "greedy": "This is greedy: each object takes the cheapest free query. The sum over all pairs should be the "
              "smallest (linear_sum_assignment of ops/hungarian).",
    "nearest_query": "Each object takes its cheapest query, so that two objects may have the same one: the matching "
                     "is one-to-one.",
    "greedy_smallest_first": "This is greedy: the cheapest pair of the image is taken first. The sum over all pairs "
                             "should be the smallest.",
    "ordered_by_target": "The pairs are ordered by target: they are to be ordered by query, as SciPy gives them for a "
                         "matrix (Q, M).",
    "queries_and_targets_swapped": "Queries and targets have changed places: each image has (query indices, target "
                                   "indices).",
    "class_cost_positive": "The probability is added to the cost: a likely class should make a pair cheaper, so −p.",
    "class_cost_logarithm": "The cost uses −log p: the paper takes −p, which is on the scale of the box terms.",
    "class_right_or_wrong": "The cost asks whether the likeliest class is right: it is −p of the object's class.",
    "logits_as_probabilities": "The logits themselves are used: the cost has probabilities, so softmax first.",
    "sigmoid": "A sigmoid of each logit is used: the published cost has the softmax over K + 1 classes.",
    "softmax_over_queries": "The softmax runs over the queries: it runs over the classes of each query.",
    "no_object_left_out": "The no-object class is left out of the softmax: it is one of the K + 1 classes.",
    "labels_from_one": "The labels are moved by one: class 0 is the first column of the logits.",
    "class_ignored": "The class cost is missing.",
    "l1_ignored": "The L1 cost of the boxes is missing.",
    "giou_ignored": "The GIoU cost is missing.",
    "giou_added": "The GIoU is added to the cost: a large overlap should make a pair cheaper, so −GIoU.",
    "giou_of_cxcywh": "The GIoU is taken of boxes as cxcywh: it wants corners, so box_cxcywh_to_xyxy first.",
    "iou": "The plain IoU is used: it is 0 for all disjoint boxes; the cost has the generalized IoU.",
    "l1_of_corners": "The L1 distance is taken of the corners: it is that of (cx, cy, w, h).",
    "l1_mean": "The L1 distance is the mean of the four differences: it is their sum.",
    "squared_distance": "The squared distance is used: the cost has the sum of the absolute differences.",
    "euclidean_distance": "The Euclidean distance is used: the cost has the sum of the absolute differences.",
    "centres_alone": "The L1 distance is that of the centres alone: it has the sizes as well, four numbers.",
    "weights_ignored": "The weights cost_class, cost_bbox and cost_giou have no effect.",
    "most_expensive": "The most expensive matching is returned: the sum should be the smallest.",
    "nearest_object": "Each query takes its cheapest object: each object has one query, the others have none.",
    "in_order": "Object i gets query i, whatever the cost.",
    "places_in_the_batch": "The target indices are counted through the batch: they are places within their own image.",
}
