"""layer_norm: cases and typical mistakes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, one, random, tensor


def run(layer_norm: Callable, **inputs: Any) -> dict:
    return one(layer_norm(**inputs))


def reference(x: Tensor, normalized_shape: Any, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> dict:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    return {"y": F.layer_norm(x, shape, weight, bias, eps)}


def drawn(*leading: int, shape: Any = 5, offset: float = 0.0, make: Any = draw, **more: Any) -> dict:
    last = (shape,) if isinstance(shape, int) else shape
    return {"x": make(*leading, *last) + offset, "normalized_shape": shape, "weight": make(*last, seed=1),
            "bias": make(*last, seed=2), **more}


def float32(**inputs: Any) -> dict:
    return {name: value.float() if isinstance(value, Tensor) else value for name, value in inputs.items()}


CASES = (
    Case("example", "mean 3, variance 4, so −1 and 1; times 10 and 20, plus 0 and 7", lambda: {
        "x": tensor([1, 5]), "normalized_shape": 2, "weight": tensor([10, 20]), "bias": tensor([0, 7]), "eps": 0.0},
        {"y": tensor([-10, 27])}),
    Case("example", "ε is added to the variance: 4 + 12 = 16, so ∓2/4", lambda: {
        "x": tensor([1, 5]), "normalized_shape": 2, "weight": tensor([10, 20]), "bias": tensor([0, 7]), "eps": 12.0},
        {"y": tensor([-5, 17])}),
    Case("value", "two tokens, each by itself", lambda: drawn(2)),
    Case("value", "as many tokens as features", lambda: drawn(3, shape=3)),
    Case("value", "three axes", lambda: drawn(2, 3, shape=2)),
    Case("value", "normalised over the last two axes together", lambda: drawn(2, shape=(2, 3)),
         on_error="last_axis_alone"),
    Case("gradient", "by x, weight and bias", lambda: drawn(2, shape=3), gradient=("x", "weight", "bias")),
    Case("edges", "a token of equal numbers stays finite", lambda: {
        "x": tensor([[7, 7, 7], [1, 2, 3]]), "normalized_shape": 3, "weight": tensor([1, 2, 3]),
        "bias": tensor([0, 0, 1])}),
    Case("edges", "one token without a leading axis", lambda: drawn()),
    Case("edges", "no tokens", lambda: drawn(0)),
    *(Case("precision", str(dtype).removeprefix("torch."), lambda: drawn(3, 7, shape=61, make=random), dtype=dtype,
           units=3) for dtype in LOW),
    Case("precision", "float32 at a mean of ten thousand: two digits have to be left", lambda: drawn(
        7, shape=61, offset=1e4, make=random), dtype=torch.float32, units=30000),
    Case("precision", "float32 at a mean of ten thousand, to six digits: the rounding of the mean is subtracted, too",
         lambda: drawn(7, shape=61, offset=1e4, make=random), dtype=torch.float32, units=10, bonus=True),
    Case("precision", "float16 whose squares would overflow", lambda: {
        **drawn(3, shape=61, make=random), "x": random(3, 61) * 1000}, dtype=torch.float16, units=3),
    Case("precision", "under autocast the result is float32", lambda: float32(**drawn(3, shape=61, make=random)),
         autocast=True, result=torch.float32, units=10),
    Case("precision", "under autocast bfloat16 tokens give float32, too", lambda: {
        **float32(**drawn(3, shape=61, make=random)), "x": random(3, 61).bfloat16()}, autocast=True,
         result=torch.float32, units=10),
)


def attempt(x: Tensor, normalized_shape: Any, weight: Tensor, bias: Tensor, eps: float = 1e-5, *,
            flaws: frozenset) -> Tensor:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    axes = tuple(range(-len(shape), 0))
    if "last_axis_alone" in flaws:
        axes = (-1,)
    if "over_the_batch" in flaws:
        axes = (0,)
    if "over_everything" in flaws:
        axes = tuple(range(x.dim()))
    if "autocast_forgotten" in flaws and x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        return attempt(x.bfloat16(), normalized_shape, weight, bias, eps,
                       flaws=flaws - {"autocast_forgotten"}).bfloat16()
    wide = x if "half_statistics" in flaws else x.to(torch.promote_types(x.dtype, torch.float32))
    mean = wide.mean(axes, keepdim=True)
    if "statistics_detached" in flaws or "mean_detached" in flaws:
        mean = mean.detach()
    centred = wide - mean
    if "mean_not_subtracted" in flaws:
        centred = wide
    elif not flaws & {"one_pass", "centred_once", "statistics_detached", "mean_detached"}:
        centred = centred - centred.mean(axes, keepdim=True)
    if "one_pass" in flaws:
        variance = wide.square().mean(axes, keepdim=True) - mean * mean
    else:
        variance = centred.square().mean(axes, keepdim=True)
    if "variance_not_centred" in flaws:
        variance = wide.square().mean(axes, keepdim=True)
    if "numerator_not_centred" in flaws:
        centred = wide
    n = wide[(0,) * (wide.dim() - len(axes))].numel() if wide.numel() else 1
    if "sample_variance" in flaws:
        variance = variance * n / (n - 1)
    if "sum_of_squares" in flaws:
        variance = variance * n
    if "statistics_detached" in flaws or "variance_detached" in flaws:
        variance = variance.detach()
    if "eps_missing" in flaws:
        eps = 0.0
    if flaws & {"eps_fixed", *(f"eps_fixed:{size}" for size in WAYS["eps_fixed"])}:
        eps = float(next((flaw for flaw in flaws if ":" in flaw), ":1e-5").partition(":")[2])
    if "eps_outside_the_root" in flaws:
        scale = 1 / (variance.sqrt() + eps)
    elif "eps_squared" in flaws:
        scale = 1 / torch.sqrt(variance + eps * eps)
    elif "no_root" in flaws:
        scale = 1 / (variance + eps)
    elif "mean_absolute_deviation" in flaws:
        scale = 1 / (centred.abs().mean(axes, keepdim=True) + eps)
    else:
        scale = torch.rsqrt(variance + eps)
    if "variance_not_divided" in flaws:
        scale = torch.ones_like(scale)
    y = centred * scale
    w, b = weight.to(wide.dtype), bias.to(wide.dtype)
    if "weight_and_bias_swapped" in flaws:
        w, b = b, w
    if "bias_before_the_weight" in flaws:
        y = (y + b) * w
    elif "weight_first" in flaws:
        inner = attempt(wide * w + b, normalized_shape, torch.ones_like(w), torch.zeros_like(b), eps, flaws=frozenset())
        y = inner
    elif "one_plus_weight" in flaws:
        y = y * (1 + w) + b
    else:
        y = y if "weight_forgotten" in flaws else y * w
        y = y if "bias_forgotten" in flaws else y + b
    autocast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64 and "cast_back" not in flaws
    return y if "half_not_returned" in flaws or autocast else y.to(x.dtype)


WAYS = {"eps_fixed": ("1e-2", "1e-3", "1e-4", "1e-6", "1e-7")}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "sample_variance": "The variance is divided by n − 1 (the default of x.var and x.std): a norm wants this token's "
                       "own variance, divided by n (correction=0).",
    "eps_outside_the_root": "ε is added outside of the root: the formula is √(σ² + ε), not √σ² + ε.",
    "eps_missing": "ε is missing: a token of equal numbers has variance 0, and 0/0 is NaN.",
    "eps_fixed": "The argument `eps` has no effect: a number of its own is added to the variance.",
    "variance_not_centred": "The variance is the mean of x² here: it is that of (x − mean)².",
    "numerator_not_centred": "The mean is subtracted for the variance, but not above the root: x̂ = "
                             "(x − mean)/√(σ² + ε).",
    "eps_squared": "ε is squared before it is added to the variance.",
    "over_the_batch": "The statistics go over the tokens (the first axis): layer norm treats every token by itself, "
                      "over its features.",
    "over_everything": "The statistics go over the whole tensor: every token has its own.",
    "last_axis_alone": "Only the last axis is normalised: normalized_shape may name several, which count as one.",
    "no_root": "The token is divided by its variance, not by its standard deviation: the root is missing.",
    "variance_not_divided": "The token is not divided by its standard deviation.",
    "sum_of_squares": "The squares are summed up, not averaged: the variance is their mean.",
    "mean_absolute_deviation": "The token is divided by its mean absolute deviation, not by its standard deviation.",
    "mean_not_subtracted": "The mean is not subtracted (that is an RMS norm).",
    "weight_forgotten": "The weight is forgotten: y = x̂ · weight + bias.",
    "bias_forgotten": "The bias is forgotten: y = x̂ · weight + bias.",
    "bias_before_the_weight": "The bias is added before the multiplication with the weight: y = x̂ · weight + bias.",
    "weight_and_bias_swapped": "Weight and bias have changed places.",
    "weight_first": "Weight and bias are applied before the normalisation, which removes them again.",
    "one_plus_weight": "The result is multiplied by 1 + weight.",
    "statistics_detached": "Mean and variance are detached from the gradient (detach, item or no_grad): they depend "
                           "on x, and the gradient goes through them as well.",
    "mean_detached": "The mean is detached from the gradient: it depends on x as well.",
    "variance_detached": "The variance is detached from the gradient: it depends on x as well.",
    "one_pass": "The variance is the mean of x² minus the squared mean: at a mean of 1e4 both are 1e8, where float32 "
                "numbers are 8 apart. Subtract the mean first, square after.",
    "centred_once": "The mean is subtracted once. In float32 at 1e4 its rounding shifts all numbers alike; what is "
                    "left has a mean that should be 0: subtract that, too.",
    "half_statistics": "Half precision is summed up in half precision. Compute in float32 and round once, at the end.",
    "half_not_returned": "The result of half precision stays float32: it should be rounded to the dtype of x.",
    "cast_back": "Under autocast bfloat16 tokens come back as bfloat16; the result should be float32: raise x first "
                 "(float32_under_autocast), and round to the dtype that x has then.",
    "autocast_forgotten": "Under autocast the result should be float32 (float32_under_autocast).",
}
