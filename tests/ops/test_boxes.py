"""Boxes: every formula against counted cells, plain floats, and a composition of torch, in value and gradient."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scratch.ops.boxes import (
    box_area, box_cxcywh_to_xyxy, box_iou, box_xywh_to_xyxy, box_xyxy_to_cxcywh, generalized_box_iou,
    giou_of_two, paired_generalized_box_iou,
)
from tests.checks import assert_as_precise_as_torch, assert_same

UNIT = [0.0, 0.0, 1.0, 1.0]
EDGES = {  # name: (a, b, GIoU), worked by hand
    "identical": (UNIT, UNIT, 1.0),
    "touching at a side": (UNIT, [1.0, 0.0, 2.0, 1.0], 0.0),
    "touching at a corner": (UNIT, [1.0, 1.0, 2.0, 2.0], -0.5),
    "nested": ([0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 3.0, 3.0], 0.25),
    "disjoint": (UNIT, [2.0, 0.0, 3.0, 1.0], -1 / 3),
    "a point in a box": ([0.5, 0.5, 0.5, 0.5], UNIT, 0.0),
    "a point outside a box": ([2.0, 1.0, 2.0, 1.0], UNIT, -0.5),
    "twice the same point": ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], 0.0),
    "two points apart": ([0.0, 0.0, 0.0, 0.0], UNIT[2:] * 2, -1.0),
    "twice the same line": ([0.0, 0.5, 1.0, 0.5], [0.0, 0.5, 1.0, 0.5], 0.0),
    "inside out in both sides": ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0], 0.0),
}
edges = pytest.mark.parametrize("a, b, giou", EDGES.values(), ids=EDGES.keys())


def random_boxes(*shape: int) -> Tensor:
    """Boxes of positive size whose corners lie in [0, 1.5], float64 (*shape, 4)."""
    low, size = torch.rand(2, *shape, 2, dtype=torch.float64)
    return torch.cat((low, low + 0.05 + size / 2), dim=-1)


def torch_giou(a: Tensor, b: Tensor) -> Tensor:
    """The formula as torch's own reductions spell it, with none of our precautions: (N,4), (M,4) → (N,M)."""
    stacked = torch.stack(torch.broadcast_tensors(a[:, None], b[None]))  # (2,N,M,4)
    shared = torch.prod(torch.relu(stacked[..., 2:].amin(0) - stacked[..., :2].amax(0)), dim=-1)
    hull = torch.prod(stacked[..., 2:].amax(0) - stacked[..., :2].amin(0), dim=-1)
    union = torch.prod(stacked[..., 2:] - stacked[..., :2], dim=-1).sum(0) - shared
    return shared / union - 1 + union / hull


# -- conversions ---------------------------------------------------------------------------------------------------

def test_a_centre_and_a_size_become_two_corners() -> None:
    assert box_cxcywh_to_xyxy(torch.tensor([5.0, 7.0, 4.0, 6.0])).tolist() == [3.0, 4.0, 7.0, 10.0]


def test_two_corners_become_a_centre_and_a_size() -> None:
    assert box_xyxy_to_cxcywh(torch.tensor([3.0, 4.0, 7.0, 10.0])).tolist() == [5.0, 7.0, 4.0, 6.0]


def test_a_coco_box_becomes_two_corners() -> None:
    assert box_xywh_to_xyxy(torch.tensor([3.0, 4.0, 5.0, 7.0])).tolist() == [3.0, 4.0, 8.0, 11.0]


@given(st.lists(st.integers(0, 3), max_size=3))
def test_conversions_there_and_back_change_nothing_at_any_leading_shape(shape: list[int]) -> None:
    boxes = random_boxes(*shape)
    torch.testing.assert_close(box_cxcywh_to_xyxy(box_xyxy_to_cxcywh(boxes)), boxes, rtol=0, atol=1e-15)


@pytest.mark.parametrize("convert", [box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, box_xywh_to_xyxy, box_area])
def test_conversions_and_area_have_exact_gradients(convert) -> None:
    assert torch.autograd.gradcheck(convert, random_boxes(7).requires_grad_())


# -- the definition ------------------------------------------------------------------------------------------------

CORNER_PAIR = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(sorted).filter(lambda pair: pair[0] < pair[1])
GRID_BOX = st.tuples(CORNER_PAIR, CORNER_PAIR).map(lambda sides: [sides[0][0], sides[1][0], sides[0][1], sides[1][1]])


def cells(box: list[int]) -> set[tuple[int, int]]:
    return set(product(range(box[0], box[2]), range(box[1], box[3])))


@given(GRID_BOX, GRID_BOX)
def test_the_definition_equals_counting_the_cells_of_a_grid(a: list[int], b: list[int]) -> None:
    ours, both = cells(a) | cells(b), cells(a) & cells(b)
    x, y = zip(*ours)
    hull = (max(x) - min(x) + 1) * (max(y) - min(y) + 1)
    assert giou_of_two(a, b) == pytest.approx(len(both) / len(ours) - (hull - len(ours)) / hull, abs=1e-15)


@edges
def test_the_definition_at_an_edge_is_the_value_worked_by_hand(a, b, giou) -> None:
    assert giou_of_two(a, b) == pytest.approx(giou, abs=1e-15)


# -- tensors -------------------------------------------------------------------------------------------------------

