"""Which queries learn an object together, and what their losses are: each against its plain definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from scratch.config import LossConfig
from scratch.objective.matcher import HungarianMatcher
from scratch.objective.one_to_many import ALPHA, LEAST, assigned_queries
from scratch.objective.variant import VariantCriterion
from tests.objective.test_matcher import K, random_boxes, random_targets, seeds
from tests.objective.test_variant import EXACT, answers, focal, giou_loss


def iou(a, b) -> float:
    """Of two boxes cx, cy, w, h, in plain numbers."""
    a, b = a.tolist(), b.tolist()
    shared = 1.0
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        shared *= max(high - low, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def plain(logits, boxes, target, most: int) -> dict[int, int]:
    """Of one layer and image: query → object, by loops over both."""
    fits: dict[int, tuple[float, int]] = {}
    for t, (label, true_box) in enumerate(zip(target["labels"], target["boxes"])):
        ious = [iou(box, true_box) for box in boxes]
        fit = [ALPHA * row[label].sigmoid().item() + (1 - ALPHA) * of_box for row, of_box in zip(logits, ious)]
        order = sorted(range(len(fit)), key=lambda q: -fit[q])
        for q in [order[0], *(q for q in order[:most] if ious[q] >= LEAST)]:
            if q not in fits or fits[q][0] < fit[q]:
                fits[q] = fit[q], t
    return {q: t for q, (_, t) in fits.items()}


def near(targets: list[dict], Q: int) -> torch.Tensor:
    """Boxes (B,Q,4), most of them near an object of their image."""
    boxes = random_boxes(len(targets) * Q).view(len(targets), Q, 4)
    for i, target in enumerate(targets):
        for q in range(Q if len(target["boxes"]) else 0):
            if q % 4:
                boxes[i, q] = target["boxes"][q % len(target["boxes"])] * (1 + 0.15 * torch.randn(4)).clamp(0.6, 1.5)
    return boxes


@given(seeds, st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(1, 6))
def test_each_query_is_trained_on_what_a_plain_search_says(seed, sizes, most):
    torch.manual_seed(seed)
    targets, L, Q = random_targets(sizes), 2, 8
    boxes = torch.stack([near(targets, Q) for _ in range(L)])
    logits = torch.randn(L, len(sizes), Q, K, dtype=torch.float64)
    got, T = assigned_queries(logits, boxes, targets, most), sum(sizes)
    first = [sum(sizes[:i]) for i in range(len(sizes))]
    for layer in range(L):
        for i, target in enumerate(targets):
            expected = plain(logits[layer, i], boxes[layer, i], target, most) if sizes[i] else {}
            assert got[layer, i].tolist() == [first[i] + expected[q] if q in expected else T for q in range(Q)]


def test_the_example_of_the_note():
    # Objects a and b side by side; α = 0. The boxes of the queries cover parts of both.
    def box(left: float, right: float) -> list[float]:
        return [(left + right) / 2, 0.5, right - left, 0.2]
    targets = [{"labels": torch.tensor([0, 1]), "boxes": torch.tensor([box(0.1, 0.4), box(0.3, 0.6)])}]
    boxes = torch.tensor([[[box(0.1, 0.37), box(0.22, 0.52), box(0.52, 0.8)]]])
    assert [[round(iou(query, true_box), 1) for true_box in targets[0]["boxes"]] for query in boxes[0, 0]] == [
        [0.9, 0.1], [0.4, 0.6], [0.0, 0.2]]
    target = assigned_queries(torch.zeros(1, 1, 3, K), boxes, targets, most=2, alpha=0.0)
    assert target.tolist() == [[[0, 1, 2]]]


def test_an_object_that_no_box_is_near_has_its_best_query():
    targets = [{"labels": torch.tensor([1]), "boxes": torch.tensor([[0.2, 0.2, 0.1, 0.1]])}]
    boxes = torch.tensor([[[[0.7, 0.7, 0.1, 0.1], [0.8, 0.8, 0.2, 0.2]]]])
    logits = torch.zeros(1, 1, 2, K)
    logits[0, 0, 1, 1] = 1.0  # its score alone tells them apart
    assert assigned_queries(logits, boxes, targets, most=2).tolist() == [[[1, 0]]]


@pytest.mark.parametrize("shift", [0.01, 0.0], ids=["one after the other", "all alike"])
@pytest.mark.parametrize("place, number", [(0.5, 4), (0.1, 1)], ids=["near", "far"])
def test_an_object_gets_no_more_than_the_most_even_if_all_boxes_fit(place, number, shift):
    targets = [{"labels": torch.tensor([0]), "boxes": torch.tensor([[place, 0.5, 0.1, 0.4]])}]
    boxes = torch.tensor([0.5, 0.5, 0.1, 0.4]) + torch.arange(6)[:, None] * torch.tensor([shift, 0, 0, 0])
    assert assigned_queries(torch.zeros(1, 1, 6, K), boxes[None, None], targets, most=4).tolist() == [
        [[0] * number + [1] * (6 - number)]]


def test_a_query_that_fills_up_its_row_is_trained_on_nothing():
    targets = [{"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])}]
    boxes, filler = torch.tensor([0.5, 0.5, 0.4, 0.4]).expand(1, 1, 4, 4), torch.tensor([[True, False, True, False]])
    got = assigned_queries(torch.zeros(1, 1, 4, K), boxes, targets, most=3, filler=filler)
    assert got.tolist() == [[[1, 0, 1, 0]]]
    assert (assigned_queries(torch.zeros(1, 1, 4, K), boxes, targets, 3, torch.ones(1, 4, dtype=torch.bool)) == 1).all()


@pytest.mark.parametrize("quality", [0.0, 0.5])
def test_the_losses_are_means_over_the_queries_that_are_trained_on_an_object(quality):
    torch.manual_seed(0)
    sizes = [2, 0, 3]
    targets = random_targets(sizes)
    layers = [{"pred_logits": torch.randn(3, 8, K, dtype=torch.float64), "pred_boxes": near(targets, 8)}
              for _ in range(2)]
    route = {**layers[-1], "aux_outputs": layers[:-1]}
    criterion = VariantCriterion(K, HungarianMatcher(focal=True), LossConfig(quality=quality), one_to_many=3)
    losses = criterion({**answers(3, 4, L=2), "one_to_many": route}, targets)
    numbers = []
    for layer, suffix in zip(layers, ("_0", "")):
        ce, l1, giou, number = 0.0, 0.0, 0.0, 0
        for i, target in enumerate(targets):
            pairs = plain(layer["pred_logits"][i], layer["pred_boxes"][i], target, 3) if sizes[i] else {}
            number += len(pairs)
            wanted = torch.zeros(8, K, dtype=torch.float64)
            for q, t in pairs.items():
                box, true_box = layer["pred_boxes"][i, q], target["boxes"][t]
                wanted[q, target["labels"][t]] = iou(box, true_box) ** quality
                l1, giou = l1 + (box - true_box).abs().sum(), giou + giou_loss(box, true_box)
            if quality:
                p, logits = layer["pred_logits"][i].sigmoid(), layer["pred_logits"][i]
                of_image = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * (wanted - p) ** 2
                ce = ce + (of_image * torch.where(wanted > 0, 0.25, 0.75)).sum()
            else:
                ce = ce + focal(layer["pred_logits"][i], wanted).sum()
        numbers.append(number)
        for name, total in (("ce", ce), ("bbox", l1), ("giou", giou)):
            torch.testing.assert_close(losses[f"many_loss_{name}{suffix}"], total / number, **EXACT)
    assert min(numbers) > 5  # the objects


def test_parts_of_a_batch_count_by_their_objects():
    torch.manual_seed(0)
    sizes = [1, 3, 0]
    targets, layers = random_targets(sizes), answers(3, 8)
    layers["pred_boxes"] = near(targets, 8)
    criterion = VariantCriterion(K, HungarianMatcher(focal=True), LossConfig(), one_to_many=3)

    def losses(i: int, normalisers=None) -> dict:
        part = {name: layers[name][i:i + 1] for name in ("pred_logits", "pred_boxes")}
        return criterion({**part, "one_to_many": part}, targets[i:i + 1], normalisers)
    of_step = criterion.normalisers([targets], 8)
    for name in ("many_loss_ce", "many_loss_bbox", "many_loss_giou"):
        alone, together = ([losses(i, divisor)[name] for i in range(3)] for divisor in (None, of_step))
        for M, one, other in zip((1, 3, 1), alone, together):  # without an object the divisor is 1
            torch.testing.assert_close(other, one * M / 4, **EXACT)


def test_without_any_object_the_scores_alone_have_a_loss():
    torch.manual_seed(0)
    outputs, targets = {**answers(2, 4), "one_to_many": answers(2, 4)}, random_targets([0, 0])
    criterion = VariantCriterion(K, HungarianMatcher(focal=True), LossConfig(), one_to_many=3)
    losses = criterion(outputs, targets)
    logits = outputs["one_to_many"]["pred_logits"]
    torch.testing.assert_close(losses["many_loss_ce"], focal(logits, torch.zeros_like(logits)).sum() / 3, **EXACT)
    assert losses["many_loss_bbox"] == losses["many_loss_giou"] == 0


def test_they_count_in_the_sum_that_is_minimised():
    outputs, targets = {**answers(2, 4), "one_to_many": answers(2, 4)}, random_targets([1, 2])
    criterion = VariantCriterion(K, HungarianMatcher(focal=True), LossConfig(), one_to_many=3)
    losses = criterion(outputs, targets)
    without = criterion.total({name: value for name, value in losses.items() if not name.startswith("many_")})
    more = sum(weight * losses[f"many_{name}"] for name, weight in criterion.weight_dict.items())
    torch.testing.assert_close(criterion.total(losses), without + more, **EXACT)


def test_no_gradient_reaches_a_box_through_the_choice():
    outputs, targets = answers(2, 4), random_targets([1, 2])
    target = assigned_queries(outputs["pred_logits"][None], outputs["pred_boxes"][None], targets, 2)
    assert not target.requires_grad and target.dtype == torch.int64
