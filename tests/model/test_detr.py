"""The detector: its parameters, its output dict, what it refuses, and what cannot reach an image's answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reference import build_reference
from scratch.config import PRESETS, Config, ModelConfig
from scratch.model.build import build_detr
from scratch.model.detr import Detr, freeze_backbone, shrink_mask

SMALL = ModelConfig(backbone="resnet_tiny", norm="group", hidden_dim=24, nheads=3, dim_feedforward=31, enc_layers=2,
                    dec_layers=3, num_queries=7, dropout=0.0, num_classes=5)
B, H, W = 2, 101, 131


def small(**overrides) -> Detr:
    return build_detr(SMALL, **overrides).eval()


def batch() -> tuple[Tensor, Tensor]:
    """Two images, the second of which is smaller, padded with zeros."""
    images, pad_mask = torch.randn(B, 3, H, W), torch.zeros(B, H, W, dtype=torch.bool)
    pad_mask[1, 67:], pad_mask[1, :, 97:] = True, True
    return images.masked_fill(pad_mask[:, None], 0), pad_mask


def count(module, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


# ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("preset, parameters, trainable", [
    ("tiny", 2_820_272, 2_820_272),
    ("tiny_vanilla", 1_959_664, 1_959_664),
    ("detr_r50", 41_524_768, 41_302_368),
    ("detr_r50_dc5", 41_524_768, 41_302_368),
    ("detr_r101", 60_464_672, 60_242_272),
    ("detr_r101_dc5", 60_464_672, 60_242_272),
    ("detr_141m", 141_402_016, 141_402_016),
    ("detr_r50_fast", 41_921_632, 41_921_632),
    ("detr_141m_fast", 146_762_336, 146_762_336),
])
def test_presets_have_their_published_number_of_parameters(preset, parameters, trainable):
    with torch.device("meta"):
        model = build_detr(preset)
    freeze_backbone(model, PRESETS[preset].train.train_backbone)
    assert (count(model), count(model, trainable=True)) == (parameters, trainable)


def test_every_preset_is_counted():
    assert set(PRESETS) == {"tiny", "tiny_vanilla", "detr_r50", "detr_r50_dc5", "detr_r101", "detr_r101_dc5",
                            "detr_141m", "detr_r50_fast", "detr_141m_fast"}


def test_detr_141m_with_frozen_batch_norm_has_141_250_592_parameters():
    with torch.device("meta"):
        assert count(build_detr("detr_141m", norm="frozen_batch")) == 141_250_592


def test_parameters_and_flops_of_each_part_are_those_of_the_note():
    with torch.device("meta"):
        ours, theirs = build_detr("detr_r50"), build_reference(PRESETS["detr_r50"].model).eval()
        with FlopCounterMode(display=False, depth=3) as counter:
            theirs(torch.empty(1, 3, 600, 640), torch.zeros(1, 600, 640, dtype=torch.bool))
    flops = counter.get_flop_counts()
    def gflops(part: str, digits: int = 1) -> float:
        return round(sum(sum(n.values()) for name, n in flops.items() if name in part.split()) / 1e9, digits)
    prefix = "ReferenceDetr."
    assert [count(part) for part in (ours.backbone, ours.input_proj, ours.transformer.encoder, ours.transformer.decoder,
                                     ours.query_embed, ours.class_embed, ours.bbox_embed)] == [
        23_454_912, 524_544, 7_890_432, 9_473_024, 25_600, 23_644, 132_612]
    assert [gflops(prefix + "backbone"), gflops(prefix + "input_proj")] == [63.0, 0.4]
    assert gflops(" ".join(f"{prefix}transformer.encoder.layers.{i}" for i in range(6))) == 6.9
    assert gflops(" ".join(f"{prefix}transformer.decoder.layers.{i}" for i in range(6))) == 2.6
    heads = [gflops(prefix + "class_embed", 2), gflops(prefix + "bbox_embed", 2)]
    assert heads == [0.03, 0.16] and round(100 * 1e9 * sum(heads) / counter.get_total_flops(), 1) == 0.3


def test_bf16_would_place_a_box_in_steps_of_two_and_a_half_pixels_of_640():
    x = torch.tensor(0.75, dtype=torch.bfloat16)
    next_number = torch.nextafter(x, torch.ones_like(x))
    assert (next_number - x).item() == 1 / 256 and 640 / 256 == 2.5


@pytest.mark.parametrize("train_backbone, learns", [
    ("all", ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
    ("stages_2_to_4", ["layer2", "layer3", "layer4"]),
    ("none", []),
])
def test_freezing_the_backbone_leaves_the_named_parts_to_learn(train_backbone, learns):
    model = small(norm="batch")
    freeze_backbone(model, "none")
    freeze_backbone(model, train_backbone)
    assert [name for name, part in model.backbone.named_children() if count(part, trainable=True)] == learns
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("backbone."))


def test_a_frozen_backbone_gets_no_gradient():
    model = small()
    freeze_backbone(model, "none")
    model(*batch())["pred_logits"].sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters()) and model.input_proj.weight.grad is not None


# ── the output dict ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_images_walk_through_detr_r50_in_the_shapes_of_the_design():
    model, seen = build_detr("detr_r50").eval(), {}
    pad_mask = torch.ones(2, 600, 640, dtype=torch.bool)
    pad_mask[0, :480, :640] = pad_mask[1, :600, :400] = False
    model.input_proj.register_forward_pre_hook(lambda _, x: seen.update({"features": tuple(x[0].shape)}))
    watched = {"memory": model.transformer.encoder, "hs": model.transformer}
    for name, module in watched.items():
        module.register_forward_hook(
            lambda _, __, y, name=name: seen.update({name: tuple((y[0] if isinstance(y, tuple) else y).shape)}))
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 600, 640), pad_mask)
    assert seen == {"features": (2, 2048, 19, 20), "memory": (2, 380, 256), "hs": (6, 2, 100, 256)}
    assert len(outputs["aux_outputs"]) == 5
    for answer in (outputs, *outputs["aux_outputs"]):
        assert answer["pred_logits"].shape == (2, 100, 92) and answer["pred_boxes"].shape == (2, 100, 4)


def test_without_auxiliary_loss_only_the_last_layer_answers():
    assert set(small(aux_loss=False)(*batch())) == {"pred_logits", "pred_boxes"}


def test_one_decoder_layer_has_no_auxiliary_outputs():
    assert small(dec_layers=1)(*batch())["aux_outputs"] == []


def test_boxes_lie_strictly_between_zero_and_one():
    boxes = small()(*batch())["pred_boxes"]
    assert ((boxes > 0) & (boxes < 1)).all()


def test_attention_on_request_comes_with_the_size_of_the_feature_map():
    model = small()
    outputs = model(*batch(), need_weights=True)
    assert outputs["attention"]["size"] == (4, 5) and outputs["attention"]["decoder_cross"].shape == (3, B, 3, 7, 20)
    assert "attention" not in model(*batch())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast_outputs_are_float32_and_close(dtype):
    model, inputs = small(), batch()
    exact = model(*inputs)
    with torch.autocast("cpu", dtype=dtype):
        rough = model(*inputs)
    for name, tolerance in (("pred_logits", 0.05), ("pred_boxes", 0.01)):
        assert rough[name].dtype == torch.float32
        assert 0 < (rough[name] - exact[name]).abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast_the_heads_count_in_float32(dtype):
    model, seen = small(), {}
    model.transformer.register_forward_hook(lambda _, __, y: seen.update(hs=y[0]))
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(*batch())
    torch.testing.assert_close(outputs["pred_logits"], model.class_embed(seen["hs"].float())[-1], rtol=0, atol=0)
    boxes = model.bbox_embed(seen["hs"].float())[-1].sigmoid()
    torch.testing.assert_close(outputs["pred_boxes"], boxes, rtol=0, atol=1e-6)


def test_a_float64_model_answers_in_float64():
    images, pad_mask = batch()
    outputs = small().double()(images.double(), pad_mask)
    assert outputs["pred_logits"].dtype == outputs["pred_boxes"].dtype == torch.float64


# ── what cannot reach an image's answers ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "group"])
def test_in_eval_an_image_is_not_influenced_by_the_content_of_its_neighbour(norm):
    model, (images, pad_mask) = small(norm=norm).double(), batch()
    images = images.double()
    before = model(images, pad_mask)
    images[1] = 100 * torch.randn(3, H, W)
    after = model(images, pad_mask)
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(after[name][0], before[name][0], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(after[name][1], before[name][1])


def test_in_eval_a_batch_answers_as_its_images_do_alone():
    model, (images, pad_mask) = small().double(), batch()
    together = model(images.double(), pad_mask)
    for i in range(B):
        alone = model(images[i:i + 1].double(), pad_mask[i:i + 1])
        torch.testing.assert_close(together["pred_boxes"][i], alone["pred_boxes"][0], rtol=1e-11, atol=1e-11)


def test_features_of_padding_cells_have_no_influence():
    model, (images, pad_mask) = small().double(), batch()
    before = model(images.double(), pad_mask)
    hidden = shrink_mask(pad_mask, 4, 5)[:, None]
    assert hidden.any()
    model.backbone.register_forward_hook(lambda _, __, y: y.masked_fill(hidden, 1e4))
    after = model(images.double(), pad_mask)
    assert torch.equal(after["pred_logits"], before["pred_logits"])
    assert torch.equal(after["pred_boxes"], before["pred_boxes"])


def test_an_image_that_is_all_padding_gives_finite_answers_and_gradients():
    model, (images, pad_mask) = small(), batch()
    pad_mask[1] = True
    outputs = model(images, pad_mask)
    (outputs["pred_logits"].square().sum() + outputs["pred_boxes"].sum()).backward()
    assert outputs["pred_logits"].isfinite().all() and outputs["pred_boxes"].isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@given(H=st.integers(1, 300), W=st.integers(1, 300), stride=st.sampled_from([8, 16, 32]), data=st.data())
def test_the_mask_shrinks_as_nearest_interpolation_does(H, W, stride, data):
    rows, columns = data.draw(st.integers(0, H)), data.draw(st.integers(0, W))
    pad_mask = torch.ones(1, H, W, dtype=torch.bool)
    pad_mask[:, :rows, :columns] = False
    size = (-(-H // stride), -(-W // stride))
    assert torch.equal(shrink_mask(pad_mask, *size), F.interpolate(pad_mask[None].float(), size=size)[0].bool())


def test_a_mask_of_five_columns_shrinks_to_two_by_reading_columns_0_and_2():
    pad_mask = torch.tensor([[[False, True, True, False, False]]])
    assert shrink_mask(pad_mask, 1, 2).tolist() == [[[False, True]]]


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("images, pad_mask, error, message", [
    (torch.zeros(3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool), ValueError,
     r"\(3, 32, 32\); wanted \(B,3,H,W\)"),
    (torch.zeros(1, 1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool), ValueError,
     r"\(1, 1, 32, 32\); wanted \(B,3,H,W\)"),
    (torch.zeros(1, 3, 32, 32).byte(), torch.zeros(1, 32, 32, dtype=torch.bool), TypeError, "images are torch.uint8"),
    (torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32), TypeError, "pad_mask is torch.float32; wanted torch.bool"),
    (torch.zeros(2, 3, 32, 64), torch.zeros(2, 64, 32, dtype=torch.bool), ValueError, r"\(2, 64, 32\).*\(2, 32, 64\)"),
])
def test_other_input_is_refused_with_what_was_wanted(images, pad_mask, error, message):
    with pytest.raises(error, match=message):
        small()(images, pad_mask)


@pytest.mark.parametrize("overrides, message", [
    ({"hidden_dim": 25}, "hidden_dim is 25 with 3 heads"),
    ({"nheads": 0}, "nheads = 0, wanted 1 or more"),
    ({"hidden_dim": 6}, "hidden_dim is 6.*of 4"),
    ({"num_queries": 0}, "num_queries = 0, wanted 1 or more"),
    ({"dec_layers": 0}, "dec_layers = 0, wanted 1 or more"),
    ({"enc_layers": -1}, "enc_layers = -1, wanted 0 or more"),
    ({"dim_feedforward": 0}, "dim_feedforward = 0, wanted 1 or more"),
    ({"num_classes": 0}, "num_classes = 0, wanted 1 or more"),
    ({"dropout": 1.5}, "1.5"),
    ({"backbone": "vgg"}, "'vgg', wanted one of resnet_tiny"),
    ({"depth": 3}, "no depth; known are backbone, dilation"),
])
def test_a_model_that_cannot_be_built_is_refused_with_a_reason(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_detr(SMALL, **overrides)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'detr_r51'; known are tiny, tiny_vanilla, detr_r50"):
        build_detr("detr_r51")


def test_a_preset_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="got dict; wanted the name of a preset, a Config or a ModelConfig"):
        build_detr({"backbone": "resnet50"})


def test_an_unknown_share_of_the_backbone_is_refused():
    with pytest.raises(ValueError, match="train_backbone is 'some'"):
        freeze_backbone(small(), "some")


def test_a_name_a_config_and_a_model_config_build_the_same_model():
    tiny = PRESETS["tiny"]
    with torch.device("meta"):
        models = [build_detr(preset, num_classes=3) for preset in ("tiny", tiny, tiny.model, Config(model=tiny.model))]
    assert {model.config for model in models} == {replace(tiny.model, num_classes=3)}