def test_the_picture_in_the_note_has_iou_one_seventh_and_giou_minus_five_sixty_thirds() -> None:
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    iou, union = box_iou(a, b)
    assert (union.item(), iou.item()) == (7.0, pytest.approx(1 / 7))
    assert generalized_box_iou(a, b).item() == pytest.approx(-5 / 63)


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 5), st.integers(1, 7), st.integers(0, 10**6))
def test_every_pair_of_every_batch_equals_the_definition(batch: list[int], N: int, M: int, seed: int) -> None:
    torch.manual_seed(seed)
    a, b = random_boxes(*batch, N), random_boxes(*batch, M)
    images = zip(a.reshape(-1, N, 4).tolist(), b.reshape(-1, M, 4).tolist())
    expected = torch.tensor([giou_of_two(p, q) for x, y in images for p in x for q in y], dtype=torch.float64)
    expected = expected.reshape(*batch, N, M)
    torch.testing.assert_close(generalized_box_iou(a, b), expected, rtol=0, atol=1e-14)


def test_giou_has_the_value_and_the_gradients_of_a_plain_composition_of_torch() -> None:
    assert_same(generalized_box_iou, torch_giou, random_boxes(11), random_boxes(13))


def test_giou_has_the_gradient_that_small_steps_measure() -> None:
    a, b = random_boxes(5).requires_grad_(), random_boxes(7).requires_grad_()
    assert torch.autograd.gradcheck(generalized_box_iou, (a, b))


def test_iou_and_union_have_the_gradients_that_small_steps_measure() -> None:
    a, b = random_boxes(5).requires_grad_(), random_boxes(7).requires_grad_()
    assert torch.autograd.gradcheck(box_iou, (a, b))


def test_paired_giou_is_the_diagonal_of_every_with_every() -> None:
    a, b = random_boxes(13), random_boxes(13)
    assert torch.equal(paired_generalized_box_iou(a, b), generalized_box_iou(a, b).diagonal())


@edges
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_giou_at_an_edge_is_the_value_worked_by_hand(a, b, giou, dtype) -> None:
    ours = paired_generalized_box_iou(torch.tensor(a, dtype=dtype), torch.tensor(b, dtype=dtype))
    assert ours.item() == pytest.approx(giou, abs=1e-7)


@edges
def test_giou_and_iou_at_an_edge_have_finite_gradients(a, b, giou) -> None:
    a, b = torch.tensor([a], requires_grad=True), torch.tensor([b], requires_grad=True)
    (generalized_box_iou(a, b).sum() + box_iou(a, b)[0].sum()).backward()
    assert a.grad.isfinite().all() and b.grad.isfinite().all()


@pytest.mark.parametrize("side", [1e-30, 1e-22, 1e-19, 1e-10])
def test_boxes_whose_area_is_near_or_below_the_smallest_number_have_finite_gradients(side: float) -> None:
    a = torch.tensor([[0.0, 0.0, side, side]], requires_grad=True)
    loss = generalized_box_iou(a, a.detach().clone()).sum()
    loss.backward()
    assert loss.isfinite() and a.grad.isfinite().all()


@given(st.lists(st.floats(-2, 2, width=32), min_size=8, max_size=8))
def test_any_four_numbers_are_a_box_and_giou_stays_between_minus_one_and_one(numbers: list[float]) -> None:
    giou = paired_generalized_box_iou(*torch.tensor(numbers, dtype=torch.float64).split(4))
    assert -1 - 1e-12 <= giou.item() <= 1 + 1e-12


def test_no_boxes_give_an_empty_table_with_a_gradient() -> None:
    a, b = random_boxes(5).requires_grad_(), random_boxes(0)
    generalized_box_iou(a, b).sum().backward()
    assert generalized_box_iou(a, b).shape == (5, 0) and torch.equal(a.grad, torch.zeros_like(a))


# -- precision -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_boxes_are_compared_in_float32(dtype) -> None:
    a, b = random_boxes(11).to(dtype), random_boxes(13).to(dtype)
    assert torch.equal(generalized_box_iou(a, b), generalized_box_iou(a.float(), b.float()))


def test_float32_giou_and_its_gradients_are_as_precise_as_a_plain_composition_of_torch() -> None:
    assert_as_precise_as_torch(generalized_box_iou, torch_giou, random_boxes(11), random_boxes(13),
                               dtypes=[torch.float32])


@pytest.mark.parametrize("ours, theirs", [
    (box_cxcywh_to_xyxy, lambda b: torch.cat((b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2), -1)),
    (box_xyxy_to_cxcywh, lambda b: torch.cat(((b[..., :2] + b[..., 2:]) / 2, b[..., 2:] - b[..., :2]), -1)),
    (box_xywh_to_xyxy, lambda b: torch.cat((b[..., :2], b[..., :2] + b[..., 2:]), -1))])
def test_conversions_have_the_value_and_the_gradient_of_their_formula_in_float64_and_float32(ours, theirs) -> None:
    assert_same(ours, theirs, random_boxes(3, 7))
    assert_as_precise_as_torch(ours, theirs, random_boxes(3, 7), dtypes=[torch.float32])


def test_float64_boxes_stay_in_float64() -> None:
    assert generalized_box_iou(random_boxes(2), random_boxes(3)).dtype == torch.float64


def test_bfloat16_counts_in_steps_of_four_at_pixel_640() -> None:
    assert torch.tensor([642.0, 643.0, 644.0]).bfloat16().tolist() == [640.0, 644.0, 644.0]


def test_the_area_of_a_256_pixel_square_is_too_large_for_float16_but_not_for_us() -> None:
    square = torch.tensor([0.0, 0.0, 256.0, 256.0], dtype=torch.float16)
    assert (square[2] * square[3]).isinf() and box_area(square).item() == 65536.0
