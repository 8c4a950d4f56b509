"""reference.muon: Muon (Jordan et al. 2024) as a user of torch.optim writes it; notes in scratch/training/muon.py.

torch.optim.Muon takes matrices alone, one after the other, and orthogonalises in bfloat16.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

ROUNDS = ((8.042575, -23.039181, 16.687817), (3.644017, -2.674635, 0.514783), (2.709558, -1.983652, 0.439784))


def _orthogonalised(u: Tensor) -> Tensor:
    """(count,m,n) → (count,m,n), by three rounds of Newton-Schulz."""
    x = u.mT if u.shape[1] > u.shape[2] else u
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for a, b, c in ROUNDS:
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if u.shape[1] > u.shape[2] else x


class ReferenceMuon(torch.optim.Optimizer):
    """Groups of weights with "maps", the number of maps that each holds under one another, as `scratch`'s `Muon`."""

    def __init__(self, params: Any, momentum: float = 0.95):
        super().__init__(params, {"momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for weight, maps in zip(group["params"], group["maps"]):
                if weight.grad is None:
                    continue
                if "momentum_buffer" not in self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
                buffer = self.state[weight]["momentum_buffer"].mul_(group["momentum"]).add_(weight.grad)
                update = weight.grad.add(buffer, alpha=group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                for part, its_update in zip(weight.chunk(maps), update.chunk(maps)):
                    by_shape[len(part), part[0].numel()].append((part, its_update.flatten(1)))
            for (m, n), members in by_shape.items():
                steps = _orthogonalised(torch.stack([update for _, update in members]))
                for (part, _), step in zip(members, steps):
                    part.sub_(step.view_as(part), alpha=group["lr"] * max(1, m / n) ** 0.5)
