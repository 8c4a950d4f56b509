"""tiled_attention: equal to attention.py, whatever the tiles, and never a tensor of the scores' size."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from scratch.ops.attention import MultiheadAttention, attention_batched, scaled_dot_product_attention
from scratch.ops.beyond.conditional_attention import ConditionalAttention
from scratch.ops.fast import attention, tiled_attention
from scratch.ops.fast.switch import plain_mode
from scratch.ops.fast.tiled_attention import TiledAttention
from tests.checks import assert_as_precise_as_torch, assert_same

B, N, Q, S, d, width = 2, 3, 11, 17, 8, 5
inf = math.inf


def heads() -> list[Tensor]:
    return [torch.randn(B * N, Q, d), torch.randn(B * N, S, d), torch.randn(B * N, S, width)]


def biases() -> dict[str, Tensor | None]:
    """Everything that `additive_mask` makes; in the last, a query and a whole head may look nowhere."""
    padding = torch.zeros(B * N, 1, S)
    padding[:N, :, 13:] = -inf
    nowhere = torch.randn(B * N, Q, S)
    nowhere[1], nowhere[2, 3] = -inf, -inf
    return {"none": None, "padding": padding, "for all heads": torch.randn(1, Q, S), "nowhere": nowhere}


def tiled(bias: Tensor | None = None, p: float = 0.0):
    return lambda q, k, v: TiledAttention.apply(q, k, v, None if bias is None else bias.to(q.dtype), p)


def plain(bias: Tensor | None = None):
    return lambda q, k, v: attention_batched(q, k, v, None if bias is None else bias.to(q.dtype))[0]


@pytest.fixture(autouse=True)
def through_the_door():
    """By the fast code, also where the suite runs in plain mode."""
    with plain_mode(False):
        yield


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of one or two heads and 5 × 5 scores, the last of each axis cut short; and every tensor is too large."""
    monkeypatch.setattr(tiled_attention, "CPU_SIDE", 5)
    monkeypatch.setattr(tiled_attention, "CPU_TILE", 50)
    monkeypatch.setattr(attention, "_MOST_WEIGHTS", 0)


@given(st.integers(1, 9), st.integers(1, 40), st.sampled_from(["none", "padding", "for all heads", "nowhere"]))
def test_equals_the_plain_version_whatever_the_tiles(side, numbers, mask):
    bias = biases()[mask]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled_attention, "CPU_SIDE", side)
        patch.setattr(tiled_attention, "CPU_TILE", numbers)
        assert_same(tiled(bias), plain(bias), *heads())


@pytest.mark.parametrize("mask", ["none", "padding", "for all heads", "nowhere"])
def test_equals_the_plain_version_in_tiles_that_cut_every_axis(mask, small_tiles):
    bias = biases()[mask]
    assert_same(tiled(bias), plain(bias), *heads())


def test_what_is_left_of_a_tile_under_dropout_is_enlarged():
    weights, mask = torch.tensor([0.25, 0.75]), torch.tensor([True, False])
    assert tiled_attention._dropped(weights, (mask, 1.6)).tolist() == pytest.approx([0.4, 0])
    assert tiled_attention._dropped(weights, None) is weights


def test_a_bias_of_two_heads_is_cut_by_heads_too(small_tiles, monkeypatch):
    monkeypatch.setattr(tiled_attention, "CPU_TILE", 25)  # one head at a time
    q, k, v = (x[:2] for x in heads())
    bias = torch.randn(2, Q, S)
    assert_same(tiled(bias), plain(bias), q, k, v)


