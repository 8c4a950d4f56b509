"""whole: of which detector are the weights in a file?

    what the file tells                                     a checkpoint, config.json of the Hub, our safetensors
    else: the backbone's blocks ─▶ preset ─▶ its sizes      D, F, layers, queries: the shapes show them
    shapes never show                                       heads (8, as published); dilation: --preset detr_r50_dc5

Proven in tests/test_finetune.py and tests/test_convert_command.py.
Read: backbone_of → as_told → config_of → whole_config
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from scratch.config import PRESETS, Config, DataConfig
from scratch.weights.reading import Weights, backbone_among

# The preset that is meant when only a backbone is named.
PRESET_WITH = {"resnet50": "detr_r50", "resnet101": "detr_r101", "resnet152": "detr_141m"}


def backbone_of(weights: Weights) -> Optional[str]:
    """The name in RESNETS of the backbone among the weights, told by its blocks; None if there is none like it."""
    return backbone_among(weights.tensors)


def as_told(config: Config, weights: Weights) -> Config:
    """`config` with the sizes that the weights of a detector on its backbone have, in place of its own.

    How many heads there are, no shape tells: as many as the file's configuration or arguments or `config` says, or 8 as
    published where a width is not divided by those.
    """
    tensors, model = weights.tensors, config.model
    if weights.kind == "torchvision ResNet" or backbone_of(weights) != model.backbone:
        return config

    def rows(name: str) -> Optional[int]:
        return len(tensors[name]) if name in tensors and tensors[name].dim() else None

    def layers(part: str) -> Optional[int]:
        found = {key.split(".")[3] for key in tensors if key.startswith(f"transformer.{part}.layers.")}
        return len(found) or None

    queries = rows("query_embed.weight") or rows("refpoint_embed.weight")
    width = rows("input_proj.weight")
    told = {"hidden_dim": width, "dim_feedforward": rows("transformer.decoder.layers.0.linear1.weight"),
            "enc_layers": layers("encoder"), "dec_layers": layers("decoder"),
            "num_queries": queries and max(1, queries // model.groups),
            "nheads": weights.config["model"].get("nheads") if weights.config else
            weights.arguments.get("nheads") or
            (8 if width and width % max(1, model.nheads) and width % 8 == 0 else None)}
    return replace(config, model=replace(model, **{name: value for name, value in told.items() if value is not None}))


def differing(config: Config, other: Config) -> str:
    """The fields of the network that differ, with the values of the former: "num_queries=30, enc_layers=3"."""
    mine, theirs = config.to_dict()["model"], other.to_dict()["model"]
    return ", ".join(f"{name}={value}" for name, value in mine.items() if value != theirs[name])


def frozen_norm(config: Config) -> Config:
    """A trained batch norm becomes a constant: 4 images of another kind would only blur what many have measured."""
    if config.model.norm != "batch":
        return config
    return replace(config, model=replace(config.model, norm="frozen_batch", zero_init_residual=False))


def config_of(weights: Weights) -> Optional[Config]:
    """The configuration that weights ask for, in their own sizes; None if nothing tells. DC5 changes no shape, but the
    arguments that the official script saves tell of it; else see `taken_as`."""
    if weights.config is not None:
        config = Config.from_dict(weights.config)
        which = ("data", "train_images", "train_annotations", "val_images", "val_annotations", "eval_split", "classes",
                 "limit_train", "limit_val")
        anew = {name: getattr(DataConfig(), name) for name in which}  # how images are shown stays
        return replace(config, data=replace(config.data, **anew))
    preset = PRESET_WITH.get(backbone_of(weights) or "")
    if preset is None:
        return None
    if weights.arguments.get("dilation") and f"{preset}_dc5" in PRESETS:
        preset = f"{preset}_dc5"
    return frozen_norm(PRESETS[preset]) if weights.kind == "torchvision ResNet" else as_told(PRESETS[preset], weights)


def taken_as(config: Config, weights: Weights) -> str:
    """What is said of a file that does not say what it is: no shape tells whether it was trained dilated."""
    dilated = f"{config.preset}_dc5"
    sizes = differing(config, PRESETS[config.preset])
    if "dilation" in weights.arguments:
        return f"taken as {config.preset}, by the arguments in the file" + (f", with {sizes}" if sizes else "")
    return (f"the file does not say what it is: taken as {config.preset}" + (f" with {sizes}" if sizes else "")
            + (f"; if it was trained dilated, add --preset {dilated}" if dilated in PRESETS else ""))


def whole_config(weights: Weights, preset: Optional[str]) -> Config:
    """The configuration of a detector: its file's own, or that of a preset with the file's queries and classes.

    Raises ValueError for weights that are no detector's, and where nothing tells what they are.
    """
    if weights.kind == "torchvision ResNet":
        raise ValueError("these weights are a backbone's alone: there is no detector to convert yet; train one with "
                         "--weights first")
    if weights.config is not None:
        config = Config.from_dict(weights.config)
        if preset not in (None, config.preset):
            raise ValueError(f"the file says that its weights are of {config.preset}, not {preset}: leave --preset out")
        return config
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; wanted one of {', '.join(PRESETS)}")
    config = as_told(PRESETS[preset], weights) if preset else config_of(weights)
    if config is None:
        raise ValueError("the file does not say what its weights are weights of: add --preset NAME, one of "
                         + ", ".join(PRESETS))
    rows = len(weights.tensors["class_embed.weight"]) - (config.model.classification == "softmax")
    return replace(config, model=replace(config.model, num_classes=rows))
