"""attention: cases and typical mistakes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, kind, Mistyped, random, several, tensor
from scratch.ops.activations import softmax
from scratch.ops.attention import additive_mask
from scratch.ops.attention import scaled_dot_product_attention as note
from scratch.ops.dropout import dropout

inf = math.inf


def run(attention: Callable, **inputs: Any) -> dict:
    result = attention(**inputs)
    if isinstance(result, Tensor):
        raise Mistyped(f"wanted two results, (output, weights), got {kind(result)}")
    return several(result, "output", "weights", optional=True)


def reference(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, key_padding_mask: Tensor | None = None,
              dropout_p: float = 0.0, training: bool = False, need_weights: bool = True) -> dict:
    """torch's own function, in whose bool mask True means "allowed"; the identity as values gives the weights."""
    B, N, Q, _ = q.shape
    allowed = torch.zeros(B, N, Q, k.shape[2], dtype=q.dtype)
    if key_padding_mask is not None:
        allowed = allowed.masked_fill(key_padding_mask[:, None, None], -inf)
    if attn_mask is not None:
        mask = attn_mask if attn_mask.dim() == 2 else attn_mask.view(B, N, Q, -1)
        allowed = allowed.masked_fill(mask, -inf) if mask.dtype is torch.bool else allowed + mask
    eye = torch.eye(k.shape[2], dtype=v.dtype).expand(B, N, -1, -1)
    weights = F.scaled_dot_product_attention(q, k, eye, attn_mask=allowed) if need_weights else None
    return {"output": F.scaled_dot_product_attention(q, k, v, attn_mask=allowed), "weights": weights}


def of_the_note(**inputs: Any) -> dict:
    """torch gives NaN to a query that may look nowhere."""
    return dict(zip(("output", "weights"), note(**inputs)))


def heads(B: int = 1, N: int = 1, Q: int = 2, S: int = 3, d: int = 4, scale: float = 1.0) -> dict:
    return {"q": draw(B, N, Q, d, scale=scale), "k": draw(B, N, S, d, seed=1, scale=scale),
            "v": draw(B, N, S, d, seed=2)}


def padding(B: int, *lengths: int, S: int) -> Tensor:
    mask = torch.zeros(B, S, dtype=torch.bool)
    for b, length in enumerate(lengths):
        mask[b, length:] = True
    return mask


def forbidden(*rows: list) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


CASES = (
    Case("example", "d = 4, so √d = 2: the scores 0 and 2·ln 3 become 0 and ln 3, the weights ¼ and ¾", lambda: {
        "q": tensor([[[[2, 0, 0, 0]]]]), "k": tensor([[[[0, 1, 0, 0], [math.log(3), 0, 1, 0]]]]),
        "v": tensor([[[[4, 0, 0, 0], [0, 8, 0, 0]]]])},
        {"output": tensor([[[[1, 6, 0, 0]]]]), "weights": tensor([[[[0.25, 0.75]]]])}),
    Case("value", "two queries, three keys", heads),
    Case("value", "as many queries as keys", lambda: heads(Q=3, S=3)),
    Case("value", "two images, three heads", lambda: heads(B=2, N=3, Q=5, S=7, d=2)),
    Case("value", "a padding mask: the last keys of the second image are padding", lambda: {
        **heads(B=2), "key_padding_mask": padding(2, 3, 1, S=3)}),
    Case("value", "a bool attention mask: True = not allowed", lambda: {
        **heads(), "attn_mask": forbidden([False, True, False], [True, False, False])}),
    Case("value", "a float attention mask is added to the scores",
         lambda: {**heads(), "attn_mask": draw(2, 3, seed=3)}),
    Case("value", "both masks", lambda: {
        **heads(B=2, N=2), "attn_mask": forbidden([False, True, False], [False, False, True]),
        "key_padding_mask": padding(2, 2, 3, S=3)}),
    Case("value", "a mask for each head of each image: (B·N, Q, S)", lambda: {
        **heads(B=2, N=2), "attn_mask": draw(4, 2, 3, seed=3)}),
    Case("gradient", "by q, k and v", lambda: heads(d=3), gradient=("q", "k", "v")),
    Case("edges", "in evaluation nothing is dropped", lambda: {**heads(), "dropout_p": 0.5, "training": False}),
    Case("edges", "in training a share dropout_p of the weights is dropped: with 1, all", lambda: {
        **heads(), "dropout_p": 1.0, "training": True}, reference=of_the_note),
    Case("edges", "without need_weights the weights are None", lambda: {**heads(), "need_weights": False}),
    Case("edges", "scores of thousands", lambda: heads(scale=100.0)),
    Case("edges", "values of another width", lambda: {**heads(), "v": draw(1, 1, 3, 2, seed=2)}),
    Case("edges", "a query that may look nowhere gets zeros", lambda: {
        **heads(), "attn_mask": forbidden([True, True, True], [False, False, True])}, told=True, reference=of_the_note),
    Case("edges", "an image of padding alone gets zeros", lambda: {
        **heads(B=2), "key_padding_mask": padding(2, 3, 0, S=3)}, told=True, reference=of_the_note),
    Case("precision", "float16, where q·k overflows before it is divided by √d (65,504 is the largest)", lambda: {
        "q": torch.full((1, 1, 2, 16), 70.0, dtype=torch.float64), "k": torch.full((1, 1, 3, 16), 70.0,
                                                                                    dtype=torch.float64),
        "v": draw(1, 1, 3, 16, seed=2)}, dtype=torch.float16, units=4, bonus=True),
    *(Case("precision", str(dtype).removeprefix("torch."), lambda: {
        "q": random(2, 3, 29, 11), "k": random(2, 3, 31, 11, seed=1), "v": random(2, 3, 31, 11, seed=2)}, dtype=dtype,
        units=4) for dtype in LOW),
)


