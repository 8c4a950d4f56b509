"""detr: how does one network name a picture's objects, without removal of duplicates?

    images (B,3,H,W) ─ backbone ─► (B,C,h,w) ─ input_proj ─► (B,D,h,w) ┐
    pad_mask (B,H,W) ─ nearest ──► (B,h,w) ─── sine ───────► (B,D,h,w) ┼ transformer ─► hs (L,B,Q,D)
                                               query_embed (Q,D) ──────┘                 │
                            logits (L,B,Q,K+1) ◄── class_embed ──────────────────────────┤
                            boxes  (L,B,Q,4)   ◄── sigmoid ◄── bbox_embed ───────────────┘

A query answers with a class, the last of which is "no object", and a box (cx, cy, w, h) in [0,1] of
the image without its padding. Which query is to answer for which object, the matcher of
`scratch/objective` decides; two queries for one object are never both right, so nothing is left to
suppress (Carion et al. 2020, arXiv 2005.12872, section 3).

The parameters of detr_r50, 41,524,768, and their cost for an image of 600×640 (multiply-add = 2):

    backbone     23,454,912   63.0 GFLOPs        query_embed   25,600   none
    input_proj      524,544    0.4 GFLOPs        class_embed   23,644   0.03 GFLOPs
    encoder       7,890,432    6.9 GFLOPs        bbox_embed   132,612   0.16 GFLOPs
    decoder       9,473,024    2.6 GFLOPs

So it is as published. Queries that are boxes, a class head of sigmoids, and what more is asked in
training are fields of the configuration, each with a note: anchors/decoder, queries, denoising …
Parameter names are the official ones (`backbone.` for `backbone.0.body.`). Same as torch.nn, proven
in tests/test_reference.py; same as the official DETR, proven in tests/test_golden.py.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from scratch.config import PRESETS, Config, ModelConfig, memory_here, refuse_what_does_not_fit
from scratch.model.anchors.decoder import spread_anchors
from scratch.model.backbone import ResNet
from scratch.model.anchors.denoising import NoisedObjects, noised_objects
from scratch.model.anchors.fine_memory import FineMemory
from scratch.model.mlp import MLP
from scratch.model.anchors.proposals import SILENT, ProposalHead, Proposals
from scratch.model.anchors.queries import Queries, separate_rooms
from scratch.model.transformer import AnchorTransformer, Transformer, gathered_attention
from scratch.ops.activations import inverse_sigmoid, sigmoid
from scratch.ops.conv2d import Conv2d
from scratch.ops.beyond.focal_loss import prior_bias
from scratch.ops.init import constant_
from scratch.ops.beyond.place_encoding import cell_centres, sine_of
from scratch.ops.fast.precision import without_autocast
from scratch.ops.linear import Embedding, Linear
from scratch.ops.sine_encoding import sine_encoding


class Detr(nn.Module):
    """images float (B,3,H,W), normalised, and pad_mask bool (B,H,W), True = padding → the official output dict.

    pred_logits   (B,Q,K+1)   of the last decoder layer; column K is "no object", and missing with focal classification
    pred_boxes    (B,Q,4)     cx, cy, w, h in [0,1] of the unpadded image
    aux_outputs   a list of the same two for the decoder layers before it (left out where config.aux_loss is False)
    attention     with need_weights=True: see `Transformer`; and "anchors" (B,Q,4), where queries that are boxes begin

    In training there may be more for the criterion. `targets` (labels and boxes of each image) are what it denoises.
    group_outputs the same four of each further group of queries
    denoising     the same of the noised boxes (B,P,·), with "filler" (B,P) and "copies"
    proposals     pred_logits (B,S,K) and pred_boxes (B,S,4) of the encoder's cells, "centres" (B,S,2), "pad_mask" (B,S)

    Logits and boxes are float32 (float64 in a float64 model) under any autocast.

    Raises ValueError or TypeError for a config that cannot be built and for input of another shape or dtype.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D = config.hidden_dim
        if D % config.nheads or D % 4:
            raise ValueError(f"hidden_dim is {D} with {config.nheads} heads; it must be a multiple of nheads, "
                             "and of 4 for the sines and cosines of two axes")
        self.config = config
        self.backbone = ResNet(config.backbone, config.norm, config.dilation, config.zero_init_residual)
        self.input_proj = Conv2d(self.backbone.num_channels, D, 1)
        if config.denoising and config.queries == "learned":
            raise ValueError(f'denoising is {config.denoising} with queries "learned"; only an anchor can be started '
                             'at a noised box: take queries="anchor" or "proposal", or denoising=0')
        if config.queries == "proposal" and config.classification != "focal":
            raise ValueError(f'queries are "proposal" with classification "{config.classification}"; a cell is judged '
                             'by sigmoids alone: take classification="focal"')
        if config.fine_memory and config.queries == "learned":
            raise ValueError('fine_memory is on with queries "learned"; it is the anchors\' memory: take '
                             'queries="anchor" or "proposal", or leave it off')
        sizes = (D, config.nheads, config.enc_layers, config.dec_layers, config.dim_feedforward, config.dropout)
        if config.queries == "learned":
            self.transformer = Transformer(*sizes)
            self.query_embed = Embedding(config.groups * config.num_queries, D)
        else:
            self.transformer = AnchorTransformer(*sizes)
        if config.queries == "anchor" or config.denoising:
            self.label_embed = Embedding(config.num_classes + 1, D)
        if config.queries == "anchor":
            self.refpoint_embed = Embedding(config.groups * config.num_queries, 4)
            with torch.no_grad():
                self.refpoint_embed.weight.copy_(inverse_sigmoid(spread_anchors(config.groups * config.num_queries)))
        if config.fine_memory:
            self.fine_memory = FineMemory(self.backbone.finer_channels, D)
        if config.queries == "proposal":
            self.proposal_head = ProposalHead(D, config.num_classes)
            self.group_embed = Embedding(config.groups, D)
            with torch.no_grad():
                self.group_embed.weight.mul_(0.1)  # groups differ, but what the cells saw is louder
        self.class_embed = Linear(D, config.num_classes + (config.classification == "softmax"))
        if config.classification == "focal":
            constant_(self.class_embed.bias, prior_bias())
        self.bbox_embed = MLP(D, D, 4, 3)
        if config.queries != "learned":  # the first answer is the anchor itself
            constant_(self.bbox_embed.layers[-1].weight, 0.0)
            constant_(self.bbox_embed.layers[-1].bias, 0.0)

    def forward(self, images: Tensor, pad_mask: Tensor, targets: Optional[list[dict[str, Any]]] = None,
                need_weights: bool = False) -> dict[str, Any]:
        check_input(images, pad_mask)
        stages = self.backbone.stages(images)  # the last is (B,C,h,w)
        # In training the decoder may be asked more than later: more groups of queries, and noised true boxes.
        groups, noised = 1, None
        if self.training:
            groups = self.config.groups
            if self.config.denoising and targets:
                noised = noised_objects(targets, self.config.denoising, self.config.num_classes)
        rooms = [self.config.num_queries] * groups + ([noised.room] * noised.copies if noised else [])
        answer = self._answer_learned if self.config.queries == "learned" else self._answer_anchors
        hs, boxes, attention, proposals = answer(stages, pad_mask, rooms, noised, need_weights)  # (L,B,T,D), (L,B,T,4)

        # The heads, 0.3 % of the work, leave autocast: between 0.5 and 1 bf16 counts in steps of 1/256, which are 2.5
        # pixels of an image 640 wide.
        with without_autocast(hs):
            logits = self.class_embed(hs.to(self.class_embed.weight.dtype)).to(boxes.dtype)  # (L,B,T,K+1) or (L,B,T,K)
        T = groups * self.config.num_queries
        if proposals is not None:
            silent = proposals.missing(self.config.num_queries).repeat(1, groups)  # (B,G·Q)
            silent = torch.cat((silent, silent.new_zeros(silent.shape[0], logits.shape[2] - T)), dim=1)  # (B,T)
            logits = logits.masked_fill(silent[..., None], SILENT)
        by_room = [self._as_outputs(*room) for room in zip(logits.split(rooms, dim=2), boxes.split(rooms, dim=2))]
        outputs = by_room[0]
        if groups > 1:
            outputs["group_outputs"] = by_room[1:groups]
        if noised is not None:
            outputs["denoising"] = {**self._as_outputs(logits[:, :, T:], boxes[:, :, T:]),
                                    "filler": noised.filler, "copies": noised.copies}
        if proposals is not None and self.training:
            outputs["proposals"] = {"pred_logits": proposals.logits, "pred_boxes": proposals.boxes,
                                    "centres": proposals.centres, "pad_mask": proposals.pad_mask}
        if need_weights:
            outputs["attention"] = attention
        return outputs

    def _as_outputs(self, logits: Tensor, boxes: Tensor) -> dict[str, Any]:
        """(L,B,Q,·) and (L,B,Q,4) → the official dict."""
        *aux, last = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes)]
        return {**last, "aux_outputs": aux} if self.config.aux_loss else last

    def _answer_learned(self, stages: list[Tensor], pad_mask: Tensor, rooms: list[int], noised: None,
                        need_weights: bool) -> tuple[Tensor, Tensor, Optional[dict[str, Any]], None]:
        src, weight = self.input_proj(stages[-1]), self.query_embed.weight  # (B,D,h,w)
        cell_mask = shrink_mask(pad_mask, *src.shape[2:])  # (B,h,w)
        pos_embed = sine_encoding(cell_mask, self.config.hidden_dim // 2, dtype=weight.dtype)  # (B,D,h,w)
        queries = Queries(weight[:sum(rooms)], attn_mask=separate_rooms(rooms, src.device))
        hs, attention = self.transformer(src, cell_mask, queries, pos_embed, need_weights)  # (L,B,T,D)
        return hs, self._boxes(hs), attention, None

    def _answer_anchors(self, stages: list[Tensor], pad_mask: Tensor, rooms: list[int], noised: Optional[NoisedObjects],
                        need_weights: bool) -> tuple[Tensor, Tensor, Optional[dict[str, Any]], Optional[Proposals]]:
        src = self.input_proj(stages[-1])  # (B,D,h,w)
        B, D, h, w = src.shape
        Q, dtype = self.config.num_queries, self.class_embed.weight.dtype
        G = len(rooms) - (noised.copies if noised else 0)
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
        queries = Queries(anchors, content, separate_rooms(rooms, src.device), filler)
        hs, boxes, to_queries, to_memory = self.transformer.decode(queries, memory, places, cell_mask, self._boxes,
                                                                   need_weights)
        if not need_weights:
            return hs, boxes, None, proposals
        attention = gathered_attention(encoder, to_queries, to_memory, (h, w), tuple(cell_mask.shape[1:]))
        return hs, boxes, {**attention, "anchors": anchors[:, :Q]}, proposals

    def _boxes(self, hs: Tensor, anchors: Optional[Tensor] = None) -> Tensor:
        """hs (…,D) → boxes (…,4), from the middle of nowhere or from anchors (…,4); float32 under autocast."""
        weight = self.class_embed.weight
        exact = torch.promote_types(weight.dtype, torch.float32)
        with without_autocast(hs):
            offset = self.bbox_embed(hs.to(weight.dtype)).to(exact)  # (…,4)
            return sigmoid(offset if anchors is None else offset + inverse_sigmoid(anchors.to(exact)))


def check_input(images: Tensor, pad_mask: Tensor) -> None:
    """Raise ValueError or TypeError unless images are float (B,3,H,W) and pad_mask is bool (B,H,W)."""
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; wanted (B,3,H,W): "
                         "convert images to RGB and stack them")
    if not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}; wanted normalised floats: Batch.normalised() gives them")
    if pad_mask.dtype != torch.bool:
        raise TypeError(f"pad_mask is {pad_mask.dtype}; wanted torch.bool, True where a pixel is padding")
    if pad_mask.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(f"pad_mask has shape {tuple(pad_mask.shape)}; wanted {(images.shape[0], *images.shape[2:])}, "
                         "one value for each pixel of the images")