@pytest.mark.parametrize("device, heads, side", [("cpu", 2, 512), ("meta", 8, 2048)])
def test_tiles_are_squares_of_as_many_heads_as_fill_them_and_larger_off_the_cpu(device, heads, side):
    def rows(number):
        return torch.empty(9, number, d, device=device)

    assert tiled_attention._tiles(rows(5000), rows(7000)) == (heads, side, side)
    assert tiled_attention._tiles(rows(1), rows(1)) == (heads * side**2, 1, 1)
    assert tiled_attention._tiles(rows(3), rows(7000)) == (heads * side // 3, 3, side)
    assert tiled_attention._tiles(rows(0), rows(0)) == (heads * side**2, 1, 1)


def test_as_precise_as_torch(small_tiles):
    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    assert_as_precise_as_torch(tiled(), theirs, torch.randn(4, 29, d), torch.randn(4, 31, d), torch.randn(4, 31, d))


def test_the_layer_equals_torchs_under_both_masks(small_tiles):
    D, parameters = N * d, [torch.randn(3 * N * d, N * d), torch.randn(3 * N * d), torch.randn(N * d, N * d)]
    padding, forbidden = torch.zeros(B, S, dtype=torch.bool), torch.rand(Q, S) < 0.3
    padding[1, 13:], forbidden[:, 0] = True, False

    def run(layer):
        def function(query, memory, *weights):
            names = ("in_proj_weight", "in_proj_bias", "out_proj.weight")
            return torch.func.functional_call(layer.to(query.dtype), dict(zip(names, weights)), (query, memory, memory),
                                              {"key_padding_mask": padding, "attn_mask": forbidden,
                                               "need_weights": False})[0]
        return function

    assert_same(run(MultiheadAttention(D, N)), run(nn.MultiheadAttention(D, N, batch_first=True)),
                torch.randn(B, Q, D), torch.randn(B, S, D), *parameters)


def test_the_conditional_layer_takes_tiles_too(small_tiles, monkeypatch):
    asked = []
    monkeypatch.setattr(attention, "TiledAttention", SimpleNamespace(
        apply=lambda *inputs: asked.append(len(inputs)) or TiledAttention.apply(*inputs)))
    layer = ConditionalAttention(N * d, N).double()
    inputs = [torch.randn(B, rows, N * d, dtype=torch.float64) for rows in (Q, Q, S, S)]
    whole, weights = layer(*inputs, need_weights=True)
    assert asked == []
    in_tiles, none = layer(*inputs)
    assert len(asked) == 1 and none is None and weights.shape == (B, N, Q, S)
    torch.testing.assert_close(in_tiles, whole, rtol=1e-12, atol=1e-12)


def test_few_weights_and_wanted_weights_are_made_at_once(small_tiles, monkeypatch):
    q, k, v = (torch.randn(B, N, rows, d) for rows in (Q, S, S))
    output, weights = scaled_dot_product_attention(q, k, v)
    assert weights.shape == (B, N, Q, S)
    mask = torch.zeros(Q, S, requires_grad=True)
    scaled_dot_product_attention(q, k, v, mask, need_weights=False)[0].sum().backward()
    assert mask.grad is not None  # a mask that learns needs the weights' gradients
    monkeypatch.setattr(attention, "_MOST_WEIGHTS", B * N * Q * S)
    assert torch.equal(scaled_dot_product_attention(q, k, v, need_weights=False)[0], output)


def test_the_backward_drops_what_the_forward_dropped(small_tiles):
    """Linear in v: with ∂L/∂O = 1, <∂v, v> is Σ O, for the very masks of that forward."""
    q, k, v = (x.double().requires_grad_() for x in heads())
    output = TiledAttention.apply(q, k, v, None, 0.4)
    grad_v, = torch.autograd.grad(output.sum(), v)
    torch.testing.assert_close((grad_v * v).sum(), output.sum(), rtol=1e-10, atol=1e-10)
    torch.manual_seed(3)
    first, second = tiled(p=0.4)(q, k, v), tiled(p=0.4)(q, k, v)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(tiled(p=0.4)(q, k, v), first)


def test_gradients_under_dropout_are_those_of_finite_differences(small_tiles):
    q, k, v = (torch.randn(2, rows, 3, dtype=torch.float64, requires_grad=True) for rows in (7, 6, 6))

    def seeded(*qkv):
        torch.manual_seed(11)  # the same masks for every difference
        return TiledAttention.apply(*qkv, None, 0.5)

    assert torch.autograd.gradcheck(seeded, (q, k, v))


def test_dropout_keeps_the_mean(small_tiles):
    q, k, v = (torch.randn(1, rows, 4) for rows in (40, 60, 60))
    mean = torch.stack([tiled(p=0.5)(q, k, v) for _ in range(400)]).mean(0)
    # One output is Σ P·v·(m/½): its variance is Σ (P·v)², so the mean of 400 lies within 6 deviations of the truth.
    weights = attention_batched(q, k, v)[1]
    deviation = ((weights ** 2) @ (v ** 2)).sqrt() / 20
    assert ((mean - plain()(q, k, v)).abs() < 6 * deviation).all()


def test_no_tensor_of_the_scores_size_is_made_or_kept(small_tiles):
    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
            result = operator(*arguments, **(keywords or {}))
            sizes.extend(x.numel() for x in (result if isinstance(result, (tuple, list)) else [result])
                         if isinstance(x, Tensor))
            return result

    inputs, padding = [x.requires_grad_() for x in heads()], biases()["padding"]
    kept, sizes = {}, []
    with Largest():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t}) or t, lambda t: t):
            output = TiledAttention.apply(*inputs, padding, 0.3)
        output.sum().backward()
    assert max(sizes) <= B * N * S * d < B * N * Q * S
    assert sum(t.numel() for t in kept.values()) == sum(x.numel() for x in (*inputs, padding, output)) + B * N * Q


