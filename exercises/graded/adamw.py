"""adamw: cases and typical mistakes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor, nn

from exercises.case import Case, draw, random, several, tensor


def run(adamw: Callable, weight: Tensor, gradients: Tensor, **settings: Any) -> dict:
    """As many steps as there are gradients, each from the answers of the one before."""
    m, v, path = torch.zeros_like(weight), torch.zeros_like(weight), []
    for step, gradient in enumerate(gradients, 1):
        answers = several(adamw(weight, gradient, m, v, step, **settings), "weight", "m", "v")
        weight, m, v = answers.values()
        path.append(weight)
    return {"weight after each step": torch.stack(path), "m": m, "v": v}


def reference(weight: Tensor, gradients: Tensor, lr: float, betas: tuple, eps: float, weight_decay: float) -> dict:
    parameter, path = nn.Parameter(weight.clone()), []
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
        path.append(parameter.detach().clone())
    state = optimizer.state[parameter]
    return {"weight after each step": torch.stack(path), "m": state["exp_avg"], "v": state["exp_avg_sq"]}


def drawn(steps: int = 3, n: int = 3, lr: float = 0.1, betas: tuple = (0.9, 0.99), eps: float = 1e-8,
          weight_decay: float = 0.0, make: Any = draw) -> dict:
    return {"weight": make(n), "gradients": make(steps, n, seed=1), "lr": lr, "betas": betas, "eps": eps,
            "weight_decay": weight_decay}


CASES = (
    Case("example", "the first step: m̂ = 3, √v̂ = 3, so η·3/3 = 0.1 down", lambda: {
        "weight": tensor([2]), "gradients": tensor([[3]]), "lr": 0.1, "betas": (0.9, 0.99), "eps": 0.0,
        "weight_decay": 0.0}, {"weight after each step": tensor([[1.9]]), "m": tensor([0.3]), "v": tensor([0.09])}),
    Case("example", "the same with weight decay ½: 2 − 0.1·½·2 − 0.1", lambda: {
        "weight": tensor([2]), "gradients": tensor([[3]]), "lr": 0.1, "betas": (0.9, 0.99), "eps": 0.0,
        "weight_decay": 0.5}, {"weight after each step": tensor([[1.8]]), "m": tensor([0.3]), "v": tensor([0.09])}),
    Case("value", "one step of three weights", lambda: drawn(1)),
    Case("value", "three steps", drawn),
    Case("value", "three steps with weight decay", lambda: drawn(weight_decay=0.2)),
    Case("value", "three steps, ε = ½", lambda: drawn(eps=0.5)),
    Case("value", "other betas", lambda: drawn(4, betas=(0.5, 0.8), weight_decay=0.1)),
    Case("edges", "a gradient of zero: 0/(0 + ε)", lambda: {
        **drawn(weight_decay=0.1), "gradients": torch.zeros(3, 3, dtype=torch.float64)}),
    Case("edges", "huge and tiny gradients", lambda: {
        **drawn(n=2), "gradients": tensor([[1000, 0.001], [-1000, 0.001], [1000, 0.001]])}),
    Case("edges", "one number without an axis", lambda: {
        **drawn(2), "weight": tensor(2.0), "gradients": tensor([1, -2])}),
    Case("edges", "fifty steps", lambda: drawn(50, weight_decay=0.1)),
    Case("precision", "float32", lambda: drawn(20, n=31, weight_decay=0.1, make=random), dtype=torch.float32, units=20),
)


def attempt(weight: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int, lr: float, betas: tuple[float, float],
            eps: float, weight_decay: float, *, flaws: frozenset) -> tuple:
    b1, b2 = betas[::-1] if "betas_swapped" in flaws else betas
    t = step - 1 if "step_from_zero" in flaws else step + 1 if "step_too_large" in flaws else step
    g = gradient
    if flaws & {"decay_in_the_gradient", "decay_in_both"}:
        g = g + weight_decay * weight
    share1, share2 = (1.0 if "m_not_averaged" in flaws else 1 - b1), (1.0 if "v_not_averaged" in flaws else 1 - b2)
    if "moments_turned_round" in flaws:
        m, v = (1 - b1) * m + b1 * g, (1 - b2) * v + b2 * g * g
    else:
        m = b1 * m + share1 * g
        square = g.abs() if "size_for_square" in flaws else g * g
        if "v_of_m" in flaws:
            square = m * m
        if "v_of_the_deviation" in flaws:
            square = (g - m) * (g - m)
        v = b2 * v + share2 * square
    one, two = 1 - b1 ** t, 1 - b2 ** t
    if "correction_by_product" in flaws:
        one, two = 1 - b1 * t, 1 - b2 * t
    if "correction_of_the_first_step" in flaws:
        one, two = 1 - b1, 1 - b2
    if "correction_multiplied" in flaws:
        one, two = 1 / one, 1 / two
    m_hat = m if flaws & {"no_correction", "no_correction_of_m"} else m / one
    v_hat = v if flaws & {"no_correction", "no_correction_of_v"} else v / two
    if "momentum_left_out" in flaws:
        m_hat = g
    if "root_before_the_correction" in flaws:
        divisor = v.sqrt() / two + eps
    elif "eps_inside_the_root" in flaws:
        divisor = (v_hat + eps).sqrt()
    elif "eps_forgotten" in flaws:
        divisor = v_hat.sqrt()
    elif "eps_in_the_uncorrected_root" in flaws:
        divisor = (v.sqrt() + eps) / two ** 0.5
    elif "no_root" in flaws:
        divisor = v_hat + eps
    elif "no_second_moment" in flaws:
        divisor = torch.ones_like(v)
    else:
        divisor = v_hat.sqrt() + eps
    move = m_hat / divisor
    if "sign_alone" in flaws:
        move = m_hat.sign()
    length = 1.0 if "lr_forgotten" in flaws else lr
    decay = 0.0 if flaws & {"decay_forgotten", "decay_in_the_gradient"} else lr * weight_decay
    if "decay_without_lr" in flaws:
        decay = weight_decay
    if "decay_added" in flaws:
        decay = -decay
    if "decay_of_the_moved_weight" in flaws:
        new = (weight - length * move) * (1 - decay)
    elif "decay_in_the_ratio" in flaws:
        new = weight - length * (m_hat + weight_decay * weight) / divisor
    else:
        new = weight - decay * weight - length * move
    if "uphill" in flaws:
        new = weight - decay * weight + length * move
    if "move_returned" in flaws:
        new = length * move
    return (new, m_hat, v_hat) if "corrected_moments_returned" in flaws else (new, m, v)


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "no_correction": "There is no bias correction: m and v begin at 0, so that the first steps are wrong by "
                     "√(1−β₂)-like factors. m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ).",
    "no_correction_of_m": "The first moment is not corrected: m̂ = m/(1−β₁ᵗ).",
    "no_correction_of_v": "The second moment is not corrected: v̂ = v/(1−β₂ᵗ).",
    "correction_by_product": "The correction uses β·t: it is the power βᵗ (**).",
    "correction_of_the_first_step": "The correction is that of the first step at every step: 1 − βᵗ tends to 1.",
    "correction_multiplied": "The moments are multiplied by 1 − βᵗ: they are divided by it, because they are too "
                             "small.",
    "step_from_zero": "The steps are counted from 0: at t = 0 the correction divides by 1 − β⁰ = 0. They count from "
                      "1.",
    "step_too_large": "The correction is that of the next step: `step` counts from 1 already.",
    "decay_in_the_gradient": "The weight decay is added to the gradient (an L2 penalty, as in Adam): in AdamW it is "
                             "decoupled, θ ← θ − η·λ·θ, and is not divided by √v̂.",
    "decay_in_both": "The weight decay is in the gradient as well as in the step: only in the step.",
    "decay_in_the_ratio": "The weight decay is added to m̂ and divided by √v̂: it is subtracted from the weight by "
                          "itself.",
    "decay_without_lr": "The weight decay is not multiplied by the learning rate: η·λ·θ.",
    "decay_forgotten": "The weight decay is forgotten: − η·λ·θ.",
    "decay_added": "The weight decay makes weights grow: it is subtracted.",
    "decay_of_the_moved_weight": "The weight decays after the step, on the new weight: − η·λ·θ is of the old one.",
    "eps_inside_the_root": "ε is inside the root: the formula is √v̂ + ε.",
    "eps_forgotten": "ε is forgotten: a gradient of zero gives 0/0.",
    "eps_in_the_uncorrected_root": "ε is added to √v before the correction: it is added to √v̂.",
    "root_before_the_correction": "The correction divides √v by 1 − β₂ᵗ: correct v first, then take the root.",
    "no_root": "The root is missing: the step is divided by √v̂, not by v̂.",
    "no_second_moment": "The second moment is not used: the step is m̂ / (√v̂ + ε).",
    "momentum_left_out": "The gradient itself is used: the step takes m̂, the mean of the recent gradients.",
    "sign_alone": "Only the sign of m̂ is used.",
    "size_for_square": "v averages |g|: it averages g².",
    "v_of_m": "v averages the squares of m: it averages those of the gradient.",
    "v_of_the_deviation": "v averages (g − m)² (that is AdaBelief): it averages g².",
    "betas_swapped": "β₁ and β₂ have changed places: betas = (β₁ of m, β₂ of v).",
    "moments_turned_round": "The shares are turned round: the old moment has β, the new value 1 − β.",
    "m_not_averaged": "The gradient is added to m without 1 − β₁ (heavy-ball momentum).",
    "v_not_averaged": "The square is added to v without 1 − β₂.",
    "lr_forgotten": "The learning rate is forgotten: η·m̂/(√v̂ + ε).",
    "uphill": "The weight moves up the gradient: the step is subtracted.",
    "move_returned": "The step itself is returned: the new weight is wanted.",
    "corrected_moments_returned": "m̂ and v̂ are returned: the next step needs m and v as they are, or the correction "
                                  "is applied again and again.",
}
