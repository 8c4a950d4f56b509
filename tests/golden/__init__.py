"""golden: weights and images that follow from a rule, so that the official DETR's stored outputs need no weights.

A golden file holds what the official implementation computed (float32, CPU, eval mode) for weights, images and targets
that anybody can make again: seeded normal draws, scaled so that activations stay alive from the first layer to the
last. README.md beside this file states the rule; recompute.py computes the values again from the official code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parent
NAMES = ("detr_resnet50", "detr_resnet50_dc5", "detr_resnet101")
# About ten times the stored values' own distance from float64 (recompute.py shows it): what a faithful implementation
# stays within. The norms' distance is relative; post_scores are held as logits are; post_boxes are pixels of an image
# 640 wide.
LOGITS, BOXES, LOSSES, NORMS = 5e-5, 4e-6, 2e-4, 1.1e-3
PIXELS = 640 * BOXES
# The first decoder layer's input is zero, so the gradient of what its queries and keys are made of is rounding noise.
NOISE = "transformer.decoder.layers.0.self_attn.in_proj_weight"


def read(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The facts (sizes, targets, losses, gradient norms) and the arrays (outputs) of one golden file."""
    with np.load(folder / f"{name}.npz") as arrays:
        return json.loads((folder / f"{name}.json").read_text()), dict(arrays)


def weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The official-format state dict: key number i, in sorted order, is drawn from seed i and scaled by its name."""
    return {key: torch.from_numpy(_weight(key, shapes[key], i)) for i, key in enumerate(sorted(shapes))}


def _weight(key: str, shape: list[int], seed: int) -> np.ndarray:
    r = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        return 1 + np.float32(0.2) * np.abs(r)
    if key.endswith("running_mean"):
        return np.float32(0.1) * r
    if "query_embed" in key:
        return r
    if len(shape) >= 2:
        if "in_proj_weight" in key:
            gain = 3.0
        elif "encoder" in key and ("out_proj" in key or "linear2" in key):
            gain = 0.2
        else:
            gain = 3.0 if "out_proj" in key else 1.0
        return np.float32(gain) * r / np.sqrt(np.float32(np.prod(shape[1:])))
    if key.endswith(".weight"):
        return np.float32(0.3 if ".bn3." in key else 1.0) + np.float32(0.05) * r
    return np.float32(0.05) * r


def batch(sizes: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Already normalised images (B,3,H,W), coarse blocks plus fine noise, and pad_mask (B,H,W), True where padded."""
    height, width = (max(axis) for axis in zip(*sizes))
    images = torch.zeros(len(sizes), 3, height, width)
    pad_mask = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for i, (h, w) in enumerate(sizes):
        g = np.random.RandomState(1000 + i)
        coarse = (3 * g.standard_normal((3, h // 32, w // 32))).astype(np.float32)
        fine = (0.1 * g.standard_normal((3, h, w))).astype(np.float32)
        images[i, :, :h, :w] = torch.from_numpy(np.kron(coarse, np.ones((1, 32, 32), np.float32)) + fine)
        pad_mask[i, :h, :w] = False
    return images, pad_mask


def targets(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets as the criterion takes them; labels are COCO category ids, as in the official model."""
    return [{"labels": torch.tensor(t["labels"]), "boxes": torch.tensor(t["boxes"]), "image_id": i,
             "orig_size": tuple(size), "size": tuple(size)}
            for i, (t, size) in enumerate(zip(facts["targets"], facts["sizes"]))]
