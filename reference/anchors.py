"""reference.anchors: the detector whose queries are boxes, in torch.nn; the comments are in scratch/model/."""

from __future__ import annotations

import math
from functools import partial
from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.model import MLP, EncoderLayer, ResNet, Stack, as_outputs, shrunk
from scratch.config import ModelConfig

SILENT = -20.0  # the logit of a query without a cell


def _centres(pad_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """pad_mask (B,h,w) → (B,h·w,2): x, y of the cells' centres."""
    real, parts = (~pad_mask).to(dtype), []
    for axis in (2, 1):
        position = real.cumsum(axis)
        parts.append((position - 0.5) / position.narrow(axis, -1, 1).clamp(min=1))
    return torch.stack(parts, dim=-1).flatten(1, 2)


def _sines(numbers: Tensor, num_pos_feats: int) -> Tensor:
    """(…,n) → (…,n·num_pos_feats)"""
    i = torch.arange(num_pos_feats // 2, dtype=numbers.dtype, device=numbers.device)
    angle = (numbers * (2 * math.pi))[..., None] / 20.0 ** (2 * i / num_pos_feats)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-3)


def _refined(step: Tensor, boxes: Tensor) -> Tensor:
    inside = boxes.clamp(0, 1)
    return (step + torch.log(inside.clamp(min=1e-5) / (1 - inside).clamp(min=1e-5))).sigmoid()


class ConditionalAttention(nn.Module):
    def __init__(self, d_model: int, nhead: int, dropout: float):
        super().__init__()
        self.nhead, self.dropout = nhead, dropout
        self.q_content = nn.Linear(d_model, d_model)
        self.kv_content = nn.Linear(d_model, 2 * d_model)
        self.q_place, self.k_place = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, content: Tensor, place: Tensor, memory: Tensor, memory_place: Tensor, real: Tensor) -> Tensor:
        k, v = self.kv_content(memory).chunk(2, dim=-1)
        q = torch.cat((self._heads(self.q_content(content)), self._heads(self.q_place(place))), dim=-1)
        k = torch.cat((self._heads(k), self._heads(self.k_place(memory_place))), dim=-1)
        y = F.scaled_dot_product_attention(q, k, self._heads(v), real, self.dropout if self.training else 0.0)
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.nhead, -1)).transpose(1, 2)


class AnchorDecoderLayer(nn.Module):
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int, dropout: float, one_to_many: bool):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=True)
        self.cross_attn = ConditionalAttention(d_model, nhead, dropout)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d_model) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(3))
        if one_to_many:
            self.one_to_many = nn.ModuleDict({
                "linear1": nn.Linear(d_model, dim_feedforward), "linear2": nn.Linear(dim_feedforward, d_model),
                "norm": nn.LayerNorm(d_model), "dropout1": nn.Dropout(dropout), "dropout2": nn.Dropout(dropout)})

    def forward(self, content: Tensor, place: Tensor, look: Callable[[Tensor], Tensor], missing: Optional[Tensor],
                memory: Tensor, memory_place: Tensor, real: Tensor, route: int) -> tuple[Tensor, Optional[Tensor]]:
        q = k = content + place
        y = self.self_attn(q, k, content, key_padding_mask=missing, need_weights=False)[0]
        content = self.norm1(content + self.dropout1(y))
        y = self.cross_attn(content, look(content), memory, memory_place, real)
        content = self.norm2(content + self.dropout2(y))
        y = self.linear2(self.dropout(F.relu(self.linear1(content))))
        many = None
        if route:
            way, start = self.one_to_many, content[:, :route]
            hidden = way["dropout1"](F.relu(way["linear1"](start)))
            many = way["norm"](start + way["dropout2"](way["linear2"](hidden)))
        return self.norm3(content + self.dropout3(y)), many


