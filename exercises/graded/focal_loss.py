"""focal_loss: cases and typical mistakes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, one, random, tensor


def run(focal_loss: Callable, **inputs: Any) -> dict:
    return one(focal_loss(**inputs), "loss")


def reference(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0,
              reduction: str = "none") -> dict:
    """A composition of torch's functions, in which 1 − p_t of a hard target keeps its digits."""
    targets = targets.to(logits.dtype)
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    error = p * (1 - targets) + q * targets
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * error ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return {"loss": loss if reduction == "none" else getattr(loss, reduction)()}


def drawn(*shape: int, soft: bool = False, make: Any = draw, **more: Any) -> dict:
    generator = torch.Generator().manual_seed(9)
    targets = torch.rand(shape, generator=generator, dtype=torch.float64)
    return {"logits": make(*shape), "targets": (targets * 10).round() / 10 if soft
            else (targets < 0.4).double(), **more}


THREE = math.log(3)
CASES = (
    Case("example", "p = ¾: a yes costs ¼·(¼)²·ln(4/3), a no ¾·(¾)²·ln 4", lambda: {
        "logits": tensor([THREE, THREE]), "targets": tensor([1, 0])},
        {"loss": tensor([math.log(4 / 3) / 64, 27 / 64 * math.log(4)])}),
    Case("value", "yes and no", lambda: drawn(2, 3)),
    Case("value", "alpha = 0.6, gamma = 1", lambda: drawn(2, 3, alpha=0.6, gamma=1.0)),
    Case("value", "gamma = 0 is the weighted cross-entropy", lambda: drawn(2, 3, gamma=0.0)),
    Case("value", "a negative alpha: both have weight 1", lambda: drawn(2, 3, alpha=-1.0)),
    Case("value", "targets between 0 and 1", lambda: drawn(2, 3, soft=True)),
    Case("value", "the mean", lambda: drawn(2, 3, reduction="mean")),
    Case("value", "the sum", lambda: drawn(2, 3, reduction="sum")),
    Case("gradient", "by the logits", lambda: drawn(2, 3), gradient=("logits",)),
    Case("gradient", "by the logits, soft targets", lambda: drawn(2, 3, soft=True), gradient=("logits",)),
    Case("edges", "logits of ±10,000",
         lambda: {"logits": tensor([1e4, -1e4, 1e4, -1e4]), "targets": tensor([0, 1, 1, 0])}),
    Case("edges", "the gradient at ±10,000", lambda: {
        "logits": tensor([1e4, -1e4]), "targets": tensor([0, 1])}, gradient=("logits",)),
    Case("edges", "the gradient at exactly 0, where |z| and max(z, 0) have a kink but the loss has none", lambda: {
        "logits": tensor([0, 0, 0]), "targets": tensor([0, 1, 0.3])}, gradient=("logits",), bonus=True),
    Case("edges", "logits of ±50 in float32", lambda: {
        "logits": tensor([50, -50, 50, -50]).float(), "targets": tensor([0, 1, 1, 0]).float()}, tolerance=1e-5),
    Case("edges", "no queries", lambda: drawn(0, 3)),
    *(Case("precision", "float32" if dtype == torch.float32 else f"{str(dtype).removeprefix('torch.')} logits give a "
           f"{str(dtype).removeprefix('torch.')} loss, rounded once", lambda: {
               name: value * 4 if name == "logits" else value for name, value in drawn(53, 11, make=random).items()},
           dtype=dtype, units=4, bonus=dtype != torch.float32) for dtype in LOW),
    Case("precision", "under autocast the result is float32", lambda: {
        "logits": random(53, 11).bfloat16(), "targets": drawn(53, 11)["targets"].float()}, autocast=True,
        result=torch.float32, units=100),
)


