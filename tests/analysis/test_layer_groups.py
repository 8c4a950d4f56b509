"""Every weight of every preset has one place with a name, and every place can be looked at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scratch.analysis.layer_groups import Unit, layer_units, page_of
from scratch.config import PRESETS
from scratch.model.build import build_detr
from scratch.model.detr import Detr

SMALL = dict(hidden_dim=16, nheads=2, dim_feedforward=24, num_queries=7, num_classes=3)


def small(preset: str, **overrides: object) -> Detr:
    """A preset's model with narrow layers; of the deep backbones one is enough, they differ in depth alone."""
    backbone = {} if preset == "detr_r50" else {"backbone": "resnet_tiny"}
    return build_detr(preset, **{**SMALL, **backbone, **overrides})


@pytest.mark.parametrize("preset, overrides", [
    *((name, {}) for name in PRESETS),
    ("tiny", {"denoising": 2, "groups": 2}), ("tiny", {"queries": "anchor", "denoising": 2}),
    ("tiny", {"norm": "group"}),
])
def test_every_row_of_every_parameter_belongs_to_exactly_one_unit(preset: str, overrides: dict) -> None:
    model = small(preset, **overrides)
    owners = {name: torch.zeros(len(p), dtype=torch.int64) for name, p in model.named_parameters()}
    sizes = 0
    for unit in layer_units(model):
        for piece in (*unit.measured, *unit.beside):
            owners[piece.parameter][piece.start:piece.stop] += 1
            sizes += piece.size
    assert all((count == 1).all() for count in owners.values())
    assert sizes == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("preset", ["tiny", "tiny_vanilla"])
def test_what_a_unit_looks_at_is_there(preset: str) -> None:
    model = small(preset)
    for unit in layer_units(model):
        assert unit.measured, unit
        assert (unit.kind == "unseen") == (unit.module == "")
        assert isinstance(model.get_submodule(unit.module), nn.Module)
        assert unit.kind != "attention" or hasattr(model.get_submodule(unit.attention), "out_proj")


def groups_of(model: Detr) -> dict[str, list[Unit]]:
    groups: dict[str, list[Unit]] = {}
    for unit in layer_units(model):
        groups.setdefault(unit.group, []).append(unit)
    return groups


def test_the_groups_of_published_detr_have_the_names_that_a_person_would_guess() -> None:
    attention = ["query", "key", "value", "output"]
    assert list(groups_of(small("detr_141m"))) == [
        "backbone_stem", *(f"backbone_stage{i}" for i in (1, 2, 3, 4)), "input_proj",
        *(f"encoder_attention_{role}" for role in attention),
        "encoder_feed_forward_linear1", "encoder_feed_forward_linear2", "encoder_norm",
        *(f"decoder_self_attention_{role}" for role in attention),
        *(f"decoder_cross_attention_{role}" for role in attention),
        "decoder_feed_forward_linear1", "decoder_feed_forward_linear2", "decoder_norm",
        "query_embeddings", "class_head", "fnn_bbox_mlp_layer1", "fnn_bbox_mlp_layer2", "fnn_bbox_mlp_layer3"]


def test_the_further_ideas_bring_groups_of_their_own() -> None:
    more = set(groups_of(small("detr_141m_fast"))) - set(groups_of(small("detr_141m")))
    assert more == {"decoder_cross_attention_query_place", "decoder_cross_attention_key_place", "decoder_place",
                    "fine_memory", "proposal_head", "roi_features"}


def test_stacked_projections_are_told_apart() -> None:
    D = 16
    groups = groups_of(small("tiny"))
    for i, role in enumerate(("query", "key", "value")):
        unit = groups[f"encoder_attention_{role}"][1]
        assert unit.label == "layer 2" and (unit.part, unit.parts) == (i, 3)
        assert unit.measured == (("transformer.encoder.layers.1.self_attn.in_proj_weight", i * D, (i + 1) * D, D * D),)
    for i, role in enumerate(("key", "value")):  # in conditional attention, of the memory alone
        (piece,) = groups[f"decoder_cross_attention_{role}"][0].measured
        assert piece == ("transformer.decoder.layers.0.cross_attn.kv_content.weight", i * D, (i + 1) * D, D * D)


def test_biases_and_scales_stand_beside_a_matrix_and_a_norm_is_measured_by_its_scales() -> None:
    groups = groups_of(small("tiny_vanilla"))
    (stem,), block, norm = groups["backbone_stem"], groups["backbone_stage2"][0], groups["encoder_norm"][0]
    assert [piece.parameter for piece in stem.measured] == ["backbone.conv1.weight"]
    assert {piece.parameter for piece in stem.beside} == {"backbone.bn1.weight", "backbone.bn1.bias"}
    assert {piece.parameter.split(".", 3)[3] for piece in block.measured} == {
        "conv1.weight", "conv2.weight", "downsample.0.weight"}
    begin = "transformer.encoder.layers.0."
    assert [piece.parameter for piece in norm.measured] == [f"{begin}norm1.weight", f"{begin}norm2.weight"]


def test_the_class_head_says_which_function_its_scores_meet() -> None:
    assert groups_of(small("tiny_vanilla"))["class_head"][0].kind == "softmax"
    assert groups_of(small("tiny"))["class_head"][0].kind == "sigmoid"


def test_the_backbone_shares_a_page_and_so_does_a_feed_forward() -> None:
    pages = {page_of(group) for group in groups_of(small("tiny"))}
    assert {"backbone", "encoder_feed_forward", "encoder_attention_query", "fnn_bbox_mlp_layer2"} <= pages
    assert not any(page.endswith(("linear1", "stage1")) for page in pages)


def test_a_parameter_that_no_rule_knows_is_named() -> None:
    model = small("tiny_vanilla")
    model.temperature = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="parameter temperature, which no group knows.*add a rule"):
        layer_units(model)
