"""softmax: what √d does to the weights of attention, and to their gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from docs.site.play.widget import widget
from scratch.ops.activations import softmax

WIDTHS, KEYS, QUERIES, SHOWN = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), 100, 1000, 4


def draws() -> tuple[Tensor, Tensor]:
    """Queries (1000,512) and keys (100,512) of variance 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (torch.randn(QUERIES, WIDTHS[-1], dtype=torch.float64),
                torch.randn(KEYS, WIDTHS[-1], dtype=torch.float64))


def weights(d: int, scaled: bool) -> Tensor:
    """softmax of the scores of the first d numbers of each query and key: (1000,100)."""
    q, k = draws()
    scores = q[:, :d] @ k[:, :d].T
    return softmax(scores / math.sqrt(d) if scaled else scores, -1)


def data() -> dict[str, Any]:
    """For each d, with and without √d: the weights of four queries, and means over 1,000 queries of 100 keys."""
    kinds = {"raw": False, "scaled": True}
    found = {kind: [weights(d, scaled) for d in WIDTHS] for kind, scaled in kinds.items()}

    def slope(P: Tensor) -> Tensor:
        return (P * (1 - P)).sum(-1)

    means = {kind: {"most": [P.amax(-1).mean().item() for P in each], "slope": [slope(P).mean().item() for P in each]}
             for kind, each in found.items()}
    rows = [[{kind: {"weights": [round(p, 5) for p in found[kind][i][query].tolist()],
                     "most": found[kind][i][query].max().item(), "slope": slope(found[kind][i])[query].item()}
              for kind in kinds} for i in range(len(WIDTHS))] for query in range(SHOWN)]
    return {"widths": WIDTHS, "keys": KEYS, "rows": rows, "means": means}


SOFTMAX = widget(
    "softmax", "softmax with and without √d", "ops/attention",
    "A score q·k is a sum of d products. If queries and keys have variance 1, the score has variance d. The larger d "
    "is, the further the scores lie apart, and the closer softmax comes to a single 1. Then its gradient is close to "
    "0: the slope of a weight with respect to its own score is P(1 − P), and the sum of these is shown below each "
    "row.\n\n"
    "Try: move d from 1 to 512. Which of the two rows changes? Divided by √d, the scores have variance 1 for "
    "every d.", data)
