"""optimizer: how far should each weight step, when every weight's gradient has a scale of its own?

    m ← β₁·m + (1−β₁)·g           mean of the recent gradients            (first moment)
    v ← β₂·v + (1−β₂)·g²          mean of their recent squares            (second moment)
    m̂ = m / (1−β₁ᵗ)    v̂ = v / (1−β₂ᵗ)        at step t = 1, 2, …       (bias correction)
    θ ← θ − η·λ·θ − η·m̂ / (√v̂ + ε)            η learning rate, λ weight decay

    θ, g, m, v: one shape, whatever it is; so each weight costs two numbers more than itself.

        the gradients of four steps          m̂      √v̂     the fourth step
        +1000  +1000  +1000  +1000         1000    1000     η            steady: η, however large …
        +.001  +.001  +.001  +.001         .001    .001     η            … or small the gradient is
        +1000  −1000  +1000  −1000        −52.6    1000     0.05·η       undecided: hardly moves

Adam: Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1. AdamW: Loshchilov & Hutter 2019 (1711.05101),
algorithm 2. DETR (section 4): η = 1e-4, backbone 1e-5, λ = 1e-4, gradients clipped at 0.1. Same as
torch.optim.AdamW and torch.nn.utils.clip_grad_norm_; proven in tests/training/test_optimizer.py.
Read: adamw_definition (the formula) → adamw_foreach (all tensors at once) → bunches (a CPU's cache)
      → AdamW (owns m and v)
      → clip_grad_norm_ → parameter_groups (who learns how fast)
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator

import torch
from torch import Tensor, nn

from scratch.config import TrainConfig


def adamw_definition(
    weight: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int,
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one tensor, letter by letter; returns the new (weight, m, v).

    step   t, the number of this step, counted from 1
    """
    beta1, beta2 = betas
    # The moments: a mean that forgets. A gradient of k steps ago still counts with β₁ᵏ, so m remembers about
    # 1/(1−β₁) = 10 steps and v about 1/(1−β₂) = 1000. No term needs more than the last m and v: nothing else is kept.
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient * gradient
    # Bias correction. Unrolled from m₀ = 0, mₜ = (1−β₁)·Σᵢ β₁^(t−i)·gᵢ. Were all gᵢ equal to g, the geometric
    # sum would give mₜ = (1−β₁ᵗ)·g: too small by exactly that factor, because of the zero it began with. Divide it
    # out. It matters at first: uncorrected, step 1 would be 0.1·g / √(0.001·g²), three times too long.
    m_hat = m / (1 - beta1 ** step)
    v_hat = v / (1 - beta2 ** step)
    # Decoupled decay. Weight decay written as an L2 loss would join g, and be divided by √v̂ like everything in
    # g: weights with large gradients would decay least. Taken off the weight itself, it shrinks all weights by one
    # factor, 1 − η·λ.
    decayed = weight - lr * weight_decay * weight
    # ε (1e-8) only matters where a weight has had next to no gradient: 0/(0 + ε) = 0 instead of 0/0.
    return decayed - lr * m_hat / (v_hat.sqrt() + eps), m, v


def adamw_foreach(
    weights: list[Tensor], gradients: list[Tensor], m: list[Tensor], v: list[Tensor], steps: list[int],
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
) -> None:
    """The same step for many tensors, in place.

    What changed: each line is one call for *all* tensors. On a GPU the definition would launch 16 kernels for each of
    some hundred small tensors, and launching would take longer than computing; here it is 7 calls in all (on a CPU
    for each of its `bunches`).

    And the bias corrections have left the tensors. With c₁ = 1−β₁ᵗ and c₂ = 1−β₂ᵗ, multiply above and below by √c₂:

        η·(m/c₁) / (√(v/c₂) + ε)  =  (η·√c₂/c₁) · m / (√v + ε·√c₂)

    Both new factors are plain numbers, so m̂ and v̂ are never written: two passes over memory saved. They stand in
    lists, one for each tensor, since a tensor that once had no gradient is behind in t.

    Nor is a decay that float32 cannot see: DETR's own, ηλ = 10⁻⁴·10⁻⁴, leaves 1 − 10⁻⁸, which rounds to 1.
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


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay; arguments, groups and state names as torch.optim.AdamW.

    torch.optim.Optimizer serves as the container: parameter groups, `zero_grad`, `state_dict`. A parameter whose
    gradient is None is left alone: no moment moves, no step counts, nothing decays. `step` is a plain int, so reading
    it never waits for a GPU. Raises ValueError for a setting outside its range.
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
            if weights:  # the foreach calls refuse empty lists
                step_adamw(self.state, group, weights)


def lay_as_weights(states: dict[Tensor, dict[str, Any]]) -> None:
    """Let what is remembered of each weight lie in memory as it does (filters: channels last), however it was saved."""
    for weight, state in states.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def step_adamw(all_states: dict[Tensor, dict[str, Any]], group: dict[str, Any], weights: list[Tensor]) -> None:
    """AdamW's step of the weights of one group, all of which have a gradient; their memory is in `all_states`."""
    states = [all_states[weight] for weight in weights]
    for weight, state in zip(weights, states):
        if not state:  # the first gradient of this weight: its memory begins at zero
            state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
    tensors = (weights, [weight.grad for weight in weights],
               [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states])
    for *bunch, steps in bunches(*tensors, [state["step"] for state in states]):
        adamw_foreach(*bunch, steps, group["lr"], group["betas"], group["eps"], group["weight_decay"])