def attempt(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, key_padding_mask: Tensor | None = None,
            dropout_p: float = 0.0, training: bool = False, need_weights: bool = True, *, flaws: frozenset) -> tuple:
    (B, N, Q, d), S = q.shape, k.shape[2]
    divisors = {"no_root_d": 1, "by_d": d, "times_root_d": 1 / math.sqrt(d), "root_of_keys": math.sqrt(S),
                "root_of_all_heads": math.sqrt(N * d), "root_twice": d ** 0.25, "root_of_queries": math.sqrt(Q)}
    divisor = next((divisors[flaw] for flaw in divisors if flaw in flaws), math.sqrt(d))
    if "queries_and_keys_swapped" in flaws:
        scores = k @ q.transpose(-2, -1) / divisor
    elif "keys_not_transposed" in flaws:
        scores = q @ k / divisor
    elif "values_as_keys" in flaws:
        scores = q @ v.transpose(-2, -1) / divisor
    elif "divided_after_the_product" in flaws:
        scores = q @ k.transpose(-2, -1) / divisor
    else:
        scores = (q / divisor) @ k.transpose(-2, -1)  # (B, N, Q, S)
    if "mask_multiplied:all" in flaws:
        bias = additive_mask(attn_mask, key_padding_mask, B, N, Q, S, q.dtype)
        if bias is not None:
            scores = (scores.reshape(B * N, Q, S) * bias).view(B, N, Q, S)
        attn_mask = key_padding_mask = None
    if "mask_of_heads_first" in flaws and attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.view(N, B, Q, S).transpose(0, 1).reshape(B * N, Q, S)
    masks = []
    if key_padding_mask is not None and "padding_ignored" not in flaws:
        mask = ~key_padding_mask if flaws & {"masks_inverted", "padding_inverted"} else key_padding_mask
        masks.append(mask[:, None, None, :])
    if attn_mask is not None and "attn_mask_ignored" not in flaws:
        mask = attn_mask if attn_mask.dim() == 2 else attn_mask.view(B, N, Q, S)
        if mask.dtype is torch.bool:
            masks.append(~mask if flaws & {"masks_inverted", "attn_mask_inverted"} else mask)
        else:
            scores = scores * mask if "mask_multiplied" in flaws else scores + mask
    fill = 0.0 if "masked_with_zero" in flaws else -1e9 if "masked_with_a_large_number" in flaws else -inf
    if "masked_after_softmax" not in flaws:
        for mask in masks:
            scores = scores.masked_fill(mask, fill)
    along = -2 if "softmax_over_queries" in flaws else 1 if "softmax_over_heads" in flaws else -1
    if "nan_for_nowhere" in flaws:
        P = torch.softmax(scores, along)
    elif "one_maximum_for_all" in flaws:
        e = torch.exp(scores - scores.max())
        P = e / e.sum(along, keepdim=True)
    elif "no_maximum" in flaws:
        P = torch.exp(scores) / torch.exp(scores).sum(along, keepdim=True)
    elif "no_softmax" in flaws:
        P = scores
    elif "softmax_over_everything" in flaws:
        P = softmax(scores.flatten(-2), -1).view_as(scores)
    else:
        P = softmax(scores, along)
    if "masked_after_softmax" in flaws:
        for mask in masks:
            P = P.masked_fill(mask, 0.0)
    if "plain_mean" in flaws:
        P = torch.ones_like(P) / S
    whole = P
    P = dropout(P, dropout_p, (training or "dropout_always" in flaws) and "dropout_forgotten" not in flaws)
    output = P @ (k if "keys_as_values" in flaws else v)  # (B, N, Q, d)
    if "scaled_twice" in flaws:
        output = output / math.sqrt(d)
    if "residual_added" in flaws:
        output = output + q
    weights = scores if "scores_as_weights" in flaws else whole if "weights_before_dropout" in flaws else P
    weights = weights.mean(1) if "weights_averaged" in flaws else weights
    return output, (weights if need_weights or "weights_always" in flaws else None)


