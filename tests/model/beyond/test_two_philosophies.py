"""Faster R-CNN's hand-made steps, worked by hand, and the figures of the note."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields

import pytest
import torch

from scratch.config import LossConfig
from scratch.model.beyond import two_philosophies
from scratch.model.beyond.two_philosophies import (
    DETECTIONS, PER_LEVEL, PROPOSALS, anchor_grid, clear_up, correct, label_anchors, propose,
)
from scratch.ops.beyond.roi_align import roi_align


def test_the_steps_make_a_chain_from_fixed_boxes_to_detections_and_what_anchors_learn() -> None:
    H, W, C, K = 96, 128, 5, 3
    levels = anchor_grid(H, W)                                                              # 2: (A,4) each
    counts = [3 * h * w for h, w in ((24, 32), (12, 16), (6, 8), (3, 4), (2, 2))]
    assert [tuple(level.shape) for level in levels] == [(A, 4) for A in counts]
    scores, deltas = [torch.rand(A) for A in counts], [0.1 * torch.randn(A, 4) for A in counts]  # 3, drawn
    proposals = propose(levels, scores, deltas, H, W)                                       # 4: (P,4)
    P = len(proposals)
    assert proposals.shape == (P, 4) and 100 < P <= PROPOSALS
    read = roi_align(torch.rand(C, 6, 8), proposals, stride=16)                             # 5: (P,C,7,7)
    assert read.shape == (P, C, 7, 7)
    tokens = read.flatten(1)                                                                # (P,C·49)
    probabilities = (tokens @ torch.randn(C * 49, K + 1)).softmax(-1)[:, :K]                # 6: (P,K), random layers
    corrections = (0.01 * tokens @ torch.randn(C * 49, 4 * K)).unflatten(-1, (K, 4))        # (P,K,4)
    boxes, sure, labels = clear_up(correct(proposals[:, None], corrections), probabilities)  # 7
    n = len(boxes)
    assert boxes.shape == (n, 4) and sure.shape == labels.shape == (n,) and 0 < n <= DETECTIONS
    learnt, of_object = label_anchors(torch.cat(levels), torch.tensor([[8.0, 8, 40, 40], [50.0, 20, 120, 90]]))  # 8
    assert learnt.shape == of_object.shape == (sum(counts),)
    assert {0, 1} <= set(learnt.tolist()) <= {-1, 0, 1} and set(of_object[learnt == 1].tolist()) == {0, 1}


def test_the_note_counts_the_anchors_and_the_cells() -> None:
    levels = anchor_grid(800, 1066)
    assert [len(level) // 3 for level in levels] == [200 * 267, 100 * 134, 50 * 67, 25 * 34, 13 * 17]
    assert sum(map(len, levels)) == 213_663 == 3 * 71_221


def test_the_note_counts_the_weights_that_a_person_chooses_for_detr() -> None:
    chosen = [field.name for field in fields(LossConfig) if not field.name.startswith(("focal", "quality"))]
    assert len(chosen) == 7 and "seven weights of costs and losses" in inspect.getsource(two_philosophies)


def test_anchors_stand_on_their_cells_with_their_level_s_area_and_three_shapes() -> None:
    first = anchor_grid(128, 192)[2][:6]  # stride 16, side 128
    low, high = first.split(2, dim=-1)
    torch.testing.assert_close((low + high) / 2, torch.tensor([[8.0, 8.0]] * 3 + [[24.0, 8.0]] * 3))
    sides = high - low
    torch.testing.assert_close(sides.prod(-1), torch.full((6,), 128.0 ** 2))
    torch.testing.assert_close(sides[:3, 1] / sides[:3, 0], torch.tensor([0.5, 1.0, 2.0]))


def test_many_anchors_are_told_to_claim_one_object() -> None:
    # 128 × 128 pixels around (124, 124); anchors of that size stand 16 apart. IoU of those 4 and 4 pixels away: 0.88,
    # 4 and 12 away (two of them): 0.78, 12 and 12 away: 0.697.
    anchors = anchor_grid(256, 256)[2]
    box = torch.tensor([[60.0, 60.0, 188.0, 188.0]])
    labels, object_of = label_anchors(anchors, box)
    assert (labels == 1).sum() == 3 and (object_of[labels == 1] == 0).all()


def test_labels_worked_by_hand() -> None:
    box = torch.tensor([[0.0, 0, 10, 10], [50.0, 50, 60, 60]])
    anchors = torch.tensor([[0.0, 0, 10, 8],      # IoU 0.8: yes
                            [0.0, 0, 10, 5],      # 0.5: neither
                            [0.0, 0, 10, 2],      # 0.2: no
                            [50.0, 50, 60, 52],   # 0.2, but the second object has no better one: yes
                            [90.0, 90, 99, 99]])  # no
    labels, object_of = label_anchors(anchors, box)
    assert labels.tolist() == [1, -1, 0, 1, 0]
    assert object_of[[0, 3]].tolist() == [0, 1]


def test_without_objects_every_anchor_says_no() -> None:
    labels, _ = label_anchors(torch.rand(5, 4), torch.zeros(0, 4))
    assert labels.tolist() == [0] * 5


def test_corrections_are_in_units_of_the_anchor() -> None:
    anchor = torch.tensor([10.0, 20.0, 30.0, 60.0])  # 20 × 40 around (20, 40)
    moved = correct(anchor, torch.tensor([0.5, -0.25, math.log(2), 0.0]))
    torch.testing.assert_close(moved, torch.tensor([10.0, 10.0, 50.0, 50.0]))
    assert torch.equal(correct(anchor, torch.zeros(4)), anchor)
    assert correct(anchor, torch.tensor([0.0, 0.0, 1e4, 0.0])).isfinite().all()


def test_proposals_are_few_within_the_picture_and_apart() -> None:
    generator = torch.Generator().manual_seed(11)
    levels = anchor_grid(320, 480)
    scores = [torch.rand(len(level), generator=generator) for level in levels]
    deltas = [0.1 * torch.randn(len(level), 4, generator=generator) for level in levels]
    boxes = propose(levels, scores, deltas, 320, 480)
    assert len(levels[0]) > PER_LEVEL and 100 < len(boxes) <= PROPOSALS
    assert boxes.min() >= 0 and boxes[:, ::2].max() <= 480 and boxes[:, 1::2].max() <= 320


def test_the_surest_proposal_comes_first_and_levels_do_not_clear_each_other() -> None:
    same = torch.tensor([[10.0, 10.0, 40.0, 40.0]])
    boxes = propose([same, same], [torch.tensor([0.2]), torch.tensor([0.7])], [torch.zeros(1, 4)] * 2, 100, 100)
    assert len(boxes) == 2
    other = torch.tensor([[60.0, 60.0, 90.0, 90.0]])
    boxes = propose([same, other], [torch.tensor([0.2]), torch.tensor([0.7])], [torch.zeros(1, 4)] * 2, 100, 100)
    assert torch.equal(boxes, torch.cat((other, same)))


def test_what_is_left_has_no_repetition_within_a_class_and_no_low_score() -> None:
    box = torch.tensor([0.0, 0.0, 10.0, 10.0])
    boxes = box.expand(3, 2, 4)  # three proposals say the same box for both classes
    probabilities = torch.tensor([[0.9, 0.04], [0.8, 0.3], [0.01, 0.2]])
    found, scores, labels = clear_up(boxes, probabilities)
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.3]))
    assert labels.tolist() == [0, 1] and torch.equal(found, box.expand(2, 4))


@pytest.mark.parametrize("proposals", [0, 300])
def test_at_most_a_hundred_detections_are_left(proposals: int) -> None:
    corners = torch.arange(proposals, dtype=torch.float32)[:, None] * 20  # far from each other
    boxes = torch.cat((corners, corners, corners + 10, corners + 10), dim=-1)[:, None]  # (P,1,4)
    found, _, _ = clear_up(boxes, torch.full((proposals, 1), 0.5))
    assert len(found) == min(proposals, DETECTIONS)
