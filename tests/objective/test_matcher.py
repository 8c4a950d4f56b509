"""The matcher: its pairs against SciPy's on a cost written out image by image, its order, and what it refuses."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment as scipy_assignment
from torch import Tensor

from scratch.objective.matcher import HungarianMatcher
from scratch.ops.boxes import box_cxcywh_to_xyxy
from tests.ops.test_boxes import torch_giou

K = 5


def random_boxes(*shape: int) -> Tensor:
    """cxcywh boxes of positive size, float64 (*shape, 4)."""
    return torch.rand(*shape, 4, dtype=torch.float64) * 0.8 + 0.1


def random_outputs(B: int, Q: int) -> dict[str, Tensor]:
    return {"pred_logits": 3 * torch.randn(B, Q, K + 1, dtype=torch.float64), "pred_boxes": random_boxes(B, Q)}


def random_targets(sizes: list[int]) -> list[dict]:
    return [{"labels": torch.randint(K, (M,)), "boxes": random_boxes(M), "image_id": 100 + i}
            for i, M in enumerate(sizes)]


def plain_pairs(logits: Tensor, boxes: Tensor, target: dict, weights=(1.0, 5.0, 2.0)) -> list[list[int]]:
    """The pairs of one image, as SciPy finds them on a cost made with torch's own functions."""
    cost = (-weights[0] * logits.softmax(-1)[:, target["labels"]]
            + weights[1] * torch.cdist(boxes, target["boxes"], p=1)
            - weights[2] * torch_giou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(target["boxes"])))
    return [indices.tolist() for indices in scipy_assignment(cost.detach())]


def as_lists(pairs: list[tuple[Tensor, Tensor]]) -> list[list[list[int]]]:
    return [[query.tolist(), target.tolist()] for query, target in pairs]


sizes_of_a_batch = st.lists(st.integers(0, 7), min_size=1, max_size=4)
seeds = st.integers(0, 10**6)


@given(sizes_of_a_batch, st.integers(1, 5), st.tuples(*[st.floats(0.1, 5)] * 3), seeds)
def test_the_pairs_of_every_image_are_scipys_in_scipys_order(sizes: list[int], Q: int, weights, seed: int) -> None:
    torch.manual_seed(seed)
    outputs, targets = random_outputs(len(sizes), Q), random_targets(sizes)
    expected = [plain_pairs(*image, weights) for image in zip(outputs["pred_logits"], outputs["pred_boxes"], targets)]
    assert as_lists(HungarianMatcher(*weights)(outputs, targets)) == expected


def test_two_queries_swap_their_objects_when_the_sum_is_smaller_so() -> None:
    # All probabilities are equal and all boxes of one size, so position decides, along x: queries at 0.3 and 0.5,
    # objects at 0.4 (first) and 0.2. Query 0 is 0.1 from both; query 1 is 0.1 from the first, 0.3 from the second.
    boxes = torch.tensor([[[0.3, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]])
    outputs = {"pred_logits": torch.zeros(1, 2, K + 1), "pred_boxes": boxes}
    target = {"labels": torch.tensor([2, 2]), "boxes": torch.tensor([[0.4, 0.5, 0.5, 0.5], [0.2, 0.5, 0.5, 0.5]])}
    assert as_lists(HungarianMatcher()(outputs, [target])) == [[[0, 1], [1, 0]]]


def test_the_query_that_names_the_class_wins_where_all_boxes_are_identical() -> None:
    outputs = {"pred_logits": torch.zeros(1, 3, K + 1), "pred_boxes": torch.full((1, 3, 4), 0.5)}
    outputs["pred_logits"][0, 1, 4] = 1.0
    target = {"labels": torch.tensor([4]), "boxes": torch.full((1, 4), 0.5)}
    assert as_lists(HungarianMatcher()(outputs, [target])) == [[[1], [0]]]


def test_an_image_without_objects_has_no_pairs_and_its_neighbours_keep_theirs() -> None:
    outputs, targets = random_outputs(3, 7), random_targets([2, 0, 3])
    assert [len(query) for query, _ in HungarianMatcher()(outputs, targets)] == [2, 0, 3]


def test_a_batch_without_any_object_has_no_pairs() -> None:
    pairs = HungarianMatcher()(random_outputs(2, 7), random_targets([0, 0]))
    assert all(x.shape == (0,) and x.dtype == torch.int64 for pair in pairs for x in pair)


def test_more_objects_than_queries_give_every_query_an_object() -> None:
    ((query, target),) = HungarianMatcher()(random_outputs(1, 3), random_targets([11]))
    assert query.tolist() == [0, 1, 2] and len(set(target.tolist())) == 3


def test_an_images_pairs_do_not_depend_on_the_rest_of_the_batch() -> None:
    outputs, targets = random_outputs(3, 7), random_targets([2, 5, 3])
    together = HungarianMatcher()(outputs, targets)
    for i in range(3):
        alone = HungarianMatcher()({name: x[i:i + 1] for name, x in outputs.items()}, targets[i:i + 1])
        assert as_lists(alone) == as_lists(together[i:i + 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_outputs_are_matched_in_float32(dtype) -> None:
    targets = random_targets([5, 7])
    low = {name: x.to(dtype) for name, x in random_outputs(2, 11).items()}
    high = {name: x.float() for name, x in low.items()}
    assert as_lists(HungarianMatcher()(low, targets)) == as_lists(HungarianMatcher()(high, targets))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_targets_of_half_precision_outputs_are_not_rounded_to_it(dtype) -> None:
    # The object is 0.98 of a step from query 1 and 1.02 from query 0; rounded to the dtype, it is a step from both.
    step = torch.finfo(dtype).eps / 2  # between numbers from 0.5 to 1
    boxes = torch.full((1, 2, 4), 0.5)
    boxes[0, 0, 0] += 2 * step
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5 + 0.98 * step, 0.5, 0.5, 0.5]])}
    outputs = {"pred_logits": torch.zeros(1, 2, K + 1, dtype=dtype), "pred_boxes": boxes.to(dtype)}
    assert as_lists(HungarianMatcher()(outputs, [target])) == [[[1], [0]]]


