"""The criterion: numbers worked by hand, a plain re-implementation, and a large batch cut in any way."""

from __future__ import annotations

from math import log

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scratch.config import LossConfig
from scratch.objective.criterion import Normalisers, SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.boxes import box_cxcywh_to_xyxy
from tests.objective.test_matcher import K, plain_pairs, random_outputs, random_targets, seeds, sizes_of_a_batch
from tests.ops.test_boxes import torch_giou

EXACT = dict(rtol=1e-12, atol=1e-12)


def criterion(num_classes: int = K, **loss) -> SetCriterion:
    return SetCriterion(num_classes, HungarianMatcher(), LossConfig(**loss))


def leaves(L: int, B: int, Q: int) -> tuple[Tensor, Tensor]:
    """Logits (L,B,Q,K+1) and boxes (L,B,Q,4) that gather gradients, as if they were weights."""
    layers = [random_outputs(B, Q) for _ in range(L)]
    logits, boxes = (torch.stack([layer[name] for layer in layers]) for name in ("pred_logits", "pred_boxes"))
    return logits.requires_grad_(), boxes.requires_grad_()


def as_outputs(logits: Tensor, boxes: Tensor) -> dict:
    """What a detector with these decoder layers returns."""
    *aux, last = [{"pred_logits": z, "pred_boxes": b} for z, b in zip(logits, boxes)]
    return {**last, "aux_outputs": aux} if aux else last


def plain_losses(logits: Tensor, boxes: Tensor, targets: list[dict], eos_coef: float = 0.1) -> dict[str, Tensor]:
    """One layer of the paper's losses, query by query, with torch's own functions: logits (B,Q,K+1), boxes (B,Q,4)."""
    classes = torch.full(logits.shape[:2], K)
    num_boxes = max(1, sum(len(target["labels"]) for target in targets))
    wrong, l1, giou = [], boxes.sum() * 0, boxes.sum() * 0
    for i, target in enumerate(targets):
        for query, t in zip(*plain_pairs(logits[i], boxes[i], target)):
            classes[i, query] = target["labels"][t]
            wrong.append(logits[i, query].argmax() != target["labels"][t])
            l1 = l1 + F.l1_loss(boxes[i, query], target["boxes"][t], reduction="sum")
            corners = box_cxcywh_to_xyxy(torch.stack((boxes[i, query], target["boxes"][t])))  # (2,4)
            giou = giou + 1 - torch_giou(corners[:1], corners[1:])[0, 0]
    weight = torch.ones(K + 1, dtype=torch.float64)
    weight[K] = eos_coef
    claimed = (logits.argmax(-1) != K).sum(1)
    objects = torch.tensor([len(target["labels"]) for target in targets])
    return {
        "loss_ce": F.cross_entropy(logits.transpose(1, 2), classes, weight),
        "class_error": 100 * torch.tensor(wrong).double().mean() if wrong else torch.tensor(100.0).double(),
        "loss_bbox": l1 / num_boxes,
        "loss_giou": giou / num_boxes,
        "cardinality_error": F.l1_loss(claimed.double(), objects.double()),
    }


def assert_same_numbers(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **EXACT, msg=lambda m, name=name: f"{name}: {m}")


# -- by hand ---------------------------------------------------------------------------------------------------------

def two_queries() -> tuple[dict, list[dict]]:
    """Query 0 sees the object (p = ½ for its class 0, a box twice too high); query 1 says "nothing" with p = ¾."""
    logits = torch.tensor([[[log(2), 0.0, 0.0], [0.0, 0.0, log(6)]]], dtype=torch.float64)
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.2, 0.2]]], dtype=torch.float64)
    object_box = torch.tensor([[0.5, 0.5, 0.2, 0.2]], dtype=torch.float64)
    target = {"labels": torch.tensor([0]), "boxes": object_box, "image_id": 7}
    return {"pred_logits": logits, "pred_boxes": boxes}, [target]


