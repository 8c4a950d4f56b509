"""criterion: cases and typical mistakes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from exercises.case import Case, Mistyped, boxes, draw, kind, tensor
from scratch.config import LossConfig
from scratch.objective.criterion import Normalisers
from scratch.objective.criterion import SetCriterion as Note
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou, paired_generalized_box_iou
from scratch.ops.cross_entropy import cross_entropy

K = 3


def run(criterion_class: type, logits: Tensor, boxes: Tensor, targets: list[dict], classes: int = K,
        eos_coef: float = 0.1) -> dict:
    criterion = criterion_class(classes, HungarianMatcher(), LossConfig(eos_coef=eos_coef))
    *before, last = [{"pred_logits": z, "pred_boxes": b} for z, b in zip(logits, boxes)]
    by_layer = criterion._by_layer

    def checked(*arguments: Any) -> dict:
        answers = by_layer(*arguments)
        if not isinstance(answers, dict):
            raise Mistyped(f"wanted a dict of losses, each with one number for each layer, got {kind(answers)}")
        for name, value in answers.items():
            if not isinstance(value, Tensor) or value.shape != (len(logits),):
                raise Mistyped(f"wanted {name} of shape ({len(logits)},), one number for each layer, got {kind(value)}")
        return answers

    criterion._by_layer = checked
    return criterion({**last, "aux_outputs": before} if before else last, targets)


def reference(**inputs: Any) -> dict:
    """The note: torch.nn has no set prediction loss."""
    return run(Note, **inputs)


def objects(*sizes: int, seed: int = 10) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [{"labels": torch.randint(K, (M,), generator=generator), "boxes": boxes(M, seed=seed + i),
             "image_id": 100 + i}
            for i, M in enumerate(sizes)]


def drawn(Q: int, *sizes: int, L: int = 1, seed: int = 0, **more: Any) -> dict:
    return {"logits": draw(L, len(sizes), Q, K + 1, seed=seed, scale=2),
            "boxes": boxes(L, len(sizes), Q, seed=seed + 1),
            "targets": objects(*sizes, seed=seed + 10), **more}


def two_queries() -> dict:
    """Query 0 sees the object (p = ½, a box twice too high); query 1 says "nothing" with p = ¾."""
    return {"logits": tensor([[[[math.log(2), 0, 0], [0, 0, math.log(6)]]]]), "classes": 2,
            "boxes": tensor([[[[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.2, 0.2]]]]),
            "targets": [{"labels": torch.tensor([0]), "boxes": tensor([[0.5, 0.5, 0.2, 0.2]]), "image_id": 7}]}


CASES = (
    Case("example", "query 0 has the object: −ln ½ with weight 1, query 1 has none: −ln ¾ with weight 0.1", two_queries,
         {
        "loss_ce": tensor((math.log(2) + 0.1 * math.log(4 / 3)) / 1.1), "loss_bbox": tensor(0.2),
        "loss_giou": tensor(0.5),
        "cardinality_error": tensor(0.0), "class_error": tensor(0.0)}),
    Case("value", "one image, two objects, five queries", lambda: drawn(5, 2)),
    Case("value", "two images with 1 and 3 objects", lambda: drawn(5, 1, 3, seed=20)),
    Case("value", "three decoder layers", lambda: drawn(5, 1, 3, L=3, seed=30)),
    Case("value", "another weight of the no-object class", lambda: drawn(5, 1, 3, seed=40, eos_coef=0.7)),
    Case("gradient", "by logits and boxes", lambda: drawn(4, 1, 2, seed=50), gradient=("logits", "boxes")),
    Case("gradient", "of two layers", lambda: drawn(4, 1, 2, L=2, seed=60), gradient=("logits", "boxes")),
    Case("edges", "no object in any image", lambda: drawn(5, 0, 0, seed=70)),
    Case("edges", "an image without objects", lambda: drawn(5, 2, 0, 3, seed=80)),
    Case("edges", "more objects than queries: the box losses are divided by all objects", lambda: drawn(2, 5, seed=90),
         told=True),
    Case("edges", "one query", lambda: drawn(1, 1, seed=100)),
    Case("precision", "float32", lambda: {
        name: value.float() if name in ("logits", "boxes") else value
        for name, value in drawn(11, 7, 5, L=2, seed=110).items()}, tolerance=1e-5),
)


def flawed(flaws: frozenset) -> type:
    def by_layer(self: Note, logits: Tensor, boxes: Tensor, query: Tensor, target: Tensor, targets: list,
                 normalisers: Normalisers) -> dict[str, Tensor]:
        (L, B, Q, _), K, P = logits.shape, self.num_classes, len(query) // len(logits)
        if "queries_and_targets_swapped" in flaws:
            query, target = target, query
        if "targets_in_their_own_order" in flaws:
            target = torch.arange(P).repeat(L) if P else target
        labels = torch.cat([t["labels"] for t in targets])[target]
        if "labels_in_their_own_order" in flaws:
            labels = torch.cat([t["labels"] for t in targets])[torch.arange(P).repeat(L)] if P else labels
        if "first_label_for_all" in flaws:
            labels = torch.cat([t["labels"] for t in targets])[:1].expand(len(target))
        true = torch.cat([t["boxes"] for t in targets]).to(boxes.dtype)[target]
        matched = boxes.flatten(0, 2)[target if "boxes_at_the_places_of_objects" in flaws else query]
        if "predictions_detached" in flaws:
            matched = matched.detach()
        empty = 0 if "no_object_is_class_zero" in flaws else K
        classes = torch.full((L * B * Q,), empty)
        classes[query] = labels
        weight = logits.new_ones(K + 1)
        weight[0 if "weight_on_the_first_class" in flaws else -1] = 1.0 if "no_object_weight_one" in flaws \
            else self.loss.eos_coef
        if "objects_weigh_less" in flaws:
            weight[:-1], weight[-1] = self.loss.eos_coef, 1.0
        loss = cross_entropy(logits, classes.view(L, B, Q), weight, reduction="none")
        if "unmatched_queries_left_out" in flaws:
            keep = torch.zeros(L * B * Q, dtype=torch.bool)
            keep[query] = True
            loss = loss * keep.view(L, B, Q)
        if "probability_for_logarithm" in flaws:
            p = logits.softmax(-1).gather(-1, classes.view(L, B, Q)[..., None])[..., 0]
            loss = -p * weight[classes].view(L, B, Q)
        boxes_divisor, class_divisor = normalisers.num_boxes, normalisers.class_weight
        if "box_losses_by_pairs" in flaws:
            boxes_divisor = max(P, 1)
        if "box_losses_by_images" in flaws:
            boxes_divisor = B
        if "box_losses_summed" in flaws:
            boxes_divisor = 1.0
        if "box_losses_by_queries" in flaws:
            boxes_divisor = B * Q
        if "class_loss_by_queries" in flaws:
            class_divisor = B * Q
        if "class_loss_by_boxes" in flaws:
            class_divisor = normalisers.num_boxes
        if "class_loss_summed" in flaws:
            class_divisor = 1.0
        difference = (box_cxcywh_to_xyxy(matched) - box_cxcywh_to_xyxy(true)) if "l1_of_corners" in flaws \
            else matched - true
        l1 = difference.abs().sum(-1)
        if "l1_mean" in flaws:
            l1 = difference.abs().mean(-1)
        if "squared_distance" in flaws:
            l1 = difference.square().sum(-1)
        overlap = paired_box_iou if "iou" in flaws else paired_generalized_box_iou
        giou = overlap(matched, true) if "giou_of_cxcywh" in flaws else overlap(
            box_cxcywh_to_xyxy(matched), box_cxcywh_to_xyxy(true))
        giou_loss = giou if "giou_is_the_loss" in flaws else -giou if "minus_giou" in flaws else 1 - giou
        best = logits.detach().argmax(-1)
        if "best_of_the_objects" in flaws:
            best = logits.detach()[..., :-1].argmax(-1)
        right = (best.flatten()[query] == labels).view(L, P).sum(-1)
        counted = torch.tensor([len(t["labels"]) for t in targets])
        found = (best == K if "empty_queries_counted" in flaws else best != K).sum(-1) - counted
        if "half_is_found" in flaws:
            found = (logits.detach().softmax(-1)[..., :K].amax(-1) > 0.5).sum(-1) - counted
        if "cardinality_of_the_batch" in flaws:
            found = found.to(logits.dtype).mean(-1, keepdim=True)
        if "sign_of_cardinality_kept" not in flaws:
            found = found.abs()
        share = right.to(logits.dtype) / max(P, 1)
        errors = 100 * share if "accuracy" in flaws else 100 - 100 * share
        if "share_for_per_cent" in flaws:
            errors = 1 - share
        return {
            "loss_ce": loss.sum((1, 2)) / class_divisor * (2 if "loss_doubled" in flaws else 1),
            "loss_bbox": l1.view(L, P).sum(-1) / boxes_divisor,
            "loss_giou": giou_loss.view(L, P).sum(-1) / boxes_divisor,
            "cardinality_error": found.to(logits.dtype).sum(-1) if "cardinality_summed" in flaws
            else found.to(logits.dtype).mean(-1),
            "class_error": errors,
        }

    return type("SetCriterion", (Note,), {"_by_layer": by_layer})


MISTAKES = {
    "no_object_weight_one": "The no-object class has the weight 1: it is eos_coef (0.1), or the many empty queries "
                            "drown the few objects.",
    "weight_on_the_first_class": "eos_coef is the weight of class 0: the no-object class is the last one, K.",
    "objects_weigh_less": "The weights are turned round: the no-object class has eos_coef, all others 1.",
    "no_object_is_class_zero": "Queries without an object get class 0 as target: the no-object class is K, the last.",
    "unmatched_queries_left_out": "Queries without an object are left out of the cross-entropy: their target is the "
                                  "no-object class.",
    "class_loss_by_queries": "loss_ce is divided by the number of queries: it is divided by the sum of the class "
                             "weights (normalisers.class_weight).",
    "class_loss_by_boxes": "loss_ce is divided by the number of boxes: it is divided by normalisers.class_weight.",
    "class_loss_summed": "loss_ce is not divided by normalisers.class_weight.",
    "box_losses_by_pairs": "The box losses are divided by the number of pairs: by that of all objects "
                           "(normalisers.num_boxes), matched or not.",
    "box_losses_by_images": "The box losses are divided by the number of images: it is normalisers.num_boxes.",
    "box_losses_by_queries": "The box losses are divided by the number of queries: it is normalisers.num_boxes.",
    "box_losses_summed": "The box losses are not divided by normalisers.num_boxes.",
    "l1_mean": "loss_bbox takes the mean of the four differences: ‖·‖₁ is their sum.",
    "squared_distance": "loss_bbox squares the differences: ‖·‖₁ is the sum of their absolute values.",
    "l1_of_corners": "loss_bbox compares corners: it compares (cx, cy, w, h).",
    "giou_of_cxcywh": "The GIoU is taken of boxes as cxcywh: convert them to corners first (box_cxcywh_to_xyxy).",
    "giou_is_the_loss": "loss_giou is the GIoU: it is 1 − GIoU, which is 0 for equal boxes.",
    "minus_giou": "loss_giou is −GIoU: it is 1 − GIoU, which is 0 for equal boxes.",
    "iou": "loss_giou uses the plain IoU: it has no gradient for disjoint boxes.",
    "queries_and_targets_swapped": "`query` and `target` have changed places: the first is a place among all L·B·Q "
                                   "queries, the second one among all objects.",
    "targets_in_their_own_order": "The objects are taken in their own order: object target[i] belongs to query[i].",
    "labels_in_their_own_order": "The labels are taken in their own order: query[i] has the label of object target[i], "
                                 "as its box.",
    "boxes_at_the_places_of_objects": "The predicted boxes are taken at `target`: that is a place among the objects; "
                                      "the predictions' places are `query`.",
    "first_label_for_all": "Every matched query gets the label of the first object: it is that of its own, target[i].",
    "probability_for_logarithm": "loss_ce uses −p: the cost does, the loss is −log p.",
    "predictions_detached": "The matched boxes are detached: the box losses then teach nothing.",
    "accuracy": "class_error is the accuracy: it is the share of wrong ones, 100 minus that.",
    "share_for_per_cent": "class_error is a share: it is in per cent.",
    "best_of_the_objects": "The likeliest class is looked for without the no-object class: it counts as an answer as "
                           "well.",
    "empty_queries_counted": "cardinality_error counts the empty queries: it counts those that predict an object.",
    "half_is_found": "cardinality_error counts the queries with a class above ½: it counts those whose best class is "
                     "not the no-object class.",
    "cardinality_of_the_batch": "cardinality_error takes the absolute value over the whole batch: too many in one "
                                "image and too few in another cancel. It is taken image by image.",
    "sign_of_cardinality_kept": "cardinality_error keeps its sign: it is the absolute difference, image by image.",
    "cardinality_summed": "cardinality_error is summed over the images: it is their mean.",
    "loss_doubled": "loss_ce counts twice.",
}
