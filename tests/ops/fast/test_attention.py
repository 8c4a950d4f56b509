"""The door of attention: one tensor of the scores' size or none, and the plain version's values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scratch.ops.attention import additive_mask, attention_batched, scaled_dot_product_attention
from scratch.ops.fast import attention
from scratch.ops.fast.switch import plain_mode
from tests.checks import assert_same

B, N, Q, S, d = 2, 3, 5, 7, 11


@pytest.fixture(autouse=True)
def through_the_door():
    """By the fast code, also where the suite runs in plain mode."""
    with plain_mode(False):
        yield


def heads() -> list[Tensor]:
    return [torch.randn(B, N, Q, d), torch.randn(B, N, S, d), torch.randn(B, N, S, d)]


def test_the_batch_agrees_with_the_fast_version_in_output_and_weights():
    mask = torch.rand(B * N, Q, S) < 0.4
    padding = torch.rand(B, S) < 0.4
    mask[1, 2] = True  # a query that may look nowhere
    bias = additive_mask(mask, padding, B, N, Q, S, torch.float64).view(B, N, Q, S)

    def joined(function, *masks):
        return lambda *qkv: torch.cat([x.flatten() for x in function(*qkv, *masks)])

    assert_same(joined(attention_batched, bias), joined(scaled_dot_product_attention, mask, padding), *heads())


def test_of_the_scores_size_only_the_weights_are_kept_and_under_dropout_a_mask_of_bytes():
    for p, bytes_per_score in ((0.0, 4), (0.5, 5)):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t}) or t, lambda t: t):
            scaled_dot_product_attention(*(x.requires_grad_() for x in heads()), dropout_p=p, training=True)
        large = [t for t in kept.values() if t.shape[-2:] == (Q, S)]
        assert sum(t.numel() * t.element_size() for t in large) == B * N * Q * S * bytes_per_score


def test_the_scores_are_written_to_one_tensor_where_the_plain_version_takes_three():
    class Count(TorchDispatchMode):
        """Keeps every new tensor that is as large as the scores."""

        def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
            result = operator(*arguments, **(keywords or {}))
            if isinstance(result, Tensor) and result.numel() == B * N * Q * S:
                large[result.data_ptr()] = result
            return result

    bias = torch.zeros(1, Q, S)
    for function, tensors in ((scaled_dot_product_attention, 1), (attention_batched, 3)):
        large: dict[int, Tensor] = {}
        with Count():
            function(*heads(), bias if function is attention_batched else bias[0])
        assert len(large) == tensors


def test_the_backward_of_the_output_alone_makes_no_gradient_of_the_weights():
    """autograd would fill in zeros for the weights that nobody used; then the backward would add them to G."""
    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
            result = operator(*arguments, **(keywords or {}))
            if isinstance(result, Tensor) and result.numel() == B * N * Q * S:
                names.append(operator.__name__.split(".")[0])
            return result

    added = {}
    for used in (0, 1):  # the output, the weights
        names: list[str] = []
        inputs = [x.requires_grad_() for x in heads()]
        result = scaled_dot_product_attention(*inputs)[used]
        with Names():
            torch.autograd.grad(result.sum(), inputs[:2])
        added[used] = "add_" in names
    assert added == {0: False, 1: True}


def test_tiles_begin_above_the_most_weights_not_at_them():
    q = torch.empty(1)
    assert [attention._too_many(2**24 + more, q, None) for more in (0, 1)] == [False, True]


def test_in_plain_mode_the_door_is_shut_and_the_batched_form_is_what_runs():
    q, k, v = (x.requires_grad_() for x in heads())
    with plain_mode():
        assert attention.fast_attention(*(x.flatten(0, 1) for x in (q, k, v)), None, 0.0, False) is None
        output, weights = scaled_dot_product_attention(q, k, v)
    expected = attention_batched(q, k, v)
    assert torch.equal(output, expected[0]) and torch.equal(weights, expected[1])


def test_a_dropped_weight_is_the_same_in_both_modes_under_one_seed():
    def run(plain: bool):
        def function(q, k, v):
            torch.manual_seed(5)
            with plain_mode(plain):
                output, weights = scaled_dot_product_attention(q, k, v, dropout_p=0.4, training=True)
            return torch.cat((output.flatten(), weights.flatten()))
        return function

    assert_same(run(False), run(True), *heads())


def test_a_mask_that_learns_is_lowered_with_the_heads_and_receives_a_float32_gradient():
    q, k, v = heads()
    mask = torch.randn(Q, S, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, weights = scaled_dot_product_attention(q, k, v, mask)
    output.float().sum().backward()
    assert output.dtype is weights.dtype is torch.bfloat16 and mask.grad.dtype is torch.float32 and mask.grad.any()
