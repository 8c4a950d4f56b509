"""decoder: what if an object query were an anchor box, which every decoder layer refines?

    anchor aˡ (T,4) cx, cy, w, h          content cˡ (T,D)          one decoder layer:

    place    p = MLP(sin(aˡ))                        positional encoding of the anchor, for self-attention
    c ← norm(c + self_attn(c + p, c + p, c))
    look     s = sin(cx, cy) ∘ (1 + MLP(c)) ∘ (w_ref/w, h_ref/h)
    c ← norm(c + cross_attn(content c, place s; memory, sin(cells)))
    c ← norm(c + ffn(c))
    box      aˡ⁺¹ = σ(σ⁻¹(aˡ) + bbox_embed(norm(c)))         the prediction, and the next layer's anchor

An anchor box is a box to start from (in DETR there is none: its query is a learnt vector, and to
learn where it should look takes up to 500 epochs). Here the query has the positional encoding of its
anchor's centre, in the same sines as the cells of the memory, so it looks near its anchor from the
first step on. Each layer predicts an offset to the anchor only (iterative box refinement).

w_ref, h_ref = σ(MLP(c)) over the anchor's sides: for a small anchor the sines are multiplied by more,
so the attention is narrower; w and h act separately (DAB-DETR, Liu et al. 2022, arXiv 2201.12329,
section 4.4). A layer's anchor is detached: no gradient flows from one layer's box to the box before
it, which has a loss of its own (Deformable DETR, appendix A.4).

Proven in tests/model/anchors/test_decoder.py. The split of content and place:
ops/beyond/conditional_attention. Read: spread_anchors → AnchorDecoderLayer → AnchorDecoder
"""

from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor, nn

from scratch.model.transformer import MLP
from scratch.model.anchors.one_to_many import OneToManyFeedForward
from scratch.model.anchors.queries import Queries
from scratch.ops.activations import relu, sigmoid
from scratch.ops.attention import MultiheadAttention
from scratch.ops.beyond.conditional_attention import ConditionalAttention
from scratch.ops.dropout import Dropout
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear
from scratch.ops.beyond.place_encoding import sine_of


# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# 1. The scale of the sines. DAB-DETR multiplies by 1 in the first layer and by MLP(c) in the later ones; here it is
#    1 + MLP(c) in every layer. Held by test_the_sines_are_scaled_by_one_plus_an_mlp_in_every_layer.
# 2. The first cross-attention. DAB-DETR adds a projection of the query's position p to the content part of queries (and
#    one of the cells' encoding to that of keys) in the first layer; here content and place are separate in every layer.
#    Held by test_the_first_cross_attention_gets_the_content_without_the_query_position.
# 3. The encoder. DAB-DETR's scales its positional encoding by an MLP of the content; here it is the published DETR's.
#    Held by test_the_encoder_is_the_published_one.
# 4. The first anchors. DAB-DETR draws them at random; here they are spread evenly (`spread_anchors`). Held by
#    test_anchors_start_spread_over_the_picture. All tests: tests/model/anchors/test_decoder.py.
#
# How far boxes move: with proposals to start from and attention alone, hardly (an earlier measurement, in "explained" of
# hyper_parameter_tuning_charts/index.md). That decoder mostly decided which of several proposals for an object is kept.
# So the presets that learn in minutes also read the features around each box (roi_features.py). Of all objects of val,
# in the demo: mean IoU 0.848 of the proposals, 0.896 after one layer, 0.902 after three; AP 0.803 by the first layer
# alone, 0.830 by all three ("removal_shapes" there).


def spread_anchors(count: int, side: float = 0.2) -> Tensor:
    """`count` boxes (count,4) cxcywh that cover the image evenly, for any count.

    Their centres are the R2 sequence: multiples of (1/g, 1/g²) modulo 1, with g the root of g³ = g + 1 (a generalised
    golden ratio). Random centres would leave gaps and clusters, a grid needs square numbers.
    """
    g = 1.32471795724474602596
    steps = torch.arange(1, count + 1, dtype=torch.float64)[:, None] * torch.tensor([1 / g, 1 / g**2])
    centres = (0.5 + steps).remainder(1.0)  # (count,2)
    return torch.cat((centres, torch.full_like(centres, side)), dim=1).float()  # (count,4)


