"""batch_norm: cases and typical mistakes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, one, random, tensor

STATISTICS = ("running_mean", "running_var")


def run(batch_norm: Callable, **inputs: Any) -> dict:
    result = one(batch_norm(**inputs))
    return {**result, **{name: inputs[name] for name in STATISTICS}}


def reference(x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor,
              training: bool = False,
              momentum: float = 0.1, eps: float = 1e-5) -> dict:
    y = F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return {"y": y, "running_mean": running_mean, "running_var": running_var}


def drawn(B: int = 2, C: int = 3, H: int = 2, W: int = 2, offset: float = 0.0, make: Any = draw,
          **options: Any) -> dict:
    ramp = torch.arange(C, dtype=torch.float64)
    return {"x": make(B, C, H, W) + offset, "running_mean": ramp / 4 - 1, "running_var": ramp / 2 + 0.5,
            "weight": make(C, seed=1), "bias": make(C, seed=2), **options}


def by_hand(eps: float = 0.0, **options: Any) -> dict:
    return {"x": tensor([[[[1, 5]]]]), "running_mean": tensor([0]), "running_var": tensor([1]), "weight": tensor([10]),
            "bias": tensor([7]), "eps": eps, **options}


CASES = (
    Case("example", "training: mean 3, variance 4, so −1 and 1, times 10, plus 7; the statistics move half of the way "
         "to 3 and to 8 (= 4·2/1)", lambda: by_hand(training=True, momentum=0.5),
         {"y": tensor([[[[-3, 17]]]]), "running_mean": tensor([1.5]), "running_var": tensor([4.5])},
         mutable=STATISTICS),
    Case("example", "evaluation: the running mean 0 and variance 1", lambda: by_hand(),
         {"y": tensor([[[[17, 57]]]]), "running_mean": tensor([0]), "running_var": tensor([1])}, mutable=STATISTICS),
    Case("example", "ε is added to the variance: 4 + 12 = 16, so ∓½",
         lambda: by_hand(12.0, training=True, momentum=0.0),
         {"y": tensor([[[[2, 12]]]]), "running_mean": tensor([0]), "running_var": tensor([1])}, mutable=STATISTICS),
    Case("value", "training: two images of three channels", lambda: drawn(training=True), mutable=STATISTICS),
    Case("value", "training: three images of three channels, 3×3",
         lambda: drawn(3, 3, 3, 3, training=True, momentum=0.3),
         mutable=STATISTICS),
    Case("value", "evaluation", lambda: drawn(training=False), mutable=STATISTICS),
    Case("gradient", "training, by x, weight and bias", lambda: drawn(C=2, training=True),
         gradient=("x", "weight", "bias"), mutable=STATISTICS),
    Case("gradient", "evaluation", lambda: drawn(C=2), gradient=("x", "weight", "bias"), mutable=STATISTICS),
    Case("edges", "a channel of equal numbers stays finite", lambda: {
        **drawn(C=2, training=True), "x": torch.full((2, 2, 2, 2), 7.0, dtype=torch.float64)}, mutable=STATISTICS),
    Case("edges", "one image", lambda: drawn(1, training=True), mutable=STATISTICS),
    *(Case("precision", f"{str(dtype).removeprefix('torch.')}, {'training' if training else 'evaluation'}",
           lambda training=training: drawn(3, 5, 7, 11, make=random, training=training), dtype=dtype,
           mutable=STATISTICS,
           units=4) for dtype in LOW for training in (True, False)),
    Case("precision", "float16 whose squares would overflow", lambda: {
        **drawn(3, 5, 7, 11, make=random, training=True), "x": random(3, 5, 7, 11) * 200}, dtype=torch.float16,
        mutable=STATISTICS, units=4),
    Case("precision", "float32 at a mean of ten thousand: two digits have to be left", lambda: drawn(
        3, 5, 7, 11, make=random, offset=1e4, training=True), dtype=torch.float32, mutable=STATISTICS, units=30000),
    Case("precision", "float32 at a mean of ten thousand, to five digits: the rounding of the mean is subtracted, too",
         lambda: drawn(3, 5, 7, 11, make=random, offset=1e4, training=True), dtype=torch.float32, mutable=STATISTICS,
         units=60, bonus=True),
)


def attempt(x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor, training: bool = False,
            momentum: float = 0.1, eps: float = 1e-5, *, flaws: frozenset) -> Tensor:
    wide = x if "half_statistics" in flaws else x.to(torch.promote_types(x.dtype, torch.float32))
    axes = next((axes for flaw, axes in {
        "over_the_batch_alone": (0,), "each_image_by_itself": (2, 3),
        "each_image_by_itself:in_memory": (2, 3), "over_the_channels": (1,),
        "over_everything": (0, 1, 2, 3), "over_each_image": (1, 2, 3)}.items() if flaw in flaws), (0, 2, 3))
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    if "one_pass" in flaws:
        variance = wide.square().mean(axes, keepdim=True) - mean * mean
    else:
        if "centred_once" not in flaws:
            centred = centred - centred.mean(axes, keepdim=True)
        variance = centred.square().mean(axes, keepdim=True)
    n = x.numel() // mean.numel() if mean.numel() else 1
    C = x.shape[1]
    used_mean, used_var = mean, variance
    if "sample_variance" in flaws:
        used_var = variance * n / max(n - 1, 1)
    if "statistics_detached" in flaws:
        used_mean, used_var = mean.detach(), used_var.detach()
    kept = wide.shape[1:2] == running_mean.shape
    track = training or "updated_in_evaluation" in flaws
    new_mean = wide.detach().mean((0, 2, 3))
    new_var = wide.detach().var((0, 2, 3), correction=0) if wide.numel() else running_var
    if "each_image_by_itself:in_memory" in flaws and wide.numel():
        new_var = wide.detach().var((2, 3), correction=0).mean(0)
    count = x.numel() // max(C, 1)
    if "population_variance_remembered" not in flaws:
        new_var = new_var * count / max(count - 1, 1)
    if "deviation_remembered" in flaws:
        new_var = new_var.sqrt()
    if "momentum_fixed" in flaws:
        momentum = 0.1
    if "replaced" in flaws:
        momentum = 1.0
    share = 1 - momentum if "momentum_turned_round" in flaws else momentum
    shift = 0 if "running_statistics_in_training" not in flaws else None
    if (training and shift is None) or (not training and "batch_statistics_in_evaluation" not in flaws):
        used_mean, used_var = (t.clone().to(wide.dtype).view(1, C, 1, 1) for t in (running_mean, running_var))
    if track and "never_updated" not in flaws and kept:
        with torch.no_grad():
            if "mean_not_updated" not in flaws:
                running_mean.copy_((1 - share) * running_mean + share * new_mean.to(running_mean.dtype))
            if "variance_not_updated" not in flaws:
                running_var.copy_((1 - share) * running_var + share * new_var.to(running_var.dtype))
    if "running_statistics_updated_first" in flaws and training:
        used_mean, used_var = (t.clone().to(wide.dtype).view(1, C, 1, 1) for t in (running_mean, running_var))
    if "eps_forgotten" in flaws:
        eps = 0.0
    if "eps_outside_the_root" in flaws:
        scale = 1 / (used_var.sqrt() + eps)
    elif "no_root" in flaws:
        scale = 1 / (used_var + eps)
    else:
        scale = torch.rsqrt(used_var + eps)
    exact = training and not flaws & {"one_pass", "centred_once", "statistics_detached",
                                      "running_statistics_in_training",
                                      "running_statistics_updated_first"}
    y = (centred if exact else wide if "mean_not_subtracted" in flaws else wide - used_mean) * scale
    if "mean_not_subtracted" in flaws:
        y = wide * scale
    w, b = (t.to(wide.dtype).view(1, C, 1, 1) for t in (weight, bias))
    if "weight_and_bias_swapped" in flaws:
        w, b = b, w
    if "parameters_along_columns" in flaws:
        w, b = weight.to(wide.dtype), bias.to(wide.dtype)
    if "bias_before_the_weight" in flaws:
        y = (y + b) * w
    else:
        y = y if "weight_forgotten" in flaws else y * w
        y = y if "bias_forgotten" in flaws else y + b
    return y if "half_not_returned" in flaws else y.to(x.dtype)


WAYS = {"each_image_by_itself": ("in_memory",)}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "sample_variance": "The batch is normalised with the variance divided by n − 1 (the default of x.var): it is "
                       "divided by n here, and by n − 1 only for running_var.",
    "population_variance_remembered": "running_var receives the variance divided by n: it estimates that of all "
                                      "images, so it is divided by n − 1.",
    "over_the_batch_alone": "The statistics go over the images alone: a channel's mean is over images, rows and "
                            "columns, n = B·H·W numbers.",
    "each_image_by_itself": "Each image has statistics of its own (that is an instance norm): a channel's are over "
                            "all images of the batch.",
    "over_the_channels": "The statistics go over the channels (that is a layer norm of each pixel): every channel has "
                         "its own.",
    "over_everything": "The statistics go over the whole tensor: every channel has its own.",
    "over_each_image": "The statistics go over all channels of an image: every channel has its own, over all images.",
    "momentum_turned_round": "The momentum is turned round: the new value has the share `momentum` (0.1), the old one "
                             "the rest.",
    "never_updated": "The running statistics are not updated: they must change in place (lerp_, copy_, mul_ …), "
                     "because the state dict holds these very tensors; `running_mean = …` makes a new one.",
    "replaced": "The running statistics become those of the batch: they move towards them by the share `momentum`.",
    "mean_not_updated": "running_mean is not updated in training.",
    "variance_not_updated": "running_var is not updated in training.",
    "updated_in_evaluation": "The running statistics are updated in evaluation: only while training.",
    "running_statistics_in_training": "In training the batch is normalised with the running statistics: use its own.",
    "running_statistics_updated_first": "In training the batch is normalised with the updated running statistics: use "
                                        "its own.",
    "batch_statistics_in_evaluation": "In evaluation the batch's own statistics are used: an image's result must not "
                                      "depend on its neighbours, so use the running ones.",
    "eps_outside_the_root": "ε is added outside of the root: the formula is √(σ² + ε).",
    "eps_forgotten": "ε is forgotten: it stands under the root, √(σ² + ε), and avoids 0/0.",
    "no_root": "The root is missing: divide by √(σ² + ε), not by the variance.",
    "mean_not_subtracted": "The mean is not subtracted.",
    "weight_forgotten": "The weight is forgotten: y = x̂ · weight + bias.",
    "bias_forgotten": "The bias is forgotten: y = x̂ · weight + bias.",
    "bias_before_the_weight": "The bias is added before the multiplication with the weight: y = x̂ · weight + bias.",
    "weight_and_bias_swapped": "Weight and bias have changed places.",
    "parameters_along_columns": "Weight and bias lie along the columns of the image: they belong to the channels, so "
                                "reshape them to (1, C, 1, 1).",
    "deviation_remembered": "running_var receives the standard deviation: it is a variance.",
    "momentum_fixed": "The argument `momentum` has no effect.",
    "statistics_detached": "Mean and variance are detached from the gradient: they depend on x, so no_grad is for the "
                           "running statistics alone.",
    "one_pass": "The variance is the mean of x² minus the squared mean: at a mean of 1e4 every digit is lost. "
                "Subtract the mean first, square after.",
    "centred_once": "The mean is subtracted once: in float32 at 1e4 its rounding shifts all numbers alike. Subtract "
                    "the mean of what is left, too.",
    "half_statistics": "Half precision is summed up in half precision. Compute in float32, round once at the end.",
    "half_not_returned": "The result of half precision stays float32: it should be rounded to the dtype of x.",
}
