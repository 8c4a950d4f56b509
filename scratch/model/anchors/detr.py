"""detr: the detector that learns in minutes. What does it add to the published one?

    field of the configuration      what it adds, in training (t) and at inference (i)         note
    queries = anchor, proposal   i  queries are boxes; the encoder may propose them            decoder, proposals
    fine_memory                  i  the decoder reads a feature map twice as fine              fine_memory
    roi_features                 i  each box is refined by the features around it              roi_features
    classification = focal       i  a sigmoid for each class, no no-object class               ops/beyond/focal_loss
    groups                       t  several groups of queries, matched one by one              queries
    denoising                    t  noised true boxes as further queries                       denoising
    one_to_many                  t  a second feed-forward network, of one-to-many assignment   one_to_many

    images ─ backbone ─ input_proj ─ encode ─► memory ─┬─ (proposals) ─► anchors, content ─┐
                                                       └─ (fine memory) ───────────────────┴─ decode ─► hs, boxes

Everything here is optional; scratch/model/build chooses between this and the published model.
Parameters are made in one fixed order, so that a seed gives the same weights and a checkpoint's
optimizer finds its parameters.
Proven in tests/model/anchors, tests/test_reference.py (against torch.nn) and tests/test_old_checkpoints.py.
Read: variant → VariantDetr.__init__ → forward → _decode_learned → _decode_anchors
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Optional

import torch
from torch import Tensor, nn

from scratch.config import ModelConfig
from scratch.model.anchors.decoder import spread_anchors
from scratch.model.anchors.denoising import NoisedObjects, noised_objects
from scratch.model.anchors.fine_memory import FineMemory
from scratch.model.anchors.one_to_many import with_route
from scratch.model.anchors.proposals import SILENT, ProposalHead, Proposals
from scratch.model.anchors.queries import Queries, attention_mask
from scratch.model.anchors.roi_features import RoiFeatures
from scratch.model.anchors.transformer import AnchorTransformer, gathered_attention
from scratch.model.backbone import ResNet
from scratch.model.detr import Detr, check_input, shrink_mask
from scratch.model.transformer import MLP, Transformer
from scratch.ops.activations import inverse_sigmoid, sigmoid
from scratch.ops.beyond.focal_loss import prior_bias
from scratch.ops.conv2d import Conv2d
from scratch.ops.beyond.place_encoding import cell_centres, sine_of
from scratch.ops.fast.batch_norm import statistics_at_the_end
from scratch.ops.fast.switch import plain
from scratch.ops.init import constant_
from scratch.ops.linear import Embedding, Linear
from scratch.ops.fast.precision import without_autocast
from scratch.ops.sine_encoding import sine_encoding


def variant(config: ModelConfig) -> Optional[Detr]:
    """The detector of a configuration that needs more than the published model; None for one that does not.

    Raises ValueError for fields that do not go together, and in plain mode, where only the published model runs.
    """
    beyond = config.beyond_published()
    if not beyond:
        return None
    if plain():
        raise ValueError(f"plain mode (--plain, --ops) runs the published DETR alone: got {beyond}; wanted a preset "
                         "such as tiny_vanilla or detr_r50")
    if config.denoising and config.queries == "learned":
        raise ValueError(f'denoising is {config.denoising} with queries "learned"; only an anchor can be started '
                         'at a noised box: take queries="anchor" or "proposal", or denoising=0')
    if config.queries == "proposal" and config.classification != "focal":
        raise ValueError(f'queries are "proposal" with classification "{config.classification}"; a cell is judged '
                         'by sigmoids alone: take classification="focal"')
    of_boxes = {name: off for name, off in (("fine_memory", "--no-fine-memory"), ("roi_features", "--no-roi-features"),
                                            ("one_to_many", "--one-to-many 0")) if getattr(config, name)}
    if of_boxes and config.queries == "learned":
        names, flags = " and ".join(of_boxes), " ".join(of_boxes.values())
        raise ValueError(f'{names} {"are" if len(of_boxes) > 1 else "is"} on with queries "learned"; only a '
                         'decoder of boxes has that: take queries="anchor" or "proposal", or leave '
                         f'{"them" if len(of_boxes) > 1 else "it"} off ({flags})')
    if config.one_to_many and config.classification != "focal":
        raise ValueError(f'one_to_many is {config.one_to_many} with classification "{config.classification}"; '
                         'one-to-many assignment reads a sigmoid for each class: take classification="focal", or '
                         'one_to_many=0 (--one-to-many 0)')
    return VariantDetr(config)


class VariantDetr(Detr):
    """As `Detr`, with what the configuration asks for. In training the output dict may have more for the criterion:

    group_outputs the official dict of each further group of queries
    denoising     the same for the noised boxes (B,P,·), with "filler" (B,P) and "copies"; from `targets` (labels, boxes)
    one_to_many   the same for the second predictions of the first group's queries, and "filler" (B,Q)
    proposals     pred_logits (B,S,K), pred_boxes (B,S,4) of the encoder's cells; "centres" (B,S,2), "pad_mask"

    pred_logits is (B,Q,K) with focal classification. With need_weights, "attention" holds "anchors" (B,Q,4) as well:
    the boxes where the queries begin.
    """

    def __init__(self, config: ModelConfig):
        nn.Module.__init__(self)  # not Detr's, which makes the published parts
        D, Q = config.hidden_dim, config.groups * config.num_queries
        self.config = config
        self.backbone = ResNet(config.backbone, config.norm, config.dilation, config.zero_init_residual)
        self.input_proj = Conv2d(self.backbone.num_channels, D, 1)
        sizes = (D, config.nheads, config.enc_layers, config.dec_layers, config.dim_feedforward, config.dropout)
        if config.queries == "learned":
            self.transformer = Transformer(*sizes)
            self.query_embed = Embedding(Q, D)
        else:
            self.transformer = AnchorTransformer(*sizes, config.one_to_many > 0)
        if config.queries == "anchor" or config.denoising:
            self.label_embed = Embedding(config.num_classes + 1, D)
        if config.queries == "anchor":
            self.refpoint_embed = Embedding(Q, 4)
            with torch.no_grad():
                self.refpoint_embed.weight.copy_(inverse_sigmoid(spread_anchors(Q)))
        if config.fine_memory:
            self.fine_memory = FineMemory(self.backbone.finer_channels, D)
        if config.roi_features:
            self.roi_features = RoiFeatures(D)
        if config.queries == "proposal":
            self.proposal_head = ProposalHead(D, config.num_classes)
            self.group_embed = Embedding(config.groups, D)
            with torch.no_grad():
                self.group_embed.weight.mul_(0.1)  # small against the content of the cells, which are normalised
        self.class_embed = Linear(D, config.num_classes + (config.classification == "softmax"))
        if config.classification == "focal":
            constant_(self.class_embed.bias, prior_bias())
        self.bbox_embed = MLP(D, D, 4, 3)
        if config.queries != "learned":  # the first prediction is the anchor itself
            constant_(self.bbox_embed.layers[-1].weight, 0.0)
            constant_(self.bbox_embed.layers[-1].bias, 0.0)

    def forward(self, images: Tensor, pad_mask: Tensor, targets: Optional[list[dict[str, Any]]] = None,
                need_weights: bool = False) -> dict[str, Any]:
        check_input(images, pad_mask)
        with statistics_at_the_end() if self.training else nullcontext():
            stages = self.backbone.stages(images)  # the last is (B,C,h,w)
        groups, noised = 1, None
        if self.training:
            groups = self.config.groups
            if self.config.denoising and targets:
                noised = noised_objects(targets, self.config.denoising, self.config.num_classes)
        sizes = [self.config.num_queries] * groups + ([noised.copy_size] * noised.copies if noised else [])
        decode = self._decode_learned if self.config.queries == "learned" else self._decode_anchors
        hs, boxes, attention, proposals = decode(stages, pad_mask, sizes, noised, need_weights)  # (L,B,T,D), (L,B,T,4)

        with without_autocast(hs):
            logits = self.class_embed(hs.to(self.class_embed.weight.dtype)).to(boxes.dtype)  # (L,B,T,K+1) or (L,B,T,K)
        T, R, missing = groups * self.config.num_queries, self._route(), None
        if proposals is not None:
            missing = proposals.missing(self.config.num_queries)  # (B,Q)
            of_noised = missing.new_zeros(len(missing), sum(sizes) - T)
            silent = torch.cat((missing.repeat(1, groups), of_noised, missing[:, :R]), dim=1)  # (B,T+R)
            logits = logits.masked_fill(silent[..., None], SILENT)
        all_sizes = [*sizes, R] if R else sizes
        parts = [self._as_outputs(*part) for part in zip(logits.split(all_sizes, dim=2), boxes.split(all_sizes, dim=2))]
        outputs = parts[0]
        if groups > 1:
            outputs["group_outputs"] = parts[1:groups]
        if noised is not None:
            end = sum(sizes)
            outputs["denoising"] = {**self._as_outputs(logits[:, :, T:end], boxes[:, :, T:end]),
                                    "filler": noised.filler, "copies": noised.copies}
        if R:
            outputs["one_to_many"] = {**parts[-1], **({} if missing is None else {"filler": missing})}
        if proposals is not None and self.training:
            outputs["proposals"] = {"pred_logits": proposals.logits, "pred_boxes": proposals.boxes,
                                    "centres": proposals.centres, "pad_mask": proposals.pad_mask}
        if need_weights:
            outputs["attention"] = attention
        return outputs

    def _route(self) -> int:
        """The number of queries that have a one-to-many prediction, too."""
        return self.config.num_queries if self.training and self.config.one_to_many else 0

    def _decode_learned(self, stages: list[Tensor], pad_mask: Tensor, sizes: list[int], noised: None,
                        need_weights: bool) -> tuple[Tensor, Tensor, Optional[dict[str, Any]], None]:
        src, weight = self.input_proj(stages[-1]), self.query_embed.weight  # (B,D,h,w)
        cell_mask = shrink_mask(pad_mask, *src.shape[2:])  # (B,h,w)
        pos_embed = sine_encoding(cell_mask, self.config.hidden_dim // 2, dtype=weight.dtype)  # (B,D,h,w)
        hs, attention = self.transformer(src, cell_mask, weight[:sum(sizes)], pos_embed, need_weights,
                                         attention_mask(sizes, src.device))  # (L,B,T,D)
        return hs, self._boxes(hs), attention, None

    def _decode_anchors(self, stages: list[Tensor], pad_mask: Tensor, sizes: list[int], noised: Optional[NoisedObjects],
                        need_weights: bool) -> tuple[Tensor, Tensor, Optional[dict[str, Any]], Optional[Proposals]]:
        src = self.input_proj(stages[-1])  # (B,D,h,w)
        B, D, h, w = src.shape
        Q, dtype = self.config.num_queries, self.class_embed.weight.dtype
        G = len(sizes) - (noised.copies if noised else 0)
        cell_mask = shrink_mask(pad_mask, h, w)  # (B,h,w)
        centres = cell_centres(cell_mask, dtype)  # (B,S,2)
        places = sine_of(centres, D // 2)  # (B,S,D)
        memory, encoder = self.transformer.encode(src, cell_mask, places, need_weights)  # (B,S,D)

        proposals = None
        if self.config.queries == "anchor":
            anchors = sigmoid(self.refpoint_embed.weight[:G * Q]).expand(B, -1, -1)  # (B,G·Q,4)
            content = self.label_embed.weight[-1].expand(B, G * Q, D)  # "unknown"
        else:
            proposals = self.proposal_head(memory, centres, cell_mask.flatten(1))
            anchors, seen = proposals.best(Q)  # (B,Q,4), (B,Q,D): the same for all groups, that differ by a vector
            anchors = anchors.repeat(1, G, 1)  # (B,G·Q,4)
            group = self.group_embed.weight[:G, None].expand(-1, Q, -1).flatten(0, 1)  # (G·Q,D)
            content = seen.repeat(1, G, 1) + group  # (B,G·Q,D)
        filler = proposals.missing(Q).repeat(1, G) if proposals is not None else None  # (B,G·Q)
        if noised is not None:
            filler = noised.filler.new_zeros(anchors.shape[:2]) if filler is None else filler
            filler = torch.cat((filler, noised.filler), dim=1)  # (B,T)
            anchors = torch.cat((anchors, noised.boxes.to(anchors.dtype)), dim=1)  # (B,T,4)
            content = torch.cat((content, self.label_embed(noised.labels).to(content.dtype)), dim=1)  # (B,T,D)

        if self.config.fine_memory:
            stage = stages[self.backbone.finer]
            memory = self.fine_memory(memory, (h, w), stage)  # (B,S',D)
            cell_mask = shrink_mask(pad_mask, *stage.shape[2:])  # (B,H',W')
            places = sine_of(cell_centres(cell_mask, dtype), D // 2)  # (B,S',D)
        queries = Queries(anchors, content, attention_mask(sizes, src.device), filler, self._route())
        if self.config.roi_features:
            feature_map = self.roi_features.feature_map(memory, *cell_mask.shape[1:])  # (B,H',W'·c)
            cells = self.roi_features.cells_of_image(cell_mask)  # (B,1,2)

        def refine(hs: Tensor, anchors: Tensor) -> Tensor:
            if self.config.roi_features:
                hs = hs + with_route(self.roi_features(feature_map, anchors, cells), queries.route)  # (B,T+R,D)
            return self._boxes(hs, with_route(anchors, queries.route))
        hs, boxes, to_queries, to_memory = self.transformer.decode(queries, memory, places, cell_mask, refine,
                                                                   need_weights)
        if not need_weights:
            return hs, boxes, None, proposals
        attention = gathered_attention(encoder, to_queries, to_memory, (h, w), tuple(cell_mask.shape[1:]))
        return hs, boxes, {**attention, "anchors": anchors[:, :Q]}, proposals

    def _boxes(self, hs: Tensor, anchors: Optional[Tensor] = None) -> Tensor:
        """hs (…,D) → boxes (…,4), relative to anchors (…,4) if there are any; float32 under autocast."""
        weight = self.class_embed.weight
        exact = torch.promote_types(weight.dtype, torch.float32)
        with without_autocast(hs):
            offset = self.bbox_embed(hs.to(weight.dtype)).to(exact)  # (…,4)
            return sigmoid(offset if anchors is None else offset + inverse_sigmoid(anchors.to(exact)))
