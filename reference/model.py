"""reference.model: DETR in torch.nn; the comments are in scratch/model/."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratch.config import RESNETS, ModelConfig


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and scales are constants (buffers, not parameters)."""

    def __init__(self, num_features: int):
        super().__init__()
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=1e-5)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(min(32, channels // 2), channels)
    return FrozenBatchNorm2d(channels) if kind == "frozen_batch" else nn.BatchNorm2d(channels)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = _norm(norm, planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = _norm(norm, planes)
        self.downsample = _shortcut(inplanes, planes, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = _norm(norm, planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = _norm(norm, planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = _norm(norm, 4 * planes)
        self.downsample = _shortcut(inplanes, 4 * planes, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def _shortcut(inplanes: int, outplanes: int, stride: int, norm: str) -> nn.Module:
    if stride == 1 and inplanes == outplanes:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inplanes, outplanes, 1, stride, bias=False), _norm(norm, outplanes))


class ResNet(nn.Module):
    def __init__(self, name: str, norm: str, dilation: bool):
        super().__init__()
        block_name, depths, width = RESNETS[name]
        block = {"basic": BasicBlock, "bottleneck": Bottleneck}[block_name]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = _norm(norm, width)
        inplanes = width
        for stage, depth in enumerate(depths):
            planes, stride, later_dilation = width * 2**stage, 1 if stage == 0 else 2, 1
            if stage == 3 and dilation:
                stride, later_dilation = 1, 2
            blocks = []
            for i in range(depth):
                blocks.append(block(inplanes, planes, stride if i == 0 else 1, 1 if i == 0 else later_dilation, norm))
                inplanes = planes * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.num_channels = inplanes
        self.finer = 1 if dilation else 2
        self.finer_channels = width * 2**self.finer * block.expansion
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> list[Tensor]:
        x = images.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, stride=2, padding=1)
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            stages.append(x)
        return stages


class EncoderLayer(nn.Module):
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, src: Tensor, pad_mask: Tensor, pos: Tensor) -> Tensor:
        q = k = src + pos
        y = self.self_attn(q, k, src, key_padding_mask=pad_mask, need_weights=False)[0]
        src = self.norm1(src + self.dropout1(y))
        y = self.linear2(self.dropout(F.relu(self.linear1(src))))
        return self.norm2(src + self.dropout2(y))


class DecoderLayer(nn.Module):
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d_model) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(3))

    def forward(self, tgt: Tensor, query_pos: Tensor, memory: Tensor, keys: Tensor, pad_mask: Tensor) -> Tensor:
        q = k = tgt + query_pos
        y = self.self_attn(q, k, tgt, need_weights=False)[0]
        tgt = self.norm1(tgt + self.dropout1(y))
        y = self.multihead_attn(tgt + query_pos, keys, memory, key_padding_mask=pad_mask, need_weights=False)[0]
        tgt = self.norm2(tgt + self.dropout2(y))
        y = self.linear2(self.dropout(F.relu(self.linear1(tgt))))
        return self.norm3(tgt + self.dropout3(y))


class Stack(nn.Module):
    """Holds `layers` (and `norm`), so that the names are the official ones."""

    def __init__(self, layers: list, norm: nn.Module | None = None):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        if norm is not None:
            self.norm = norm


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        sizes = (config.hidden_dim, config.nheads, config.dim_feedforward, config.dropout)
        self.encoder = Stack([EncoderLayer(*sizes) for _ in range(config.enc_layers)])
        self.decoder = Stack([DecoderLayer(*sizes) for _ in range(config.dec_layers)], nn.LayerNorm(config.hidden_dim))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, pad_mask: Tensor, query_embed: Tensor, pos: Tensor) -> Tensor:
        memory, pos, pad_mask = src.flatten(2).transpose(1, 2), pos.flatten(2).transpose(1, 2), pad_mask.flatten(1)
        for layer in self.encoder.layers:
            memory = layer(memory, pad_mask, pos)
        keys, query_pos = memory + pos, query_embed.expand(len(memory), -1, -1)
        tgt, hs = torch.zeros_like(query_pos), []
        for layer in self.decoder.layers:
            tgt = layer(tgt, query_pos, memory, keys, pad_mask)
            hs.append(self.decoder.norm(tgt))
        return torch.stack(hs)


class MLP(nn.Module):
    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(n, m) for n, m in zip(widths, widths[1:])])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def shrunk(pad_mask: Tensor, features: Tensor) -> Tensor:
    """pad_mask (B,H,W) on the grid of features (B,C,h,w)."""
    return F.interpolate(pad_mask[:, None].float(), size=features.shape[-2:])[:, 0].bool()


def _sine(pad_mask: Tensor, num_pos_feats: int, dtype: torch.dtype) -> Tensor:
    real = (~pad_mask).to(dtype)
    i = torch.arange(num_pos_feats, device=pad_mask.device)
    period = 10000.0 ** (2 * (i // 2).to(dtype) / num_pos_feats)
    parts = []
    for axis in (1, 2):
        position = real.cumsum(axis)
        position = position / (position.narrow(axis, -1, 1) + 1e-6) * 2 * math.pi
        angle = position[..., None] / period
        parts.append(torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=4).flatten(3))
    return torch.cat(parts, dim=3).permute(0, 3, 1, 2)


class ReferenceDetr(nn.Module):
    """images (B,3,H,W) and pad_mask (B,H,W) → the official output dict, as `scratch.model.detr.Detr`."""

    def __init__(self, config: ModelConfig):
        if config.queries != "learned" or config.classification != "softmax" or config.groups > 1:
            raise ValueError(f"got queries={config.queries!r}, classification={config.classification!r}, "
                             f"groups={config.groups}; ReferenceDetr is DETR as published: take a vanilla preset")
        super().__init__()
        self.config = config
        self.backbone = ResNet(config.backbone, config.norm, config.dilation)
        self.input_proj = nn.Conv2d(self.backbone.num_channels, config.hidden_dim, 1)
        self.transformer = Transformer(config)
        self.query_embed = nn.Embedding(config.num_queries, config.hidden_dim)
        self.class_embed = nn.Linear(config.hidden_dim, config.num_classes + 1)
        self.bbox_embed = MLP(*[config.hidden_dim] * 3, 4)

    def forward(self, images: Tensor, pad_mask: Tensor) -> dict:
        features = self.backbone(images)
        pad_mask = shrunk(pad_mask, features)
        queries = self.query_embed.weight
        pos = _sine(pad_mask, self.config.hidden_dim // 2, queries.dtype)
        hs = self.transformer(self.input_proj(features), pad_mask, queries, pos)
        wide = torch.promote_types(queries.dtype, torch.float32)
        logits, boxes = self.class_embed(hs).to(wide), self.bbox_embed(hs).to(wide).sigmoid()
        return as_outputs(logits, boxes, self.config.aux_loss)


def as_outputs(logits: Tensor, boxes: Tensor, aux_loss: bool) -> dict:
    """(L,B,Q,·) and (L,B,Q,4) → the official dict."""
    layers = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes)]
    return {**layers[-1], "aux_outputs": layers[:-1]} if aux_loss else layers[-1]
