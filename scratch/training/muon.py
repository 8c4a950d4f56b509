"""muon: a weight matrix is a map, not a bag of numbers; how far may the map move in one step?

    b ← μ·b + g          u = g + μ·b                 momentum (Nesterov's), b, g, u (m,n)
    O = U Vᵀ             where u = U Σ Vᵀ            every direction counts the same
    W ← W − η·λ·W − η·√max(1, m/n)·O

      singular values of u      ▇ ▆ ▁ ▁ ▁ ▁   a few directions have nearly all of the gradient
      AdamW's step              ▇ ▅ ▂ ▁ ▁ ▁   evens out the numbers of u, hardly the directions
      of O                      ▆ ▆ ▆ ▆ ▆ ▆   rare features are learnt as fast as common ones

O is the steepest descent among all steps that stretch no input by more than 1 (the spectral norm);
Adam is near the steepest that moves no number by more than 1, the sign. A convolution (O,I,k,k) is
a matrix of O rows. Vectors, embeddings and the heads' last layers are no such maps: AdamW's.

The singular vectors need no SVD. An odd polynomial p(X) = aX + b(XXᵀ)X + c(XXᵀ)²X acts on each
singular value alone, σ → aσ + bσ³ + cσ⁵, so five rounds of one that pushes all of (0, 1] towards 1
give O. These a, b, c end between 0.7 and 1.2 and are quick (Newton-Schulz: Higham 2008, chapter 8).

Behind a norm only W's direction counts, and a step of length s turns it by s/|W|. Without decay W
grows and turns ever less. With it, |W|²·2ηλ = s² holds the length: each step turns W by √(2ηλ).
(van Laarhoven 2017, arXiv 1706.05350; with momentum, Kosson et al. 2023, 2305.17212.)

Jordan et al. 2024, "Muon: an optimizer for hidden layers"; Bernstein & Newhouse 2024, arXiv
2409.20325. Proven in tests/training/test_muon.py.
Read: orthogonalised_definition (the SVD) → orthogonalised (the polynomial) → Muon
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scratch.training.optimizer import AdamW, lay_as_weights, step_adamw

A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


def orthogonalised_definition(u: Tensor) -> Tensor:
    """U Vᵀ of u = U Σ Vᵀ, (…,m,n) → (…,m,n)."""
    left, _, right = torch.linalg.svd(u, full_matrices=False)
    return left @ right


def orthogonalised(u: Tensor) -> Tensor:
    """Nearly the same, by matrix products alone: (…,m,n) → (…,m,n)."""
    wide = u if u.shape[-2] <= u.shape[-1] else u.mT  # the products are of the smaller side: min² · max each
    x = wide / (wide.square().sum((-2, -1), keepdim=True).sqrt() + 1e-7)  # no singular value above 1
    batch = x.view(-1, *x.shape[-2:])
    for _ in range(ROUNDS):  # baddbmm(s, a, b) is s + a @ b in one pass
        gram = batch @ batch.mT
        batch = torch.baddbmm(batch, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), batch, beta=A)
    x = batch.view(x.shape)
    return x if wide is u else x.mT


class Muon(torch.optim.Optimizer):
    """Groups with "maps" take Muon's step, all others AdamW's; `lr` of the former is η above.

    "maps" says of each weight of its group how many maps it holds, stacked under one another. Maps of one shape are
    stepped together, one batched product for all of them. Raises ValueError as AdamW does.
    """

    def __init__(self, params: Any, momentum: float = 0.95, **adamw: Any) -> None:
        groups = [{"maps": [], "momentum": momentum, **group} for group in params]
        super().__init__(groups, AdamW([torch.zeros(1)], **adamw).defaults)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        lay_as_weights(self.state)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            if group["maps"]:
                self._step_maps(group, weights)
            else:
                step_adamw(self.state, group, weights)

    def _step_maps(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        counts = dict(zip(group["params"], group["maps"]))
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        updates = torch._foreach_mul(momenta, group["momentum"])
        torch._foreach_add_(updates, gradients)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for weight, update in zip(weights, updates):
            for part, its_update in zip(weight.chunk(counts[weight]), update.chunk(counts[weight])):
                by_shape.setdefault((part.shape[0], part[0].numel()), []).append((part, its_update))
        for (m, n), members in by_shape.items():
            steps = orthogonalised(torch.stack([as_matrix(update) for _, update in members]))  # (members, m, n)
            for (part, _), step in zip(members, steps):
                part.add_(as_weight(step, part), alpha=-group["lr"] * max(1.0, m / n) ** 0.5)


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as the map it is: (O,I) stays, (O,I,k,k) → (O,k·k·I), a view where it lies channels last.

    In which order the columns stand makes no difference to U Vᵀ but the same order.
    """
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight.flatten(1)


def as_weight(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix`, a view of the shape of `like`."""
    if like.dim() != 4:
        return matrix.view(like.shape)
    O, I, kH, kW = like.shape
    return matrix.view(O, kH, kW, I).permute(0, 3, 1, 2)
