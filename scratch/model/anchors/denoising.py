"""denoising: what can a decoder learn while the bipartite matching is still unstable?

    true box + noise, true label or a wrong one ──► decoder ──► the true box, the true label

    image i, M_i objects, R copies:       noised queries (B,P)       P = R · max M_i
        copy 1   o₁ o₂ o₃ ▒               ▒ fills up the rows of images with fewer objects
        copy 2   o₁ o₂ o₃ ▒               copies cannot see each other (queries.py)

Early in training the Hungarian matching is nearly random: a query that is matched to a cat in one
step is "no object" in the next. But the decoder's main task, to move an almost correct box to where
it belongs, can be learnt without matching. So it gets the true boxes, shifted and scaled, and has to
predict the originals. The target of each noised query is known, so no matching is needed (DN-DETR,
Li et al. 2022, arXiv 2203.01305, section 4).

    (cx, cy) + λ·u·(w, h)/2     (w, h)·(1 + λ·u)     u ~ U(−1, 1), λ = 0.4: the centre stays inside
    label: with probability 0.2 any class at random, so that it cannot just be copied

Label leakage: noised queries contain the targets. If a matched query could attend to one in
self-attention, it would learn to copy the target instead of finding it in the image, and at
inference there are none to copy. If the copies of one object could attend to each other, they could
average the noise away. So the attention mask separates them. The content of a noised query is the
embedding of its label; that of a matched anchor query is the embedding of "unknown", row K.

Proven in tests/model/anchors/test_denoising.py. Read: noised_boxes → noised_objects
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# 1. In DN-DETR noised queries attend to the matched ones; its mask blocks the other direction, which leaks labels, and
#    the copies among each other. Here they cannot: one block-diagonal mask serves groups and noised copies alike. Held by
#    test_noised_queries_cannot_see_the_matched_ones_as_they_can_in_dn_detr (tests/model/anchors/test_denoising.py).
# 2. The last number of a query's content says in DN-DETR whether the query is noised. Here the label's embedding has the
#    whole width. Held by test_a_label_has_the_whole_width_without_an_indicator_of_noise.

BOX_NOISE, LABEL_NOISE = 0.4, 0.2


@dataclass(frozen=True)
class NoisedObjects:
    """R noised copies of the true objects of B images; P = R · max M_i of an image.

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
    def copy_size(self) -> int:
        """The queries of one copy: max M_i."""
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