def shrink_mask(pad_mask: Tensor, h: int, w: int) -> Tensor:
    """pad_mask (B,H,W) → (B,h,w): cell (i,j) is padding if pixel (⌊i·H/h⌋, ⌊j·W/w⌋) is ("nearest" interpolation)."""
    B, H, W = pad_mask.shape
    rows = torch.arange(h, device=pad_mask.device) * H // h  # (h,)
    columns = torch.arange(w, device=pad_mask.device) * W // w  # (w,)
    return pad_mask[:, rows[:, None], columns]  # (B,h,w)


def build_detr(preset: Union[str, Config, ModelConfig], **overrides: Any) -> Detr:
    """A `Detr` with random weights, every one of them trainable.

    preset      a name of `scratch.config.PRESETS`, or a config of one's own
    overrides   fields of ModelConfig that differ: build_detr("detr_r50", num_classes=3)

    Raises ValueError for an unknown name or field, and, before any of it is asked for, where the memory cannot hold the
    weights; TypeError for another kind of preset.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ValueError(f"no preset is called {preset!r}; known are {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    config = preset.model if isinstance(preset, Config) else preset
    if not isinstance(config, ModelConfig):
        raise TypeError(f"got {type(preset).__name__}; wanted the name of a preset, a Config or a ModelConfig")
    known = [field.name for field in fields(ModelConfig)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(f"a model has no {', '.join(unknown)}; known are {', '.join(known)}")
    config = replace(config, **overrides)
    refuse_what_does_not_fit(config, memory_here())
    return Detr(config)


def freeze_backbone(model: Detr, train_backbone: str) -> None:
    """Let the backbone's weights learn: "all" of them, "none", or those of "stages_2_to_4".

    As published, the stem and the first stage stay as ImageNet left them: edges and colours are the same everywhere,
    and the largest feature maps then need no gradient. A trained batch norm's statistics follow the data in any case.

    Raises ValueError for another word.
    """
    if train_backbone not in ("all", "stages_2_to_4", "none"):
        raise ValueError(f'train_backbone is {train_backbone!r}; it must be "all", "stages_2_to_4" or "none"')
    for name, parameter in model.backbone.named_parameters():
        early = name.startswith(("conv1.", "bn1.", "layer1."))
        parameter.requires_grad_(train_backbone == "all" or (train_backbone == "stages_2_to_4" and not early))
