"""multi_head_attention: cases and typical mistakes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from exercises.case import LOW, Case, Mistyped, draw, kind, random, several
from scratch.ops.attention import MultiheadAttention as Note
from scratch.ops.attention import scaled_dot_product_attention
from scratch.ops.linear import linear

PARAMETERS = ("in_proj_weight", "in_proj_bias", "out_proj_weight", "out_proj_bias")


def run(layer_class: type, **inputs: Any) -> dict:
    return _answers(layer_class(inputs["query"].shape[-1], inputs["num_heads"], inputs.get("dropout", 0.0)), **inputs)


def reference(**inputs: Any) -> dict:
    layer = nn.MultiheadAttention(inputs["query"].shape[-1], inputs["num_heads"], batch_first=True)
    return _answers(layer, **inputs)


def _answers(layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, in_proj_weight: Tensor, in_proj_bias: Tensor,
             out_proj_weight: Tensor, out_proj_bias: Tensor, num_heads: int, dropout: float = 0.0,
             need_weights: bool = True, average_attn_weights: bool = False, **masks: Tensor) -> dict:
    """The layer in evaluation, with these parameters."""
    named = {"in_proj_weight": in_proj_weight, "in_proj_bias": in_proj_bias, "out_proj.weight": out_proj_weight,
             "out_proj.bias": out_proj_bias}
    result = torch.func.functional_call(layer.to(query.dtype).eval(), named, (query, key, value), {
        **masks, "need_weights": need_weights, "average_attn_weights": average_attn_weights})
    if isinstance(result, Tensor):
        raise Mistyped(f"wanted two results, (output, weights), got {kind(result)}")
    return several(result, "output", "weights", optional=True)


def tokens(B: int = 1, N: int = 2, Q: int = 3, S: int = 5, d: int = 2, make: Any = draw) -> dict:
    D = N * d
    return {"query": make(B, Q, D), "key": make(B, S, D, seed=1), "value": make(B, S, D, seed=2),
            "in_proj_weight": make(3 * D, D, seed=3) / math.sqrt(D), "in_proj_bias": make(3 * D, seed=4),
            "out_proj_weight": make(D, D, seed=5) / math.sqrt(D), "out_proj_bias": make(D, seed=6), "num_heads": N}


def identity(N: int) -> dict:
    """D = 2, every linear map leaves its input alone: what happens is the heads' work."""
    eye = torch.eye(2, dtype=torch.float64)
    x = torch.tensor([[[0.0, math.log(3)], [1.0, 0.0]]], dtype=torch.float64)
    return {"query": x[:, :1] * 0 + 1, "key": x, "value": torch.tensor([[[4.0, 4.0], [8.0, 8.0]]], dtype=torch.float64),
            "in_proj_weight": torch.cat((eye, eye, eye)), "in_proj_bias": torch.zeros(6, dtype=torch.float64),
            "out_proj_weight": eye, "out_proj_bias": torch.zeros(2, dtype=torch.float64), "num_heads": N}


def padded(**more: Any) -> dict:
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[1, 3:] = True
    return {**tokens(B=2, **more), "key_padding_mask": mask}


