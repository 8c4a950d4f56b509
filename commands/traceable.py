"""traceable: how does a detector of our own layers become a graph that an inference runtime executes fast?

    Conv2d, Linear, norms, pooling, attention ─▶ torch.nn's, with the same weights ─▶ one node each
    a few lines around them                   ─▶ written so that no size is fixed
    plain arithmetic (sines, masks, boxes …)  ─▶ traced as it stands

A runtime has a convolution of its own, faster than nine matrix products that are spelled out for
it; and a format has one node for it, that another program understands. So the copy of a model that
is traced has torch.nn's layers in the place of ours: the same numbers, as every layer's note proves
and tests/test_export.py does for the whole.
Read: STAND_INS → REWRITTEN → with_stand_ins → traceable
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Callable

import torch
from torch import Tensor, nn

from scratch.model.detr import Detr
from scratch.model.anchors.fine_memory import FineMemory, enlarged
from scratch.ops.attention import MultiheadAttention
from scratch.ops.batch_norm import BatchNorm2d, FrozenBatchNorm2d
from scratch.ops.beyond.conditional_attention import ConditionalAttention
from scratch.ops.conv2d import Conv2d
from scratch.ops.beyond.group_norm import GroupNorm
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear
from scratch.ops.windows import MaxPool2d


class _FineMemory(nn.Module):
    """FineMemory by reshape: the exporter takes the sizes that unflatten gives for fixed."""

    def __init__(self, ours: FineMemory) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, memory: Tensor, size: tuple[int, int], stage: Tensor) -> Tensor:
        edges, (B, _, D) = self.ours.lateral(stage), memory.shape  # (B,D,H',W')
        coarse = memory.transpose(1, 2).reshape(B, D, *size)  # (B,D,h,w)
        return self.ours.norm((edges + enlarged(coarse, *edges.shape[2:])).flatten(2).transpose(1, 2))


class _ConditionalAttention(nn.Module):
    """ConditionalAttention with torch's softmax (its maps are torch's already)."""

    def __init__(self, ours: ConditionalAttention) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, content: Tensor, place: Tensor, memory: Tensor, memory_place: Tensor,
                key_padding_mask: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        ours, (B, Q, _) = self.ours, content.shape
        D, N = ours.embed_dim, ours.num_heads
        ck, v = ours.kv_content(memory).split(D, dim=-1)  # (B,S,D) each
        q = torch.cat([self._heads(x) for x in (ours.q_content(content), ours.q_place(place))], dim=-1)  # (B,N,Q,2d)
        k = torch.cat([self._heads(x) for x in (ck, ours.k_place(memory_place))], dim=-1)  # (B,N,S,2d)
        scores = q @ k.transpose(2, 3) / math.sqrt(2 * D // N)  # (B,N,Q,S)
        weights = scores.masked_fill(key_padding_mask[:, None, None], -math.inf).softmax(-1)
        output = (weights @ self._heads(v)).transpose(1, 2).reshape(B, Q, D)
        return ours.out_proj(output), None

    def _heads(self, x: Tensor) -> Tensor:
        B, S, _ = x.shape
        return x.view(B, S, self.ours.num_heads, self.ours.embed_dim // self.ours.num_heads).transpose(1, 2)


def _batch_norm(ours: nn.Module) -> nn.Module:
    return nn.BatchNorm2d(ours.num_features, ours.eps)


# Ours → the same in torch.nn, which then takes its state; what is not listed is plain arithmetic, and traced as it is.
STAND_INS: dict[type, Callable[[Any], nn.Module]] = {
    Conv2d: lambda ours: nn.Conv2d(ours.weight.shape[1] * ours.groups, ours.weight.shape[0], ours.weight.shape[2:],
                                   ours.stride, ours.padding, ours.dilation, ours.groups, ours.bias is not None),
    BatchNorm2d: _batch_norm, FrozenBatchNorm2d: _batch_norm,
    GroupNorm: lambda ours: nn.GroupNorm(ours.num_groups, len(ours.weight), ours.eps),
    MaxPool2d: lambda ours: nn.MaxPool2d(ours.kernel_size, ours.stride, ours.padding),
    Linear: lambda ours: nn.Linear(ours.weight.shape[1], ours.weight.shape[0], ours.bias is not None),
    LayerNorm: lambda ours: nn.LayerNorm(ours.normalized_shape, ours.eps),
    MultiheadAttention: lambda ours: nn.MultiheadAttention(ours.embed_dim, ours.num_heads, batch_first=True),
}

# What is written anew for the trace, around layers that have been replaced.
REWRITTEN = {ConditionalAttention: _ConditionalAttention, FineMemory: _FineMemory}


def with_stand_ins(module: nn.Module) -> nn.Module:
    """Put torch.nn's layers in the place of ours, in `module` itself and all that it holds."""
    for name, child in module.named_children():
        make = STAND_INS.get(type(child))
        if make is None:
            new = REWRITTEN.get(type(child), lambda same: same)(with_stand_ins(child))
        else:
            new = make(child)
            missing, unexpected = new.load_state_dict(child.state_dict(), strict=False)
            assert not unexpected and all(key == "num_batches_tracked" for key in missing), (name, missing, unexpected)
        setattr(module, name, new)
    return module


class _Traceable(nn.Module):
    """Two tensors in, two tensors out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, pad_mask: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.model(images, pad_mask)
        return outputs["pred_logits"], outputs["pred_boxes"]


def traceable(model: Detr) -> nn.Module:
    """A copy of the model on the CPU, with stand-ins; images, pad_mask → logits, boxes, as the model computes them."""
    return _Traceable(with_stand_ins(deepcopy(model).cpu())).eval()
