"""detr: how does one network predict an image's set of objects, without non-maximum suppression?

    images (B,3,H,W) ─ backbone ─► (B,C,h,w) ─ input_proj ─► (B,D,h,w) ┐
    pad_mask (B,H,W) ─ nearest ─┬► (B,h,w) ─── sine ───────► (B,D,h,w) ┼ transformer ─► hs (L,B,Q,D)
                                └► (B,h,w): padding is not read ───────┤                 │
                                               query_embed (Q,D) ──────┘                 │
                            logits (L,B,Q,K+1) ◄── class_embed ──────────────────────────┤
                            boxes  (L,B,Q,4)   ◄── sigmoid ◄── bbox_embed ───────────────┘

"sine" is the positional encoding. Set prediction: each of the Q object queries predicts one box and
one class, 0 … K−1 or the no-object class K (COCO: K = 91, its largest id plus one). A box is
(cx, cy, w, h) in [0,1] of the image without its padding. In training, bipartite matching
(scratch/objective) gives each true object to one query. A second query for it is trained to predict
"no object": duplicates are few, and need no removal (Carion et al. 2020, arXiv 2005.12872, section 3).

Parameters of detr_r50 (41,524,768), and GFLOPs for an image of 600×640 (multiply-add = 2 FLOPs):

    backbone  23,454,912  63.0    input_proj  524,544  0.4    query_embed   25,600
    encoder    7,890,432   6.9    decoder   9,473,024  2.6    class_embed   23,644  0.03
                                                              bbox_embed   132,612  0.16

Parameter names are the official ones, but for the official prefix `backbone.0.body.`, which is
`backbone.` here. Same as torch.nn: tests/test_reference.py; same as the official DETR: tests/test_golden.py.
Read: Detr (forward: the drawing above) → shrink_mask → freeze_backbone
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Optional

import torch
from torch import Tensor, nn

from scratch.config import ModelConfig
from scratch.model.backbone import ResNet
from scratch.model.transformer import MLP, Transformer
from scratch.ops.activations import sigmoid
from scratch.ops.conv2d import Conv2d
from scratch.ops.linear import Embedding, Linear
from scratch.ops.sine_encoding import sine_encoding


class Detr(nn.Module):
    """images float (B,3,H,W), normalised, and pad_mask bool (B,H,W), True = padding → the official output dict.

    pred_logits   (B,Q,K+1)   of the last decoder layer
    pred_boxes    (B,Q,4)     cx, cy, w, h
    aux_outputs   the same two of each decoder layer before it (left out where config.aux_loss is False)
    attention     with need_weights=True: see `Transformer`
    Logits and boxes are float32 (float64 in a float64 model) under any autocast. `targets` are read by variants alone.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if beyond := config.beyond_published():
            raise ValueError(f"Detr is the published model: got {beyond}; build_detr builds it")
        D, K, self.config = config.hidden_dim, config.num_classes, config
        self.backbone = ResNet(config.backbone, config.norm, config.dilation, config.zero_init_residual)
        self.input_proj = Conv2d(self.backbone.num_channels, D, 1)
        self.transformer = Transformer(D, config.nheads, config.enc_layers, config.dec_layers, config.dim_feedforward,
                                       config.dropout)
        self.query_embed = Embedding(config.num_queries, D)
        self.class_embed, self.bbox_embed = Linear(D, K + 1), MLP(D, D, 4, 3)

    def forward(self, images: Tensor, pad_mask: Tensor, targets: Optional[list[dict[str, Any]]] = None,
                need_weights: bool = False) -> dict[str, Any]:
        check_input(images, pad_mask)
        src, weight = self.input_proj(self.backbone(images)), self.query_embed.weight  # (B,D,h,w), (Q,D)
        cell_mask = shrink_mask(pad_mask, *src.shape[2:])  # (B,h,w)
        pos_embed = sine_encoding(cell_mask, self.config.hidden_dim // 2, dtype=weight.dtype)  # (B,D,h,w)
        hs, attention = self.transformer(src, cell_mask, weight, pos_embed, need_weights)  # (L,B,Q,D)
        # The heads, 0.3 % of the work, leave autocast: between 0.5 and 1 bf16 counts in steps of 1/256, which are 2.5
        # pixels of an image 640 wide.
        exact = torch.promote_types(weight.dtype, torch.float32)
        with nullcontext() if hs.is_meta else torch.autocast(hs.device.type, enabled=False):
            hs = hs.to(weight.dtype)
            logits, boxes = self.class_embed(hs).to(exact), sigmoid(self.bbox_embed(hs).to(exact))
        outputs = self._as_outputs(logits, boxes)  # (L,B,Q,K+1), (L,B,Q,4)
        return {**outputs, "attention": attention} if need_weights else outputs

    def _as_outputs(self, logits: Tensor, boxes: Tensor) -> dict[str, Any]:
        """(L,B,Q,·) and (L,B,Q,4) → the official dict."""
        *aux, last = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes)]
        return {**last, "aux_outputs": aux} if self.config.aux_loss else last


def check_input(images: Tensor, pad_mask: Tensor) -> None:
    """Raise ValueError or TypeError unless images are float (B,3,H,W) and pad_mask is bool (B,H,W)."""
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; wanted (B,3,H,W): convert to RGB and stack them")
    if not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}; wanted normalised floats: Batch.normalised() gives them")
    if pad_mask.dtype != torch.bool:
        raise TypeError(f"pad_mask is {pad_mask.dtype}; wanted torch.bool, True where a pixel is padding")
    if pad_mask.shape != images[:, 0].shape:
        raise ValueError(f"pad_mask has shape {tuple(pad_mask.shape)}; wanted {tuple(images[:, 0].shape)}: one a pixel")


def shrink_mask(pad_mask: Tensor, h: int, w: int) -> Tensor:
    """pad_mask (B,H,W) → (B,h,w): cell (i,j) is padding if pixel (⌊i·H/h⌋, ⌊j·W/w⌋) is ("nearest" interpolation)."""
    B, H, W = pad_mask.shape
    rows, columns = (torch.arange(to, device=pad_mask.device) * of // to for to, of in ((h, H), (w, W)))  # (h), (w)
    return pad_mask[:, rows[:, None], columns]  # (B,h,w)


def freeze_backbone(model: Detr, train_backbone: str) -> None:
    """Choose which weights of the backbone learn: "all", "none" or, as published, "stages_2_to_4": the stem and stage 1
    keep their ImageNet weights, and the largest feature maps need no gradient. Running statistics (norm = "batch")
    still change. Another word raises ValueError."""
    if train_backbone not in ("all", "stages_2_to_4", "none"):
        raise ValueError(f'train_backbone is {train_backbone!r}; it must be "all", "stages_2_to_4" or "none"')
    for name, parameter in model.backbone.named_parameters():
        early = name.startswith(("conv1.", "bn1.", "layer1."))
        parameter.requires_grad_(train_backbone == "all" or (train_backbone == "stages_2_to_4" and not early))