CASES = (
    Case("example", "two heads of width 1: head 0 scores 0 and 1, head 1 scores ln 3 and 0", lambda: identity(2), {
        "output": torch.tensor([[[4 / (1 + math.e) + 8 * math.e / (1 + math.e), 4 * 3 / 4 + 8 * 1 / 4]]],
                               dtype=torch.float64),
        "weights": torch.tensor([[[[1 / (1 + math.e), math.e / (1 + math.e)]], [[3 / 4, 1 / 4]]]],
        dtype=torch.float64)}),
    Case("value", "two heads of width 2", tokens),
    Case("value", "two images, three heads", lambda: tokens(B=2, N=3)),
    Case("value", "as many heads as numbers in a head", lambda: tokens(N=3, d=3)),
    Case("value", "as many queries as keys", lambda: tokens(B=2, Q=3, S=3)),
    Case("value", "one head", lambda: tokens(N=1, d=3)),
    Case("value", "a padding mask", padded),
    Case("value", "an attention mask (True = not allowed)", lambda: {
        **tokens(), "attn_mask": torch.tensor([[0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)}),
    Case("value", "the mean of the weights over the heads", lambda: {**tokens(), "average_attn_weights": True}),
    Case("gradient", "by the three inputs and the four parameters", tokens,
         gradient=("query", "key", "value", *PARAMETERS)),
    Case("edges", "weights that nobody needs are None", lambda: {**tokens(), "need_weights": False}),
    Case("edges", "in evaluation nothing is dropped", lambda: {**tokens(), "dropout": 0.5}),
    Case("edges", "one query, one key", lambda: tokens(Q=1, S=1)),
    *(Case("precision", str(dtype).removeprefix("torch."), lambda: tokens(B=2, Q=29, S=31, make=random), dtype=dtype,
           units=6) for dtype in LOW),
)


def flawed(flaws: frozenset) -> type:
    def split(layer: Note, x: Tensor) -> Tensor:
        B, S, D = x.shape
        N, d = layer.num_heads, D // layer.num_heads
        if "heads_cut_from_tokens" in flaws:
            return x.reshape(B, N, S, d)
        if "heads_interleaved" in flaws:
            return x.view(B, S, d, N).permute(0, 3, 1, 2)
        if "one_wide_head" in flaws:
            return x[:, None]
        return x.view(B, S, N, d).transpose(1, 2)  # (B, N, S, d)

    def forward(self: Note, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, *,
                attn_mask: Tensor | None = None, need_weights: bool = False,
                average_attn_weights: bool = False) -> tuple:
        B, Q, D = query.shape
        order = {"value_and_key_maps_swapped": (0, 2, 1), "query_and_key_maps_swapped": (1, 0, 2),
                 "key_map_for_value": (0, 1, 1),
                 "one_map_for_all": (0, 0, 0)}
        places = next((order[flaw] for flaw in order if flaw in flaws), (0, 1, 2))
        if "maps_interleaved" in flaws:
            weights, biases = (list(x.unflatten(0, (D, 3)).unbind(1)) for x in (self.in_proj_weight, self.in_proj_bias))
        else:
            weights, biases = self.in_proj_weight.split(D), self.in_proj_bias.split(D)
        if "maps_transposed" in flaws:
            weights = [weight.T for weight in weights]
        inputs = [query, key, value]
        if "only_the_query" in flaws:
            inputs = [query, query, query]
        if "key_from_query" in flaws:
            inputs = [query, query, value]
        if "keys_and_values_swapped" in flaws:
            inputs = [query, value, key]
        if "value_from_key" in flaws:
            inputs = [query, key, key]
        if "no_input_maps" in flaws:
            projected = inputs
        else:
            projected = [linear(x, weights[i], None if "no_input_bias" in flaws else biases[i])
                         for x, i in zip(inputs, places)]
        q, k, v = (split(self, x) for x in projected)
        factor = {"root_of_the_whole_width": math.sqrt(q.shape[-1] / D), "no_root_d": math.sqrt(q.shape[-1]),
                  "scaled_twice": 1 / math.sqrt(q.shape[-1])}
        q = q * next((factor[flaw] for flaw in factor if flaw in flaws), 1.0)
        if "one_wide_head" in flaws and attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask[::self.num_heads]
        output, attention = scaled_dot_product_attention(
            q, k, v, None if "attn_mask_ignored" in flaws else attn_mask,
            None if "padding_ignored" in flaws else key_padding_mask, self.dropout, "dropout_always" in flaws, True)
        if "heads_not_turned_back" in flaws:
            output = output.reshape(B, Q, D)
        elif "heads_summed" in flaws:
            output = output.sum(1).repeat(1, 1, self.num_heads)
        elif "heads_joined_interleaved" in flaws:
            output = output.permute(0, 2, 3, 1).reshape(B, Q, D)
        else:
            output = output.transpose(1, 2).reshape(B, Q, D)
        if "no_output_bias" in flaws:
            output = linear(output, self.out_proj.weight)
        elif "output_map_transposed" in flaws:
            output = linear(output, self.out_proj.weight.T, self.out_proj.bias)
        elif "no_output_map" not in flaws:
            output = self.out_proj(output)
        if "residual_added" in flaws:
            output = output + query
        if not need_weights and "weights_always" not in flaws:
            return output, None
        averaged = (average_attn_weights and "never_averaged" not in flaws) or "always_averaged" in flaws
        return output, attention.mean(1) if averaged else attention

    return type("MultiheadAttention", (Note,), {"forward": forward})


MISTAKES = {
    "heads_cut_from_tokens": "The heads are cut with reshape(B, N, S, d): this tears the tokens apart. Split the "
                             "width first, view(B, S, N, d), then transpose(1, 2).",
    "heads_not_turned_back": "The heads are joined without turning them back: (B, N, Q, d) needs transpose(1, 2) "
                             "before reshape(B, Q, D), or numbers of several tokens mix.",
    "no_output_map": "The output map (out_proj) is missing: it mixes what the heads found.",
    "no_input_bias": "The biases of the input maps are forgotten (in_proj_bias).",
    "no_output_bias": "The bias of the output map is forgotten (out_proj.bias).",
    "no_input_maps": "The inputs are not mapped: q, k and v come from linear maps (in_proj_weight).",
    "value_and_key_maps_swapped": "The maps of key and value have changed places: in_proj_weight holds W_q, W_k, W_v "
                                  "in this order.",
    "query_and_key_maps_swapped": "The maps of query and key have changed places: in_proj_weight holds W_q, W_k, W_v "
                                  "in this order.",
    "one_map_for_all": "All three inputs go through W_q: rows D … 2D of in_proj_weight are for the key, 2D … 3D for "
                       "the value.",
    "maps_interleaved": "in_proj_weight is cut as if every third row belonged to the query: its first D rows are W_q, "
                        "the next D W_k, the last D W_v.",
    "maps_transposed": "The input maps are applied without their transpose: a linear layer computes x Wᵀ.",
    "output_map_transposed": "The output map is applied without its transpose: a linear layer computes x Wᵀ.",
    "heads_interleaved": "Head n takes every N-th number of a token: it should take d neighbours, view(B, S, N, d).",
    "heads_joined_interleaved": "The heads are joined number by number: y is [O_1 … O_N], head after head.",
    "heads_summed": "The heads are added up; they stand side by side: D = N·d.",
    "one_wide_head": "There is one head of width D: num_heads has no effect.",
    "root_of_the_whole_width": "The scores are divided by √D: in a head, q·k is a sum of d = D/N products, so √d.",
    "no_root_d": "The scores are not divided by √d.",
    "scaled_twice": "The scores are divided by √d twice: scaled_dot_product_attention does it already.",
    "only_the_query": "Keys and values come from the query: that is self-attention; here they have inputs of their "
                      "own.",
    "value_from_key": "The values come from the key: they have an input of their own. (In DETR the key has the "
                      "positional encoding added, the value has not.)",
    "key_from_query": "The keys come from the query: they have an input of their own, `key`.",
    "keys_and_values_swapped": "Key and value have changed places: the scores come from `key` and W_k, what is "
                               "averaged from `value` and W_v.",
    "key_map_for_value": "The value goes through W_k: the last D rows of in_proj_weight are W_v.",
    "padding_ignored": "key_padding_mask has no effect.",
    "attn_mask_ignored": "attn_mask has no effect.",
    "residual_added": "The query is added to the output: the residual connection belongs to the transformer.",
    "dropout_always": "Weights are dropped in evaluation too: pass self.training on.",
    "weights_always": "Without need_weights the second result should be None.",
    "never_averaged": "average_attn_weights has no effect: it asks for the mean over the heads, (B,Q,S).",
    "always_averaged": "The weights are averaged over the heads although nobody asked: (B,N,Q,S) unless "
                       "average_attn_weights.",
}