def test_float64_outputs_are_told_apart_in_float64() -> None:
    outputs = {"pred_logits": torch.zeros(1, 2, K + 1).double(), "pred_boxes": torch.full((1, 2, 4), 0.5).double()}
    target = {"labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.5).double()}
    outputs["pred_boxes"][0, 0, 0] += 1e-12
    assert as_lists(HungarianMatcher()(outputs, [target])) == [[[1], [0]]]


def test_empty_boxes_are_matched_without_complaint() -> None:
    outputs, targets = random_outputs(1, 3), random_targets([2])
    outputs["pred_boxes"][..., 2:] = 0
    targets[0]["boxes"] = outputs["pred_boxes"][0, [2, 0]]
    assert as_lists(HungarianMatcher(cost_class=0)(outputs, targets)) == [[[0, 2], [1, 0]]]


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes"])
@pytest.mark.parametrize("image, sizes", [(0, [3, 2]), (1, [3, 2]), (1, [3, 0]), (0, [0, 0])])
def test_an_output_that_is_not_finite_is_named_with_its_image_even_without_objects(bad, name, image, sizes) -> None:
    outputs = random_outputs(2, 7)
    outputs[name][image, 4, 1] = bad
    with pytest.raises(FloatingPointError, match=rf"in {name}, image_id \[{100 + image}\] of the batch \[100, 101\];"):
        HungarianMatcher()(outputs, random_targets(sizes))


def test_an_image_without_an_id_does_not_hide_what_is_not_finite() -> None:
    outputs, targets = random_outputs(2, 7), random_targets([3, 2])
    outputs["pred_boxes"][:] = nan
    del targets[0]["image_id"]
    with pytest.raises(FloatingPointError, match="in pred_boxes, image_id .*None"):
        HungarianMatcher()(outputs, targets)


def test_the_first_of_several_bad_tensors_is_named_with_all_its_images() -> None:
    outputs = random_outputs(3, 7)
    outputs["pred_logits"][[0, 2], 4, 1] = nan
    outputs["pred_boxes"][:] = nan
    with pytest.raises(FloatingPointError, match=r"not finite in pred_logits, image_id \[100, 102\]"):
        HungarianMatcher()(outputs, random_targets([1, 1, 1]))


def test_a_target_that_is_not_finite_is_named_with_its_image() -> None:
    targets = random_targets([2, 3])
    targets[1]["boxes"][2, 0] = nan
    with pytest.raises(FloatingPointError, match=r"not finite in the targets' boxes, image_id \[101\]"):
        HungarianMatcher()(random_outputs(2, 7), targets)


def test_finite_boxes_whose_cost_overflows_are_refused() -> None:
    outputs = random_outputs(1, 7)
    outputs["pred_boxes"] *= 1e308
    with pytest.raises(FloatingPointError, match=r"in the matching cost \(of .* their type\), image_id \[100\]"):
        HungarianMatcher()(outputs, random_targets([2]))


def test_a_gap_of_logits_is_refused_where_times_all_queries_of_the_batch_it_overflows() -> None:
    largest = torch.finfo(torch.float64).max
    outputs, targets = random_outputs(2, 5), random_targets([1, 1])
    for spread, refused in ((largest / 11, False), (largest / 9, True)):
        outputs["pred_logits"] = torch.zeros_like(outputs["pred_logits"])
        outputs["pred_logits"][1, 2, 0] = spread
        if refused:
            with pytest.raises(FloatingPointError, match="loss_ce"):
                HungarianMatcher()(outputs, targets)
        else:
            assert len(HungarianMatcher()(outputs, targets)) == 2


def test_finite_logits_whose_loss_overflows_are_refused_with_their_image_and_its_batch() -> None:
    outputs = {name: x.float() for name, x in random_outputs(2, 7).items()}
    outputs["pred_logits"][1, 3, :2] = torch.tensor([3e38, -3e38])
    message = r"not finite in loss_ce \(of finite logits .*\), image_id \[101\] of the batch \[100, 101\]"
    with pytest.raises(FloatingPointError, match=message):
        HungarianMatcher()(outputs, random_targets([2, 0]))


@pytest.mark.parametrize("label", [-1, K, K + 1, 10**9])
def test_a_label_that_the_model_has_no_class_for_is_refused_with_its_image(label: int) -> None:
    targets = random_targets([2, 3])
    targets[1]["labels"][2] = label
    with pytest.raises(ValueError, match=rf"got labels \[{label}\] in image_id \[101\]; wanted 0\.\.{K - 1}"):
        HungarianMatcher()(random_outputs(2, 7), targets)


def test_no_gradient_passes_through_the_matching() -> None:
    outputs = {name: x.requires_grad_() for name, x in random_outputs(1, 5).items()}
    assert not any(x.requires_grad for x in HungarianMatcher()(outputs, random_targets([3]))[0])


def test_three_costs_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one above 0"):
        HungarianMatcher(0, 0, 0)


def test_a_number_of_targets_other_than_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 targets for 2 images"):
        HungarianMatcher()(random_outputs(2, 3), random_targets([1]))