WAYS = {"mask_multiplied": ("all",)}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "no_root_d": "The scores are not divided by √d: q·k is a sum of d products, so its variance grows with d, and the "
                 "softmax becomes nearly one-hot.",
    "by_d": "The scores are divided by d, not by its root: the standard deviation of q·k is √d.",
    "softmax_over_queries": "The softmax runs over the queries (the axis before the last): each query needs weights "
                            "over the keys that sum to 1, so the last axis.",
    "softmax_over_heads": "The softmax runs over the heads: it should run over the keys, the last axis.",
    "softmax_over_everything": "One softmax for all queries together: each query (row) needs its own.",
    "masks_inverted": "The masks mean the opposite: here True is “not allowed” (and padding), not “allowed”.",
    "padding_inverted": "The padding mask means the opposite: True is padding, which no query may look at.",
    "attn_mask_inverted": "The bool attention mask means the opposite: here True is “not allowed”, as in "
                          "nn.MultiheadAttention (nn.functional.scaled_dot_product_attention: allowed).",
    "padding_ignored": "The padding mask has no effect: padded keys (True) must get the weight 0.",
    "attn_mask_ignored": "The attention mask has no effect.",
    "masked_with_zero": "Forbidden scores are set to 0: e^0 = 1 is a weight like any other. −∞ gives the weight 0.",
    "masked_after_softmax": "The mask is applied after the softmax, so that the rest of a row no longer sums to 1. "
                            "Put −∞ into the scores before it.",
    "masked_with_a_large_number": "Forbidden scores are −1e9 and not −∞: where all keys are forbidden they are all "
                                  "alike, and the query gets a mean over padding. The note wants zeros.",
    "nan_for_nowhere": "A query that may look nowhere gives NaN (0/0). The note wants weights and output 0: its "
                       "softmax of a row of −∞ gives zeros.",
    "mask_multiplied": "The mask is multiplied with the scores; it is to be added (0 allows, −∞ forbids).",
    "divided_after_the_product": "q·k is divided by √d too late for float16, where the product overflows: divide "
                                 "q first.",
    "times_root_d": "The scores are multiplied by √d; they are to be divided by it.",
    "root_of_keys": "The scores are divided by the root of the number of keys; d is the width of a query and a key, "
                    "the last axis.",
    "root_of_queries": "The scores are divided by the root of the number of queries; d is the last axis of q.",
    "root_of_all_heads": "The scores are divided by √D, the width of all heads together; each head has scores of its "
                         "own, sums of d products.",
    "root_twice": "The scores are divided by d^¼: if q and k are scaled before the product, each takes √(√d), both "
                  "do.",
    "scaled_twice": "The output is divided by √d once more: only the scores are.",
    "no_softmax": "There is no softmax: the scores themselves weigh the values.",
    "no_maximum": "The exponentials overflow: use the softmax of ops/activations, which subtracts the maximum first.",
    "one_maximum_for_all": "One maximum is subtracted from all scores: a row far below it becomes 0/0. Each row needs "
                           "its own; the softmax of ops/activations does that.",
    "queries_and_keys_swapped": "q and k have changed places: row i of the scores belongs to query i.",
    "keys_not_transposed": "k is not transposed: the scores are q kᵀ, (Q,d)·(d,S).",
    "keys_as_values": "The weights average the keys; they should average the values.",
    "values_as_keys": "The scores are made with the values; they should be made with the keys.",
    "plain_mean": "All values count alike: the output is their plain mean, whatever the scores.",
    "residual_added": "The query is added to the output: the residual connection belongs to the transformer, not to "
                      "the attention.",
    "dropout_always": "Weights are dropped in evaluation too: only while `training`.",
    "dropout_forgotten": "Nothing is dropped in training: the weights go through dropout (dropout_p, training).",
    "weights_before_dropout": "The weights that are returned are those before dropout; those that were used are "
                              "wanted.",
    "mask_of_heads_first": "The mask (B·N, Q, S) is read as (N, B, …): the heads of one image lie side by side, so it "
                           "is view(B, N, Q, S).",
    "weights_always": "Without need_weights the second result should be None.",
    "weights_averaged": "The weights are averaged over the heads: here they are wanted for each head, (B,N,Q,S).",
    "scores_as_weights": "The scores are returned as weights: the weights are those after the softmax.",
}
