"""NMS: the fast one keeps what the definition keeps, and what it must lose is shown."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratch.ops.beyond import nms as nms_module
from scratch.ops.beyond.nms import batched_nms, nms, nms_definition


def crowd(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n boxes that overlap a lot, and their scores, some of them equal."""
    generator = torch.Generator().manual_seed(seed)
    corners = 10 * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    sides = 2 + 6 * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    scores = torch.randint(0, 1 + n // 2, (n,), generator=generator) / (1 + n)
    return torch.cat((corners, corners + sides), dim=-1), scores


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 23), seed=st.integers(0, 10_000), threshold=st.floats(0.05, 0.95))
def test_it_keeps_what_the_definition_keeps(n: int, seed: int, threshold: float) -> None:
    boxes, scores = crowd(n, seed)
    assert nms(boxes, scores, threshold).tolist() == nms_definition(boxes, scores, threshold)


def test_the_chain_of_the_docstring() -> None:
    # Each covers the next alone: IoU of neighbours 6/14, of those after them 2/18.
    boxes = torch.tensor([[4.0 * i, 0, 4.0 * i + 10, 1] for i in range(4)])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.4).tolist() == [0, 2]


def test_an_overlap_of_exactly_the_threshold_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 1], [1.0, 0, 2, 1]])  # IoU ½
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]


def test_of_equal_scores_the_first_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0.0, 0, 2, 2]])
    assert nms(boxes, torch.tensor([0.5, 0.5]), 0.5).tolist() == [0]


@pytest.mark.parametrize("threshold, left", [(0.5, [0]), (0.63, [0, 2]), (0.7, [0, 1, 2])])
def test_no_threshold_is_right_for_neighbours_and_for_repetitions(threshold: float, left: list[int]) -> None:
    # 1 is a cat beside the cat 0 (IoU 2/3), 2 a bad repetition of 0 (IoU 0.6): 0 and 1 should be left.
    boxes = torch.tensor([[0.0, 0, 10, 5], [2.0, 0, 12, 5], [0.0, 0, 6, 5]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), threshold).tolist() == left


def test_boxes_of_different_groups_leave_each_other_alone() -> None:
    boxes, scores = crowd(31, seed=5)
    groups = torch.arange(31) % 3
    kept = batched_nms(boxes, scores, groups, 0.4).tolist()
    expected = []
    for group in range(3):
        mine = (groups == group).nonzero().flatten()
        expected += mine[nms(boxes[mine], scores[mine], 0.4)].tolist()
    assert sorted(kept) == sorted(expected) and len(kept) > len(nms(boxes, scores, 0.4))
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)


def test_of_nothing_nothing_is_kept() -> None:
    empty = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert batched_nms(*empty, 0.5).shape == (0,)


class OnAMac(torch.Tensor):
    """Numbers of the CPU that say they are on a Mac's GPU."""

    device = property(lambda self: torch.device("mps"))


@pytest.mark.parametrize("kind, dtype", [(torch.Tensor, torch.float64), (OnAMac, torch.float32)])
def test_groups_are_moved_in_the_widest_numbers_that_the_device_has(monkeypatch, kind, dtype) -> None:
    taken = []
    monkeypatch.setattr(nms_module, "nms", lambda boxes, scores, threshold: taken.append(boxes.dtype))
    boxes = torch.tensor([[0.0, 0.0, 3.0, 2.0], [1.0, 1.0, 5.0, 4.0]]).as_subclass(kind)
    batched_nms(boxes, torch.tensor([0.5, 0.25]), torch.tensor([0, 1]), 0.5)
    assert taken == [dtype]
