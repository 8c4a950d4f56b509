"""quality_focal_loss: the formula in torch, the focal loss at yes and no, least where the score is the quality."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from scratch.analysis.primitives import composites, record_primitives
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.beyond.quality_focal_loss import quality_focal_loss, quality_focal_loss_naive
from tests.checks import assert_as_precise_as_torch, assert_same

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


def torch_quality_focal_loss(logits, targets, alpha=0.25, gamma=2.0, reduction="none"):
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    loss = loss * (targets - torch.sigmoid(logits)).abs() ** gamma
    if alpha >= 0:
        loss = loss.masked_fill(targets > 0, 0) * (1 - alpha) + loss.masked_fill(targets == 0, 0) * alpha
    return loss if reduction == "none" else getattr(loss, reduction)()


def qualities(*shape):
    """Targets as a detector has them: mostly 0, else the quality of a box."""
    return torch.rand(shape) * (torch.rand(shape) < 0.4)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from([-1.0, 0.0, 0.25, 1.0]),
       st.sampled_from(GAMMAS), st.sampled_from(["sum", "none"]), st.sampled_from([1.0, 7.0]))
def test_equals_torch(shape, alpha, gamma, reduction, size):
    t = qualities(*shape)
    assert_same(lambda z: quality_focal_loss(z, t.to(z.dtype), alpha, gamma, reduction),
                lambda z: torch_quality_focal_loss(z, t.to(z.dtype), alpha, gamma, reduction),
                torch.randn(shape) * size)


def test_the_formula_agrees():
    t = qualities(5, 7)
    assert_same(lambda z: quality_focal_loss_naive(z, t.to(z.dtype), 0.3, 1.5),
                lambda z: quality_focal_loss(z, t.to(z.dtype), 0.3, 1.5), torch.randn(5, 7) * 3)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_for_yes_and_no_it_is_the_focal_loss(gamma):
    t = torch.randint(2, (5, 7)).double()
    assert_same(lambda z: quality_focal_loss(z, t, 0.3, gamma), lambda z: sigmoid_focal_loss(z, t, 0.3, gamma),
                torch.randn(5, 7) * 9)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])  # at 0.5 torch's gradient is NaN where t = p
def test_as_precise_as_torch(gamma):
    t = qualities(53, 11)
    assert_as_precise_as_torch(lambda z: quality_focal_loss(z, t.to(z.dtype), 0.25, gamma),
                               lambda z: torch_quality_focal_loss(z, t.to(z.dtype), 0.25, gamma),
                               torch.randn(53, 11) * 4)


def test_an_example_worked_by_hand():
    # p = ¾ where the box deserves ½: ¼ · (¼)² · ½ · (ln(4/3) + ln 4). Where it deserves ¾, nothing is missed.
    z = torch.full((2,), math.log(3), dtype=torch.float64)
    loss = quality_focal_loss(z, torch.tensor([0.5, 0.75], dtype=torch.float64))
    assert loss.tolist() == pytest.approx([(math.log(4 / 3) + math.log(4)) / 128, 0], abs=1e-15)


@pytest.mark.parametrize("quality", [0.1, 0.5, 0.7, 1.0])
def test_the_best_score_is_the_quality_where_the_focal_loss_has_another(quality):
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    z, t = torch.log(p / (1 - p)), torch.full_like(p, quality)
    assert p[quality_focal_loss(z, t).argmin()].item() == pytest.approx(quality, abs=0.0011)
    if quality not in (0.5, 1.0):  # there they agree
        assert abs(p[sigmoid_focal_loss(z, t).argmin()].item() - quality) > 0.05


def test_the_gradient_moves_a_loose_box_with_a_certain_class_behind_an_exact_one():
    loose, exact = (torch.tensor(math.log(p / (1 - p)), requires_grad=True) for p in (0.97, 0.85))
    for score, iou in ((loose, 0.6), (exact, 0.9)):
        quality_focal_loss(score, torch.tensor(iou)).backward()
    assert loose.grad > 0 > exact.grad


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_plus_and_minus_ten_thousand_have_a_finite_value_and_gradient(gamma, target, dtype):
    z = torch.tensor([1e4, -1e4], dtype=dtype, requires_grad=True)
    loss = quality_focal_loss(z, torch.full((2,), target, dtype=dtype), 0.25, gamma)
    loss.sum().backward()
    assert loss.isfinite().all() and z.grad.isfinite().all()


@pytest.mark.parametrize("z", [20.0, -20.0])
def test_a_right_answer_at_twenty_keeps_its_digits_in_float32(z):
    q = 1 / (1 + math.exp(20))
    loss = quality_focal_loss(torch.tensor([z]), torch.tensor([float(z > 0)]), -1, 2)
    assert loss.item() == pytest.approx(q ** 2 * -math.log1p(-q), rel=1e-5, abs=0)


def test_targets_are_not_broadcast_and_an_unknown_reduction_is_named():
    with pytest.raises(ValueError, match=r"\(2, 3\) and targets \(1, 3\)"):
        quality_focal_loss(torch.randn(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="'average'"):
        quality_focal_loss(torch.randn(3), torch.zeros(3), reduction="average")


def test_under_autocast_the_result_is_float32_and_exact():
    z, t = torch.randn(5, 7).bfloat16(), qualities(5, 7).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = quality_focal_loss(z, t)
    torch.testing.assert_close(loss, torch_quality_focal_loss(z.float(), t.float()))


def test_it_dispatches_primitives_alone():
    z, t = torch.randn(5, 7, requires_grad=True), qualities(5, 7)
    assert composites(record_primitives(lambda: quality_focal_loss(z, t).sum().backward())) == {}
    assert z.grad is not None


def test_the_formula_has_the_published_alpha_and_gamma_as_defaults():
    z, t = torch.randn(5, 7, dtype=torch.float64), torch.rand(5, 7, dtype=torch.float64)
    assert torch.equal(quality_focal_loss_naive(z, t), quality_focal_loss_naive(z, t, 0.25, 2.0))