def attempt(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none", *,
            flaws: frozenset) -> Tensor:
    autocast = torch.is_autocast_enabled("cpu") and logits.dtype != torch.float64 and "autocast_forgotten" not in flaws
    dtype = torch.float32 if autocast else logits.dtype
    z = logits if "half_computed" in flaws else logits.to(torch.promote_types(dtype, torch.float32))
    t = targets.to(z.dtype)
    if "targets_rounded" in flaws:
        t = t.round()
    p = z.softmax(-1) if "softmax" in flaws else torch.sigmoid(z)
    q = 1 - p if flaws & {"softmax", "naive"} else torch.sigmoid(-z)
    if flaws & {"naive", "softmax"}:
        entropy = -t * torch.log(p) - (1 - t) * torch.log(q)
    elif "eps_in_the_logarithm" in flaws:
        entropy = -t * torch.log(p + 1e-8) - (1 - t) * torch.log(1 - p + 1e-8)
    elif "clamped" in flaws:
        entropy = -t * torch.log(p.clamp(1e-6, 1 - 1e-6)) - (1 - t) * torch.log((1 - p).clamp(1e-6, 1 - 1e-6))
    elif "only_log_p" in flaws:
        entropy = -F.logsigmoid(z)
    elif "only_yes" in flaws:
        entropy = -t * F.logsigmoid(z)
    else:
        entropy = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    error = q * t + p * (1 - t)
    if "right_for_wrong" in flaws:
        error = 1 - error
    if "p_for_all" in flaws:
        error = p
    if "one_minus_p_for_all" in flaws:
        error = q
    if "distance" in flaws:
        error = (t - p).abs()
    if "factor_detached" in flaws:
        error = error.detach()
    if "softmax:in_the_factor" in flaws:
        p = z.softmax(-1)
        error = (1 - p) * t + p * (1 - t)
    if "gamma_fixed" in flaws:
        gamma = 2.0
    power = gamma + 1 if "gamma_one_more" in flaws else gamma
    factor = gamma * error if "gamma_multiplied" in flaws else error ** power
    loss = entropy if "factor_left_out" in flaws else factor if "no_entropy" in flaws else factor * entropy
    if "no_minus" in flaws:
        loss = -loss
    if alpha >= 0 or "negative_alpha_taken" in flaws:
        if "alpha_for_all" in flaws:
            loss = loss * alpha
        elif "alpha_swapped" in flaws:
            loss = loss * ((1 - alpha) * t + alpha * (1 - t))
        elif "alpha_of_yes_alone" in flaws:
            loss = loss * (alpha * t + (1 - t))
        elif "alpha_default" in flaws:
            loss = loss * (0.25 * t + 0.75 * (1 - t))
        elif "alpha_hard" in flaws:
            loss = loss * torch.where(t == 1, alpha, 1 - alpha)
        elif "alpha_ignored" not in flaws:
            loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    if "always_mean" in flaws:
        reduction = "mean"
    if "always_sum" in flaws:
        reduction = "sum"
    if "never_reduced" in flaws:
        reduction = "none"
    if "mean_over_yes" in flaws and reduction == "mean":
        return (loss.sum() / t.sum().clamp(min=1)).to(dtype)
    if "mean_over_queries" in flaws and reduction == "mean":
        return loss.sum(-1).mean().to(dtype)
    loss = loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
    return loss if "half_not_returned" in flaws else loss.to(dtype)


WAYS = {"softmax": ("in_the_factor",)}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "alpha_ignored": "α is not used: a yes has the weight α, a no 1 − α.",
    "alpha_swapped": "α has changed places: a yes has the weight α, a no 1 − α.",
    "alpha_for_all": "All answers have the weight α: a no has 1 − α.",
    "alpha_of_yes_alone": "A no has the weight 1: it has 1 − α.",
    "right_for_wrong": "The factor is p_t^γ: it makes the easy answers count. (1 − p_t)^γ reduces them.",
    "p_for_all": "The factor is p^γ for yes and no: for a yes it is (1 − p)^γ.",
    "one_minus_p_for_all": "The factor is (1 − p)^γ for yes and no: p_t is 1 − p for a no, so its factor is p^γ.",
    "factor_left_out": "The factor (1 − p_t)^γ is missing: this is the binary cross-entropy, weighted by α.",
    "gamma_multiplied": "The error is multiplied by γ: γ is its exponent.",
    "gamma_fixed": "The argument `gamma` has no effect: 2 is used.",
    "gamma_one_more": "The exponent is γ + 1.",
    "softmax": "The probabilities come from a softmax: each class is a yes or no of its own, a sigmoid.",
    "naive": "log(1 − p) is −∞ where p rounds to 1, and its product with 0 is NaN. Write the cross-entropy in terms "
             "of the logits: max(z,0) − t·z + log(1 + e^−|z|); see binary_cross_entropy of the note.",
    "eps_in_the_logarithm": "A small number inside the logarithm hides the −∞, but limits the loss and kills the "
                            "gradient.",
    "clamped": "The probability is clamped: this limits the loss, and its gradient is 0 beyond.",
    "only_log_p": "log p is used for yes and no: for a no it is log(1 − p), log p_t.",
    "only_yes": "Answers that should be “no” cost nothing: they cost −log(1 − p).",
    "no_entropy": "The cross-entropy is missing: the factor only scales it.",
    "no_minus": "The minus is missing: the loss is −α_t·(1 − p_t)^γ·log p_t, which is positive.",
    "distance": "The error of a soft target is |t − p| here (that is the quality focal loss): the note mixes p_t, t·p "
                "+ (1 − t)(1 − p).",
    "alpha_hard": "α of a soft target is all or nothing: it mixes, α·t + (1 − α)·(1 − t).",
    "targets_rounded": "Soft targets are rounded to 0 or 1.",
    "alpha_default": "The argument `alpha` has no effect: ¼ is used.",
    "negative_alpha_taken": "A negative α means that both have weight 1.",
    "factor_detached": "The factor (1 − p_t)^γ is detached: it depends on the logits and has a gradient, too.",
    "always_mean": "The mean is always returned: the default is “none”, one number for each answer.",
    "always_sum": "The sum is always returned: the default is “none”.",
    "never_reduced": "The reduction has no effect.",
    "mean_over_yes": "The mean is taken over the yeses: here “mean” is over all answers.",
    "mean_over_queries": "The mean is taken over the queries: here “mean” is over all answers.",
    "half_computed": "Half precision is computed in half precision: raise it to float32, round once at the end.",
    "half_not_returned": "The result of half precision stays float32: it should be rounded to the dtype of the "
                         "logits.",
    "autocast_forgotten": "Under autocast the result should be float32 (float32_under_autocast).",
}
