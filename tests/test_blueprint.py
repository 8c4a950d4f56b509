"""blueprint: the tensors of a detector are known from its configuration, before any memory is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scratch.blueprint import blueprint, read_state
from scratch.config import PRESETS, Config, ModelConfig
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.training.checkpoint import save_checkpoint
from tests.test_weights import ABC, ANCHORS, PROPOSALS, SMALL


def layers(config: ModelConfig) -> list[str]:
    """A name for each layer, as a file has them."""
    return [f"transformer.{part}.layers.{i}.norm1.weight" for part, count in
            (("encoder", config.enc_layers), ("decoder", config.dec_layers)) for i in range(count)]


@pytest.mark.parametrize("changes", [{}, {"norm": "batch"}, {"norm": "group"}, {"dilation": True}], ids=str)
@pytest.mark.parametrize("config", [SMALL, ANCHORS, PROPOSALS], ids=["learned", "anchor", "proposal"])
def test_it_has_the_names_shapes_and_types_of_the_model_and_no_number(config: ModelConfig, changes: dict[str, Any]):
    config = replace(config, **changes)
    wanted, found = build_detr(config).state_dict(), blueprint(config, layers(config))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in wanted.items()}
    assert {tensor.device.type for tensor in found.values()} == {"meta"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_read(name: str):
    config = PRESETS[name].model
    assert len(blueprint(config, layers(config))) > 200


@pytest.mark.parametrize("config", [SMALL, ANCHORS, PROPOSALS], ids=["learned", "anchor", "proposal"])
@pytest.mark.parametrize("field, value, said", [
    ("num_queries", 10_001, "got num_queries = 10001"), ("groups", 1_001, "got groups = 1001"),
    ("denoising", 10_001, "got denoising = 10001"), ("num_classes", 10**9, "got num_classes = 1000000000"),
    ("num_classes", 2**62, "got num_classes"), ("dim_feedforward", 10**9, "got dim_feedforward = 1000000000"),
    ("hidden_dim", 12 * 10**8, "got hidden_dim"), ("hidden_dim", 12 * 2**60, "got hidden_dim"),
    ("enc_layers", 10**6, "enc_layers"), ("dec_layers", 3, "are of 2 such layers"),
    ("hidden_dim", 0, "got hidden_dim = 0"), ("hidden_dim", -12, "got hidden_dim = -12"),
])
def test_what_no_memory_holds_is_refused_without_asking_for_it(config: ModelConfig, field: str, value: int, said: str):
    with pytest.raises(ValueError, match=said):
        blueprint(replace(config, **{field: value}), layers(config))


def test_a_checkpoint_is_read_whole_and_its_training_only_where_it_is_wanted(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"config": Config(model=SMALL).to_dict(), "classes": ABC, "ema": None,
                                        "model": Detr(SMALL).state_dict(), "last_metrics": {}})
    assert read_state(tmp_path / "a.pt")["classes"] == ABC
    with pytest.raises(ValueError, match="a.pt cannot be used as a checkpoint: it holds a detector without its"):
        read_state(tmp_path / "a.pt", training=True)
