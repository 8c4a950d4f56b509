"""Focal classification, groups, noised boxes and cells in the criterion: each against its plain definition."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from scipy.optimize import linear_sum_assignment

from scratch.config import PRESETS, LossConfig
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.objective.variant import EMPTY, VariantCriterion, assigned_cells, criterion_for
from scratch.ops.boxes import box_cxcywh_to_xyxy
from tests.objective.test_matcher import K, random_boxes, random_targets, seeds
from tests.ops.test_boxes import torch_giou

EXACT = dict(rtol=1e-10, atol=1e-10)


def criterion(focal: bool = True) -> VariantCriterion:
    return VariantCriterion(K, HungarianMatcher(focal=focal), LossConfig())


def answers(B: int, Q: int, L: int = 1, columns: int = K) -> dict:
    """What a detector with L decoder layers returns, with gradients wanted."""
    layers = [{"pred_logits": torch.randn(B, Q, columns, dtype=torch.float64, requires_grad=True),
               "pred_boxes": random_boxes(B * Q).view(B, Q, 4).requires_grad_()} for _ in range(L)]
    return {**layers[-1], "aux_outputs": layers[:-1]}


def focal(logits, yes):
    p = logits.sigmoid()
    right, alpha = torch.where(yes > 0, p, 1 - p), torch.where(yes > 0, 0.25, 0.75)
    return -alpha * (1 - right) ** 2 * right.log()


def plain_pairs(logits, boxes, target) -> list[tuple[int, int]]:
    """Deformable DETR's cost, number by number, and SciPy's assignment."""
    p, corners = logits.detach().sigmoid(), box_cxcywh_to_xyxy(boxes.detach())
    yes, no = 0.25 * (1 - p) ** 2 * -p.log(), 0.75 * p ** 2 * -(1 - p).log()
    cost = (yes - no)[:, target["labels"]] + 5 * torch.cdist(boxes.detach(), target["boxes"], p=1)
    cost = cost - 2 * torch_giou(corners, box_cxcywh_to_xyxy(target["boxes"]))
    return list(zip(*linear_sum_assignment(cost)))


@given(seeds)
def test_focal_losses_are_those_of_a_plain_implementation(seed):
    torch.manual_seed(seed)
    outputs, targets = answers(3, 5), random_targets([2, 0, 4])
    losses = criterion()(outputs, targets)
    yes, l1 = torch.zeros(3, 5, K), 0.0
    for i, target in enumerate(targets):
        for q, t in plain_pairs(outputs["pred_logits"][i], outputs["pred_boxes"][i], target):
            yes[i, q, target["labels"][t]] = 1
            l1 = l1 + (outputs["pred_boxes"][i, q] - target["boxes"][t]).abs().sum()
    torch.testing.assert_close(losses["loss_ce"], focal(outputs["pred_logits"], yes).sum() / 6, **EXACT)
    torch.testing.assert_close(losses["loss_bbox"], l1 / 6, **EXACT)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_quality_makes_the_score_to_learn_the_iou_of_the_box(power):
    outputs, targets = answers(3, 5), random_targets([2, 0, 4])
    by_quality = VariantCriterion(K, HungarianMatcher(focal=True), LossConfig(quality=power))
    losses = by_quality(outputs, targets)
    wanted = torch.zeros(3, 5, K, dtype=torch.float64)
    for i, target in enumerate(targets):
        for q, t in plain_pairs(outputs["pred_logits"][i], outputs["pred_boxes"][i], target):
            a, b = (box_cxcywh_to_xyxy(boxes) for boxes in (outputs["pred_boxes"][i, q], target["boxes"][t]))
            shared = (torch.minimum(a, b)[2:] - torch.maximum(a, b)[:2]).clamp(min=0).prod()
            union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared
            wanted[i, q, target["labels"][t]] = (shared / union).item() ** power
    p = outputs["pred_logits"].sigmoid()
    class_loss = F.binary_cross_entropy(p, wanted, reduction="none") * (wanted - p) ** 2
    expected = (class_loss * torch.where(wanted > 0, 0.25, 0.75)).sum() / 6
    torch.testing.assert_close(losses["loss_ce"], expected, **EXACT)
    torch.testing.assert_close(losses["loss_bbox"], criterion()(outputs, targets)["loss_bbox"], **EXACT)


def test_no_gradient_goes_from_the_score_into_the_box():
    outputs, targets = answers(3, 5), random_targets([2, 0, 4])
    VariantCriterion(K, HungarianMatcher(focal=True), LossConfig(quality=1.0))(outputs, targets)["loss_ce"].backward()
    assert outputs["pred_logits"].grad.abs().sum() > 0 and outputs["pred_boxes"].grad is None


def test_a_query_that_is_sure_of_a_class_claims_an_object():
    logits = torch.full((1, 3, K), -2.0, dtype=torch.float64)
    logits[0, 0, 1] = 0.1  # more than even odds
    outputs = {"pred_logits": logits, "pred_boxes": random_boxes(3)[None]}
    assert criterion()(outputs, random_targets([3]))["cardinality_error"] == 2


def test_two_queries_that_are_sure_of_one_class_claim_two_objects():
    logits = torch.full((1, 3, K), -2.0, dtype=torch.float64)
    logits[0, :2, 1] = 0.1
    outputs = {"pred_logits": logits, "pred_boxes": random_boxes(3)[None]}
    assert criterion()(outputs, random_targets([3]))["cardinality_error"] == 1


def test_the_class_error_is_the_share_of_matched_queries_whose_best_class_is_another():
    boxes = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.4, 0.6, 0.1, 0.1]], dtype=torch.float64)
    logits = torch.full((1, 3, K), -2.0, dtype=torch.float64)
    logits[0, 0, 1] = logits[0, 1, 2] = logits[0, 2, 0] = 1.0
    targets = [{"labels": torch.tensor([1, 0, 0]), "boxes": boxes}]  # the second has another class
    losses = criterion()({"pred_logits": logits, "pred_boxes": boxes[None], "aux_outputs": []}, targets)
    assert losses["class_error"].item() == pytest.approx(100 / 3)


def test_focal_logits_too_large_for_a_loss_are_named():
    outputs = answers(1, 2)
    outputs["pred_logits"] = torch.full((1, 2, K), 1e308, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="logits"):
        criterion()(outputs, random_targets([1]))


def giou_loss(box, true_box) -> torch.Tensor:
    """1 − GIoU of two boxes."""
    corners = box_cxcywh_to_xyxy(torch.stack((box, true_box)))
    return 1 - torch_giou(corners[:1], corners[1:])[0, 0]


# -- groups ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [True, False])
def test_groups_are_matched_apart_and_their_losses_averaged(kind: bool):
    torch.manual_seed(0)
    groups = [answers(3, 5, L=2, columns=K if kind else K + 1) for _ in range(3)]
    targets = random_targets([2, 0, 4])
    together = criterion(kind)({**groups[0], "group_outputs": groups[1:]}, targets)
    alone = [criterion(kind)(group, targets) for group in groups]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(losses[name] for losses in alone) / 3, **EXACT)


def test_the_matching_lists_the_layers_of_the_first_group_first():
    torch.manual_seed(0)
    groups, targets = [answers(2, 5, L=2) for _ in range(2)], random_targets([2, 3])
    together = criterion().matching({**groups[0], "group_outputs": groups[1:]}, targets)
    apart = [layer for group in groups for layer in criterion().matching(group, targets)]
    assert [[(q.tolist(), t.tolist()) for q, t in layer] for layer in together] == [
        [(q.tolist(), t.tolist()) for q, t in layer] for layer in apart]


# -- noised boxes ----------------------------------------------------------------------------------------------------

def denoising(sizes: list[int], copies: int) -> dict:
    """Answers to `copies` noised copies of the objects of images of these sizes."""
    M = max(sizes)
    filler = torch.tensor([[t >= size for _ in range(copies) for t in range(M)] for size in sizes])
    return {**answers(len(sizes), copies * M), "filler": filler, "copies": copies}


def test_a_noised_box_is_trained_on_the_object_that_it_was():
    torch.manual_seed(0)
    sizes, R = [2, 0, 3], 2
    noised, targets = denoising(sizes, R), random_targets(sizes)
    losses = criterion()({**answers(3, 4), "denoising": noised}, targets)
    ce = l1 = 0.0
    for i, target in enumerate(targets):
        for r in range(R):
            for t in range(sizes[i]):
                logits, box = noised["pred_logits"][i, r * 3 + t], noised["pred_boxes"][i, r * 3 + t]
                ce = ce + focal(logits, F.one_hot(target["labels"][t], K)).sum()
                l1 = l1 + (box - target["boxes"][t]).abs().sum()
    torch.testing.assert_close(losses["dn_loss_ce"], ce / (5 * R), **EXACT)
    torch.testing.assert_close(losses["dn_loss_bbox"], l1 / (5 * R), **EXACT)


def test_the_copies_of_a_noised_box_share_the_weight_of_its_giou_loss():
    torch.manual_seed(0)
    sizes, R = [2, 0, 3], 2
    noised, targets = denoising(sizes, R), random_targets(sizes)
    losses = criterion()({**answers(3, 4), "denoising": noised}, targets)
    gaps = [giou_loss(noised["pred_boxes"][i, r * 3 + t], target["boxes"][t])
            for i, target in enumerate(targets) for r in range(R) for t in range(sizes[i])]
    torch.testing.assert_close(losses["dn_loss_giou"], sum(gaps) / (5 * R), **EXACT)


def test_what_fills_up_a_row_has_no_gradient():
    noised, targets = denoising([2, 1], 2), random_targets([2, 1])
    losses = criterion()({**answers(2, 4), "denoising": noised}, targets)
    sum(value for name, value in losses.items() if name.startswith("dn_")).backward()
    slope = noised["pred_logits"].grad.abs().sum(-1) + noised["pred_boxes"].grad.abs().sum(-1)
    assert torch.equal(slope == 0, noised["filler"])


def test_the_total_counts_noised_boxes_and_cells_as_it_counts_the_others():
    losses = {"loss_bbox": torch.tensor(1.0), "loss_bbox_0": torch.tensor(10.0), "dn_loss_bbox_0": torch.tensor(100.0),
              "cell_loss_bbox": torch.tensor(1000.0), "cardinality_error": torch.tensor(7.0)}
    assert criterion().total(losses) == 5 * 1111


# -- cells -----------------------------------------------------------------------------------------------------------

def cells(B: int, S: int) -> dict:
    pad_mask = torch.zeros(B, S, dtype=torch.bool)
    pad_mask[-1, S // 2:] = True
    return {**answers(B, S), "centres": torch.rand(B, S, 2, dtype=torch.float64), "pad_mask": pad_mask}


def plain_assignment(centres, pad_mask, targets) -> dict[int, int]:
    """Cell by cell: the smallest object that the cell lies in, or to whose centre it is the nearest."""
    pairs, first = {}, 0
    for i, target in enumerate(targets):
        there = ~pad_mask[i]
        for s in there.nonzero().flatten().tolist():
            wanting = []
            for t, (x, y, w, h) in enumerate(target["boxes"].tolist()):
                distances = ((centres[i] - target["boxes"][t, :2]) ** 2).sum(-1).masked_fill(~there, torch.inf)
                inside = abs(centres[i, s, 0] - x) < w / 2 and abs(centres[i, s, 1] - y) < h / 2
                if inside or distances.argmin() == s:
                    wanting.append((w * h, t))
            if wanting:
                pairs[i * len(there) + s] = first + min(wanting)[1]
        first += len(target["boxes"])
    return pairs


@given(seeds)
def test_cells_are_assigned_to_the_smallest_object_that_they_lie_in(seed):
    torch.manual_seed(seed)
    offered, targets = cells(3, 12), random_targets([3, 0, 2])
    target = assigned_cells(offered["centres"], offered["pad_mask"], targets)
    expected = plain_assignment(offered["centres"], offered["pad_mask"], targets)
    assert target.tolist() == [expected.get(cell, 5) for cell in range(len(target))]  # 5 of 5 objects: none


def test_the_cells_of_an_object_have_its_weight_together_and_an_empty_one_a_quarter():
    torch.manual_seed(3)
    offered, targets = cells(2, 9), random_targets([2, 1])
    losses = criterion()({**answers(2, 4), "proposals": offered}, targets)
    pairs = plain_assignment(offered["centres"], offered["pad_mask"], targets)
    labels, boxes = torch.cat([t["labels"] for t in targets]), torch.cat([t["boxes"] for t in targets])
    ce = l1 = 0.0
    for s in (~offered["pad_mask"]).flatten().nonzero().flatten().tolist():
        logits, box = offered["pred_logits"].flatten(0, 1)[s], offered["pred_boxes"].flatten(0, 1)[s]
        if s in pairs:
            share = 1 / list(pairs.values()).count(pairs[s])
            ce = ce + share * focal(logits, F.one_hot(labels[pairs[s]], K)).sum()
            l1 = l1 + share * (box - boxes[pairs[s]]).abs().sum()
        else:
            ce = ce + EMPTY * focal(logits, torch.zeros(K)).sum()
    torch.testing.assert_close(losses["cell_loss_ce"], ce / 3, **EXACT)
    torch.testing.assert_close(losses["cell_loss_bbox"], l1 / 3, **EXACT)


def test_the_cells_of_an_object_share_the_weight_of_its_giou_loss():
    torch.manual_seed(3)
    offered, targets = cells(2, 9), random_targets([2, 1])
    losses = criterion()({**answers(2, 4), "proposals": offered}, targets)
    pairs = plain_assignment(offered["centres"], offered["pad_mask"], targets)
    boxes, found = torch.cat([t["boxes"] for t in targets]), offered["pred_boxes"].flatten(0, 1)
    among = list(pairs.values())
    assert max(map(among.count, among)) > 1
    shared = sum(giou_loss(found[s], boxes[t]) / among.count(t) for s, t in pairs.items())
    torch.testing.assert_close(losses["cell_loss_giou"], shared / 3, **EXACT)


def test_pictures_without_objects_still_have_finite_losses():
    outputs = {**answers(2, 4), "proposals": cells(2, 9)}
    losses = criterion()(outputs, random_targets([0, 0]))
    criterion().total(losses).backward()
    assert all(value.isfinite() for value in losses.values())
    assert outputs["proposals"]["pred_logits"].grad.abs().sum() > 0


def test_several_cells_are_assigned_to_one_object_where_matching_would_assign_one():
    # A departure from two-stage Deformable DETR: four of the nine cells lie in the one box.
    steps = (torch.arange(3, dtype=torch.float64) + 0.5) / 3
    centres = torch.cartesian_prod(steps, steps)[None]
    targets = [{"labels": torch.tensor([1]), "boxes": torch.tensor([[0.3, 0.3, 0.6, 0.6]], dtype=torch.float64)}]
    target = assigned_cells(centres, torch.zeros(1, 9, dtype=torch.bool), targets)
    assert target.tolist() == [0, 0, 1, 0, 0, 1, 1, 1, 1]  # 1: none
    outputs = {"pred_logits": torch.zeros(1, 9, K, dtype=torch.float64), "pred_boxes": random_boxes(9)[None]}
    assert [len(query) for query, _ in HungarianMatcher(focal=True)(outputs, targets)] == [1]


# -- the choice ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_published_presets_have_the_published_criterion_and_the_others_the_variants(preset):
    criterion = criterion_for(PRESETS[preset].model, HungarianMatcher(), LossConfig())
    assert type(criterion) is (VariantCriterion if preset in ("tiny", "detr_141m_fast", "detr_r50_fast") else SetCriterion)


@pytest.mark.parametrize("changes", [{"groups": 2}, {"queries": "anchor"}, {"classification": "focal"}])
def test_one_field_beyond_the_published_model_asks_for_the_variants_criterion(changes):
    model = dataclasses.replace(PRESETS["detr_r50"].model, **changes)
    assert type(criterion_for(model, HungarianMatcher(), LossConfig())) is VariantCriterion


def test_of_published_outputs_both_criteria_make_the_same_losses_and_total():
    torch.manual_seed(0)
    outputs, targets = answers(3, 5, L=2, columns=K + 1), random_targets([2, 0, 4])
    ours, published = criterion(False), SetCriterion(K, HungarianMatcher(), LossConfig())
    losses, expected = ours(outputs, targets), published(outputs, targets)
    assert list(losses) == list(expected) and all(torch.equal(losses[name], expected[name]) for name in losses)
    assert torch.equal(ours.total(losses), published.total(expected))