def test_scores_of_ten_thousand_stay_finite(small_tiles):
    q, k, v = heads()
    output = tiled()(q * 100, k * 100, v)
    assert output.isfinite().all()
    torch.testing.assert_close(output, plain()(q * 100, k * 100, v), rtol=1e-4, atol=1e-4)


def test_autocast_lowers_the_products(small_tiles):
    q, k, v = (torch.randn(B, N, rows, d, requires_grad=True) for rows in (Q, S, S))
    with torch.autocast("cpu", torch.bfloat16):
        output = scaled_dot_product_attention(q, k, v, need_weights=False)[0]
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output.float(), scaled_dot_product_attention(q, k, v)[0], rtol=0.05, atol=0.05)


def test_a_backward_under_autocast_is_as_exact_as_its_forward(small_tiles):
    qkv = [x.requires_grad_() for x in heads()]
    output = tiled()(*qkv)
    expected = torch.autograd.grad(output.square().sum(), qkv, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = torch.autograd.grad(output.square().sum(), qkv)
    assert all(torch.equal(x, y) for x, y in zip(expected, lowered))


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_sum_over_many_keys_does_not_overflow(dtype, raises, monkeypatch):
    """600 equal weights: Σ e·v would be 120,000, the output is 200; also where products are half, as on a GPU."""
    monkeypatch.setattr(tiled_attention, "_raises", lambda x: raises)
    q, k, v = torch.zeros(1, 3, d, dtype=dtype), torch.zeros(1, 600, d, dtype=dtype), torch.full((1, 600, 2), 200.0)
    assert torch.equal(tiled()(q, k, v.to(dtype)), torch.full((1, 3, 2), 200.0, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [tiled(), lambda q, k, v: attention.Attention.apply(q, k, v, None, 0.0)[0]])
def test_over_a_thousand_keys_the_error_is_at_most_twice_torchs(function, dtype):
    """Of the output and of the gradients, and without the unit that `assert_as_precise_as_torch` allows besides."""
    qkv, gradient = [torch.randn(4, 1050, 32).to(dtype) for _ in range(3)], torch.randn(4, 1050, 32).to(dtype)

    def answers(of, as_type):
        inputs = [x.to(as_type).requires_grad_() for x in qkv]
        output = of(*inputs)
        return [output, *torch.autograd.grad(output, inputs, gradient.to(as_type))]

    truth = answers(F.scaled_dot_product_attention, torch.float64)
    for true, ours, torchs in zip(truth, answers(function, dtype), answers(F.scaled_dot_product_attention, dtype)):
        def error(x):
            return (x.double() - true).square().mean().sqrt()
        assert error(ours) <= 2 * error(torchs)


def test_a_bias_that_learns_is_refused_and_no_rows_are_no_rows():
    q, k, v = heads()
    with pytest.raises(AssertionError, match="a bias that learns needs the weights"):
        TiledAttention.apply(q, k, v, torch.zeros(1, Q, S, requires_grad=True), 0.0)
    assert tiled()(q[:, :0], k, v).shape == (B * N, 0, width)


def test_the_row_of_the_note_in_two_tiles_and_its_log_sum_exp():
    scores = torch.tensor([1.0, 3, 2, 5], dtype=torch.float64)
    rows = tiled_attention._Rows(1, 1, 1, scores)
    totals = []
    for tile in scores.view(2, 1, 1, 2):
        rows.add(tile.clone(), torch.ones(1, 2, 1, dtype=torch.float64), None)
        totals.append((rows.top.item(), round(rows.total.item(), 2)))
    assert totals == [(3, 1.14), (5, 1.20)]
    torch.testing.assert_close(rows.result()[1].squeeze(), scores.logsumexp(0))


def test_the_weights_of_a_layer_at_stride_16_take_half_a_gigabyte():
    assert round(4 * 8 * (50 * 84) ** 2 / 1e9, 2) == 0.56  # 800×1333 pixels, float32, 8 heads


def test_without_dropout_nothing_is_drawn(small_tiles):
    qkv = heads()
    state = torch.get_rng_state()
    tiled()(*qkv)
    assert torch.equal(torch.get_rng_state(), state)
