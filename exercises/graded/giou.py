"""giou: cases and typical mistakes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor

from exercises.case import Case, one, tensor
from scratch.ops.boxes import paired_generalized_box_iou as note


def run(giou: Callable, **inputs: Any) -> dict:
    return one(giou(**inputs), "giou")


def reference(**inputs: Any) -> dict:
    """The note: torch.nn has no boxes."""
    return {"giou": note(**inputs)}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Boxes xyxy with two decimals, some of which are disjoint."""
    numbers = torch.rand(*shape, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, size = numbers[..., :2], 0.1 + numbers[..., 2:] / 2
    return (torch.cat((low, low + size), -1) * 100).round() / 100


def pair_of(a: list, b: list) -> dict:
    return {"a_xyxy": tensor([a]), "b_xyxy": tensor([b])}


UNIT = [0, 0, 1, 1]
CASES = (
    Case("example", "the picture of the note: IoU 1/7, and of the hull's 9 cells 2 are empty", lambda: pair_of(
        [0, 0, 2, 2], [1, 1, 3, 3]), {"giou": tensor([1 / 7 - 2 / 9])}),
    Case("example", "two boxes apart: IoU 0, and a third of the hull is empty", lambda: pair_of(UNIT, [2, 0, 3, 1]), {
        "giou": tensor([-1 / 3])}),
    Case("value", "five pairs", lambda: {"a_xyxy": drawn(5), "b_xyxy": drawn(5, seed=1)}),
    Case("value", "boxes in pixels", lambda: {"a_xyxy": drawn(3) * 100, "b_xyxy": drawn(3, seed=1) * 100}),
    Case("value", "two leading axes", lambda: {"a_xyxy": drawn(2, 3), "b_xyxy": drawn(2, 3, seed=1)}),
    Case("gradient", "by both boxes", lambda: {"a_xyxy": drawn(3, seed=2), "b_xyxy": drawn(3, seed=3)},
         gradient=("a_xyxy", "b_xyxy")),
    Case("edges", "the same box", lambda: pair_of(UNIT, UNIT)),
    Case("edges", "one inside the other", lambda: pair_of([0, 0, 4, 4], [1, 1, 3, 3])),
    Case("edges", "apart in x and in y", lambda: pair_of(UNIT, [2, 3, 4, 5])),
    Case("edges", "touching at a corner", lambda: pair_of(UNIT, [1, 1, 2, 2])),
    Case("edges", "twice the same point: 0/0 counts as 0", lambda: pair_of([0.5] * 4, [0.5] * 4), told=True),
    Case("edges", "the gradient of two points is finite", lambda: pair_of([0.5] * 4, [0.5] * 4),
         gradient=("a_xyxy", "b_xyxy"), told=True),
    Case("edges", "a box inside out has area 0", lambda: pair_of([1, 1, 0, 0], [0, 0, 2, 1]), told=True),
    Case("edges", "one box broadcast against three", lambda: {"a_xyxy": drawn(1), "b_xyxy": drawn(3, seed=1)}),
    Case("edges", "no boxes", lambda: {"a_xyxy": drawn(0), "b_xyxy": drawn(0)}),
    Case("precision", "float32", lambda: {"a_xyxy": drawn(11), "b_xyxy": drawn(11, seed=1)}, dtype=torch.float32,
         units=8),
    *(Case("precision", f"{str(dtype).removeprefix('torch.')} boxes are compared in float32", lambda: {
        "a_xyxy": drawn(11) * 600, "b_xyxy": drawn(11, seed=1) * 600}, dtype=dtype, result=torch.float32, units=8)
      for dtype in (torch.bfloat16, torch.float16)),
)


def attempt(a_xyxy: Tensor, b_xyxy: Tensor, *, flaws: frozenset) -> Tensor:
    wide = (lambda t: t) if "half_kept" in flaws else (lambda t: t.to(torch.promote_types(t.dtype, torch.float32)))
    a, b = wide(a_xyxy), wide(b_xyxy)
    if "read_as_cxcywh" in flaws:
        a, b = (torch.cat((t[..., :2] - t[..., 2:] / 2, t[..., :2] + t[..., 2:] / 2), -1) for t in (a, b))
    if "read_as_xywh" in flaws:
        a, b = (torch.cat((t[..., :2], t[..., :2] + t[..., 2:]), -1) for t in (a, b))
    if "all_with_all" in flaws:
        a, b = a[..., :, None, :], b[..., None, :, :]
    one_more = 1 if "pixels_counted" in flaws else 0

    def area(low: Tensor, high: Tensor, clamped: bool = True) -> Tensor:
        sides = high - low + one_more
        if "clamped_after_the_product" in flaws:
            return (sides[..., 0] * sides[..., 1]).clamp(min=0)
        if "sides_of_any_sign" in flaws:
            return (sides[..., 0] * sides[..., 1]).abs()
        sides = sides if "not_clamped" in flaws or not clamped else sides.clamp(min=0)
        return sides[..., 0] + sides[..., 1] if "sides_added" in flaws else sides[..., 0] * sides[..., 1]

    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    outer_low, outer_high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    shared = area(outer_low, outer_high) if "hull_and_intersection_swapped" in flaws else area(low, high)
    if "pixels_counted:intersection" in flaws:
        shared = (high - low + 1).clamp(min=0).prod(-1)
    own = "own_areas_not_clamped" not in flaws
    area_a, area_b = area(a[..., :2], a[..., 2:], own), area(b[..., :2], b[..., 2:], own)
    union = area_a + area_b - (0 if "intersection_counted_twice" in flaws else shared)
    if "intersection_added" in flaws:
        union = area_a + area_b + shared
    if "smaller_area_for_union" in flaws:
        union = torch.minimum(area_a, area_b)
    hull = area(low, high) if "hull_and_intersection_swapped" in flaws else area(outer_low, outer_high)

    def ratio(part: Tensor, whole: Tensor) -> Tensor:
        if "eps_in_the_divisor" in flaws:
            return part / (whole + 1e-6)
        if "nan_for_empty_boxes" in flaws:
            return part / whole
        if "gradient_nan_for_empty_boxes" in flaws:
            return torch.where(whole > 0, part / whole, 0)
        solid = whole > torch.finfo(whole.dtype).tiny
        return torch.where(solid, part / torch.where(solid, whole, 1), 0)

    iou = ratio(shared, hull if "iou_by_the_hull" in flaws else union)
    penalty = ratio(hull - union, hull)
    if "penalty_by_the_union" in flaws:
        penalty = ratio(hull - union, union)
    if "penalty_of_the_intersection" in flaws:
        penalty = ratio(hull - shared, hull)
    if "penalty_is_the_filled_share" in flaws:
        penalty = ratio(union, hull)
    if "diou" in flaws:
        between = ((a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2).square().sum(-1)
        penalty = ratio(between, (outer_high - outer_low).square().sum(-1))
    if "hull_detached" in flaws:
        penalty = penalty.detach()
    result = iou if "iou_alone" in flaws else iou + penalty if "penalty_added" in flaws else iou - penalty
    if "not_below_zero" in flaws:
        result = result.clamp(min=0)
    if "loss" in flaws:
        result = 1 - result
    if "mean_of_all" in flaws:
        result = result.mean()
    return result.to(a_xyxy.dtype) if "half_returned" in flaws else result


WAYS = {"pixels_counted": ("intersection",)}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "iou_alone": "This is the IoU: the generalized IoU subtracts the empty share of the hull, (|hull| − |a ∪ "
                 "b|)/|hull|.",
    "intersection_counted_twice": "The union counts the intersection twice: |a ∪ b| = |a| + |b| − |a ∩ b|.",
    "intersection_added": "The union adds the intersection: both areas count it already, so it is subtracted once.",
    "iou_by_the_hull": "The intersection is divided by the hull, where the IoU divides it by the union; or it is always "
                       "0, which gives the same numbers (are the corners [..., :2] and [..., 2:]?).",
    "clamped_after_the_product": "The sides are clamped after their product: of two boxes apart in x and in y both "
                                 "sides are negative, and their product is positive. Clamp each side.",
    "not_clamped": "The sides of the intersection are not clamped at 0: disjoint boxes get a negative side.",
    "sides_of_any_sign": "The size of the sides is taken without their sign: disjoint boxes share nothing, so clamp "
                         "at 0.",
    "penalty_added": "The empty share of the hull is added; it is subtracted.",
    "penalty_by_the_union": "The empty part is divided by the union; it is divided by the hull.",
    "penalty_of_the_intersection": "The hull minus the intersection is used: the empty part is the hull minus the "
                                   "union.",
    "penalty_is_the_filled_share": "The filled share |a ∪ b|/|hull| is subtracted; it is the empty share, 1 minus "
                                   "that.",
    "loss": "1 − GIoU is returned: that is the loss; here the GIoU itself is wanted.",
    "read_as_cxcywh": "The boxes are read as (centre, size): they are corners already, xyxy.",
    "read_as_xywh": "The boxes are read as (corner, size): they are two corners, xyxy.",
    "all_with_all": "Every box is compared with every other, (N,M): here each has one partner, (N).",
    "pixels_counted": "The sides are one longer (x1 − x0 + 1, an old convention for pixels): here they are x1 − x0.",
    "hull_and_intersection_swapped": "Hull and intersection have changed places: the intersection has the larger of "
                                     "the low corners and the smaller of the high ones.",
    "smaller_area_for_union": "The intersection is divided by the smaller box, not by the union.",
    "sides_added": "Width and height are added; the area is their product.",
    "diou": "The penalty is that of the distance IoU (squared distance of the centres): GIoU subtracts the empty "
            "share of the hull.",
    "not_below_zero": "The result is cut off at 0: GIoU goes down to −1, which is what tells near from far.",
    "nan_for_empty_boxes": "Empty boxes give 0/0 = NaN: the note counts 0/0 as 0.",
    "gradient_nan_for_empty_boxes": "The value at empty boxes is right, but its gradient is NaN: `where` after the "
                                    "division still sends 0·∞ back. Replace the divisor before it.",
    "eps_in_the_divisor": "A small number is added to the divisor: this changes the ratio of small boxes. Replace the "
                          "divisor only where it is 0.",
    "own_areas_not_clamped": "The area of a box that is inside out is positive (negative times negative): clamp its "
                             "sides as well.",
    "hull_detached": "The hull is detached from the gradient: disjoint boxes then have none at all.",
    "mean_of_all": "The mean over the pairs is returned; each pair has its own.",
    "half_kept": "Half precision is kept: at pixel 640 bfloat16 counts in steps of 4, and an area of 256·256 "
                 "overflows float16. Compute in float32 (at_least_float32).",
    "half_returned": "The result of half precision is rounded back: the note leaves it in float32.",
}
