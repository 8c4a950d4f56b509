"""denoising: what can a decoder learn while the matching still makes no sense?

    true box + noise, true label or a wrong one ──► decoder ──► the true box, the true label

    image i, M_i objects, R copies:       noised queries (B,P)       P = R · max M_i
        copy 1   o₁ o₂ o₃ ▒               ▒ fills up the rows of images with fewer objects
        copy 2   o₁ o₂ o₃ ▒               each copy is a room of its own (queries.py)

Early in training the Hungarian matching is nearly random: the query that was told "cat, up left" in
one step is told "nothing" in the next. Yet a decoder layer's real work, moving a box that is almost
right to where it belongs, needs no matching to be learnt. So it is given true boxes, shifted and
stretched, and asked for the originals: whose answer is whose is known, no matching comes in
(DN-DETR, Li et al. 2022, arXiv 2203.01305, section 4).

    (cx, cy) + λ·u·(w, h)/2     (w, h)·(1 + λ·u)     u ~ U(−1, 1), λ = 0.4: the centre stays inside
    label: with chance 0.2 any class at random, so that it cannot just be copied

The noised queries know the answers. If a matched query could hear one in self-attention, it would
learn to listen instead of to look, and know nothing at inference, when nobody whispers; and if the
copies of one object heard each other, they could average the noise away. Hence the rooms.

An anchor query's content is the embedding of a label; a matched query's is that of "unknown", row
K. Proven in tests/model/anchors/test_denoising.py.
Read: noised_boxes → noised_objects
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BOX_NOISE, LABEL_NOISE = 0.4, 0.2


@dataclass(frozen=True)
class NoisedObjects:
    """The true objects of B images, R times over and disturbed; P = R · max M_i of an image.

    labels    (B,P) int64, some of them wrong; K where the row is only filled up
    boxes     (B,P,4) cxcywh
    filler    (B,P) bool, True where there is no object
    copies    R
    """

    labels: Tensor
    boxes: Tensor
    filler: Tensor
    copies: int

    @property
    def room(self) -> int:
        """The places of one copy: max M_i."""
        return self.labels.shape[1] // self.copies


def noised_boxes(boxes_cxcywh: Tensor, noise: float = BOX_NOISE) -> Tensor:
    """(…,4) → (…,4): centres moved by up to `noise` of half the sides, sides changed by up to that share; in [0,1]."""
    centre, sides = boxes_cxcywh.split(2, dim=-1)
    shift, stretch = (torch.rand_like(boxes_cxcywh) * 2 - 1).split(2, dim=-1)
    return torch.cat((centre + noise * shift * sides / 2, sides * (1 + noise * stretch)), dim=-1).clamp(0, 1)


def noised_objects(targets: list[dict[str, Any]], copies: int, num_classes: int) -> NoisedObjects:
    """Draw the noised copies of all targets (dicts of `labels` (M_i,) and `boxes` (M_i,4) cxcywh)."""
    sizes = [len(target["labels"]) for target in targets]
    # Without any object there is one filler: what a step computes must not depend on it, for another process may have
    # objects, and the two add up their losses and gradients name by name.
    B, M = len(targets), max(1, *sizes)
    labels = torch.cat([target["labels"] for target in targets])  # (T)
    boxes = torch.cat([target["boxes"] for target in targets])  # (T,4)
    wrong = torch.rand(copies, len(labels), device=labels.device) < LABEL_NOISE  # (R,T)
    known = labels.clamp(0, num_classes - 1)  # the matcher refuses others, with the images that have them
    given = torch.where(wrong, torch.randint_like(wrong, num_classes, dtype=labels.dtype), known)  # (R,T)
    moved = noised_boxes(boxes.expand(copies, -1, -1))  # (R,T,4)
    # Object t of image i stands in column t of each copy.
    row = torch.tensor([i for i, size in enumerate(sizes) for _ in range(size)], dtype=torch.int64)
    column = torch.tensor([t for size in sizes for t in range(size)], dtype=torch.int64)
    row, column = torch.stack((row, column)).to(labels.device, non_blocking=True)
    shape = (copies, B, M)
    all_labels = torch.full(shape, num_classes, dtype=labels.dtype, device=labels.device)
    all_boxes = torch.full((*shape, 4), 0.5, dtype=boxes.dtype, device=boxes.device)
    all_labels[:, row, column], all_boxes[:, row, column] = given, moved
    filler = torch.ones(shape[1:], dtype=torch.bool, device=labels.device)
    filler[row, column] = False
    return NoisedObjects(all_labels.transpose(0, 1).flatten(1), all_boxes.transpose(0, 1).flatten(1, 2),
                         filler.repeat(1, copies), copies)