class AnchorDecoder(nn.Module):
    def __init__(self, layers: list[AnchorDecoderLayer], d_model: int):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), nn.LayerNorm(d_model)
        self.ref_point_head = MLP(2 * d_model, d_model, d_model)
        self.query_scale = MLP(d_model, d_model, d_model)
        self.ref_anchor_head = MLP(d_model, d_model, 2)

    def forward(self, anchors: Tensor, content: Tensor, missing: Optional[Tensor], memory: Tensor,
                memory_place: Tensor, pad_mask: Tensor, bbox_embed: MLP,
                around: Optional[Callable[[Tensor], Tensor]], route: int) -> tuple[Tensor, Tensor, list]:
        D, real = content.shape[-1], ~pad_mask.flatten(1)[:, None, None]
        hs, boxes, more = [], [], []

        def answer(hs: Tensor, anchors: Tensor, features: Optional[Tensor]) -> Tensor:
            step = bbox_embed(hs if features is None else hs + features)
            return _refined(step.to(anchors.dtype), anchors)
        for layer in self.layers:
            sines, sides = _sines(anchors, D // 2), anchors[..., 2:].clamp(min=1e-2)

            def look(content: Tensor, centre: Tensor = sines[..., :D], sides: Tensor = sides) -> Tensor:
                wanted = self.ref_anchor_head(content).sigmoid() / sides
                x_and_y = (centre * (1 + self.query_scale(content))).unflatten(-1, (2, -1))
                return (x_and_y * wanted[..., None]).flatten(-2)

            content, many = layer(content, self.ref_point_head(sines), look, missing, memory, memory_place, real, route)
            features = None if around is None else around(anchors)
            hs.append(self.norm(content))
            boxes.append(answer(hs[-1], anchors, features))
            if many is not None:
                many = self.norm(many)
                features = None if features is None else features[:, :route]
                more.append((many, answer(many, anchors[:, :route], features)))
            anchors = boxes[-1].detach()
        return torch.stack(hs), torch.stack(boxes), more


class ProposalHead(nn.Module):
    def __init__(self, d_model: int, num_classes: int):
        super().__init__()
        self.project, self.norm = nn.Linear(d_model, d_model), nn.LayerNorm(d_model)
        self.class_embed, self.bbox_embed = nn.Linear(d_model, num_classes), MLP(*[d_model] * 3, 4)

    def forward(self, memory: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.norm(self.project(memory))
        start = torch.cat((centres, torch.full_like(centres, 0.2)), dim=-1)
        boxes = _refined(self.bbox_embed(tokens).to(start.dtype), start)
        return self.class_embed(tokens).to(start.dtype), boxes, tokens


class FineMemory(nn.Module):
    def __init__(self, channels: int, d_model: int):
        super().__init__()
        self.lateral, self.norm = nn.Conv2d(channels, d_model, 1), nn.LayerNorm(d_model)

    def forward(self, memory: Tensor, size: torch.Size, stage: Tensor) -> Tensor:
        edges, coarse = self.lateral(stage), memory.transpose(1, 2).unflatten(2, size)
        return self.norm((edges + F.interpolate(coarse, size=edges.shape[-2:])).flatten(2).transpose(1, 2))


class RoiFeatures(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()
        self.project, self.norm = nn.Linear(d_model, 32), nn.LayerNorm(32)
        self.combine = nn.Linear(32 * 49, d_model)

    def forward(self, memory: Tensor, anchors: Tensor, pad_mask: Tensor) -> Tensor:
        (B, h, w), T = pad_mask.shape, anchors.shape[1]
        x = self.norm(self.project(memory)).transpose(1, 2).reshape(B, 32, h, w)
        real = ~pad_mask
        cells = torch.stack((real.any(1).sum(1), real.any(2).sum(1)), dim=-1)[:, None, None, None].to(anchors.dtype)
        part = (torch.arange(7, dtype=anchors.dtype, device=x.device) + 0.5) / 7 - 0.5
        offset = torch.stack(torch.meshgrid(part, part, indexing="xy"), dim=-1)  # (7,7,2) x, y
        at = (anchors[:, :, None, None, :2] + 1.5 * anchors[:, :, None, None, 2:] * offset) * cells - 0.5  # (B,T,7,7,2)
        near = ((at >= -1) & (at <= cells)).all(-1)
        at = torch.minimum(at.clamp(min=0), cells - 1)
        size = torch.tensor([w, h], dtype=at.dtype, device=at.device)
        grid = ((2 * at + 1) / size - 1).reshape(B, T, 49, 2).to(x.dtype)
        seen = F.grid_sample(x, grid, align_corners=False).permute(0, 2, 3, 1) * near.flatten(2)[..., None]  # (B,T,49,32)
        seen = seen.unflatten(2, (7, 7)).transpose(2, 3).flatten(2)
        return self.combine(seen).relu()


class ReferenceAnchorDetr(nn.Module):
    """images (B,3,H,W) and pad_mask (B,H,W) → the official output dict, as `scratch.model.detr.Detr`."""

    def __init__(self, config: ModelConfig):
        if config.queries == "learned" or config.groups > 1 or config.denoising:
            raise ValueError(f"got queries={config.queries!r}, groups={config.groups}, denoising={config.denoising}; "
                             "ReferenceAnchorDetr has anchors or proposals, one group and no noised boxes: "
                             "take groups=1 and denoising=0")
        super().__init__()
        self.config, D = config, config.hidden_dim
        sizes = (D, config.nheads, config.dim_feedforward, config.dropout)
        self.backbone = ResNet(config.backbone, config.norm, config.dilation)
        self.input_proj = nn.Conv2d(self.backbone.num_channels, D, 1)
        self.transformer = nn.ModuleDict({
            "encoder": Stack([EncoderLayer(*sizes) for _ in range(config.enc_layers)]),
            "decoder": AnchorDecoder([AnchorDecoderLayer(*sizes, config.one_to_many > 0)
                                      for _ in range(config.dec_layers)], D)})
        if config.queries == "anchor":
            self.label_embed = nn.Embedding(config.num_classes + 1, D)
            self.refpoint_embed = nn.Embedding(config.num_queries, 4)
        if config.fine_memory:
            self.fine_memory = FineMemory(self.backbone.finer_channels, D)
        if config.roi_features:
            self.roi_features = RoiFeatures(D)
        if config.queries == "proposal":
            self.proposal_head = ProposalHead(D, config.num_classes)
            self.group_embed = nn.Embedding(1, D)
        self.class_embed = nn.Linear(D, config.num_classes + (config.classification == "softmax"))
        self.bbox_embed = MLP(D, D, D, 4)

    def forward(self, images: Tensor, pad_mask: Tensor) -> dict:
        Q, D = self.config.num_queries, self.config.hidden_dim
        wide = torch.promote_types(self.class_embed.weight.dtype, torch.float32)
        stages = self.backbone.stages(images)
        src = self.input_proj(stages[-1])
        cell_mask = shrunk(pad_mask, src)
        centres = _centres(cell_mask, wide)
        places, memory, cells_padded = _sines(centres, D // 2), src.flatten(2).transpose(1, 2), cell_mask.flatten(1)
        for layer in self.transformer["encoder"].layers:
            memory = layer(memory, cells_padded, places)

        if self.config.queries == "anchor":
            anchors = self.refpoint_embed.weight.to(wide).sigmoid().expand(len(images), -1, -1)
            content, missing = self.label_embed.weight[-1].expand(len(images), Q, D), None
        else:
            cell_logits, cell_boxes, tokens = self.proposal_head(memory, centres)
            missing = torch.arange(Q, device=images.device) >= (~cells_padded).sum(1, keepdim=True).clamp(min=1)
            score = cell_logits.detach().amax(-1).masked_fill(cells_padded, -torch.inf)
            cell = score.topk(min(Q, score.shape[1]), dim=1).indices
            cell = F.pad(cell, (0, Q - cell.shape[1]))
            cell = torch.where(missing, cell[:, :1], cell)[..., None]
            anchors = cell_boxes.detach().take_along_dim(cell, dim=1)
            content = tokens.detach().take_along_dim(cell, dim=1) + self.group_embed.weight

        if self.config.fine_memory:
            stage = stages[self.backbone.finer]
            memory = self.fine_memory(memory, src.shape[-2:], stage)
            cell_mask = shrunk(pad_mask, stage)
            places = _sines(_centres(cell_mask, wide), D // 2)
        around = None
        if self.config.roi_features:
            around = partial(self.roi_features, memory, pad_mask=cell_mask)
        route = Q if self.training and self.config.one_to_many else 0
        hs, boxes, more = self.transformer["decoder"](anchors, content, missing, memory, places, cell_mask,
                                                      self.bbox_embed, around, route)

        def answers(hs: Tensor, boxes: Tensor) -> dict:
            logits = self.class_embed(hs).to(wide)
            if missing is not None:
                logits = logits.masked_fill(missing[..., None], SILENT)
            return as_outputs(logits, boxes, self.config.aux_loss)
        outputs = answers(hs, boxes)
        if more:
            outputs["one_to_many"] = answers(*map(torch.stack, zip(*more)))
            if missing is not None:
                outputs["one_to_many"]["filler"] = missing
        if self.training and self.config.queries == "proposal":
            outputs["proposals"] = {"pred_logits": cell_logits, "pred_boxes": cell_boxes, "centres": centres,
                                    "pad_mask": cells_padded}
        return outputs
