"""attention: equal to torch.nn.MultiheadAttention in value, weights and every gradient, under any mask."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from scratch.ops.attention import (MultiheadAttention, attention_batched, attention_naive,
                                   scaled_dot_product_attention)
from scratch.ops.fast.switch import plain_mode
from tests.checks import assert_as_precise_as_torch, assert_same

inf = math.inf
B, N, Q, S, d = 2, 3, 5, 7, 11
D = N * d


@pytest.fixture(params=["fast", "plain"])
def mode(request):
    with plain_mode(request.param == "plain"):
        yield request.param


both_modes = pytest.mark.usefixtures("mode")


def ours(num_heads: int, dropout: float = 0.0, weights: str = "none", train: bool = True, **masks):
    """Our layer as a function of its inputs and its four parameters."""
    def run(query, key, value, *parameters):
        layer = MultiheadAttention(query.shape[-1], num_heads, dropout).to(query.dtype).train(train)
        return _run(layer, query, key, value, parameters, weights, masks)
    return run


def theirs(num_heads: int, dropout: float = 0.0, weights: str = "none", train: bool = True, **masks):
    """torch's layer as the same function."""
    def run(query, key, value, *parameters):
        layer = nn.MultiheadAttention(query.shape[-1], num_heads, dropout, batch_first=True).to(query.dtype)
        return _run(layer.train(train), query, key, value, parameters, weights, masks)
    return run


def _run(layer, query, key, value, parameters, weights, masks):
    """Output and weights (none, averaged or per head), flattened into one tensor, so that both are held at once."""
    named = dict(zip(("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"), parameters))
    torch.manual_seed(23)  # for dropout
    output, attention = torch.func.functional_call(
        layer, named, (query, key, value),
        {**masks, "need_weights": weights != "none", "average_attn_weights": weights == "averaged"})
    return output if attention is None else torch.cat((output.flatten(), attention.flatten()))


def parameters(D: int) -> list[Tensor]:
    return [torch.randn(3 * D, D) / math.sqrt(D), torch.randn(3 * D), torch.randn(D, D) / math.sqrt(D), torch.randn(D)]


def tokens() -> list[Tensor]:
    return [torch.randn(B, Q, D), torch.randn(B, S, D), torch.randn(B, S, D), *parameters(D)]


