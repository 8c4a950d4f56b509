"""proposals: where should a query start, if the encoder has already seen where the objects are?

    memory (B,S,D) ─┬─ class ─► logits (B,S,K) ─ best class ─► the Q best cells ─┐
                    └─ box ───► boxes  (B,S,4) ──────────────────────────────────┼─► anchors (B,Q,4)
                                                                                 └─► content (B,Q,D)

    box of cell s = σ(σ⁻¹(x_s, y_s, 0.2, 0.2) + MLP(memory_s))           (x, y): the cell's centre

An anchor box that is a learnt weight is the same for every image, so it starts away from the
object, and the decoder's layers are spent on the way there. But each token of the encoder stands at
a known place and can predict itself: which class is here, and how large is the object? These are
region proposals. The Q cells with the highest class score become the object queries. The decoder
only has to choose among cells that propose the same object, and to correct the edges (two-stage
Deformable DETR, Zhu et al. 2020, arXiv 2010.04159, section 4.2; Efficient DETR, Yao et al. 2021,
arXiv 2104.01318).

There is a second effect. The cells' class and box losses need no matching: each
cell inside a true box is trained on that object (one-to-many assignment, see below). So from the
first step on the backbone gets a dense training signal of what stands where, by a path without
attention in it.

Anchors and contents are handed on without gradient (detached): the cells learn from their own loss.
Proven in tests/model/anchors/test_proposals.py. Read: ProposalHead → Proposals.best, missing
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from scratch.model.transformer import MLP
from scratch.ops.activations import inverse_sigmoid, sigmoid
from scratch.ops.beyond.focal_loss import prior_bias
from scratch.ops.init import constant_
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear
from scratch.ops.fast.precision import without_autocast

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# 1. Which cell is trained on which object. Two-stage Deformable DETR matches cells and objects one to one (Hungarian).
#    Here the rule is that of FCOS (Tian et al. 2019, arXiv 1904.01355, section 3.1): every cell inside a true box is
#    assigned to it, inside several to the smallest; and the cell nearest to its centre, so that each has one. Held by
#    test_several_cells_are_assigned_to_one_object_where_matching_would_assign_one (tests/objective/test_variant.py).
# 2. What a query starts with. There the content and the position of a query are computed from the encoding of its box;
#    here the content is the cell's own token. Boxes start at 0.05·2^level of the image there (several maps), at 0.2
#    here (one map). Held in tests/model/anchors/test_proposals.py by
#    test_the_cells_with_the_highest_class_score_are_chosen and
#    test_before_any_learning_a_cell_proposes_itself_with_a_fifth_of_the_sides.

SILENT = -20.0  # the logit of a query without a cell: p = 2e-9
SIDE = 0.2  # the sides of the boxes that cells start from, as a share of the image


class Proposals(NamedTuple):
    """What the S cells of B images predict, and where they stand."""

    logits: Tensor  # (B,S,K)
    boxes: Tensor  # (B,S,4) cxcywh
    tokens: Tensor  # (B,S,D), what they predict from
    centres: Tensor  # (B,S,2) x, y
    pad_mask: Tensor  # (B,S)

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The anchors (B,count,4) and contents (B,count,D) of the cells with the highest scores, detached.

        The number of queries does not depend on the image. Where an image has fewer cells, its best cell is repeated;
        `missing` marks these queries: none attends to them, and their predictions are suppressed.
        """
        score = self.logits.detach().amax(-1).masked_fill(self.pad_mask, -torch.inf)  # (B,S)
        # `count` more cells with the lowest score: so there are always enough, without an `if` on the image's size, of
        # which an exporter's trace would see one side only.
        more = torch.full_like(score[:, :1], -torch.inf).expand(-1, count)  # (B,count)
        cell = torch.cat((score, more), dim=1).topk(count, dim=1).indices  # (B,count)
        cell = torch.where(self.missing(count), cell[:, :1], cell)  # (B,count)
        cell = torch.where(cell < score.shape[1], cell, 0)[..., None]  # (B,count,1); 0 in an image that is all padding
        return (self.boxes.detach().gather(1, cell.expand(-1, -1, 4)),
                self.tokens.detach().gather(1, cell.expand(-1, -1, self.tokens.shape[2])))

    def missing(self, count: int) -> Tensor:
        """(B,count) bool, True where an image has no cell left: the places after its last."""
        cells = (~self.pad_mask).sum(1, keepdim=True).clamp(min=1)  # (B,1)
        return torch.arange(count, device=cells.device) >= cells


class ProposalHead(nn.Module):
    """Every cell of the memory predicts classes and a box."""

    def __init__(self, d_model: int, num_classes: int) -> None:
        super().__init__()
        self.project, self.norm = Linear(d_model, d_model), LayerNorm(d_model)
        self.class_embed, self.bbox_embed = Linear(d_model, num_classes), MLP(d_model, d_model, 4, 3)
        constant_(self.class_embed.bias, prior_bias())
        constant_(self.bbox_embed.layers[-1].weight, 0.0)  # the first prediction is the cell itself
        constant_(self.bbox_embed.layers[-1].bias, 0.0)

    def forward(self, memory: Tensor, centres: Tensor, pad_mask: Tensor) -> Proposals:
        """memory (B,S,D), centres (B,S,2), pad_mask (B,S) → the cells' predictions; float32 under autocast."""
        with without_autocast(memory):
            tokens = self.norm(self.project(memory.to(self.project.weight.dtype)))  # (B,S,D)
            exact = torch.promote_types(tokens.dtype, torch.float32)
            start = torch.cat((centres, torch.full_like(centres, SIDE)), dim=-1).to(exact)  # (B,S,4)
            boxes = sigmoid(self.bbox_embed(tokens).to(exact) + inverse_sigmoid(start))  # (B,S,4)
            return Proposals(self.class_embed(tokens).to(exact), boxes, tokens, centres, pad_mask)
