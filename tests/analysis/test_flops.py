"""Parameters and FLOPs by part: worked by hand, and the parts are the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scratch.analysis.flops import REST, flops_by_part, part_of, parts_table, size_by_part
from scratch.config import PRESETS
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.ops.conv2d import Conv2d
from scratch.ops.fast.switch import plain_mode
from scratch.ops.linear import Linear

SMALL = dict(backbone="resnet_tiny", hidden_dim=32, nheads=4, dim_feedforward=48, num_queries=5, num_classes=7)


def flops_of(model: Detr, height: int = 64, width: int = 96) -> dict[str, int]:
    images, pad_mask = torch.zeros(1, 3, height, width), torch.zeros(1, height, width, dtype=torch.bool)
    return flops_by_part(model.eval(), lambda: model(images, pad_mask))


def test_a_matrix_product_costs_two_flops_for_each_number_that_it_multiplies() -> None:
    model = nn.Module()
    model.class_embed = Linear(5, 7)
    x = torch.zeros(11, 5)
    assert flops_by_part(model, lambda: model.class_embed(x)) == {"heads": 2 * 11 * 5 * 7}


def test_a_convolutions_products_are_counted_with_the_windows_that_straddle_two_rows() -> None:
    model = nn.Module()
    model.backbone = Conv2d(17, 19, 3, padding=1, bias=False)
    x = torch.zeros(2, 17, 15, 17)
    # 9 taps over the 15 + 1 rows of 17 + 1 pixels of each image (ops/fast/shifted): the padding is shared by neighbours.
    with plain_mode(False):
        assert flops_by_part(model, lambda: model.backbone(x)) == {"backbone": 2 * 9 * (2 * 16 * 18) * 17 * 19}
    with plain_mode():  # without the straddling windows
        assert flops_by_part(model, lambda: model.backbone(x)) == {"backbone": 2 * 9 * (2 * 15 * 17) * 17 * 19}


@pytest.mark.parametrize("dec_layers", [1, 3])
def test_the_parts_of_a_published_detr_are_the_ones_worked_by_hand(dec_layers: int) -> None:
    model = build_detr("detr_r50", dec_layers=dec_layers, enc_layers=2, **SMALL)
    S, D, F, Q, L, C, K = 2 * 3, 32, 48, 5, dec_layers, model.backbone.num_channels, 8  # 64×96 pixels at stride 32

    def attention(q: int, k: int) -> int:
        return 2 * D * D * (2 * q + 2 * k) + 2 * 2 * q * k * D  # four projections; scores and values

    flops = flops_of(model)
    assert flops["input_proj"] == 2 * S * C * D
    assert flops["encoder"] == 2 * (attention(S, S) + 2 * 2 * S * D * F)
    assert flops["decoder"] == L * (attention(Q, Q) + attention(Q, S) + 2 * 2 * Q * D * F)
    assert flops["heads"] == L * 2 * Q * (D * K + 2 * D * D + 4 * D)
    assert flops.keys() == {"backbone", "input_proj", "encoder", "decoder", "heads"}


def test_what_the_decoder_asks_of_the_heads_is_the_heads() -> None:
    model = build_detr("tiny", **{**SMALL, "dec_layers": 3})
    flops = flops_of(model)
    assert flops["heads"] == 3 * 2 * 5 * (32 * 7 + 2 * 32 * 32 + 4 * 32)
    assert min(flops["proposals"], flops["fine memory"], flops["decoder"]) > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_belongs_to_one_part_of_its_own(preset: str) -> None:
    model = build_detr(preset, **SMALL)
    sizes = size_by_part(model)
    assert REST not in sizes and min(size["bytes"] for size in sizes.values()) > 0
    assert sum(size["parameters"] for size in sizes.values()) == sum(p.numel() for p in model.parameters())
    state = model.state_dict().values()
    assert sum(size["bytes"] for size in sizes.values()) == sum(t.numel() * t.element_size() for t in state)


@pytest.mark.parametrize("preset", ["tiny", "tiny_vanilla"])
def test_the_parts_add_up_to_all_that_is_multiplied(preset: str) -> None:
    model = build_detr(preset, **SMALL).eval().requires_grad_(False)
    images, pad_mask = torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.bool)
    flops = flops_by_part(model, lambda: model(images, pad_mask))
    with torch.no_grad():
        stages = model.backbone.stages(images)
        model.backbone.stages = lambda _: stages  # whose products, added in place, the bare counter passes over
        with FlopCounterMode(display=False) as counter:
            model(images, pad_mask)
    assert REST not in flops and flops["backbone"] > 0
    assert sum(flops.values()) - flops["backbone"] == counter.get_total_flops()


def test_the_table_has_a_row_for_each_part_whether_it_holds_or_does_something() -> None:
    model = build_detr("tiny_vanilla", **SMALL).eval()
    images, pad_mask = torch.zeros(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    table = {row.pop("part"): row for row in parts_table(model, lambda: model(images, pad_mask))}
    assert list(table) == ["backbone", "input_proj", "encoder", "decoder", "queries", "heads"]
    assert table["queries"] == {"parameters": 5 * 32, "bytes": 4 * 5 * 32, "flops": 0}


def test_counting_leaves_the_model_as_it_was_even_when_it_fails() -> None:
    model = build_detr("tiny", **SMALL)
    model.backbone.requires_grad_(False)
    learning = [p.requires_grad for p in model.parameters()]
    with pytest.raises(ValueError):
        flops_by_part(model, lambda: model(torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)))
    assert [p.requires_grad for p in model.parameters()] == learning
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name, part", [
    ("backbone.layer1.0.conv1.weight", "backbone"), ("transformer.encoder.layers.0", "encoder"),
    ("bbox_embed", "heads"), ("transformer.decoder", "decoder"),
    ("query_embed.weight", "queries"), ("backbones", REST), ("", REST)])
def test_a_name_belongs_to_a_part_by_its_beginning(name: str, part: str) -> None:
    assert part_of(name) == part