class AnchorDecoderLayer(nn.Module):
    """Content (B,T,D) → (B,T,D): self-attention, cross-attention near the anchor, feed-forward network."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 one_to_many: bool = False):
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout)
        self.cross_attn = ConditionalAttention(d_model, nhead, dropout=dropout)
        self.linear1 = Linear(d_model, dim_feedforward)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.norm3 = LayerNorm(d_model), LayerNorm(d_model), LayerNorm(d_model)
        self.dropout1, self.dropout2, self.dropout3 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        if one_to_many:
            self.one_to_many = OneToManyFeedForward(d_model, dim_feedforward, dropout)

    def forward(self, content: Tensor, place: Tensor, look: Callable[[Tensor], Tensor], queries: Queries,
                memory: Tensor, memory_place: Tensor, pad_mask: Tensor,
                need_weights: bool = False) -> tuple[Tensor, Optional[Tensor], Optional[Tensor], Optional[Tensor]]:
        """content, place (B,T,D), memory, memory_place (B,S,D), pad_mask (B,S) → content (B,T,D), that of the
        one-to-many route (B,R,D), R = queries.route, or None, and the attentions.

        look(content) → (B,T,D): the positional query of the cross-attention, computed after the self-attention.
        """
        q = k = content + place
        gathered, self_weights = self.self_attn(q, k, content, key_padding_mask=queries.pad_mask,
                                                attn_mask=queries.attn_mask, need_weights=need_weights)
        content = self.norm1(content + self.dropout1(gathered))
        gathered, cross_weights = self.cross_attn(content, look(content), memory, memory_place, pad_mask, need_weights)
        content = self.norm2(content + self.dropout2(gathered))
        route = self.one_to_many(content[:, :queries.route]) if queries.route else None  # (B,R,D)
        hidden = self.dropout(relu(self.linear1(content)))  # (B,T,F)
        return self.norm3(content + self.dropout3(self.linear2(hidden))), route, self_weights, cross_weights


class AnchorDecoder(nn.Module):
    """Decoder layers one after the other; each starts from the boxes that the layer before it predicted."""

    def __init__(self, layers: list[AnchorDecoderLayer], d_model: int):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), LayerNorm(d_model)
        self.ref_point_head = MLP(2 * d_model, d_model, d_model, 2)  # an anchor's sines → p
        self.query_scale = MLP(d_model, d_model, d_model, 2)  # content → scale of the sines
        self.ref_anchor_head = MLP(d_model, d_model, 2, 2)  # content → w_ref, h_ref

    def reset_places(self) -> None:
        for layer in self.layers:
            layer.cross_attn.reset_places()

    def forward(self, queries: Queries, memory: Tensor, memory_place: Tensor, pad_mask: Tensor,
                refine: Callable[[Tensor, Tensor], Tensor],
                need_weights: bool = False) -> tuple[Tensor, Tensor, list, list]:
        """queries with anchors (B,T,4) and content (B,T,D) → hs (L,B,T+R,D), boxes (L,B,T+R,4), and the attentions.

        The last R = queries.route are of the one-to-many route. refine(hs, anchors) → boxes: the box head, which is
        the detector's; it gets T+R of one and T of the other.
        """
        anchors, content = queries.place, queries.content
        T, D = content.shape[1:]
        hs, boxes, self_attention, cross_attention = [], [], [], []
        for layer in self.layers:
            sines = sine_of(anchors, D // 2).to(content.dtype)  # (B,T,2D): of cx, cy, w, h
            place = self.ref_point_head(sines)  # (B,T,D)
            centre, sides = sines[..., :D], anchors[..., 2:]  # (B,T,D), (B,T,2)

            def look(content: Tensor, centre: Tensor = centre, sides: Tensor = sides) -> Tensor:
                ratio = sigmoid(self.ref_anchor_head(content)) / sides.clamp(min=1e-2)  # (B,T,2): for x, for y
                ratio = ratio[..., None].expand(*ratio.shape, D // 2).flatten(-2)  # (B,T,D)
                return (centre * (1 + self.query_scale(content)) * ratio).to(content.dtype)

            content, route, self_weights, cross_weights = layer(content, place, look, queries, memory, memory_place,
                                                                pad_mask, need_weights)
            hs.append(self.norm(content if route is None else torch.cat((content, route), dim=1)))
            boxes.append(refine(hs[-1], anchors))  # (B,T+R,4)
            anchors = boxes[-1][:, :T].detach()
            self_attention.append(self_weights)
            cross_attention.append(cross_weights)
        return torch.stack(hs), torch.stack(boxes), self_attention, cross_attention