def test_the_losses_of_two_queries_are_those_worked_by_hand() -> None:
    losses = criterion(2)(*two_queries())
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx({
        "loss_ce": (1 * log(2) + 0.1 * log(4 / 3)) / 1.1,  # −log ½ and −log ¾
        "loss_bbox": 0.2,                                   # the height is off by 0.2
        "loss_giou": 0.5,                                   # 1 − 0.04/0.08; the hull is the union
        "class_error": 0.0, "cardinality_error": 0.0}, abs=1e-12)


def test_the_total_of_two_queries_is_the_sum_of_1_5_and_2_times_the_losses() -> None:
    total = criterion(2).total(criterion(2)(*two_queries()))
    assert total.item() == pytest.approx((log(2) + 0.1 * log(4 / 3)) / 1.1 + 5 * 0.2 + 2 * 0.5, abs=1e-12)


def test_the_normalisers_of_two_queries_and_one_object_are_one_box_and_a_weight_of_one_and_a_tenth() -> None:
    assert criterion(2).normalisers([two_queries()[1]], 2) == Normalisers(num_boxes=1.0, class_weight=1.1)


def test_the_normalisers_count_at_most_as_many_matches_as_queries() -> None:
    # 3 queries; 5, 0 and 1 boxes in two micro-batches: 3 + 0 + 1 matched, 0 + 3 + 2 not.
    normalisers = criterion().normalisers([random_targets([5, 0]), random_targets([1])], 3)
    assert (normalisers.num_boxes, normalisers.class_weight) == (6.0, pytest.approx(4.5))


# -- against a plain re-implementation -------------------------------------------------------------------------------

@given(st.integers(1, 3), sizes_of_a_batch, st.integers(1, 5), st.sampled_from([0.1, 0.7]), seeds)
def test_all_losses_and_their_gradients_are_those_of_a_plain_implementation(L, sizes, Q, eos_coef, seed) -> None:
    torch.manual_seed(seed)
    logits, boxes = leaves(L, len(sizes), Q)
    targets = random_targets(sizes)
    losses = criterion(eos_coef=eos_coef)(as_outputs(logits, boxes), targets)
    expected = plain_losses(logits[-1], boxes[-1], targets, eos_coef)
    for i in range(L - 1):
        layer = plain_losses(logits[i], boxes[i], targets, eos_coef)
        expected |= {f"{name}_{i}": loss for name, loss in layer.items() if name != "class_error"}
    assert_same_numbers(losses, expected)

    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    expected_total = sum(weights.get(name.rstrip("_0123"), 0) * loss for name, loss in expected.items())
    ours = torch.autograd.grad(criterion().total(losses), (logits, boxes))
    theirs = torch.autograd.grad(expected_total, (logits, boxes))
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_each_decoder_layer_is_matched_anew() -> None:
    logits, boxes = leaves(1, 2, 7)
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    shuffled_first = as_outputs(*(torch.cat((x[:, :, order], x)) for x in (logits, boxes)))
    losses = criterion()(shuffled_first, random_targets([3, 2]))
    for name in ("loss_ce", "loss_bbox", "loss_giou"):
        torch.testing.assert_close(losses[f"{name}_0"], losses[name], **EXACT)


def test_a_detector_without_auxiliary_losses_is_judged_by_its_last_layer_alone() -> None:
    losses = criterion()(random_outputs(2, 7), random_targets([3, 2]))
    assert set(losses) == {"loss_ce", "class_error", "loss_bbox", "loss_giou", "cardinality_error"}


def test_the_weights_come_from_the_configuration_and_hold_for_every_layer() -> None:
    ours = criterion(ce_loss_coef=3.0, bbox_loss_coef=7.0, giou_loss_coef=11.0)
    losses = {"loss_ce": 1.0, "loss_bbox": 1.0, "loss_giou": 1.0, "class_error": 50.0, "cardinality_error": 9.0,
              "loss_ce_0": 0.1, "loss_bbox_0": 0.1, "loss_giou_0": 0.1, "loss_ce_10": 0.01, "cardinality_error_10": 9.0}
    assert ours.total(losses) == pytest.approx(21 + 2.1 + 0.03)


