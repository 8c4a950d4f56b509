"""The transformer is the official one: torch.nn's numbers, dropout where the official code drops, tokens unordered."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reference.model import DecoderLayer, EncoderLayer
from reference.model import Transformer as ReferenceTransformer
from scratch.config import ModelConfig
from scratch.model.transformer import Transformer

B, D, N, F, Q, h, w = 2, 12, 3, 17, 7, 3, 5
CONFIG = ModelConfig(hidden_dim=D, nheads=N, dim_feedforward=F, enc_layers=2, dec_layers=3, num_queries=Q, dropout=0.0)


def transformer(dropout: float = 0.0) -> Transformer:
    """A small one in float64 whose biases and norms are not the initial ones and zeros."""
    model = Transformer(D, N, 2, 3, F, dropout).double()
    for p in model.parameters():
        if p.dim() == 1:
            p.data += 0.3 * torch.randn_like(p)
    return model


def inputs() -> dict[str, Tensor]:
    """Two pictures, the second of which ends one row and two columns early."""
    pad_mask = torch.zeros(B, h, w, dtype=torch.bool)
    pad_mask[1, -1:], pad_mask[1, :, -2:] = True, True
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)
    return {"src": draw(B, D, h, w), "pad_mask": pad_mask, "query_embed": draw(Q, D),
            "pos_embed": draw(B, D, h, w)}


def assert_equal_in_value_and_gradient(ours: nn.Module, theirs: nn.Module) -> None:
    """Both transformers, with shared weights, on the same inputs: answers, and gradients of inputs and parameters."""
    theirs.load_state_dict(ours.state_dict())
    x = inputs()
    leaves = [leaf.requires_grad_() for leaf in (x["src"], x["query_embed"], x["pos_embed"])]
    ours_hs = ours(**x)[0]
    theirs_hs = theirs(x["src"], x["pad_mask"], x["query_embed"], x["pos_embed"])
    torch.testing.assert_close(ours_hs, theirs_hs, rtol=1e-10, atol=1e-10)
    cotangent = torch.randn_like(ours_hs)
    a = torch.autograd.grad(ours_hs, leaves + list(ours.parameters()), cotangent)
    b = torch.autograd.grad(theirs_hs, leaves + list(theirs.parameters()), cotangent)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_answers_and_every_gradient_equal_torch_nn():
    assert_equal_in_value_and_gradient(transformer(), ReferenceTransformer(CONFIG).double())


class Trace(nn.Module):
    """Stands where a dropout is, and marks what passes in a way that tells the places apart."""

    def __init__(self, place: int):
        super().__init__()
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        return (1 + 0.1 * self.place) * x + 0.05 * (x + self.place).sin()


def test_dropout_sits_where_the_official_code_drops():
    ours, theirs = transformer(), ReferenceTransformer(CONFIG).double()
    for model in (ours, theirs):
        places = [(layer, name) for stack in (model.encoder, model.decoder) for layer in stack.layers
                  for name in ("dropout", "dropout1", "dropout2", "dropout3") if hasattr(layer, name)]
        assert len(places) == 2 * 3 + 3 * 4
        for i, (layer, name) in enumerate(places):
            setattr(layer, name, Trace(i))
    assert_equal_in_value_and_gradient(ours, theirs)


def test_attention_drops_as_much_as_the_rest():
    model = transformer(dropout=0.3)
    rates = [m.dropout for m in model.modules() if m.__class__.__name__ == "MultiheadAttention"]
    assert rates == [0.3] * (2 + 2 * 3)


def test_answers_vary_under_dropout_in_training_and_not_in_eval():
    model, x = transformer(dropout=0.3), inputs()
    assert not torch.equal(model(**x)[0], model(**x)[0])
    model.eval()
    assert torch.equal(model(**x)[0], model(**x)[0])


def test_names_are_the_official_ones():
    attention = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    both = [f"{part}.{end}" for part in ("linear1", "linear2", "norm1", "norm2") for end in ("weight", "bias")]
    encoder = [f"self_attn.{a}" for a in attention] + both
    decoder = encoder + [f"multihead_attn.{a}" for a in attention] + ["norm3.weight", "norm3.bias"]
    expected = {f"encoder.layers.{i}.{name}" for i in range(2) for name in encoder}
    expected |= {f"decoder.layers.{i}.{name}" for i in range(3) for name in decoder}
    expected |= {"decoder.norm.weight", "decoder.norm.bias"}
    assert set(transformer().state_dict()) == expected


def test_initial_matrices_are_xavier_uniform():
    model = Transformer(64, 4, 1, 1, 128)
    for name, p in model.named_parameters():
        if p.dim() > 1:
            bound = math.sqrt(6 / sum(p.shape))
            assert 0.95 * bound < p.abs().max() <= bound, name


def test_tokens_under_the_padding_mask_have_no_influence():
    model, x = transformer().eval(), inputs()
    other = {**x, "src": x["src"].clone(), "pos_embed": x["pos_embed"].clone()}
    hidden = x["pad_mask"][:, None].expand(B, D, h, w)
    other["src"][hidden] = 1e6 * torch.randn(int(hidden.sum()), dtype=torch.float64)
    other["pos_embed"][hidden] = torch.randn(int(hidden.sum()), dtype=torch.float64)
    assert torch.equal(model(**x)[0], model(**other)[0])


def test_a_picture_of_the_unpadded_part_alone_gives_the_same_answers():
    model, x = transformer().eval(), inputs()
    alone = {"src": x["src"][1:, :, :-1, :-2], "pos_embed": x["pos_embed"][1:, :, :-1, :-2],
             "pad_mask": torch.zeros(1, h - 1, w - 2, dtype=torch.bool), "query_embed": x["query_embed"]}
    torch.testing.assert_close(model(**alone)[0][:, 0], model(**x)[0][:, 1], rtol=1e-12, atol=1e-12)


def test_a_picture_that_is_all_padding_gives_finite_answers_and_gradients():
    model, x = transformer(), inputs()
    x["pad_mask"][0] = True
    x["src"].requires_grad_()
    hs, _ = model(**x)
    hs.square().sum().backward()
    assert hs.isfinite().all() and all(p.grad.isfinite().all() for p in [x["src"], *model.parameters()])


def test_cells_have_no_order_but_their_positions():
    model, x = transformer().eval(), inputs()
    order = torch.randperm(h * w)
    shuffled = {name: x[name].flatten(-2)[..., order].unflatten(-1, (h, w))
                for name in ("src", "pos_embed", "pad_mask")}
    hs, _ = model(**shuffled, query_embed=x["query_embed"])
    torch.testing.assert_close(hs, model(**x)[0], rtol=1e-12, atol=1e-12)


def test_queries_have_no_order():
    model, x = transformer().eval(), inputs()
    order = torch.randperm(Q)
    shuffled = model(**{**x, "query_embed": x["query_embed"][order]})[0]
    torch.testing.assert_close(shuffled, model(**x)[0][:, :, order], rtol=1e-12, atol=1e-12)


def test_the_values_of_the_first_decoder_layer_are_its_bias_alone():
    model, x = Transformer(D, N, 0, 1, F, 0.0).double(), inputs()
    before = model(**x)[0]
    with torch.no_grad():
        # The decoder starts from zeros: this meets nothing.
        model.decoder.layers[0].self_attn.in_proj_weight[2 * D:] = 7.0
    assert torch.equal(model(**x)[0], before)


def test_attention_on_request_leaves_the_answers_alone():
    model, x = transformer().eval(), inputs()
    without, nothing = model(**x)
    with_weights, _ = model(**x, need_weights=True)
    assert nothing is None and torch.equal(without, with_weights)


def test_attention_on_request_is_one_share_for_each_head_layer_and_key():
    attention = transformer().eval()(**inputs(), need_weights=True)[1]
    S = h * w
    assert [a.shape for a in attention["encoder"]] == [(B, N, S, S)] * 2
    assert attention["decoder_self"].shape == (3, B, N, Q, Q) and attention["decoder_cross"].shape == (3, B, N, Q, S)
    assert attention["size"] == (h, w)
    for weights in (*attention["encoder"], attention["decoder_self"], attention["decoder_cross"]):
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_nobody_looks_at_padding():
    x = inputs()
    attention = transformer().eval()(**x, need_weights=True)[1]
    hidden = x["pad_mask"].flatten(1)
    for weights in (*attention["encoder"], *attention["decoder_cross"]):
        assert (weights.transpose(1, 3)[hidden] == 0).all()


@pytest.mark.parametrize("S, tokens, attention", [(380, 1.00, 0.15), (4 * 380, 3.98, 2.37)])
def test_an_encoder_layer_costs_what_the_note_says(S, tokens, attention):
    with torch.device("meta"):
        layer = EncoderLayer(256, 8, 2048, 0.1)
        with FlopCounterMode(display=False) as counter:
            layer(torch.empty(1, S, 256), torch.zeros(1, S, dtype=torch.bool), torch.empty(1, S, 256))
    products = counter.get_flop_counts()["Global"]
    inner = sum(n for op, n in products.items() if "attention" in str(op) or "bmm" in str(op).replace("baddbmm", "bmm"))
    assert round(inner / 1e9, 2) == attention and round((sum(products.values()) - inner) / 1e9, 2) == tokens


def test_a_decoder_layer_costs_what_the_note_says():
    with torch.device("meta"):
        layer = DecoderLayer(256, 8, 2048, 0.1)
        queries, memory = torch.empty(1, 100, 256), torch.empty(1, 380, 256)
        with FlopCounterMode(display=False) as counter:
            layer(queries, queries, memory, memory, torch.zeros(1, 380, dtype=torch.bool))
    assert round(counter.get_total_flops() / 1e9, 2) == 0.44


def test_a_transformer_without_encoder_layers_reads_the_features_themselves():
    ours = Transformer(D, N, 0, 3, F, 0.0).double()
    assert_equal_in_value_and_gradient(ours, ReferenceTransformer(replace(CONFIG, enc_layers=0)).double())