@st.composite
def masks(draw, B: int, N: int, Q: int, S: int) -> dict[str, Tensor]:
    """Any mix of both masks in which each query may look at key 0 (where it may not, torch gives NaN)."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    chosen = {}
    if draw(st.booleans()):
        chosen["key_padding_mask"] = torch.rand(B, S, generator=generator) < 0.4
        chosen["key_padding_mask"][:, 0] = False
    shape = draw(st.sampled_from([None, (Q, S), (B * N, Q, S)]))
    if shape is not None:
        mask = torch.rand(shape, generator=generator) < 0.4
        mask[..., 0] = False
        if draw(st.booleans()):
            numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
            mask = numbers.masked_fill(mask, -inf)
        chosen["attn_mask"] = mask
    return chosen


# torch warns that a bool padding mask beside a float attention mask is deprecated; both are what it documents.
mixed_masks = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")


@both_modes
@mixed_masks
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4),
       st.sampled_from(["none", "averaged", "per head"]))
def test_equals_torch_with_any_shape_and_any_masks(data, B, N, Q, S, d, weights):
    chosen = data.draw(masks(B, N, Q, S))
    assert_same(ours(N, weights=weights, **chosen), theirs(N, weights=weights, **chosen),
                torch.randn(B, Q, N * d), torch.randn(B, S, N * d), torch.randn(B, S, N * d), *parameters(N * d))


@both_modes
@given(st.data(), st.sampled_from([0.1, 0.5]), st.sampled_from(["none", "per head"]))
def test_equals_torch_under_dropout_with_the_same_seed(data, p, weights):
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[1, data.draw(st.integers(1, S)):] = True
    torch_weights = "averaged" if weights == "none" else weights  # without weights, torch draws another mask
    run = theirs(N, p, torch_weights, key_padding_mask=padding)

    def output_only(*inputs):
        return run(*inputs)[:B * Q * D].view(B, Q, D)

    assert_same(ours(N, p, weights, key_padding_mask=padding), output_only if weights == "none" else run, *tokens())


@both_modes
@pytest.mark.parametrize("weights", ["none", "averaged", "per head"])
def test_evaluation_ignores_dropout(weights):
    assert_same(ours(N, 0.5, weights, train=False), theirs(N, 0.0, weights), *tokens())


@both_modes
@pytest.mark.parametrize("pattern, products", [("xxx", 1), ("xxy", 2), ("xyy", 2), ("xyx", 3), ("xyz", 3)])
def test_inputs_that_are_one_tensor_share_a_product(pattern, products, monkeypatch):
    distinct = {name: torch.randn(B, S, D) for name in sorted(set(pattern))}

    def share(function):
        return lambda *inputs: function(*(inputs["xyz".index(name)] for name in pattern), *inputs[len(distinct):])

    assert_same(share(ours(N)), share(theirs(N)), *distinct.values(), *parameters(D))

    calls = []
    monkeypatch.setattr("scratch.ops.attention.linear", lambda *a: calls.append(a) or F.linear(*a))
    MultiheadAttention(D, N)(*(distinct[name] for name in pattern))
    assert len(calls) == products


@both_modes
@mixed_masks
def test_an_additive_mask_receives_its_gradient_as_in_torch():
    for shape in ((Q, S), (B * N, Q, S)):
        padding = torch.zeros(B, S, dtype=torch.bool)
        padding[1, 5:] = True

        def with_mask(layer):
            return lambda mask, *inputs: layer(N, attn_mask=mask, key_padding_mask=padding)(*inputs)

        assert_same(with_mask(ours), with_mask(theirs), torch.randn(shape), *tokens())


@both_modes
@pytest.mark.parametrize("weights", ["none", "per head"])
def test_as_precise_as_torch(weights):
    padding = torch.zeros(B, 31, dtype=torch.bool)
    padding[1, 23:] = True
    masked = {"weights": weights, "key_padding_mask": padding}
    assert_as_precise_as_torch(ours(N, **masked), theirs(N, **masked), torch.randn(B, 29, D), torch.randn(B, 31, D),
                               torch.randn(B, 31, D), *parameters(D))


# ── the ladder ──────────────────────────────────────────────────────────────────────────────────────────────────────


def heads() -> list[Tensor]:
    return [torch.randn(B, N, Q, d), torch.randn(B, N, S, d), torch.randn(B, N, S, d)]


def test_the_loops_agree_with_the_batch_for_one_head():
    assert_same(attention_naive, lambda q, k, v: attention_batched(q, k, v)[0],
                torch.randn(3, 2), torch.randn(5, 2), torch.randn(5, 2))


@both_modes
def test_equals_torchs_function_whose_bool_mask_means_the_opposite():
    mask = torch.rand(Q, S) < 0.4
    mask[:, 0] = False
    assert_same(lambda *qkv: scaled_dot_product_attention(*qkv, mask)[0],
                lambda *qkv: F.scaled_dot_product_attention(*qkv, attn_mask=~mask), *heads())


@both_modes
def test_the_two_queries_of_the_note():
    # d = 4, so √d = 2: q k^T is 0 and 2·ln 3 for the first query, 2·ln 3 and 0 for the second.
    q = torch.tensor([[[[2.0, 0, 0, 0], [0, 2, 0, 0]]]])
    k = torch.tensor([[[[0.0, math.log(3), 0, 0], [math.log(3), 0, 0, 0]]]])
    v = torch.tensor([[[[4.0], [8.0]]]])
    output, weights = scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(q @ k.mT / 2, torch.tensor([[[[0, math.log(3)], [math.log(3), 0]]]]))
    torch.testing.assert_close(weights, torch.tensor([[[[1 / 4, 3 / 4], [3 / 4, 1 / 4]]]]))
    torch.testing.assert_close(output, torch.tensor([[[[7.0], [5.0]]]]))


def test_the_layer_is_the_formula_of_the_note_head_by_head():
    layer, x_q, x_k, x_v = MultiheadAttention(D, N).double(), *(torch.randn(rows, D).double() for rows in (Q, S, S))
    nn.init.normal_(layer.in_proj_bias)
    weights, biases = layer.in_proj_weight.view(3, N, d, D), layer.in_proj_bias.view(3, N, d)
    heads = [attention_naive(*(x @ weights[i, n].T + biases[i, n] for i, x in enumerate((x_q, x_k, x_v))))
             for n in range(N)]
    y = torch.cat(heads, dim=1) @ layer.out_proj.weight.T + layer.out_proj.bias
    torch.testing.assert_close(layer(x_q[None], x_k[None], x_v[None])[0][0], y)


@both_modes
def test_an_example_worked_by_hand():
    # d = 4, so √d = 2. The query scores the two keys 0 and 2·ln 3; over √d that is 0 and ln 3: weights ¼ and ¾.
    q = torch.tensor([[[[2.0, 0, 0, 0]]]])
    k = torch.tensor([[[[0.0, 1, 0, 0], [math.log(3), 0, 1, 0]]]])
    v = torch.tensor([[[[4.0, 0, 0, 0], [0, 8, 0, 0]]]])
    output, weights = scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(weights, torch.tensor([[[[0.25, 0.75]]]]))
    torch.testing.assert_close(output, torch.tensor([[[[1.0, 6, 0, 0]]]]))


def test_dividing_by_root_d_keeps_the_softmax_from_saturating():
    q, k = torch.randn(2000, 1, 64, dtype=torch.float64), torch.randn(2000, 100, 64, dtype=torch.float64)
    scores = (q * k).sum(-1)
    assert scores.var().item() == pytest.approx(64, rel=0.03)
    for scale, of_ten in ((1.0, 0.998), (8.0, 0.38)):
        P = torch.softmax(scores / scale, -1)
        assert P.topk(10).values.sum(-1).mean().item() == pytest.approx(of_ten, abs=5e-4 * scale**2)


@both_modes
def test_without_training_nothing_is_dropped():
    q, k, v = heads()
    expected = scaled_dot_product_attention(q, k, v)[0]
    assert torch.equal(scaled_dot_product_attention(q, k, v, dropout_p=0.5)[0], expected)


# ── the edges ───────────────────────────────────────────────────────────────────────────────────────────────────────


@both_modes
def test_a_fully_padded_image_gives_zeros_and_finite_gradients_where_torch_gives_nan():
    q, k, v = (x.requires_grad_() for x in heads())
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[1] = True
    output, weights = scaled_dot_product_attention(q, k, v, key_padding_mask=padding)
    output.sum().backward()
    assert not output[1].any() and not weights[1].any()
    assert all(x.grad.isfinite().all() and not x.grad[1].any() and x.grad[0].any() for x in (q, k, v))
    layer = nn.MultiheadAttention(D, N, batch_first=True)
    x = torch.randn(B, S, D)
    assert layer(x, x, x, key_padding_mask=padding)[0][1].isnan().all()


@both_modes
def test_a_query_that_may_look_nowhere_gives_the_bias_of_the_last_map():
    layer = MultiheadAttention(D, N)
    nn.init.normal_(layer.out_proj.bias)
    mask = torch.zeros(Q, S, dtype=torch.bool)
    mask[3] = True
    x, y = torch.randn(B, Q, D), torch.randn(B, S, D)
    output, weights = layer(x, y, y, attn_mask=mask, need_weights=True)
    assert not weights[:, :, 3].any()
    torch.testing.assert_close(output[:, 3], layer.out_proj.bias.expand(B, D))


@both_modes
def test_padding_has_no_influence_whatsoever():
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[:, 4:] = True
    q, k, v = heads()
    before = scaled_dot_product_attention(q, k, v, key_padding_mask=padding)[0]
    k[:, :, 4:], v[:, :, 4:] = 1e4, -1e4
    assert torch.equal(before, scaled_dot_product_attention(q, k, v, key_padding_mask=padding)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_scores_of_ten_thousand_stay_finite(dtype, mode):
    q, k, v = (x.to(dtype).requires_grad_() for x in heads())
    output, weights = scaled_dot_product_attention(q * 100, k * 100, v)
    output.sum().backward()
    assert output.isfinite().all() and all(x.grad.isfinite().all() for x in (q, k, v))
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, N, Q, dtype=dtype))


@both_modes
def test_the_weights_sum_to_one_and_average_over_the_heads():
    layer, x = MultiheadAttention(D, N), torch.randn(B, S, D)
    _, per_head = layer(x, x, x, need_weights=True)
    _, averaged = layer(x, x, x, need_weights=True, average_attn_weights=True)
    assert per_head.shape == (B, N, S, S) and averaged.shape == (B, S, S)
    torch.testing.assert_close(per_head.sum(-1), torch.ones(B, N, S))
    torch.testing.assert_close(averaged, per_head.mean(1))


@both_modes
def test_a_loss_on_the_weights_alone_has_the_gradients_of_the_plain_version():
    gradients = []
    for function in (scaled_dot_product_attention, attention_batched):
        torch.manual_seed(3)
        q, k, v = (x.double().requires_grad_() for x in heads())
        function(q, k, v)[1].square().sum().backward()
        assert v.grad is None or not v.grad.any()
        gradients.append((q.grad, k.grad))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


# ── the layer ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_layer_draws_and_names_its_parameters_as_torch():
    torch.manual_seed(5)
    our = MultiheadAttention(D, N)
    torch.manual_seed(5)
    their = nn.MultiheadAttention(D, N, batch_first=True)
    assert list(our.state_dict()) == list(their.state_dict())
    assert all(torch.equal(p, their.state_dict()[name]) for name, p in our.state_dict().items())


@both_modes
def test_the_state_dict_loads_either_way():
    our, their = MultiheadAttention(D, N), nn.MultiheadAttention(D, N, batch_first=True)
    x = torch.randn(B, S, D)
    our.load_state_dict(their.state_dict())
    torch.testing.assert_close(our(x, x, x)[0], their(x, x, x)[0])
    their.load_state_dict(MultiheadAttention(D, N).state_dict())


@both_modes
def test_autocast_lowers_the_products_forwards_and_backwards():
    layer, x = MultiheadAttention(D, N), torch.randn(B, S, D, requires_grad=True)
    exact = layer(x, x, x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = layer(x, x, x)
    output.float().sum().backward()
    assert output.dtype is torch.bfloat16 and x.grad.dtype is torch.float32
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.02)


@both_modes
def test_where_there_is_no_key_the_output_is_zero():
    q, k, v = heads()
    output, weights = scaled_dot_product_attention(q, k[:, :, :0], v[:, :, :0])
    assert output.shape == v.shape[:2] + q.shape[2:] and not output.any() and weights.shape[-1] == 0


@both_modes
def test_autocast_lowers_float32_heads_and_returns_float32_gradients():
    q, k, v = (x.requires_grad_() for x in heads())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = scaled_dot_product_attention(q, k, v)
    output.sum().backward()
    assert output.dtype is torch.bfloat16 and q.grad.dtype is k.grad.dtype is v.grad.dtype is torch.float32


@both_modes
def test_shapes_can_be_traced_without_data():
    with torch.device("meta"):
        x = torch.empty(B, S, D)
        assert MultiheadAttention(D, N)(x, x, x)[0].shape == (B, S, D)


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_heads_must_share_the_width():
    with pytest.raises(ValueError, match="embed_dim 10 and num_heads 3"):
        MultiheadAttention(10, 3)


@both_modes
def test_masks_of_another_shape_or_kind_are_refused():
    q, k, v = heads()
    with pytest.raises(ValueError, match=r"key_padding_mask of shape \(2, 5\), wanted \(B, S\) = \(2, 7\)"):
        scaled_dot_product_attention(q, k, v, key_padding_mask=torch.zeros(B, Q, dtype=torch.bool))
    with pytest.raises(TypeError, match="key_padding_mask of torch.float32"):
        scaled_dot_product_attention(q, k, v, key_padding_mask=torch.zeros(B, S))
    with pytest.raises(ValueError, match=r"attn_mask of shape \(7, 5\), wanted \(Q, S\) = \(5, 7\)"):
        scaled_dot_product_attention(q, k, v, attn_mask=torch.zeros(S, Q))
    with pytest.raises(TypeError, match="attn_mask of torch.int64"):
        scaled_dot_product_attention(q, k, v, attn_mask=torch.zeros(Q, S, dtype=torch.int64))


def test_a_dropout_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match="1.5"):
        MultiheadAttention(D, N, dropout=1.5)


@both_modes
@pytest.mark.parametrize("images, queries", [(0, Q), (B, 0), (0, 0)])
def test_without_an_image_or_a_query_the_result_is_empty(images: int, queries: int) -> None:
    layer = MultiheadAttention(D, N)
    query, key = torch.zeros(images, queries, D), torch.zeros(images, S, D)
    mask = torch.zeros(queries, S, dtype=torch.bool)
    output, weights = layer(query, key, key, attn_mask=mask, need_weights=True)
    assert output.shape == (images, queries, D) and weights.shape == (images, N, queries, S)
