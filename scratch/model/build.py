"""build: which network does a configuration ask for?

    "detr_r50", a Config or a ModelConfig ─┬─ the published model     model/detr
                                           └─ what goes beyond it     model/anchors/detr

Too large a network is refused before its memory is asked for. Proven in tests/model/test_detr.py.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Union

from scratch.config import PRESETS, Config, ModelConfig, memory_here, refuse_what_does_not_fit
from scratch.model.anchors.detr import variant
from scratch.model.detr import Detr


def make_detr(config: ModelConfig) -> Detr:
    """The network of a configuration, published or not, whatever the memory."""
    if config.hidden_dim % config.nheads or config.hidden_dim % 4:
        raise ValueError(f"hidden_dim is {config.hidden_dim} with {config.nheads} heads; wanted a multiple of nheads, "
                         "and of 4 for the sines and cosines of two axes")
    return variant(config) or Detr(config)


def build_detr(preset: Union[str, Config, ModelConfig], **overrides: Any) -> Detr:
    """A `Detr` with random weights, all trainable: build_detr("detr_r50", num_classes=3).

    preset      a name of `scratch.config.PRESETS`, or a config; overrides: fields of ModelConfig that differ
    Raises ValueError (unknown name or field; weights too large for the memory) and TypeError (another kind of preset).
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise ValueError(f"no preset is called {preset!r}; known are {', '.join(PRESETS)}")
    preset = PRESETS[preset] if isinstance(preset, str) else preset
    config = preset.model if isinstance(preset, Config) else preset
    if not isinstance(config, ModelConfig):
        raise TypeError(f"got {type(preset).__name__}; wanted the name of a preset, a Config or a ModelConfig")
    known = [field.name for field in fields(ModelConfig)]
    if unknown := sorted(set(overrides) - set(known)):
        raise ValueError(f"a model has no {', '.join(unknown)}; known are {', '.join(known)}")
    refuse_what_does_not_fit(config := replace(config, **overrides), memory_here())
    return make_detr(config)
