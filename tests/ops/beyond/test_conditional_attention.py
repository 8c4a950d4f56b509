"""Conditional attention is the sum of two products, and looks near its place before it has learnt anything."""

from __future__ import annotations

import math

import pytest
import torch

from scratch.ops.attention import attention_naive
from scratch.ops.beyond.conditional_attention import ConditionalAttention, conditional_scores_naive, deal_pairs
from scratch.ops.beyond.place_encoding import sine_of
from tests.checks import assert_same

B, Q, S, D, N = 2, 3, 5, 24, 3


def plain(layer: ConditionalAttention, content, place, memory, memory_place, pad_mask=None):
    """The layer's formula with torch's own softmax: two products of scores, added."""
    def heads(x):
        return x.unflatten(-1, (N, D // N)).transpose(1, 2)

    maps = [torch.nn.functional.linear(x, m.weight, m.bias) for x, m in (
        (content, layer.q_content), (place, layer.q_place), (memory, layer.kv_content), (memory_place, layer.k_place))]
    cq, pq, (ck, v), pk = heads(maps[0]), heads(maps[1]), map(heads, maps[2].chunk(2, -1)), heads(maps[3])
    scores = (cq @ ck.mT + pq @ pk.mT) / math.sqrt(2 * D // N)
    if pad_mask is not None:
        scores = scores.masked_fill(pad_mask[:, None, None], -math.inf)
    seen = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return torch.nn.functional.linear(seen, layer.out_proj.weight, layer.out_proj.bias)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_value_and_gradients_are_those_of_two_products_added():
    layer = ConditionalAttention(D, N).double()
    assert_same(lambda *x: layer(*x)[0], lambda *x: plain(layer, *x),
                draw(B, Q, D), draw(B, Q, D), draw(B, S, D), draw(B, S, D))


def test_the_naive_scores_are_those_of_the_concatenation():
    cq, pq, ck, pk = draw(Q, 7), draw(Q, 7), draw(S, 7), draw(S, 7)
    one_product = torch.cat((cq, pq), 1) @ torch.cat((ck, pk), 1).T / math.sqrt(14)
    torch.testing.assert_close(conditional_scores_naive(cq, pq, ck, pk), one_product)


def test_padded_cells_have_no_influence():
    layer = ConditionalAttention(D, N).double()
    x = [draw(B, Q, D), draw(B, Q, D), draw(B, S, D), draw(B, S, D)]
    pad_mask = torch.zeros(B, S, dtype=torch.bool)
    pad_mask[1, 3:] = True
    before = layer(*x, pad_mask)[0]
    torch.testing.assert_close(before, plain(layer, *x, pad_mask))
    x[2][1, 3:], x[3][1, 3:] = 7.0, -7.0
    assert torch.equal(layer(*x, pad_mask)[0], before)


def test_weights_come_on_request_and_sum_to_one_over_the_cells():
    layer = ConditionalAttention(D, N).double()
    x = draw(B, Q, D), draw(B, Q, D), draw(B, S, D), draw(B, S, D)
    assert layer(*x)[1] is None
    weights = layer(*x, need_weights=True)[1]
    assert weights.shape == (B, N, Q, S)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, N, Q, dtype=torch.float64))


@pytest.mark.parametrize(("embed_dim", "heads"), [(24, 3), (128, 4), (24, 4), (36, 4)])
def test_the_dealt_sinusoids_are_a_permutation(embed_dim: int, heads: int):
    assert deal_pairs(embed_dim, heads).sort().values.tolist() == list(range(embed_dim))


def test_each_head_gets_pairs_of_both_axes():
    order = deal_pairs(24, 3).view(3, 8)  # three heads of eight numbers; each axis has six sinusoids
    assert order[0].tolist() == [0, 1, 6, 7, 12, 13, 18, 19]  # sinusoids 0 and 3 of x, then of y
    assert order[1].tolist() == [2, 3, 8, 9, 14, 15, 20, 21]


def test_before_any_learning_a_query_looks_most_at_the_cell_of_its_own_place():
    layer = ConditionalAttention(64, 4).double()
    layer.reset_places()
    for linear in (layer.q_content, layer.kv_content):
        torch.nn.init.zeros_(linear.weight)  # content says nothing: place decides
    cells = torch.rand(1, 30, 2, dtype=torch.float64)
    places = sine_of(cells, 32)
    weights = layer(torch.zeros_like(places), places, torch.zeros_like(places), places, need_weights=True)[1]
    assert torch.equal(weights.argmax(-1), torch.arange(30).expand(1, 4, 30))


def test_the_place_scores_of_one_head_are_a_sum_of_cosines_of_the_distance():
    x, y = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64)
    count = 6
    expected = sum(math.cos((0.3 - 0.7) * 2 * math.pi / 20 ** (2 * i / (2 * count))) for i in range(count))
    assert (sine_of(x, 2 * count) @ sine_of(y, 2 * count).T).item() == pytest.approx(expected, abs=1e-12)


def test_one_head_without_places_is_plain_attention_on_content_halved_in_its_scale():
    layer = ConditionalAttention(6, 1).double()
    for linear in (layer.q_content, layer.out_proj):
        linear.weight.data, linear.bias.data = torch.eye(6).double(), torch.zeros(6).double()
    layer.kv_content.weight.data = torch.eye(6).double().repeat(2, 1)
    layer.kv_content.bias.data.zero_()
    content, memory, nowhere = draw(1, Q, 6), draw(1, S, 6), torch.zeros(1, 1, 6, dtype=torch.float64)
    for linear in (layer.q_place, layer.k_place):
        linear.bias.data.zero_()
    output = layer(content, nowhere.expand(1, Q, 6), memory, nowhere.expand(1, S, 6))[0]
    torch.testing.assert_close(output[0], attention_naive(content[0] / math.sqrt(2), memory[0], memory[0]))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="got embed_dim 24 and num_heads 5"):
        ConditionalAttention(24, 5)
