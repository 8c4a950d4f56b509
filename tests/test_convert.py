"""Official weights load whole or not at all, and leave again letter for letter."""

from __future__ import annotations

import pytest
import torch

from scratch.config import ModelConfig
from scratch.weights.convert import from_official, load_official, to_official
from scratch.model.detr import Detr

SMALL = ModelConfig(backbone="resnet_tiny", hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=1, dec_layers=2,
                    num_queries=5, num_classes=3)


@pytest.fixture
def official() -> dict:
    """What the official code would save for a model of this shape."""
    return to_official(Detr(SMALL).state_dict())


def test_the_backbone_alone_changes_its_name(official):
    ours = Detr(SMALL).state_dict()
    renamed = {key for key in ours if key.startswith("backbone.")}
    assert set(official) == {key.replace("backbone.", "backbone.0.body.", 1) for key in renamed} | (set(ours) - renamed)


def test_a_round_trip_keeps_every_key_its_order_and_the_tensor_itself(official):
    there_and_back = to_official(from_official(official))
    assert list(there_and_back) == list(official)
    assert all(there_and_back[key] is official[key] for key in official)


def test_loading_copies_every_bit(official):
    model = Detr(SMALL)
    load_official(model, official)
    saved = to_official(model.state_dict())
    assert list(saved) == list(official) and all(torch.equal(saved[key], official[key]) for key in official)


def test_a_trained_batch_norm_loads_the_official_statistics_and_keeps_its_counter(official):
    model = Detr(ModelConfig(**{**vars(SMALL), "norm": "batch"}))
    model.backbone.bn1.num_batches_tracked.fill_(7)
    load_official(model, official)
    assert model.backbone.bn1.num_batches_tracked == 7
    assert torch.equal(model.backbone.bn1.running_var, official["backbone.0.body.bn1.running_var"])


def test_a_trained_batch_norm_leaves_without_its_counter(official):
    assert set(to_official(Detr(ModelConfig(**{**vars(SMALL), "norm": "batch"})).state_dict())) == set(official)


def test_missing_unexpected_and_misshapen_keys_are_counted_and_named(official):
    for key in [key for key in official if key.startswith("bbox_embed.layers")]:
        del official[key]
    official["extra.weight"] = torch.zeros(2)
    official["query_embed.weight"] = torch.zeros(100, 12)
    with pytest.raises(ValueError) as error:
        load_official(Detr(SMALL), official)
    message = str(error.value)
    assert ("6 missing: bbox_embed.layers.0.weight, bbox_embed.layers.0.bias, bbox_embed.layers.1.weight "
            "and 3 more") in message
    assert "1 unexpected: extra.weight" in message
    assert "1 misshapen: query_embed.weight is (100, 12), wanted (5, 12)" in message


def test_a_refused_load_changes_nothing(official):
    model = Detr(SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    del official["class_embed.bias"]
    with pytest.raises(ValueError, match="1 missing: class_embed.bias"):
        load_official(model, official)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("other", [{}, {"model": {}}, {"backbone.conv1.weight": torch.zeros(1)}])
def test_what_is_not_an_official_state_dict_is_refused(other):
    with pytest.raises(ValueError, match=r'wanted the official DETR.s.*"backbone\.0\.body\.…"'):
        from_official(other)


def test_what_is_already_official_cannot_be_made_official(official):
    with pytest.raises(ValueError, match="wanted this project's"):
        to_official(official)
