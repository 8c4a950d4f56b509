"""focal_loss: equal to a plain composition of torch, for soft targets, at scores that overflow, as a matching cost."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from scratch.analysis.primitives import composites, record_primitives
from scratch.config import PRESETS
from scratch.ops.beyond.focal_loss import focal_matching_cost, prior_bias, sigmoid_focal_loss, sigmoid_focal_loss_naive
from tests.checks import assert_as_precise_as_torch, assert_same

REDUCTIONS = ("mean", "sum", "none")
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
LOW = (torch.float32, torch.bfloat16, torch.float16)


def torch_focal_loss(logits, targets, alpha=0.25, gamma=2.0, reduction="none"):
    p = torch.sigmoid(logits)
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return loss if reduction == "none" else getattr(loss, reduction)()


def torch_matching_cost(logits, alpha=0.25, gamma=2.0):
    p = torch.sigmoid(logits)
    return alpha * (1 - p) ** gamma * -F.logsigmoid(logits) - (1 - alpha) * p ** gamma * -F.logsigmoid(-logits)


def logit(p):
    return torch.log(torch.tensor(p, dtype=torch.float64) / (1 - p))


def slope(function, z):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(function(z).sum(), z)[0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.booleans(), st.sampled_from([-1.0, 0.0, 0.25, 1.0]),
       st.sampled_from(GAMMAS), st.sampled_from(["sum", "none"]), st.sampled_from([1.0, 7.0]))
def test_equals_torch(shape, soft, alpha, gamma, reduction, size):
    targets = torch.rand(shape) if soft else torch.randint(2, shape).float()
    assert_same(lambda z, t: sigmoid_focal_loss(z, t, alpha, gamma, reduction),
                lambda z, t: torch_focal_loss(z, t, alpha, gamma, reduction), torch.randn(shape) * size, targets)


def test_the_mean_is_taken_over_all_answers_as_in_torch():
    assert_same(lambda z, t: sigmoid_focal_loss(z, t, reduction="mean"),
                lambda z, t: torch_focal_loss(z, t, reduction="mean"), torch.randn(3, 5, 7), torch.rand(3, 5, 7))


def test_the_formula_has_the_published_alpha_and_gamma_as_defaults_too():
    z, t = torch.randn(5, 7, dtype=torch.float64), torch.randint(2, (5, 7)).double()
    torch.testing.assert_close(sigmoid_focal_loss_naive(z, t), torch_focal_loss(z, t, 0.25, 2.0))


def test_the_published_alpha_and_gamma_are_the_defaults():
    z, t = torch.randn(5, 7), torch.rand(5, 7)
    assert torch.equal(sigmoid_focal_loss(z, t), sigmoid_focal_loss(z, t, 0.25, 2.0, "none"))
    assert torch.equal(focal_matching_cost(z), focal_matching_cost(z, 0.25, 2.0))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_as_precise_as_torch(gamma):
    assert_as_precise_as_torch(lambda z, t: sigmoid_focal_loss(z, t, 0.25, gamma),
                               lambda z, t: torch_focal_loss(z, t, 0.25, gamma),
                               torch.randn(53, 11) * 4, torch.rand(53, 11))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_as_precise_as_torch_for_yes_and_no(reduction):
    targets = torch.randint(2, (53, 11)).float()
    assert_as_precise_as_torch(lambda z: sigmoid_focal_loss(z, targets.to(z.dtype), reduction=reduction),
                               lambda z: torch_focal_loss(z, targets.to(z.dtype), reduction=reduction),
                               torch.randn(53, 11) * 4)


def test_without_gamma_and_with_alpha_one_half_it_is_half_the_cross_entropy():
    assert_same(lambda z, t: sigmoid_focal_loss(z, t, alpha=0.5, gamma=0),
                lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none") / 2,
                torch.randn(5, 7) * 3, torch.rand(5, 7))


def test_an_example_worked_by_hand():
    # p = ¾: a yes costs ¼ · (¼)² · ln(4/3), a no ¾ · (¾)² · ln 4. Half a yes takes the mean of both logarithms, and p_t
    # and α_t are ½ whatever p is: ½ · (½)² · ½ · (ln(4/3) + ln 4).
    z = torch.full((3,), math.log(3), dtype=torch.float64)
    loss = sigmoid_focal_loss(z, torch.tensor([1.0, 0.0, 0.5]))
    assert loss.tolist() == pytest.approx([math.log(4 / 3) / 64, 27 / 64 * math.log(4),
                                           (math.log(4 / 3) + math.log(4)) / 16], abs=1e-15)


def test_the_formula_agrees_until_it_overflows():
    targets = torch.randint(2, (5, 7))
    assert_same(lambda z: sigmoid_focal_loss_naive(z, targets, 0.3, 1.5),
                lambda z: sigmoid_focal_loss(z, targets, 0.3, 1.5), torch.randn(5, 7) * 3)


def test_the_formula_fails_from_17_and_from_minus_89():
    no, yes = torch.zeros(2), torch.ones(2)
    assert sigmoid_focal_loss_naive(torch.tensor([16.0, 17.0]), no).isinf().tolist() == [False, True]
    assert sigmoid_focal_loss_naive(torch.tensor([-88.0, -89.0]), yes).isinf().tolist() == [False, True]
    assert torch.exp(torch.tensor([88.0, 89.0])).isinf().tolist() == [False, True]


# ── at the edges of a float ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, *LOW], ids=str)
def test_plus_and_minus_ten_thousand_have_a_finite_value_and_gradient(gamma, target, dtype):
    z = torch.tensor([1e4, -1e4], dtype=dtype)
    t = torch.full_like(z, target)
    assert sigmoid_focal_loss(z, t, 0.25, gamma).isfinite().all()
    assert slope(lambda z: sigmoid_focal_loss(z, t, 0.25, gamma), z).isfinite().all()


def test_a_wrong_answer_at_ten_thousand_costs_its_weight_times_ten_thousand_and_a_right_one_nothing():
    z, t = torch.tensor([1e4, -1e4, 1e4, -1e4]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert sigmoid_focal_loss(z, t).tolist() == [7500, 2500, 0, 0]
    assert slope(lambda z: sigmoid_focal_loss(z, t), z).tolist() == [0.75, -0.25, 0, 0]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_no_score_between_minus_and_plus_two_hundred_has_a_gradient_that_is_not_finite(gamma):
    z = torch.linspace(-200, 200, 4001)
    for t in (torch.zeros_like(z), torch.ones_like(z)):
        assert slope(lambda z: sigmoid_focal_loss(z, t, 0.25, gamma), z).isfinite().all()


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_at_a_score_of_exactly_zero_the_slope_is_that_of_torch(target):
    for gamma in GAMMAS:
        assert_same(lambda z, t: sigmoid_focal_loss(z, t, 0.25, gamma),
                    lambda z, t: torch_focal_loss(z, t, 0.25, gamma), torch.zeros(3), torch.full((3,), target))
    zero, t = torch.zeros(1), torch.tensor([target])
    assert slope(lambda z: sigmoid_focal_loss(z, t, -1, 0), zero).item() == pytest.approx(0.5 - target)
    assert slope(lambda z: z.clamp(min=0), zero).item() == 1


@pytest.mark.parametrize("z", [20.0, -20.0])
def test_a_right_answer_at_twenty_keeps_its_digits_in_float32(z):
    score, t = torch.tensor([z]), torch.tensor([float(z > 0)])
    assert sigmoid_focal_loss(score, t, -1, 0).item() == pytest.approx(2.06e-9, rel=1e-3, abs=0)
    q = 1 / (1 + math.exp(20))
    assert sigmoid_focal_loss(score, t, -1, 2).item() == pytest.approx(q ** 2 * -math.log1p(-q), rel=1e-5, abs=0)
    assert 1 - torch.sigmoid(torch.tensor(20.0)) == 0


def test_without_an_answer_the_sum_is_zero_and_the_mean_is_nan_as_in_torch():
    nothing = torch.randn(2, 0, 3)
    for reduction in REDUCTIONS:
        torch.testing.assert_close(sigmoid_focal_loss(nothing, nothing, reduction=reduction),
                                   torch_focal_loss(nothing, nothing, reduction=reduction), equal_nan=True)
    assert sigmoid_focal_loss(nothing, nothing, reduction="sum") == 0
    assert focal_matching_cost(nothing).shape == (2, 0, 3)


# ── targets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_negative_alpha_weighs_yes_and_no_alike():
    z = torch.randn(7)
    torch.testing.assert_close(sigmoid_focal_loss(z, torch.ones(7), alpha=-1),
                               sigmoid_focal_loss(-z, torch.zeros(7), alpha=-1))


def test_targets_may_be_integers_or_bools():
    z, t = torch.randn(5, 7), torch.randint(2, (5, 7))
    expected = sigmoid_focal_loss(z, t.float())
    assert torch.equal(sigmoid_focal_loss(z, t), expected) and torch.equal(sigmoid_focal_loss(z, t.bool()), expected)


def test_the_loss_of_a_soft_target_of_seven_tenths_has_its_minimum_at_88_per_cent():
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    for alpha in (-1, 0.25):
        loss = sigmoid_focal_loss(torch.log(p / (1 - p)), torch.full_like(p, 0.7), alpha)
        assert p[loss.argmin()].item() == pytest.approx(0.88, abs=0.005)


def test_the_index_of_a_class_is_refused_as_a_target():
    with pytest.raises(ValueError, match=r"logits \(2, 5, 3\) and targets \(2, 5\), wanted one shape"):
        sigmoid_focal_loss(torch.randn(2, 5, 3), torch.zeros(2, 5))


def test_targets_are_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3\) and targets \(1, 3\)"):
        sigmoid_focal_loss(torch.randn(2, 3), torch.zeros(1, 3))


def test_an_unknown_reduction_is_named():
    with pytest.raises(ValueError, match="'average'.*wanted 'mean', 'sum' or 'none'"):
        sigmoid_focal_loss(torch.randn(3), torch.zeros(3), reduction="average")


# ── precision ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_under_autocast_the_results_are_float32_and_exact_and_the_gradient_returns_in_the_dtype_of_the_logits():
    z, t = torch.randn(5, 7).bfloat16().requires_grad_(), torch.rand(5, 7).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, cost = sigmoid_focal_loss(z, t), focal_matching_cost(z)
        assert sigmoid_focal_loss(z.double(), t).dtype is torch.float64
    torch.testing.assert_close(loss, torch_focal_loss(z.float(), t.float()))
    torch.testing.assert_close(cost, torch_matching_cost(z.float()))
    (loss.sum() + cost.sum()).backward()
    assert z.grad.dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float64, *LOW], ids=str)
def test_without_autocast_the_results_have_the_dtype_of_the_logits_and_are_rounded_once(dtype):
    z, t = (torch.randn(5, 7) * 4).to(dtype), torch.rand(5, 7).to(dtype)
    exact = torch.promote_types(dtype, torch.float32)
    for function in (sigmoid_focal_loss, lambda z, t: sigmoid_focal_loss(z, t, reduction="sum"),
                     lambda z, t: focal_matching_cost(z)):
        result = function(z, t)
        assert result.dtype is dtype and torch.equal(result, function(z.to(exact), t.to(exact)).to(dtype))


def test_loss_and_cost_dispatch_primitives_alone():
    z, t = torch.randn(5, 7, requires_grad=True), torch.rand(5, 7)
    counts = record_primitives(lambda: (sigmoid_focal_loss(z, t) + focal_matching_cost(z)).sum().backward())
    assert composites(counts) == {} and z.grad is not None


# ── the matching cost ───────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from([0.0, 0.25, 1.0]),
       st.sampled_from(GAMMAS), st.sampled_from([1.0, 7.0]))
def test_the_matching_cost_equals_torch(shape, alpha, gamma, size):
    assert_same(lambda z: focal_matching_cost(z, alpha, gamma), lambda z: torch_matching_cost(z, alpha, gamma),
                torch.randn(shape) * size)


def test_the_matching_cost_is_as_precise_as_torch():
    assert_as_precise_as_torch(focal_matching_cost, torch_matching_cost, torch.randn(53, 11) * 4)


def test_the_matching_cost_by_hand():
    # p = ¾ and ¼ change places with their complements: ¼ · (¼)² · ln(4/3) − ¾ · (¾)² · ln 4, and so on.
    cost = focal_matching_cost(torch.tensor([math.log(3), -math.log(3)], dtype=torch.float64))
    assert cost.tolist() == pytest.approx([math.log(4 / 3) / 64 - 27 / 64 * math.log(4),
                                           9 / 64 * math.log(4) - 3 / 64 * math.log(4 / 3)], abs=1e-15)


def test_the_matching_cost_at_plus_and_minus_ten_thousand_is_finite():
    assert focal_matching_cost(torch.tensor([1e4, -1e4])).tolist() == [-7500, 2500]


def test_the_cheapest_matching_is_that_of_the_least_loss():
    Q, K, classes = 5, 3, [2, 0]
    z = torch.randn(Q, K, dtype=torch.float64) * 3
    cost, silence = focal_matching_cost(z), sigmoid_focal_loss(z, torch.zeros(Q, K), reduction="sum")
    for queries in itertools.permutations(range(Q), len(classes)):
        targets = torch.zeros(Q, K)
        targets[list(queries), classes] = 1
        torch.testing.assert_close(sigmoid_focal_loss(z, targets, reduction="sum"),
                                   silence + cost[list(queries), classes].sum())


# ── prior_bias, and the numbers of the header ───────────────────────────────────────────────────────────────────────


def test_a_head_with_the_prior_bias_starts_at_the_prior():
    for prior in (0.01, 0.3, 0.5):
        assert torch.sigmoid(torch.tensor(prior_bias(prior))).item() == pytest.approx(prior)
    assert prior_bias() == pytest.approx(-4.595, abs=5e-4)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, math.nan])
def test_a_prior_that_is_no_share_is_refused(prior):
    with pytest.raises(ValueError, match=f"got prior {prior}, wanted"):
        prior_bias(prior)


@pytest.mark.parametrize("p, alpha, gamma, of_yes, of_no", [
    (0.01, -1, 0, (32.2, 0.05), (91.4, 0.05)), (0.5, 0.25, 2, (0.30, 0.005), (1182, 0.5)),
    (0.01, 0.25, 2, (7.9, 0.05), (0.007, 0.0005))])
def test_the_table_of_the_header(p, alpha, gamma, of_yes, of_no):
    assert PRESETS["detr_141m_fast"].model.classification == "focal"
    queries, classes = PRESETS["detr_141m_fast"].model.num_queries, 91
    targets = torch.zeros(queries, classes)
    targets[:7, 0] = 1
    assert (targets == 0).sum() == 9093 and targets.numel() == 9100
    loss = sigmoid_focal_loss(logit(p).expand(queries, classes), targets, alpha, gamma)
    for said, (number, tolerance) in ((1, of_yes), (0, of_no)):
        assert loss[targets == said].sum().item() == pytest.approx(number, abs=tolerance)


@pytest.mark.parametrize("p_t, times_less", [(0.9, 100), (0.968, 1000), (0.5, 4)])
def test_an_easy_answer_costs_so_many_times_less_than_its_cross_entropy(p_t, times_less):
    z, yes = logit(p_t), torch.tensor(1.0)
    ratio = sigmoid_focal_loss(z, yes, -1, 0) / sigmoid_focal_loss(z, yes, -1, 2)
    assert ratio.item() == pytest.approx(times_less, rel=0.03)
