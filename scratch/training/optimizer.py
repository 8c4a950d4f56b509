"""optimizer: how large a step should each weight take, when the gradients of the weights differ widely in scale?

    m ← β₁·m + (1−β₁)·g           mean of the recent gradients  (first moment, momentum)
    v ← β₂·v + (1−β₂)·g²          mean of their recent squares            (second moment)
    m̂ = m / (1−β₁ᵗ)    v̂ = v / (1−β₂ᵗ)        at step t = 1, 2, …       (bias correction)
    θ ← θ − η·λ·θ − η·m̂ / (√v̂ + ε)            η learning rate, λ weight decay

    θ, g, m, v have the same shape: the moments take twice the memory of the weights.

        the gradients of four steps          m̂      √v̂     the fourth step
        +1000  +1000  +1000  +1000         1000    1000     η            constant gradient: η, if it is large …
        +.001  +.001  +.001  +.001         .001    .001     η            … or small
        +1000  −1000  +1000  −1000        −52.6    1000     0.05·η       alternating sign: a small step

Adam: Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1. AdamW: Loshchilov & Hutter 2019 (1711.05101),
algorithm 2. DETR (section 4): η = 1e-4, backbone 1e-5, λ = 1e-4; gradients clipped at 0.1 (A.4). Same as
torch.optim.AdamW and torch.nn.utils.clip_grad_norm_; proven in tests/training/test_optimizer.py.
Read: adamw_definition (the formula) → AdamW (owns m and v) → clip_grad_norm_ (gradient clipping)
      → parameter_groups (two learning rates). At speed: fast_adamw.py.
"""

from __future__ import annotations

from typing import Any, Iterable

import torch
from torch import Tensor, nn

from scratch.config import TrainConfig
from scratch.training.fast_adamw import fast_adamw


def adamw_definition(
    weight: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int,
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one tensor, as in the formula; returns the new (weight, m, v).

    step   t, the number of this step, counted from 1
    """
    beta1, beta2 = betas
    # The moments are exponential moving averages. A gradient of k steps ago has the weight β₁ᵏ, so m covers about
    # 1/(1−β₁) = 10 steps and v about 1/(1−β₂) = 1000. The recursion needs only the last m and v.
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient * gradient
    # Bias correction. Unrolled from m₀ = 0, mₜ = (1−β₁)·Σᵢ β₁^(t−i)·gᵢ. If all gᵢ equal g, the geometric sum is
    # mₜ = (1−β₁ᵗ)·g: too small by the factor 1−β₁ᵗ, because m began at zero. Divide by that factor. It matters in the
    # first steps: without it, step 1 is 0.1·g / √(0.001·g²), three times too long.
    m_hat = m / (1 - beta1 ** step)
    v_hat = v / (1 - beta2 ** step)
    # Decoupled weight decay. The gradient of an L2 penalty would be part of g, and be divided by √v̂ with it: weights
    # with large gradients would decay least. Subtracted from the weight itself, the decay multiplies all weights by the
    # same factor, 1 − η·λ. (DETR's own, 1 − 10⁻⁴·10⁻⁴ = 1 − 10⁻⁸, rounds to 1 in float32, also in torch: its decay has
    # no effect.)
    decayed = weight - lr * weight_decay * weight
    # ε (1e-8) matters only where the gradients of a weight were (nearly) zero: 0/(0 + ε) = 0 instead of 0/0.
    return decayed - lr * m_hat / (v_hat.sqrt() + eps), m, v


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay; arguments, groups and state names as torch.optim.AdamW.

    torch.optim.Optimizer serves as the container: parameter groups, `zero_grad`, `state_dict`. A parameter whose
    gradient is None does not change: its moments and its step count stay, and it does not decay. The state's `step` is
    a plain int, so that reading it never waits for a GPU. Raises ValueError for a setting outside its range.
    """

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        for group in self.param_groups:
            for name in ("lr", "eps", "weight_decay"):
                if not 0.0 <= group[name] < float("inf"):
                    raise ValueError(f"got {name} = {group[name]}, wanted a finite number that is not negative")
            if not all(0.0 <= beta < 1.0 for beta in group["betas"]):
                raise ValueError(f"got betas = {group['betas']}, wanted two numbers in [0, 1)")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        lay_as_weights(self.state)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                step_adamw(self.state, group, weights)


def lay_as_weights(memory: dict[Tensor, dict[str, Any]]) -> None:
    """Give the state of each weight the weight's memory format (filters: channels last), however it was saved."""
    for weight, state in memory.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def step_adamw(memory: dict[Tensor, dict[str, Any]], group: dict[str, Any], weights: list[Tensor]) -> None:
    """AdamW's step of the weights of one group, all of which have a gradient; their moments are in `memory`."""
    states = [memory[weight] for weight in weights]
    for weight, state in zip(weights, states):
        if not state:  # the first gradient of this weight: its moments begin at zero
            state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
    settings = group["lr"], group["betas"], group["eps"], group["weight_decay"]
    if fast_adamw(weights, states, *settings):  # all weights at once (fast_adamw.py); not in plain mode
        return
    for weight, state in zip(weights, states):
        m, v = state["exp_avg"], state["exp_avg_sq"]
        for old, new in zip((weight, m, v), adamw_definition(weight, weight.grad, m, v, state["step"], *settings)):
            old.copy_(new)


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Gradient clipping: scale the gradient, as one vector over all parameters, to a length of at most `max_norm`.

        ‖g‖ = √(Σ over tensors of ‖gᵢ‖²)          g ← g · min(1, max_norm / (‖g‖ + 1e-6))        returns ‖g‖

    All tensors get the same factor, so the direction stays (1e-6 as in torch, against 0/0). AdamW is invariant to a
    constant factor, but not to a single huge gradient: this one stays in v, and makes the steps of its weight shorter
    for about 1/(1−β₂) = 1000 steps. max_norm = 0 measures only. A norm that is not finite changes no gradient (in torch
    it makes every gradient NaN or 0), so that the loop can name the tensor.

    The result is a 0-dim tensor on the gradients' device. Nothing here reads its value: the CPU can launch the
    optimizer's step before the norm is known.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))              # (number of tensors,); one call for all
    total_norm = (norms * norms).sum().sqrt()                        # ()
    if max_norm > 0:
        # A clamp, not `if total_norm > max_norm`: the comparison would wait for the value.
        factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, torch.where(total_norm.isfinite(), factor, 1.0))
    return total_norm


def parameter_groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """The optimizer's groups: "backbone" at lr_backbone, "transformer" (all the rest) at lr; frozen weights in neither.

    As published, weight decay applies to all weights, biases and norms too (many later detectors exclude those). A
    group without a trainable weight is left out. `model` is the unwrapped one: DistributedDataParallel would put a
    prefix before "backbone.". Raises ValueError if nothing is trainable. The groups of Muon: muon.py.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    backbone = [p for name, p in trainable if name.startswith("backbone.")]
    rest = [p for name, p in trainable if not name.startswith("backbone.")]
    if not trainable:
        raise ValueError("got a model without a single trainable weight (requires_grad), wanted at least one to train")
    groups = [
        {"name": "backbone", "params": backbone, "lr": train.lr_backbone, "weight_decay": train.weight_decay},
        {"name": "transformer", "params": rest, "lr": train.lr, "weight_decay": train.weight_decay},
    ]
    return [group for group in groups if group["params"]]
