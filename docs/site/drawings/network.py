"""network: a residual block and the stages of ResNet-50, the layers of the transformer, and the whole detector."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import nn

from docs.site.drawings.drawing import Canvas, drawing
from scratch.config import PRESETS
from scratch.model.backbone import Bottleneck, ResNet
from scratch.model.detr import Detr
from scratch.model.transformer import TransformerDecoderLayer, TransformerEncoderLayer

HIGH, WIDE, QUERIES = 600, 640, 100  # the image of the notes' figures


def weights_of(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


@lru_cache(maxsize=1)
def stages() -> list[tuple[str, tuple[int, int, int], str]]:
    """Name, shape (C,h,w) of the result for an image of 600×640, and weights of each stage of ResNet-50.

    On the "meta" device: shapes are computed, numbers are not.
    """
    with torch.device("meta"):
        network = ResNet("resnet50")
        maps = network.stages(torch.empty(1, 3, HIGH, WIDE))
    layers = (network.layer1, network.layer2, network.layer3, network.layer4)
    return [(f"layer{i}", tuple(m.shape[1:]), weights_of(layer)) for i, (layer, m) in enumerate(zip(layers, maps), 1)]


@lru_cache(maxsize=1)
def detector() -> tuple[Detr, dict[str, tuple[int, ...]]]:
    """detr_r50 without numbers, and the shapes of what it computes from one image of 600×640."""
    with torch.device("meta"):
        model = Detr(PRESETS["detr_r50"].model).eval()
        features = model.backbone(torch.empty(1, 3, HIGH, WIDE))
        src = model.input_proj(features)
        hs, _ = model.transformer(src, torch.zeros(1, *src.shape[2:], dtype=torch.bool), model.query_embed.weight,
                                  torch.empty_like(src))
        found = {"features": features, "src": src, "hs": hs, "logits": model.class_embed(hs),
                 "boxes": model.bbox_embed(hs)}
    return model, {name: tuple(value.shape) for name, value in found.items()}


def shape(numbers: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, numbers))})"


def paint_backbone(canvas: Canvas) -> None:
    with torch.device("meta"):
        block = Bottleneck(256, 64, 1, 1, "frozen_batch")
    canvas.text(8, 18, "a bottleneck block: three convolutions", 12.5, "start", bold=True)
    parts = [("×".join(map(str, conv.weight.shape[2:])), conv.weight.shape[0])
             for conv in (block.conv1, block.conv2, block.conv3)]
    canvas.text(16, 84, "x", 14, bold=True)
    canvas.text(16, 100, f"{block.conv1.weight.shape[1]}", 11.5, colour="soft")
    previous = 26.0
    for k, (kernel, filters) in enumerate(parts):
        x = 52 + 84 * k
        canvas.line([(previous, 80), (x, 80)], arrow=True)
        canvas.box(x, 58, 62, 44, [f"conv {kernel}", f"→ {filters}"], "blue")
        previous = x + 62
    canvas.circle(306, 80, 11, stroke="orange", thick=1.6)
    canvas.text(306, 85, "+", 15, colour="orange")
    canvas.line([(previous, 80), (294, 80)], arrow=True)
    canvas.line([(36, 80), (36, 38), (306, 38), (306, 68)], "orange", 1.8, arrow=True)
    canvas.text(171, 34, "residual (skip) connection", 12, colour="orange")
    canvas.line([(318, 80), (350, 80)], arrow=True)
    canvas.text(335, 72, "relu", 11.5)
    canvas.text(180, 120, "norm after each convolution, relu after the first two", 11.5, colour="soft")

    canvas.text(8, 152, f"ResNet-50 on an image of {HIGH}×{WIDE}", 12.5, "start", bold=True)
    for k, (name, (channels, h, w), weights) in enumerate(stages()):
        y = 164 + 50 * k
        canvas.text(8, y + 26, name, 12.5, "start")
        high = 40 * h / stages()[0][1][1]
        canvas.rect(66, y + 21 - high / 2, high * w / h, high, "blue", "blue", 0.3)
        deep = 70 * math.log2(channels / 128) / 4
        canvas.rect(116, y + 15, deep, 12, "orange", "orange", 0.35)
        canvas.text(196, y + 19, shape((channels, h, w)), 12.5, "start")
        canvas.text(196, y + 35, f"{weights} weights", 11.5, "start", "soft")
    canvas.text(86, 376, "size", 11.5, colour="blue")
    canvas.text(150, 376, "channels", 11.5, colour="orange")


def paint_transformer(canvas: Canvas) -> None:
    D, F, N, L = 256, 2048, 8, 6
    with torch.device("meta"):
        encoder, decoder = TransformerEncoderLayer(D, N, F), TransformerDecoderLayer(D, N, F)
    h, w = detector()[1]["src"][2:]
    left, right, wide = 12, 196, 152

    def add_and_norm(x: float, y: float, top: float) -> None:
        """A residual connection from `top` around a block to the sum below it."""
        canvas.box(x + 46, y, 60, 22, ["+  norm"], "ink", 11.5)
        canvas.line([(x + wide / 2, top), (x + 6, top), (x + 6, y + 11), (x + 44, y + 11)], "orange", 1.6, arrow=True)

    def block(x: float, y: float, words: list[str], weights: str, colour: str) -> None:
        top = y - 9
        canvas.line([(x + wide / 2, y - 16), (x + wide / 2, y)], arrow=True)
        canvas.box(x + 16, y, wide - 32, 42, [*words, weights], colour, 11.5, bold=True)
        canvas.line([(x + wide / 2, y + 42), (x + wide / 2, y + 54)], arrow=True)
        add_and_norm(x, y + 54, top)

    for x, title, words in ((left, f"encoder layer, {L} times", f"src ({h * w}, {D})"),
                            (right, f"decoder layer, {L} times", f"t ({QUERIES}, {D}), 0 at first")):
        canvas.text(x + wide / 2, 18, title, 13, bold=True)
        canvas.text(x + wide / 2, 36, words, 12)
    block(left, 60, ["self-attention"], weights_of(encoder.self_attn), "blue")
    feed = nn.ModuleList([encoder.linear1, encoder.linear2])
    block(left, 160, ["feed-forward"], weights_of(feed), "green")
    canvas.text(left + wide / 2, 258, f"memory ({h * w}, {D})", 12)
    canvas.text(left + wide / 2, 300, f"{weights_of(encoder)}", 12.5)
    canvas.text(left + wide / 2, 316, "weights a layer", 11.5, colour="soft")
    block(right, 60, ["self-attention"], weights_of(decoder.self_attn), "blue")
    block(right, 160, ["cross-attention"], weights_of(decoder.multihead_attn), "violet")
    block(right, 260, ["feed-forward"], weights_of(nn.ModuleList([decoder.linear1, decoder.linear2])), "green")
    canvas.line([(left + wide / 2, 238), (left + wide / 2, 246)])
    canvas.line([(left + 134, 254), (184, 254), (184, 181), (right + 15, 181)], "violet", 1.8, arrow=True)
    canvas.text(right + wide / 2, 356, "hs: one result a layer", 12)
    canvas.text(right + wide / 2, 376, f"{weights_of(decoder)}", 12.5)
    canvas.text(right + wide / 2, 392, "weights a layer", 11.5, colour="soft")
    canvas.text(left, 350, "orange: residual (skip)", 11.5, "start", "orange")
    canvas.text(left, 365, "connection, then layer norm", 11.5, "start", "orange")
    canvas.text(left, 388, f"D = {D}, F = {F:,}, N = {N} heads", 11.5, "start", "soft")


def paint_detr(canvas: Canvas) -> None:
    model, found = detector()
    steps = [
        ("backbone", "ResNet-50", model.backbone, (*found["features"][1:],), "blue"),
        ("input_proj", "1×1 convolution", model.input_proj, (*found["src"][1:],), "blue"),
        ("encoder", "+ positional encoding", model.transformer.encoder,
         (found["src"][2] * found["src"][3], found["src"][1]), "green"),
        ("decoder", f"{QUERIES} object queries", model.transformer.decoder, found["hs"][2:], "violet"),
    ]
    canvas.text(100, 18, f"image (3, {HIGH}, {WIDE})", 13, bold=True)
    canvas.text(192, 18, "shape of the result", 12, "start", "soft")
    for k, (name, words, module, result, colour) in enumerate(steps):
        y = 34 + 66 * k
        canvas.line([(100, y - 10), (100, y)], arrow=True)
        canvas.box(20, y, 160, 36, [name, words], colour, 12, bold=True)
        canvas.text(192, y + 15, shape(result), 12.5, "start")
        canvas.text(192, y + 31, f"{weights_of(module)} weights", 11.5, "start", "soft")
        canvas.line([(100, y + 36), (100, y + 56)], "ink")
    y = 300
    canvas.line([(100, 290), (70, 310)], arrow=True)
    canvas.line([(100, 290), (256, 310)], arrow=True)
    for x, name, module, result in ((8, "class_embed", model.class_embed, found["logits"][2:]),
                                    (186, "bbox_embed, sigmoid", model.bbox_embed, found["boxes"][2:])):
        canvas.box(x, y + 12, 166, 36, [name, f"{weights_of(module)} weights"], "orange", 12, bold=True)
        words = "logits" if x == 8 else "boxes"
        canvas.text(x + 83, y + 66, f"{words} {shape(result)}", 12.5)
    canvas.text(180, 388, f"{weights_of(model)} weights with the {QUERIES} queries", 12.5, bold=True)


BACKBONE = drawing(
    "backbone", "A residual block, and how the feature map shrinks and deepens",
    "A bottleneck block of three convolutions with a skip connection around them; the four stages of ResNet-50 with "
    "their shapes: each halves height and width and doubles the channels.", 386, paint_backbone)
TRANSFORMER = drawing(
    "transformer", "One encoder layer and one decoder layer, with their weights",
    "The encoder layer: self-attention and feed-forward network, each with a skip connection and a layer norm. The "
    "decoder layer has a cross-attention to the encoder's memory between the two.", 402, paint_transformer)
DETR = drawing(
    "detr", "From an image to 100 predictions: shapes and weights of detr_r50",
    "Image, backbone, 1×1 convolution, encoder, decoder with 100 object queries, class head and box head, each with "
    "the shape of its result and its number of weights.", 400, paint_detr)
