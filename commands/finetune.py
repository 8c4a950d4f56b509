"""finetune: how does a new detector begin where a trained one ended?

    --weights NAME|FILE ─▶ config_for   which network they are weights of
                           recipe       how it is trained further
                           begin_with   all of it that fits the new task; what came of each part

A detector of 3 classes needs nothing of COCO's 91 but what lies under the class head: how edges,
parts and objects look, and how queries share a picture out. So one begins with the published
weights, keeps the backbone as it is (23.5 of detr_r50's 41.5 million parameters, and most of the
memory and time of a backward pass), and teaches the rest. Proven in tests/test_finetune.py.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Optional

from torch import nn

from scratch.config import PRESETS, Config, TrainConfig
from scratch.data.classes import Classes
from scratch.detector import published_name
from scratch.training.distributed import Distributed
from scratch.weights.reading import adapt, find_weights, is_name, read_weights
from scratch.weights.whole import PRESET_WITH, as_told, config_of, differing, frozen_norm, taken_as


def recipe(config: Config) -> Config:
    """The configuration, trained as the published notebooks fine-tune DETR: a frozen backbone and a batch of 16.

    The rates (1e-4, 1e-5), AdamW's decay (1e-4), the clipping (0.1) and mixed precision are those of the paper, and so
    the defaults of `TrainConfig`. The batch comes as 4 × 4: with frozen norms that is the batch of 16, image for image,
    in a quarter of the memory and with less padding. Fewer queries than the weights have: --num-queries (--queries says
    of which kind they are).
    """
    return replace(config, model=frozen_norm(config).model,
                   train=TrainConfig(epochs=20, batch_size=4, accumulate=4, train_backbone="none"))


def config_for(name: str) -> Optional[Config]:
    """The configuration that weights ask for: a preset, or a checkpoint's own without its data; None if unknown.

    Over an ImageNet backbone, the preset's batch norm is frozen. Where a file does not say what it is, what it is taken
    as is printed. Raises what `find_weights` and `read_weights` raise, for a file.
    """
    if preset := preset_of(name):
        return frozen_norm(PRESETS[preset]) if preset in PRESETS else None
    weights = read_weights(find_weights(name))
    config = config_of(weights)
    guessed = config and weights.config is None and weights.kind != "torchvision ResNet"
    if guessed and os.environ.get("RANK", "0") == "0":
        print(taken_as(config, weights))
    return config


def preset_of(name: str) -> Optional[str]:
    """The preset that a name means: one of NAMED (itself, where there is none for it), or a published file's own."""
    return PRESET_WITH.get(name, name) if is_name(name) else published_name(name)


def sized(config: Config, name: str) -> Config:
    """A preset that was named beside a file of weights, in the file's sizes: flags may change them again.

    What differs is printed. Raises what `find_weights` and `read_weights` raise, for a file.
    """
    if preset_of(name):
        return config
    changed = as_told(config, read_weights(find_weights(name)))
    if changed != config and os.environ.get("RANK", "0") == "0":
        print(f"of {name}, not of the preset: {differing(changed, config)}")
    return changed


def begin_with(model: nn.Module, name: str, distributed: Distributed, classes: Classes) -> str:
    """Copy named weights into the model of these classes, as far as they fit; what came of each part, in words.

    One rank fetches while the others wait, and then find the file; those of another machine fetch it there.
    """
    if not distributed.is_main:
        distributed.barrier()
    path = find_weights(name)
    if distributed.is_main:
        distributed.barrier()
    weights = read_weights(path)
    return "\n".join([str(path), *weights.notes, adapt(model, weights, classes.names).text()])
