"""queries: what is the decoder asked, and which questions may hear each other?

    group 1  q q q q │             In training the decoder may be asked more than it will be later:
    group 2          │ q q q q     K groups of Q queries (`groups`) and noised boxes (`denoising`).
    noised           │         n n Each stands in a room of its own. What one room knows never
                                   reaches another: the self-attention's mask is block-diagonal.

           hears   g1 g2 n1
    asks g1         ·  ▒  ▒
         g2         ▒  ·  ▒        mask[i,j] = room[i] ≠ room[j]     (T,T) bool, True = not allowed
         n1         ▒  ▒  ·

Why groups (Group DETR, Chen et al. 2022, arXiv 2207.13085): one-to-one matching tells one query in
Q about each object, and which one it is changes from step to step, so good news is rare. K groups
are K detectors that share every weight but their queries; each is matched on its own, so each
object teaches K queries a step. One long row of K·Q queries with a K-to-1 matching would not do:
the K winners for one object would hear each other in self-attention, and learn to answer in chorus,
where inference needs one voice. At inference group 1 is asked alone, so the others cost nothing
there.

Proven in tests/model/anchors/test_queries.py.
Read: Queries → separate_rooms
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """The T questions that the decoder is asked about each of B images.

    place      where each looks first: learnt addresses (1 or B,T,D), or anchors (1 or B,T,4) cxcywh in [0,1]
    content    what each knows at the start: (1 or B,T,D); None: nothing, that is zeros
    attn_mask  (T,T) bool, True where row i may not hear column j; None: all hear all
    pad_mask   (B,T) bool, True for a question that only fills up its row; None: there is none
    """

    place: Tensor
    content: Optional[Tensor] = None
    attn_mask: Optional[Tensor] = None
    pad_mask: Optional[Tensor] = None


def separate_rooms(sizes: list[int], device: torch.device) -> Optional[Tensor]:
    """The mask (T,T) that keeps rooms of `sizes` queries, T of them together, apart; None if one room is all."""
    if len(sizes) < 2:
        return None
    room = torch.tensor([i for i, size in enumerate(sizes) for _ in range(size)])  # (T)
    return (room[:, None] != room).to(device, non_blocking=True)  # (T,T)
