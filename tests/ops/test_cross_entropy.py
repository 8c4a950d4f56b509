"""cross_entropy: equal to torch.nn.functional, with class weights, at scores that overflow, and without a target."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from scratch.ops.cross_entropy import cross_entropy, cross_entropy_naive, l1_loss
from tests.checks import assert_as_precise_as_torch, assert_same

pytestmark = pytest.mark.usefixtures("mode")  # by its own arithmetic and through its door (conftest.py)

REDUCTIONS = ("mean", "sum", "none")


def torch_cross_entropy(logits, target, weight=None, reduction="mean"):
    """torch wants the classes second: all other axes are flattened into the first."""
    loss = F.cross_entropy(logits.flatten(0, -2), target.flatten(), weight, reduction=reduction)
    return loss.view(target.shape) if reduction == "none" else loss


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 7), st.booleans(),
       st.sampled_from(REDUCTIONS), st.sampled_from([1.0, 30.0]))
def test_equals_torch(shape, K, weighted, reduction, size):
    weight = torch.rand(K, dtype=torch.float64) + 0.1 if weighted else None
    assert_same(lambda z, t: cross_entropy(z, t, weight, reduction),
                lambda z, t: torch_cross_entropy(z, t, weight, reduction),
                torch.randn(*shape, K) * size, torch.randint(K, shape))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equals_torch_at_plus_and_minus_ten_thousand(reduction):
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4]])
    target = torch.tensor([0, 1, 2, 0])
    assert_same(lambda z, t: cross_entropy(z, t, None, reduction),
                lambda z, t: torch_cross_entropy(z, t, None, reduction), logits, target)


def test_ten_thousand_by_hand():
    loss = cross_entropy(torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]]), torch.tensor([0, 1]), reduction="none")
    assert loss.tolist() == [0, 2e4]


def test_an_example_worked_by_hand():
    # Probabilities ½, ¼, ¼ in both rows; the losses are ln 2 and ln 4, of weight 1 and 0.1.
    logits = torch.tensor([[math.log(2), 0.0, 0.0]] * 2)
    target, weight = torch.tensor([0, 2]), torch.tensor([1.0, 1.0, 0.1])
    assert cross_entropy(logits, target, weight, "none").tolist() == pytest.approx([0.6931, 0.13863], abs=1e-4)
    assert cross_entropy(logits, target, weight).item() == pytest.approx((0.6931 + 0.13863) / 1.1, abs=1e-4)


def test_the_gradient_is_the_predicted_probabilities_minus_the_one_hot_target():
    logits = torch.randn(5, 3, requires_grad=True)
    target = torch.tensor([0, 2, 1, 1, 0])
    weight = torch.tensor([1.0, 0.1, 0.5])
    cross_entropy(logits, target, weight, "sum").backward()
    truth = torch.eye(3)[target]
    torch.testing.assert_close(logits.grad, weight[target][:, None] * (logits.softmax(-1) - truth))


def test_the_formula_agrees_until_it_overflows():
    z = torch.randn(7)
    assert_same(lambda z: cross_entropy_naive(z, torch.tensor(3)), lambda z: cross_entropy(z, torch.tensor(3)), z)
    assert not cross_entropy_naive(torch.tensor([1e4, 0.0]), torch.tensor(0)).isfinite()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_as_precise_as_torch(reduction):
    weight = torch.rand(11) + 0.1

    def weighted(function):
        return lambda z, t: function(z, t, weight.to(z.dtype), reduction)

    assert_as_precise_as_torch(weighted(cross_entropy), weighted(torch_cross_entropy),
                               torch.randn(53, 11) * 4, torch.randint(11, (53,)))


def test_without_a_target_the_sum_is_zero_and_the_mean_is_nan_as_in_torch():
    logits, target = torch.randn(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for weight in (None, torch.ones(3)):
        for reduction in REDUCTIONS:
            torch.testing.assert_close(cross_entropy(logits, target, weight, reduction),
                                       torch_cross_entropy(logits, target, weight, reduction), equal_nan=True)
    assert cross_entropy(logits, target, reduction="sum") == 0 and cross_entropy(logits, target).isnan()


@pytest.mark.parametrize("target", [-1, 3, -100])
def test_a_target_out_of_range_is_named(target):
    with pytest.raises(ValueError, match=rf"{target}.*wanted classes 0 to 2"):
        cross_entropy(torch.randn(2, 3), torch.tensor([1, target]))


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"targets \(3, 2\) for logits \(2, 3, 5\)"):
        cross_entropy(torch.randn(2, 3, 5), torch.zeros(3, 2, dtype=torch.int64))


def test_an_unknown_reduction_is_named():
    for weight in (None, torch.ones(3)):
        with pytest.raises(ValueError, match="'average'"):
            cross_entropy(torch.randn(2, 3), torch.tensor([0, 1]), weight, reduction="average")
    with pytest.raises(ValueError, match="'average'"):
        l1_loss(torch.randn(3), torch.randn(3), reduction="average")


def test_both_losses_return_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cross_entropy(torch.randn(2, 3).bfloat16(), torch.tensor([0, 1])).dtype is torch.float32
        assert l1_loss(torch.randn(3).bfloat16(), torch.randn(3).bfloat16()).dtype is torch.float32


def test_the_loss_is_the_log_sum_exp_of_the_logits_minus_the_logit_of_the_target():
    z, t = torch.randn(5, 7), torch.randint(7, (5,))
    assert_same(lambda z: cross_entropy(z, t, reduction="none"), lambda z: z.logsumexp(-1) - z[torch.arange(5), t], z)


def test_half_right_costs_two_thirds_of_a_nat():
    assert cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item() == pytest.approx(0.69, abs=0.005)


# ── l1_loss ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(1, 5), max_size=3), st.sampled_from(REDUCTIONS))
def test_l1_equals_torch(shape, reduction):
    assert_same(lambda a, b: l1_loss(a, b, reduction), lambda a, b: F.l1_loss(a, b, reduction=reduction),
                torch.randn(shape), torch.randn(shape))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_l1_is_as_precise_as_torch(reduction):
    assert_as_precise_as_torch(lambda a, b: l1_loss(a, b, reduction), lambda a, b: F.l1_loss(a, b, reduction=reduction),
                               torch.randn(7, 31), torch.randn(7, 31))


def test_l1_by_hand():
    a = torch.tensor([1.0, -2.0, 5.0], requires_grad=True)
    loss = l1_loss(a, torch.tensor([4.0, -2.0, 3.0]), "sum")
    loss.backward()
    assert loss.item() == 5 and a.grad.tolist() == [-1, 0, 1]


def test_l1_of_nothing_is_zero_summed_and_nan_averaged_as_in_torch():
    nothing = torch.randn(0, 4)
    assert l1_loss(nothing, nothing, "sum") == 0
    assert l1_loss(nothing, nothing).isnan() and F.l1_loss(nothing, nothing).isnan()


def test_l1_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(4,\)"):
        l1_loss(torch.randn(3, 4), torch.randn(4))
