"""softmax: cases and typical mistakes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor

from exercises.case import LOW, Case, draw, one, random, tensor
from scratch.ops.activations import softmax as note

inf = math.inf


def run(softmax: Callable, **inputs: Any) -> dict:
    return one(softmax(**inputs))


def reference(x: Tensor, dim: int) -> dict:
    return {"y": torch.softmax(x, dim)}


def of_the_note(x: Tensor, dim: int) -> dict:
    """torch gives NaN for a row of −∞, and bfloat16 under autocast on a CPU."""
    return {"y": note(x, dim)}


CASES = (
    Case("example", "e^0 : e^ln2 : e^ln5 = 1 : 2 : 5, so ⅛, ¼, ⅝", lambda: {
        "x": tensor([0, math.log(2), math.log(5)]), "dim": 0}, {"y": tensor([1 / 8, 2 / 8, 5 / 8])}),
    Case("example", "two rows: each sums to 1 along the last axis", lambda: {
        "x": tensor([[0, math.log(3)], [math.log(4), 0]]), "dim": -1}, {"y": tensor([[1 / 4, 3 / 4], [4 / 5, 1 / 5]])}),
    Case("value", "along the last axis", lambda: {"x": draw(2, 3), "dim": -1}),
    Case("value", "along the first axis", lambda: {"x": draw(2, 3), "dim": 0}),
    Case("value", "along the axis in the middle", lambda: {"x": draw(2, 3, 4), "dim": 1}),
    Case("gradient", "by x", lambda: {"x": draw(2, 3), "dim": -1}, gradient=("x",)),
    Case("gradient", "by x, along the first axis", lambda: {"x": draw(2, 3), "dim": 0}, gradient=("x",)),
    Case("edges", "logits of 1000, where e^x overflows", lambda: {"x": tensor([[1000, 0, 999], [1, 2, 3]]), "dim": -1}),
    Case("edges", "logits of −1000, where every e^x is 0", lambda: {
        "x": tensor([[-1000, -1001], [1000, 1001]]), "dim": -1}),
    Case("edges", "some logits are −∞ (masked)", lambda: {"x": tensor([[0, -inf, 0], [-inf, 1, -inf]]), "dim": -1}),
    Case("edges", "a row of −∞ alone gives zeros", lambda: {"x": tensor([[-inf, -inf], [0, 0]]), "dim": -1},
         reference=of_the_note),
    Case("edges", "the gradient of a row of −∞ is zero", lambda: {"x": tensor([[-inf, -inf], [0, 0]]), "dim": -1},
         gradient=("x",), reference=of_the_note),
    Case("edges", "no rows", lambda: {"x": draw(0, 3), "dim": -1}),
    Case("edges", "rows without a logit: empty in, empty out", lambda: {"x": draw(3, 0), "dim": -1},
         on_error="empty_refused", bonus=True),
    *(Case("precision", str(dtype).removeprefix("torch."), lambda: {"x": random(13, 101) * 3, "dim": -1}, dtype=dtype)
      for dtype in LOW),
    Case("precision", "under autocast the result is float32", lambda: {"x": random(3, 5).bfloat16(), "dim": -1},
         autocast=True, result=torch.float32, reference=of_the_note),
)


def attempt(x: Tensor, dim: int, *, flaws: frozenset) -> Tensor:
    if "dim_ignored_last" in flaws:
        dim = -1
    if "dim_ignored_first" in flaws:
        dim = 0
    if "dim_other" in flaws and x.dim() > 1:
        dim = 0 if dim % x.dim() else -1
    if "autocast_forgotten" in flaws:
        under = x
    else:
        under = x.float() if x.dtype != torch.float64 and torch.is_autocast_enabled("cpu") else x
    wide = under.to(torch.promote_types(x.dtype, torch.float32))
    if x.numel() == 0 and "empty_refused" not in flaws:
        return under
    if "no_maximum" in flaws:
        shifted = wide
    elif "absolute_values" in flaws:
        shifted = wide.abs()
    elif "minimum" in flaws:
        shifted = wide - wide.amin(dim, keepdim=True)
    elif "one_maximum_for_all" in flaws:
        shifted = wide - wide.max()
    elif "clamped" in flaws:
        shifted = wide.clamp(-80, 80)
    elif "mean_subtracted" in flaws:
        shifted = wide - wide.mean(dim, keepdim=True)
    else:
        top = wide.detach().amax(dim, keepdim=True)
        shifted = wide - (top if "nan_for_minus_infinity" in flaws else top.clamp(min=torch.finfo(wide.dtype).min))
    e = torch.exp2(shifted) if "base_two" in flaws else torch.exp(shifted)
    if "squared" in flaws:
        e = wide.square()
    if "no_exponential" in flaws:
        e = wide
    if "sigmoid" in flaws:
        return torch.sigmoid(wide).to(under.dtype)
    if "not_normalised" in flaws:
        return e.to(under.dtype)
    if flaws & {"maximum_loses_its_axis", "maximum_loses_its_axis:both"}:
        e = torch.exp(wide - wide.amax(dim))
    if "sum_along_the_last_axis" in flaws:
        dim = -1
    total = e.sum() if "over_everything" in flaws else e.sum(dim, keepdim=not flaws & {
        "keepdim_forgotten", "maximum_loses_its_axis:both"})
    if "mean_for_sum" in flaws:
        total = total / x.shape[dim]
    if "largest_for_sum" in flaws:
        total = e.amax(dim, keepdim=True)
    if "root_of_squares" in flaws:
        total = e.square().sum(dim, keepdim=True).sqrt()
    if "total_detached" in flaws:
        total = total.detach()
    if flaws & {"eps_in_the_sum", *(f"eps_in_the_sum:{size}" for size in WAYS["eps_in_the_sum"])}:
        total = total + float(next((flaw for flaw in flaws if ":" in flaw), ":1e-6").partition(":")[2])
    if "no_maximum" not in flaws and "nan_for_minus_infinity" not in flaws:
        total = torch.where(total == 0, 1, total) if "one_maximum_for_all" not in flaws else total
    y = e / total
    if "logarithm" in flaws:
        y = torch.log(y)
    return y if "half_not_returned" in flaws else y.to(under.dtype)


WAYS = {"maximum_loses_its_axis": ("both",), "eps_in_the_sum": ("1e-2", "1e-3", "1e-4", "1e-5", "1e-7", "1e-8")}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "no_maximum": "The maximum is not subtracted first: e^x overflows for a large logit (e^89 in float32), and ∞/∞ is "
                  "NaN. e^(x − max) has the same ratios and no exponent above 0.",
    "dim_ignored_last": "The softmax runs along the last axis whatever `dim` says.",
    "dim_ignored_first": "The softmax runs along the first axis whatever `dim` says.",
    "dim_other": "The softmax runs along the wrong axis: the numbers along `dim` should sum to 1.",
    "over_everything": "The sum goes over the whole tensor: each row along `dim` should sum to 1 by itself.",
    "keepdim_forgotten": "The sum has lost its axis (keepdim=True is missing), so that the division pairs it with the "
                         "wrong axis.",
    "maximum_loses_its_axis": "The maximum has lost its axis (keepdim=True is missing): subtracted from x, it pairs "
                              "with the wrong axis.",
    "sum_along_the_last_axis": "The maximum is taken along `dim`, the sum along the last axis: both belong to `dim`.",
    "one_maximum_for_all": "One maximum is subtracted from all rows: a row far below it becomes e^−large = 0, and "
                           "0/0. Each row needs its own.",
    "nan_for_minus_infinity": "A row of −∞ alone gives NaN: its maximum is −∞, and −∞ − (−∞) is NaN. The note wants "
                              "zeros: clamp the maximum to a finite number, and the sum away from 0.",
    "minimum": "The minimum is subtracted, not the maximum: the exponents are then ≥ 0 and overflow all the more.",
    "mean_subtracted": "The mean is subtracted, not the maximum: exponents above 0 remain, and overflow.",
    "clamped": "The logits are clamped against overflow: this changes the result. Subtract the maximum of the row.",
    "not_normalised": "The exponentials are not divided by their sum: probabilities sum to 1.",
    "mean_for_sum": "The exponentials are divided by their mean, not by their sum: the row sums to its length, not to "
                    "1.",
    "largest_for_sum": "The exponentials are divided by the largest one, not by their sum.",
    "root_of_squares": "The exponentials are divided by their Euclidean length, not by their sum.",
    "logarithm": "This is log-softmax: the logarithm of the probabilities, not the probabilities.",
    "sigmoid": "This is a sigmoid of each logit by itself: softmax makes the logits of a row compete, so that they "
               "sum to 1.",
    "base_two": "The powers are those of 2, not of e.",
    "no_exponential": "The logits themselves are divided by their sum, without e^x: negative logits then become "
                      "negative “probabilities”.",
    "absolute_values": "The exponent is |x|: a very negative logit then gets a large weight instead of a small one.",
    "squared": "Squares are used where e^x should be.",
    "total_detached": "The sum is detached: in the gradient every probability then depends on its own logit alone.",
    "eps_in_the_sum": "A small number is added to the sum: the sum is at least 1 once the maximum is subtracted, so "
                      "no ε is needed, and it makes the result too small.",
    "half_not_returned": "The result of half precision stays float32: it should be rounded to the dtype of the input.",
    "autocast_forgotten": "Under autocast the result should be float32 (float32_under_autocast).",
    "empty_refused": "It fails for an empty tensor: a maximum of nothing is an error in torch. Empty in, empty out.",
}
