"""queries: which object queries go into the decoder, and which queries may see each other?

    group 1  q q q q │             In training the decoder may get more queries than at inference:
    group 2          │ q q q q     G groups of Q queries (`groups`) and noised boxes (`denoising`).
    noised           │         n n Each part is separate: the self-attention's mask is block-diagonal.

       attends to    g1 g2 n1
    query   g1        ·  ▒  ▒
            g2        ▒  ·  ▒        mask[i,j] = part[i] ≠ part[j]     (T,T) bool, True = not allowed
            n1        ▒  ▒  ·

One-to-many assignment by groups (Group DETR, Chen et al. 2022, arXiv 2207.13085). One-to-one
matching gives each object to one of the Q queries, and which one changes from step to step. So a
query seldom gets a positive target. With G groups, which share all weights but their queries and are
matched separately, each object trains G queries in a step. One set of G·Q queries in which each
object is matched to G of them would not do: these G would see each other in self-attention and learn
to predict the same object several times (duplicates), where inference needs one. At inference only
group 1 is used, so the others cost nothing there.

Proven in tests/model/anchors/test_queries.py.
Read: Queries → attention_mask
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# With proposals, all groups start from the same cells, and differ by one learnt vector of each group that is added to
# the contents; Group DETR gives each group queries of its own. Held by
# test_each_group_starts_from_the_same_cells_and_answers_otherwise (tests/model/anchors/test_proposals.py).


@dataclass(frozen=True)
class Queries:
    """The T queries of the decoder for each of B images.

    place      the anchor boxes at which they start: (B,T,4) cxcywh in [0,1]
    content    what each starts with: (B,T,D)
    attn_mask  (T,T) bool, True where query i may not attend to query j; None: all attend to all
    pad_mask   (B,T) bool, True for a query that only fills up its row; None: there is none
    route      the number of queries, from the first on, that get a one-to-many prediction, too (one_to_many)
    """

    place: Tensor
    content: Tensor
    attn_mask: Optional[Tensor] = None
    pad_mask: Optional[Tensor] = None
    route: int = 0


def attention_mask(sizes: list[int], device: torch.device) -> Optional[Tensor]:
    """The mask (T,T) that separates parts of `sizes` queries, T of them together; None if there is one part."""
    if len(sizes) < 2:
        return None
    # Made on the device: a copy of numbers of the CPU could not be part of a CUDA graph (training/cuda_graph).
    part = torch.cat([torch.full((size,), i, device=device) for i, size in enumerate(sizes)])  # (T)
    return part[:, None] != part  # (T,T)
