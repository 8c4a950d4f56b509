"""fast_adamw: how does AdamW step hundreds of tensors without hundreds of kernel launches?

    adamw_definition (optimizer.py)      16 calls for each tensor, without the copies
    adamw_foreach                        7 calls for all tensors
    bunches                              on a CPU, 7 calls for each list of numbers that fits into the cache

The same step as the definition's, but for rounding; proven in tests/training/test_fast_adamw.py.
Read: adamw_foreach → bunches → fast_adamw (the door from optimizer.py)
"""

from __future__ import annotations

from typing import Any, Iterator

import torch
from torch import Tensor

from scratch.ops.fast.switch import plain


def adamw_foreach(
    weights: list[Tensor], gradients: list[Tensor], m: list[Tensor], v: list[Tensor], steps: list[int],
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
) -> None:
    """The same step for many tensors, in place.

    What changed: each line is one call for *all* tensors. On a GPU the definition would launch 16 kernels for each of
    some hundred small tensors, and the kernel launches would take longer than the arithmetic; here it is 7 calls in all
    (on a CPU 7 for each of its `bunches`).

    The bias corrections are factors of the learning rate and of ε, no longer of the tensors. With c₁ = 1−β₁ᵗ and
    c₂ = 1−β₂ᵗ, multiply numerator and denominator by √c₂:

        η·(m/c₁) / (√(v/c₂) + ε)  =  (η·√c₂/c₁) · m / (√v + ε·√c₂)

    Both new factors are plain numbers, so m̂ and v̂ are never written: two passes over memory fewer. The factors are
    lists, one number for each tensor: a tensor that had no gradient in some step has a smaller t.

    Weight decay is skipped where 1 − ηλ rounds to 1 in every dtype of the list, as DETR's own does in float32:
    ηλ = 10⁻⁴·10⁻⁴ = 10⁻⁸.
    """
    beta1, beta2 = betas
    root_c2 = [(1 - beta2 ** t) ** 0.5 for t in steps]
    negative_lr = [-lr * root / (1 - beta1 ** t) for root, t in zip(root_c2, steps)]
    if lr * weight_decay > min(torch.finfo(weight.dtype).eps for weight in weights) / 4:  # else 1 − ηλ rounds to 1
        torch._foreach_mul_(weights, 1 - lr * weight_decay)          # θ·(1 − ηλ)
    torch._foreach_lerp_(m, gradients, 1 - beta1)                    # m + (1−β₁)(g − m) = β₁m + (1−β₁)g
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)      # … + (1−β₂)·g·g, without storing g²
    denominators = torch._foreach_sqrt(v)                            # the one temporary: as large as the weights
    torch._foreach_add_(denominators, [eps * root for root in root_c2])
    torch._foreach_addcdiv_(weights, m, denominators, negative_lr)


BUNCH = 2**20  # numbers: of weight, gradient, m, v and the temporary together 20 MB in float32


def bunches(weights: list[Tensor], gradients: list[Tensor], m: list[Tensor], v: list[Tensor],
            steps: list[int]) -> Iterator[tuple[list, list, list, list, list]]:
    """The arguments of `adamw_foreach`, piece by piece: lists of about BUNCH numbers, large tensors cut up.

    Seven calls are seven passes over all the weights, with a temporary as large as they are. On a CPU, where starting a
    call costs little, each bunch takes all seven calls before the next one begins: it stays in the cache between them,
    and so does the temporary. On a GPU there is one bunch. A tensor whose four do not share one memory layout is not
    cut.
    """
    if weights[0].device.type != "cpu":
        yield weights, gradients, m, v, steps
        return
    bunch: tuple[list, list, list, list, list] = ([], [], [], [], [])
    left = BUNCH
    for *four, step in zip(weights, gradients, m, v, steps):
        pieces = [four]
        if four[0].numel() > BUNCH:
            if four[0].dim() == 4:  # the memory format of filters is channels last
                four = [tensor.permute(0, 2, 3, 1) for tensor in four]
            if all(tensor.is_contiguous() for tensor in four):
                pieces = list(zip(*(tensor.view(-1).split(BUNCH) for tensor in four)))
        for piece in pieces:
            left -= piece[0].numel()
            if left < 0 and bunch[4]:
                yield bunch
                bunch, left = ([], [], [], [], []), BUNCH - piece[0].numel()
            for tensors, tensor in zip(bunch, (*piece, step)):
                tensors.append(tensor)
    yield bunch


def fast_adamw(weights: list[Tensor], states: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float,
               weight_decay: float) -> bool:
    """Step all weights, whose states hold "step" (of this step), "exp_avg" and "exp_avg_sq"; False in plain mode."""
    if plain():
        return False
    tensors = (weights, [weight.grad for weight in weights],
               [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states])
    for *bunch, steps in bunches(*tensors, [state["step"] for state in states]):
        adamw_foreach(*bunch, steps, lr, betas, eps, weight_decay)
    return True
