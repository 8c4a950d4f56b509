"""detr: how does one network name a picture's objects, without anchors or removal of duplicates?

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

Parameter names are the official ones (`backbone.` for `backbone.0.body.`). Same as torch.nn, proven
in tests/test_reference.py; same as the official DETR, proven in tests/test_golden.py.
Read: MLP → Detr → build_detr
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Union

import torch
from torch import Tensor, nn

from scratch.config import PRESETS, Config, ModelConfig
from scratch.model.backbone import ResNet
from scratch.model.transformer import Transformer
from scratch.ops.activations import relu, sigmoid
from scratch.ops.conv2d import Conv2d
from scratch.ops.embedding import Embedding
from scratch.ops.linear import Linear
from scratch.ops.precision import without_autocast
from scratch.ops.sine_encoding import sine_encoding


class MLP(nn.Module):
    """x (…,input_dim) → (…,output_dim) through `num_layers` linear layers with relu between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList([Linear(n, m) for n, m in zip(widths, widths[1:])])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)


class Detr(nn.Module):
    """images float (B,3,H,W), normalised, and pad_mask bool (B,H,W), True = padding → the official output dict.

    pred_logits   (B,Q,K+1)   of the last decoder layer; column K is "no object"
    pred_boxes    (B,Q,4)     cx, cy, w, h in [0,1] of the unpadded image
    aux_outputs   a list of the same two for the decoder layers before it (left out where config.aux_loss is False)
    attention     with need_weights=True: see `Transformer`

    Logits and boxes are float32 (float64 in a float64 model) under any autocast.

    Raises ValueError or TypeError for a config that cannot be built and for input of another shape or dtype.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D = config.hidden_dim
        if config.nheads < 1 or D % config.nheads or D % 4:
            raise ValueError(f"hidden_dim is {D} with {config.nheads} heads; it must be a multiple of nheads, "
                             "and of 4 for the sines and cosines of two axes")
        for name, least in (("enc_layers", 0), ("dec_layers", 1), ("dim_feedforward", 1), ("num_queries", 1),
                            ("num_classes", 1)):
            if getattr(config, name) < least:
                raise ValueError(f"{name} is {getattr(config, name)}; it must be at least {least}")
        self.config = config
        self.backbone = ResNet(config.backbone, config.norm, config.dilation)
        self.input_proj = Conv2d(self.backbone.num_channels, D, 1)
        self.transformer = Transformer(D, config.nheads, config.enc_layers, config.dec_layers,
                                       config.dim_feedforward, config.dropout)
        self.query_embed = Embedding(config.num_queries, D)
        self.class_embed = Linear(D, config.num_classes + 1)
        self.bbox_embed = MLP(D, D, 4, 3)

    def forward(self, images: Tensor, pad_mask: Tensor, need_weights: bool = False) -> dict[str, Any]:
        check_input(images, pad_mask)
        weight = self.query_embed.weight
        features = self.backbone(images)  # (B,C,h,w)
        pad_mask = shrink_mask(pad_mask, *features.shape[2:])  # (B,h,w)
        pos_embed = sine_encoding(pad_mask, self.config.hidden_dim // 2, dtype=weight.dtype)  # (B,D,h,w)
        src = self.input_proj(features)  # (B,D,h,w)
        hs, attention = self.transformer(src, pad_mask, weight, pos_embed, need_weights)  # (L,B,Q,D)

        # The heads, 0.3 % of the work, leave autocast: between 0.5 and 1 bf16 counts in steps of 1/256, which are 2.5
        # pixels of an image 640 wide.
        exact = torch.promote_types(weight.dtype, torch.float32)
        with without_autocast(hs):
            hs = hs.to(weight.dtype)
            logits = self.class_embed(hs).to(exact)  # (L,B,Q,K+1)
            boxes = sigmoid(self.bbox_embed(hs).to(exact))  # (L,B,Q,4)

        *aux, last = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes)]
        outputs: dict[str, Any] = last
        if self.config.aux_loss:
            outputs["aux_outputs"] = aux
        if need_weights:
            outputs["attention"] = attention
        return outputs


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

    Raises ValueError for an unknown name or field, TypeError for another kind of preset.
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
    return Detr(replace(config, **overrides))


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