# -- a large batch, cut ----------------------------------------------------------------------------------------------

def value_and_gradient(cuts: list[slice], logits: Tensor, boxes: Tensor, targets: list[dict], normalisers=None):
    """Losses and gradients of the images in `cuts`, summed over the cuts."""
    parts = [criterion()(as_outputs(logits[:, cut], boxes[:, cut]), targets[cut], normalisers) for cut in cuts]
    losses = {name: sum(part[name] for part in parts) for name in parts[0] if name.startswith("loss")}
    return losses, torch.autograd.grad(criterion().total(losses), (logits, boxes))


@given(st.lists(sizes_of_a_batch, min_size=1, max_size=4), st.integers(1, 5), seeds)
def test_micro_batches_add_up_to_the_joint_batch_in_value_and_gradient(micro_sizes, Q, seed) -> None:
    torch.manual_seed(seed)
    micro_batches = [random_targets(sizes) for sizes in micro_sizes]
    targets = sum(micro_batches, [])
    logits, boxes = leaves(2, len(targets), Q)
    ends = [sum(map(len, micro_batches[:i])) for i in range(len(micro_batches) + 1)]
    cuts = [slice(start, end) for start, end in zip(ends, ends[1:])]
    losses, gradients = value_and_gradient(cuts, logits, boxes, targets, criterion().normalisers(micro_batches, Q))
    joint_losses, joint_gradients = value_and_gradient([slice(None)], logits, boxes, targets)
    assert_same_numbers(losses, joint_losses)
    torch.testing.assert_close(gradients, joint_gradients, **EXACT)


