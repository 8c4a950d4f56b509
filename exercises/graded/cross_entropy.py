"""cross_entropy: cases and typical mistakes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, one, random, tensor


def run(cross_entropy: Callable, **inputs: Any) -> dict:
    return one(cross_entropy(**inputs), "loss")


def reference(logits: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> dict:
    """torch wants the classes second: all other axes are flattened into the first."""
    loss = F.cross_entropy(logits.flatten(0, -2), target.flatten(), weight, reduction=reduction)
    return {"loss": loss.view(target.shape) if reduction == "none" else loss}


def drawn(*leading: int, K: int = 3, weighted: bool = False, make: Any = draw, **more: Any) -> dict:
    generator = torch.Generator().manual_seed(5)
    weight = (torch.rand(K, generator=generator, dtype=torch.float64) * 10).round() / 10 + 0.1
    return {"logits": make(*leading, K), "target": torch.randint(K, leading, generator=generator),
            "weight": weight if weighted else None, **more}


HALF = [math.log(2), 0, 0]
CASES = (
    Case("example", "the right class has probability ½, then ¼: −ln ½ and −ln ¼", lambda: {
        "logits": tensor([HALF, HALF]), "target": torch.tensor([0, 2]), "reduction": "none"},
        {"loss": tensor([math.log(2), math.log(4)])}),
    Case("example", "their mean", lambda: {"logits": tensor([HALF, HALF]), "target": torch.tensor([0, 2])},
         {"loss": tensor((math.log(2) + math.log(4)) / 2)}),
    Case("example", "class 2 has the weight 0.1: the mean is divided by 1 + 0.1", lambda: {
        "logits": tensor([HALF, HALF]), "target": torch.tensor([0, 2]), "weight": tensor([1, 1, 0.1])},
        {"loss": tensor((math.log(2) + 0.1 * math.log(4)) / 1.1)}),
    Case("value", "four rows, unreduced", lambda: drawn(4, reduction="none")),
    Case("value", "as many rows as classes", lambda: drawn(3, reduction="none")),
    Case("value", "the mean", lambda: drawn(4)),
    Case("value", "the sum", lambda: drawn(4, reduction="sum")),
    Case("value", "class weights, unreduced", lambda: drawn(4, weighted=True, reduction="none")),
    Case("value", "class weights, summed", lambda: drawn(4, weighted=True, reduction="sum")),
    Case("value", "class weights, averaged", lambda: drawn(4, weighted=True)),
    Case("value", "two leading axes: classes are the last axis", lambda: drawn(2, 3, reduction="none"),
         on_error="classes_second"),
    Case("gradient", "by the logits", lambda: drawn(3), gradient=("logits",)),
    Case("gradient", "by the logits, with class weights", lambda: drawn(3, weighted=True), gradient=("logits",)),
    Case("edges", "logits of ±10,000", lambda: {
        "logits": tensor([[1e4, -1e4, 0], [1e4, -1e4, 0]]), "target": torch.tensor([0, 1]), "reduction": "none"}),
    Case("edges", "logits of −10,000 alone", lambda: {
        "logits": tensor([[-1e4, -1e4, -1e4 + 1]]), "target": torch.tensor([0]), "reduction": "none"}),
    Case("edges", "the gradient at ±10,000", lambda: {
        "logits": tensor([[1e4, -1e4, 0], [1e4, -1e4, 0]]), "target": torch.tensor([0, 1])}, gradient=("logits",)),
    Case("edges", "no targets: the sum is 0", lambda: drawn(0, reduction="sum")),
    Case("edges", "no targets: the mean is NaN, as in torch", lambda: drawn(0)),
    Case("precision", "float32", lambda: {**drawn(53, K=11, make=random), "reduction": "none"}, dtype=torch.float32),
    *(Case("precision", f"{str(dtype).removeprefix('torch.')} logits give a {str(dtype).removeprefix('torch.')} loss, "
           "rounded once", lambda: {**drawn(53, K=11, make=random), "reduction": "none"}, dtype=dtype, bonus=True)
      for dtype in LOW[1:]),
    Case("precision", "the mean of 5000 losses in float16, rounded once", lambda: drawn(5000, K=3, make=random),
         dtype=torch.float16, bonus=True),
    Case("precision", "under autocast the result is float32", lambda: {
        **drawn(53, K=11, make=random), "logits": random(53, 11).bfloat16()}, autocast=True, result=torch.float32,
        units=100),
)


def attempt(logits: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean", *,
            flaws: frozenset) -> Tensor:
    autocast = torch.is_autocast_enabled("cpu") and logits.dtype != torch.float64 and "autocast_forgotten" not in flaws
    dtype = torch.float32 if autocast else logits.dtype
    z = logits if "half_sums" in flaws else logits.to(torch.promote_types(dtype, torch.float32))
    axis = 0 if "classes_first" in flaws else 1 if "classes_second" in flaws and z.dim() > 2 else -1
    if "log_of_softmax" in flaws:
        e = torch.exp(z)
        logs = torch.log(e / e.sum(axis, keepdim=True))
    elif "log_of_stable_softmax" in flaws:
        logs = torch.log(torch.softmax(z, axis))
    elif "eps_in_the_logarithm" in flaws:
        logs = torch.log(torch.softmax(z, axis) + 1e-8)
    elif "clamped" in flaws:
        logs = torch.log(torch.softmax(z, axis).clamp(min=1e-7))
    elif "probabilities" in flaws:
        logs = torch.softmax(z, axis)
    elif "no_normaliser" in flaws:
        logs = z
    elif "softmax_twice" in flaws:
        logs = torch.log_softmax(torch.softmax(z, axis), axis)
    elif "sigmoid" in flaws:
        logs = F.logsigmoid(z)
    elif "normaliser_unstable" in flaws:
        logs = z - torch.log(torch.exp(z).sum(axis, keepdim=True))
    elif "normaliser_detached" in flaws:
        logs = z - torch.logsumexp(z, axis, keepdim=True).detach()
    else:
        logs = torch.log_softmax(z, axis)
    if "base_two" in flaws:
        logs = logs / math.log(2)
    if "base_ten" in flaws:
        logs = logs / math.log(10)
    if "likeliest_class" in flaws:
        picked = logs.amax(-1)
    elif "all_classes" in flaws:
        picked = logs.sum(-1)
    else:
        picked = logs.gather(-1, target[..., None])[..., 0]
    loss = picked if "no_minus" in flaws else 1 - picked.exp() if "one_minus_p" in flaws else -picked
    if weight is not None and "weight_ignored" not in flaws:
        w = weight.to(loss.dtype)
        if "weight_of_the_prediction" in flaws:
            w = w[logits.argmax(-1)]
        elif "weight_of_the_row" in flaws:
            w = w[torch.arange(target.numel()) % len(w)].view(target.shape)
        elif "weight_divides" in flaws:
            w = 1 / w[target]
        else:
            w = w[target]
        loss = loss if "weight_ignored:but_in_the_mean" in flaws else loss * w
        if "weight_applied_twice" in flaws:
            loss = loss * w
        if reduction == "mean" and "mean_over_rows" not in flaws and "always_sum" not in flaws \
                and "never_reduced" not in flaws:
            total = w.sum() * (1 if "weights_squared" not in flaws else w.sum())
            if "divided_by_all_weights" in flaws:
                total = weight.to(loss.dtype).sum()
            return (loss.sum() / total).to(dtype)
    if "never_reduced" in flaws:
        return loss.to(dtype)
    if "always_mean" in flaws:
        reduction = "mean"
    if "always_sum" in flaws:
        reduction = "sum"
    if "mean_over_classes_too" in flaws and reduction == "mean":
        return (loss.sum() / logits.numel()).to(dtype)
    if "zero_without_targets" in flaws and not target.numel() and reduction == "mean":
        return loss.sum().to(dtype)
    if "unknown_means_none" in flaws and reduction == "none":
        return loss.mean().to(dtype)
    reduced = loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
    return reduced if "half_not_returned" in flaws else reduced.to(dtype)


WAYS = {"weight_ignored": ("but_in_the_mean",)}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "mean_over_rows": "The weighted losses are divided by the number of rows: “mean” divides by the sum of the "
                      "targets' class weights.",
    "weight_ignored": "The class weights have no effect: each loss is multiplied by the weight of its target's class.",
    "no_minus": "The minus is missing: the loss is −log p, which is positive.",
    "log_of_softmax": "e^z overflows: log(softmax) in two steps gives NaN or −∞ for large logits. Use log_softmax, "
                      "which subtracts the maximum (log-sum-exp).",
    "log_of_stable_softmax": "The logarithm of a softmax: a small probability rounds to 0, and log 0 = −∞. "
                             "log_softmax does both in one step and stays finite.",
    "normaliser_unstable": "log Σ e^z overflows: subtract the maximum first (log-sum-exp).",
    "eps_in_the_logarithm": "A small number inside the logarithm hides the −∞, but it limits the loss and kills the "
                            "gradient. log_softmax needs none.",
    "clamped": "The probability is clamped: this limits the loss, and its gradient is 0 beyond. log_softmax needs no "
               "clamp.",
    "probabilities": "There is no logarithm: the loss is −log p, not −p.",
    "one_minus_p": "The loss is 1 − p: it should be −log p.",
    "no_normaliser": "The log-sum-exp is missing: the logit of the target alone is no log probability.",
    "softmax_twice": "The softmax is applied twice: logits go in, and log_softmax is all that is needed.",
    "sigmoid": "A sigmoid of each logit: in a cross-entropy the classes compete in a softmax.",
    "base_two": "The logarithm has base 2: the loss is in nats, base e.",
    "base_ten": "The logarithm has base 10: the loss is in nats, base e.",
    "classes_first": "The softmax runs over the rows: classes are the last axis.",
    "classes_second": "The softmax runs over the second axis, as torch has its classes: here they are the last axis.",
    "likeliest_class": "The likeliest class is judged, not the target.",
    "all_classes": "All classes are summed up: only the target's log probability counts.",
    "weight_of_the_row": "The weights are taken by row: each row has the weight of its target's class, "
                         "weight[target].",
    "weight_of_the_prediction": "The weight is that of the predicted class: it is that of the target, weight[target].",
    "weight_divides": "The loss is divided by the class weight; it is multiplied by it.",
    "weight_applied_twice": "The class weight is applied twice: each loss is multiplied by it once.",
    "divided_by_all_weights": "The sum is divided by the weights of all classes: by those of the targets, each as "
                              "often as it occurs.",
    "weights_squared": "The sum is divided twice.",
    "always_mean": "The reduction has no effect: “sum” and “none” are wanted too.",
    "always_sum": "The reduction has no effect: the sum is always returned.",
    "never_reduced": "The reduction has no effect: “mean” and “sum” return one number.",
    "unknown_means_none": "“none” should return the losses themselves, (...).",
    "mean_over_classes_too": "The mean goes over rows and classes: it goes over the rows.",
    "normaliser_detached": "The log-sum-exp is detached: the gradient softmax(z) − onehot loses its first part.",
    "zero_without_targets": "Without targets the mean is NaN, as in torch (0/0): the sum is 0.",
    "half_sums": "Half precision is computed in half precision: raise it to float32, round once at the end.",
    "half_not_returned": "The result of half precision stays float32: it should be rounded to the dtype of the "
                         "logits.",
    "autocast_forgotten": "Under autocast the result should be float32 (float32_under_autocast).",
}