BUNCH = 2**20  # numbers: of weight, gradient, m, v and the temporary together 20 MB in float32


def bunches(weights: list[Tensor], gradients: list[Tensor], m: list[Tensor], v: list[Tensor],
            steps: list[int]) -> Iterator[tuple[list, list, list, list, list]]:
    """The arguments of `adamw_foreach`, piece by piece: lists of about BUNCH numbers, large tensors cut up.

    Seven calls are seven ways through all the weights, and a temporary as large as they are. On a CPU, where starting a
    call costs next to nothing, they go through one bunch at a time: it stays in the cache from call to call, and so
    does the temporary. On a GPU there is one bunch. Tensors that do not lie alike in memory are not cut.
    """
    if weights[0].device.type != "cpu":
        yield weights, gradients, m, v, steps
        return
    bunch: tuple[list, list, list, list, list] = ([], [], [], [], [])
    room = BUNCH
    for *four, step in zip(weights, gradients, m, v, steps):
        pieces = [four]
        if four[0].numel() > BUNCH:
            if four[0].dim() == 4:  # filters lie channels last
                four = [tensor.permute(0, 2, 3, 1) for tensor in four]
            if all(tensor.is_contiguous() for tensor in four):
                pieces = list(zip(*(tensor.view(-1).split(BUNCH) for tensor in four)))
        for piece in pieces:
            room -= piece[0].numel()
            if room < 0 and bunch[4]:
                yield bunch
                bunch, room = ([], [], [], [], []), BUNCH - piece[0].numel()
            for tensors, tensor in zip(bunch, (*piece, step)):
                tensors.append(tensor)
    yield bunch


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Shorten the gradient, as one vector over all parameters, to length `max_norm`; returns the length it had.

        ‖g‖ = √(Σ over tensors of ‖gᵢ‖²)          g ← g · min(1, max_norm / (‖g‖ + 1e-6))

    The direction stays: one factor for all (1e-6 as in torch, against 0/0). AdamW would forgive a factor that never
    changes, but not a spike: one huge gradient stays in v, and so shortens that weight's steps, for about
    1/(1−β₂) = 1000 of them. max_norm = 0 only measures.
    A length that is not finite changes nothing (in torch it spoils every gradient), so that the
    loop can name the tensor.

    The result is a 0-dim tensor on the gradients' device, and nothing here asks the device
    for its value: the host can queue the optimizer step before the norm is known.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))              # (number of tensors,)
    total_norm = (norms * norms).sum().sqrt()                        # ()
    if max_norm > 0:
        # A clamp, not `if total_norm > max_norm`: that would have to wait for the value.
        factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, torch.where(total_norm.isfinite(), factor, 1.0))
    return total_norm


def parameter_groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """The optimizer's groups: "backbone" at lr_backbone, "transformer" (all the rest) at lr; frozen weights in neither.

    As published, weight decay falls on everything, biases and norms too (many later detectors spare those). A group
    without a trainable weight is left out. `model` is the bare one: a wrapper's prefix would hide the backbone.
    Raises ValueError if nothing is trainable.
    """
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    backbone = [p for name, p in learning if name.startswith("backbone.")]
    rest = [p for name, p in learning if not name.startswith("backbone.")]
    if not learning:
        raise ValueError("got a model without a single trainable weight (requires_grad), wanted at least one to train")
    if train.optimizer == "muon":
        maps = {id(p): maps_in(name, p) for name, p in learning}
        split = {"backbone": backbone, "transformer": rest}
        groups = [{"name": name, "params": [p for p in split[name] if not maps[id(p)]], "lr": lr,
                   "weight_decay": train.weight_decay}
                  for name, lr in (("backbone", train.lr_backbone), ("transformer", train.lr))]
        for name, weights in split.items():
            matrices = [p for p in weights if maps[id(p)]]
            groups.append({"name": f"{name}_matrices", "params": matrices, "maps": [maps[id(p)] for p in matrices],
                           "lr": train.lr_matrices, "weight_decay": train.weight_decay})
        return [group for group in groups if group["params"]]
    groups = [
        {"name": "backbone", "params": backbone, "lr": train.lr_backbone, "weight_decay": train.weight_decay},
        {"name": "transformer", "params": rest, "lr": train.lr, "weight_decay": train.weight_decay},
    ]
    return [group for group in groups if group["params"]]


def maps_in(name: str, weight: Tensor) -> int:
    """How many maps between features a weight holds: 0 for vectors, embeddings and the last layer of any head.

    A matrix or a convolution holds one; three projections stacked under one another (queries, keys, values), or two
    (keys and values), are maps of their own. The shape does not tell: a feed-forward may be as tall as three.
    """
    embeddings = ("query_embed.", "refpoint_embed.", "label_embed.", "group_embed.")
    last_layers = ("class_embed.weight", "bbox_embed.layers.2.weight", "ref_anchor_head.layers.1.weight")
    if weight.dim() < 2 or name.startswith(embeddings) or name.endswith(last_layers):
        return 0
    return 3 if name.endswith("in_proj_weight") else 2 if name.endswith("kv_content.weight") else 1