def data_parallel_rank(rank: int, folder: str, sizes: list[int]) -> None:
    """One of two ranks: rank 0 has the first image, rank 1 the rest, in two micro-batches. Saves loss and gradient."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    logits, boxes = leaves(2, len(sizes), 5)
    targets = random_targets(sizes)
    cuts = [[slice(0, 1)], [slice(1, 2), slice(2, None)]][rank]
    normalisers = criterion().normalisers([targets[cut] for cut in cuts], 5)
    torch.save(value_and_gradient(cuts, logits, boxes, targets, normalisers), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("sizes", [[3, 0, 7, 2], [0, 1, 0, 0]], ids=["uneven", "fewer boxes than ranks"])
def test_the_mean_over_two_ranks_is_the_joint_batch_in_value_and_gradient(tmp_path, sizes) -> None:
    torch.multiprocessing.spawn(data_parallel_rank, (str(tmp_path), sizes), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.manual_seed(0)
    logits, boxes = leaves(2, len(sizes), 5)
    losses, gradients = value_and_gradient([slice(None)], logits, boxes, random_targets(sizes))
    assert_same_numbers({name: (ranks[0][0][name] + ranks[1][0][name]) / 2 for name in losses}, losses)
    torch.testing.assert_close(tuple((a + b) / 2 for a, b in zip(ranks[0][1], ranks[1][1])), gradients, **EXACT)


@pytest.mark.parametrize("backend, device", [("gloo", "cpu"), ("nccl", "cuda")])
def test_the_sums_of_all_ranks_meet_on_the_device_of_the_backend_and_are_divided_by_the_ranks(
        backend: str, device: str, monkeypatch) -> None:
    class Sums:
        """What `normalisers` adds up, as if three other ranks had the same."""

        def __init__(self, values, dtype) -> None:
            self.values, self.devices = list(values), []
            made.append(self)

        def to(self, device):
            self.devices.append(device)
            return self

        def tolist(self):
            return self.values

    made: list[Sums] = []
    ranks = {"is_available": lambda: True, "is_initialized": lambda: True, "get_backend": lambda: backend,
             "get_world_size": lambda: 4,
             "all_reduce": lambda sums: sums.values.__setitem__(slice(None), [4 * x for x in sums.values])}
    targets = random_targets([5, 0])  # of 2 · 3 queries 3 are matched
    for name, function in ranks.items():
        monkeypatch.setattr(torch.distributed, name, function)
    monkeypatch.setattr(torch, "tensor", Sums)
    together, alone = (criterion().normalisers([targets], 3, across_ranks=across) for across in (True, False))
    assert together == Normalisers(5.0, pytest.approx(3.3)) == alone
    assert [sums.devices for sums in made] == [[device], []]
    assert [sums.values for sums in made] == [[20, pytest.approx(13.2)], [5, pytest.approx(3.3)]]


# -- edges -----------------------------------------------------------------------------------------------------------

def test_a_batch_without_any_box_has_finite_losses_and_gradients_and_leaves_the_boxes_alone() -> None:
    logits, boxes = leaves(2, 3, 7)
    losses = criterion()(as_outputs(logits, boxes), random_targets([0, 0, 0]))
    criterion().total(losses).backward()
    assert all(loss.isfinite() for loss in losses.values()) and losses["class_error"] == 100
    assert logits.grad.isfinite().all() and torch.equal(boxes.grad, torch.zeros_like(boxes))


def test_no_box_and_no_weight_for_no_object_give_a_loss_of_zero() -> None:
    assert criterion(eos_coef=0.0)(random_outputs(1, 3), random_targets([0]))["loss_ce"] == 0


def test_one_query_answers_for_one_of_two_objects_and_both_objects_divide_the_box_losses() -> None:
    outputs, targets = two_queries()
    one = {name: x[:, :1] for name, x in outputs.items()}
    near = targets[0]["boxes"]
    two_objects = {"labels": torch.tensor([0, 1]), "boxes": torch.cat((near, near * 0.1)), "image_id": 7}
    losses = criterion(2)(one, [two_objects])
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {"loss_ce": log(2), "loss_bbox": 0.1, "loss_giou": 0.25, "cardinality_error": 1.0, "class_error": 0.0})


def test_boxes_that_are_all_identical_or_empty_have_finite_gradients() -> None:
    for size in (0.3, 0.0):
        logits, boxes = leaves(2, 1, 5)
        with torch.no_grad():
            boxes[:] = torch.tensor([0.5, 0.5, size, size])
        targets = random_targets([3])
        targets[0]["boxes"][:] = boxes[0, 0, 0].detach()
        losses = criterion()(as_outputs(logits, boxes), targets)
        criterion().total(losses).backward()
        assert all(x.isfinite().all() for x in (*losses.values(), logits.grad, boxes.grad))


def test_the_two_errors_have_no_gradient() -> None:
    logits, boxes = leaves(2, 2, 5)
    losses = criterion()(as_outputs(logits, boxes), random_targets([3, 1]))
    without = {name for name, loss in losses.items() if not loss.requires_grad}
    assert without == {"class_error", "cardinality_error", "cardinality_error_0"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_outputs_are_judged_in_float32_autocast_or_not(dtype) -> None:
    logits, boxes = (x.detach().to(dtype) for x in leaves(2, 2, 7))
    targets = random_targets([3, 2])
    with torch.autocast("cpu", dtype=dtype):
        low = criterion()(as_outputs(logits, boxes), targets)
    high = criterion()(as_outputs(logits.float(), boxes.float()), targets)
    assert all(low[name].dtype == torch.float32 and torch.equal(low[name], high[name]) for name in high)


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes"])
def test_an_auxiliary_output_that_is_not_finite_is_refused_with_its_image_even_without_boxes(name: str) -> None:
    outputs = as_outputs(*(x.detach() for x in leaves(3, 2, 7)))
    outputs["aux_outputs"][1][name][1, 3, 2] = float("nan")
    with pytest.raises(FloatingPointError, match=rf"not finite in {name}, image_id \[101\] of the batch \[100, 101\];"):
        criterion()(outputs, random_targets([2, 0]))
