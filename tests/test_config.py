"""The configuration: what it says of a network before there is one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scratch.config import (
    MOST_PARAMETERS, PRESETS, DataConfig, LossConfig, ModelConfig, memory_here, parameters_of, refuse_what_does_not_fit)
from scratch.model import build
from scratch.model.build import build_detr

SMALL = ModelConfig(backbone="resnet_tiny", norm="batch", hidden_dim=24, nheads=3, dim_feedforward=17, enc_layers=2,
                    dec_layers=3, num_queries=7, num_classes=5)
FOCAL = replace(SMALL, classification="focal")
NETWORKS = {
    **{name: PRESETS[name].model for name in ("tiny", "detr_r50", "detr_r101_dc5", "detr_141m_fast")},
    "softmax": SMALL, "focal": FOCAL, "frozen": replace(SMALL, norm="frozen_batch", backbone="resnet18"),
    "group norm": replace(SMALL, norm="group", backbone="resnet34", dilation=True),
    "no encoder": replace(SMALL, enc_layers=0, dec_layers=1, groups=3),
    "anchors": replace(FOCAL, queries="anchor", groups=3, dilation=True, fine_memory=True),
    "proposals": replace(FOCAL, queries="proposal", groups=3, fine_memory=True, roi_features=True),
    "one to many": replace(FOCAL, queries="proposal", one_to_many=2),
    "denoising": replace(FOCAL, queries="proposal", denoising=2), "resnet152": replace(SMALL, backbone="resnet152"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parameters_are_counted_without_building_the_network(name):
    with torch.device("meta"):  # shapes without memory
        model = build_detr(NETWORKS[name])
    assert parameters_of(NETWORKS[name]) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("values", [
    {"hidden_dim": 8192}, {"dim_feedforward": 65_536, "enc_layers": 100, "hidden_dim": 512},
    {"num_classes": 100_000, "hidden_dim": 8192, "enc_layers": 0, "dec_layers": 1}])
def test_a_network_that_no_memory_should_be_asked_for_is_refused_with_its_size(values):
    with pytest.raises(ValueError, match=r"got a network of [\d,]+ parameters .* wanted 1,000,000,000 at most"):
        replace(SMALL, **{"nheads": 4, **values})


def test_the_largest_preset_is_far_from_the_limit():
    assert max(parameters_of(config.model) for config in PRESETS.values()) * 6 < MOST_PARAMETERS


def test_so_many_queries_in_groups_that_their_mask_fits_no_memory_are_refused():
    with pytest.raises(ValueError, match="groups = 1000 of num_queries = 100, wanted 20,000"):
        replace(SMALL, groups=1000, num_queries=100)


@pytest.mark.parametrize("names", [("set_cost_class", "set_cost_bbox", "set_cost_giou"),
                                   ("ce_loss_coef", "bbox_loss_coef", "giou_loss_coef")])
def test_weights_that_are_all_zero_are_refused(names):
    with pytest.raises(ValueError, match=f"got 0 for each of {', '.join(names)}"):
        LossConfig(**dict.fromkeys(names, 0.0))
    assert LossConfig(**dict.fromkeys(names[:2], 0.0))


def test_a_network_that_the_machine_cannot_hold_is_refused_before_it_is_built(monkeypatch):
    refuse_what_does_not_fit(PRESETS["detr_r50"].model, 4 * 41_524_768)
    refuse_what_does_not_fit(PRESETS["detr_r50"].model, None)
    with pytest.raises(ValueError, match=r"41,524,768 parameters, 0.15 GiB, and there are 0.093 GiB of memory"):
        refuse_what_does_not_fit(PRESETS["detr_r50"].model, 10**8)
    monkeypatch.setattr(build, "memory_here", lambda: 10**6)
    monkeypatch.setattr(build, "variant", None)
    with pytest.raises(ValueError, match="take a smaller one"):
        build_detr("tiny")


def test_the_memory_of_this_machine_is_known_or_not_asked_for():
    assert memory_here() is None or memory_here() > 2**26


def test_another_folder_is_not_overruled_by_explicit_paths_of_before():
    before = DataConfig("a", train_images="b", train_annotations="c", val_images="d", val_annotations="e", max_dets=7)
    assert before.in_folder("f") == DataConfig("f", max_dets=7)


@pytest.mark.parametrize("changed, words", [
    ({}, ""), ({"num_queries": 11, "hidden_dim": 48, "norm": "group"}, ""), ({"groups": 3}, "groups = 3"),
    ({"classification": "focal", "queries": "anchor"}, "queries = anchor, classification = focal"),
    ({"fine_memory": True, "denoising": 2}, "fine_memory = True, denoising = 2")])
def test_what_the_published_detr_has_not_is_named(changed, words):
    assert replace(SMALL, **changed).beyond_published() == words


@pytest.mark.parametrize("queries, short_side, found", [
    ("proposal", 256, 64), ("proposal", 128, 16), ("proposal", 129, 25), ("proposal", 512, 100), ("anchor", 128, 100)])
def test_no_more_objects_are_found_than_there_are_queries_and_cells_that_propose_them(queries, short_side, found):
    big = PRESETS["detr_141m_fast"]
    big = replace(big, model=replace(big.model, queries=queries), data=replace(big.data, short_side=short_side))
    assert (big.model.num_queries, big.most_found) == (100, found)
