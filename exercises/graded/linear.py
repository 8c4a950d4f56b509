"""linear: cases and typical mistakes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, one, random, tensor


def run(linear: Callable, **inputs: Any) -> dict:
    return one(linear(**inputs))


def reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> dict:
    return {"y": F.linear(x, weight, bias)}


def drawn(*leading: int, I: int = 3, O: int = 5, bias: bool = True) -> dict:
    return {"x": draw(*leading, I), "weight": draw(O, I, seed=1), "bias": draw(O, seed=2) if bias else None}


CASES = (
    Case("example", "one row of two inputs, three outputs: 3·1 + 4·2 + ½ = 11.5", lambda: {
        "x": tensor([[1, 2]]), "weight": tensor([[3, 4], [5, 6], [0, -1]]), "bias": tensor([0.5, 0, 1])},
        {"y": tensor([[11.5, 17, -1]])}),
    Case("example", "as many outputs as inputs: 1·1 + 2·2 = 5, 3·1 + 4·2 = 11", lambda: {
        "x": tensor([[1, 2]]), "weight": tensor([[1, 2], [3, 4]]), "bias": tensor([10, 20])},
         {"y": tensor([[15, 31]])}),
    Case("value", "two rows", lambda: drawn(2)),
    Case("value", "as many rows as outputs", lambda: drawn(3, I=3, O=3)),
    Case("value", "two leading axes (2, 3, ·)", lambda: drawn(2, 3, I=2), on_error="leading_axes_lost"),
    Case("gradient", "by x, weight and bias", lambda: drawn(2, I=2, O=3), gradient=("x", "weight", "bias")),
    Case("edges", "no bias", lambda: drawn(2, bias=False), on_error="bias_needed"),
    Case("edges", "no leading axis: x is one row", lambda: drawn()),
    Case("edges", "no rows at all: x is (0, 3)", lambda: drawn(0)),
    *(Case("precision", str(dtype).removeprefix("torch."), lambda: {
        "x": random(11, 67), "weight": random(7, 67, seed=1), "bias": random(7, seed=2)}, dtype=dtype)
      for dtype in LOW),
    Case("precision", "under autocast the result stays bfloat16, with a float32 bias too", lambda: {
        "x": random(11, 67).float(), "weight": random(7, 67, seed=1).float(), "bias": random(7, seed=2).float()},
        autocast=True, result=torch.bfloat16, bonus=True),
)


def attempt(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, flaws: frozenset) -> Tensor:
    O, I = weight.shape
    matrix = weight.reshape(I, O) if "weight_reshaped" in flaws else weight if "weight_as_it_is" in flaws else weight.T
    if "only_the_first_row" in flaws:
        x = x[:1]
    y = x @ matrix  # (..., O)
    if "mean_over_inputs" in flaws:
        y = y / I
    if bias is not None or "bias_needed" in flaws:
        if "bias_subtracted" in flaws:
            y = y - bias
        elif "bias_for_each_input" in flaws:
            y = y + I * bias
        elif "bias_multiplied" in flaws:
            y = y * bias
        elif "bias_summed" in flaws:
            y = y + bias.sum()
        elif "bias_down_the_rows" in flaws:
            y = y + bias[:, None]
        elif "bias_first" in flaws:
            y = (x + bias) @ matrix
        elif "bias_twice" in flaws:
            y = y + 2 * bias
        elif "lifted_out_of_autocast" in flaws:
            y = y + bias
        elif "bias_forgotten" not in flaws:
            y = y + (bias.to(y.dtype) if bias is not None else bias)
    if "relu_at_the_end" in flaws:
        y = y.clamp(min=0)
    if "transposed_result" in flaws:
        y = y.transpose(-2, -1)
    if "summed_over_rows" in flaws:
        y = y.reshape(-1, O).sum(0)
    return y.reshape(-1, O) if "leading_axes_lost" in flaws else y


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "bias_forgotten": "The bias is not added: y is x Wᵀ, and each output should get its own b[o] on top.",
    "weight_as_it_is": "The weight is not transposed: it is (out, in), so that x (…, in) meets Wᵀ (in, out), not W.",
    "weight_reshaped": "The weight is reshaped to (in, out) and not transposed: reshape keeps the order of the "
                       "numbers in memory, so that the rows of W are torn apart.",
    "bias_down_the_rows": "The bias is added along the rows: b has one number for each output (the last axis), and "
                          "all rows share it.",
    "bias_subtracted": "The bias is subtracted: the formula is x Wᵀ + b.",
    "bias_for_each_input": "The bias is inside the sum over the inputs, so that it counts once for each input; it is "
                           "added once, after the sum.",
    "bias_twice": "The bias is added twice (addmm adds it already).",
    "bias_multiplied": "The bias is multiplied with y; it is added.",
    "bias_summed": "The biases are summed up to one number: each output has its own, b[o].",
    "bias_first": "The bias is added to x before the product; it belongs to the outputs.",
    "mean_over_inputs": "The products are averaged over the inputs: the formula has a sum, Σ_i W[o,i]·x[i].",
    "leading_axes_lost": "The leading axes of x are lost: they are flattened for the product, and have to come back "
                         "in the result (..., out).",
    "only_the_first_row": "Only the first row is computed: all rows of x share the weights, and each has a result.",
    "summed_over_rows": "The rows are summed up: each row of x has a result of its own.",
    "transposed_result": "The result is transposed: its last axis should be the outputs.",
    "relu_at_the_end": "Negative outputs are cut off: an activation function is a step of its own, not part of a "
                       "linear layer.",
    "lifted_out_of_autocast": "Under autocast the product is bfloat16, but adding a float32 bias lifts the sum to "
                              "float32: use torch.addmm, or bias.to(y.dtype).",
    "bias_needed": "It fails without a bias: with bias=None the result is x Wᵀ.",
}
