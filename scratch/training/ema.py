"""ema: which weights should be evaluated, if the last ones still fluctuate from step to step?

    θ̄ ← θ̄ + (1 − d)·(θ − θ̄)          d = min(decay, (1 + n) / (10 + n))          n = updates done so far

The exponential moving average θ̄ (EMA) lags about 1/(1−decay) steps behind the weights θ, and smooths
the noise of single batches. While n is small, d is small too (0.1 at first): otherwise the average
would keep the random initial weights for long. It is for evaluation only; the optimizer does not use
it. Polyak & Juditsky 1992; warm-up as in TensorFlow.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """The running average of a model's parameters and floating-point buffers (batch norm's statistics).

    model   the bare model, already on its device; a wrapper's names differ
    decay   in (0, 1); 0.999 averages over about 1000 steps
    Raises ValueError for another decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"got an EMA decay of {decay}, wanted a number between 0 and 1 (0.999, say)")
        self.decay, self.updates = decay, 0
        self.shadow = {name: tensor.detach().clone() for name, tensor in _averaged(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Draw the average towards the model; call it after each optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        # lerp, not d·θ̄ + (1−d)·θ: one pass, and exact where the two are equal, so frozen weights never drift.
        torch._foreach_lerp_(list(self.shadow.values()), list(_averaged(model).values()), 1 - decay)
        self.updates += 1

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Within this context the model has the averaged weights; afterwards its own again, bit for bit.

        Values are copied and no tensor is exchanged: the optimizer, DDP and compiled graphs hold on to the tensors.
        Until the context ends, the weights exist three times.
        """
        live = list(_averaged(model).values())
        with torch.no_grad():
            kept = [tensor.clone() for tensor in live]
            torch._foreach_copy_(live, list(self.shadow.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(live, kept)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average. Raises ValueError if it belongs to another model."""
        shadow: dict[str, Tensor] = state["shadow"]
        if {n: t.shape for n, t in shadow.items()} != {n: t.shape for n, t in self.shadow.items()}:
            raise ValueError("the saved average has other names or shapes than this model; resume with the "
                             "configuration that it was saved with")
        for name, tensor in self.shadow.items():
            tensor.copy_(shadow[name])
        self.updates = state["updates"]


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors that are averaged, by name (counters such as num_batches_tracked are not)."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
