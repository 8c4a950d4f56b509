"""The detector and the objective equal the same written with torch.nn, in float64, in value and in every gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reference import ReferenceCriterion, ReferenceMuon, build_reference
from scratch.config import PRESETS, LossConfig, ModelConfig
from scratch.model.build import build_detr
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.objective.variant import criterion_for
from scratch.training.muon import Muon

SMALL = ModelConfig(backbone="resnet_tiny", hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=2, dec_layers=3,
                    num_queries=7, dropout=0.0, num_classes=5)
LOSS = LossConfig(eos_coef=0.125)  # a weight that float32, in which torch.nn's criterion keeps it, holds exactly
FOCAL = PRESETS["tiny"].loss
ANCHORS = {
    "tiny": replace(SMALL, queries="proposal", classification="focal", fine_memory=True, roi_features=True, dilation=True,
                    norm="batch"),
    "one to many": replace(SMALL, queries="proposal", classification="focal", fine_memory=True, roi_features=True,
                           one_to_many=3),
    "one to many, more queries than cells": replace(SMALL, queries="proposal", classification="focal", num_queries=23,
                                                    one_to_many=4),
    "stride 32": replace(SMALL, queries="proposal", classification="focal", fine_memory=True),
    "more queries than cells": replace(SMALL, queries="proposal", classification="focal", num_queries=23),
    "anchor": replace(SMALL, queries="anchor", classification="focal", fine_memory=True),
    "anchor, softmax": replace(SMALL, queries="anchor"),
}


def batch() -> tuple[Tensor, Tensor]:
    images, pad_mask = torch.randn(2, 3, 101, 131, dtype=torch.float64), torch.zeros(2, 101, 131, dtype=torch.bool)
    pad_mask[1, 67:], pad_mask[1, :, 97:] = True, True
    return images.masked_fill(pad_mask[:, None], 0), pad_mask


def targets(*sizes: int) -> list[dict]:
    return [{"labels": torch.randint(5, (M,)), "boxes": 0.2 + 0.4 * torch.rand(M, 4, dtype=torch.float64),
             "image_id": i, "orig_size": (101, 131), "size": (101, 131)} for i, M in enumerate(sizes)]


def both(config: ModelConfig):
    """Ours and torch.nn's with the same random weights, norms and biases included, in float64."""
    ours, theirs = build_detr(config).double(), build_reference(config).double()
    for name, tensor in ours.state_dict().items():
        if tensor.dim() == 1 or tensor.dim() == 2 and not tensor.any():
            tensor += (0.2 * torch.rand_like(tensor)) if name.endswith("var") else 0.2 * torch.randn_like(tensor)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def criteria(config: ModelConfig, loss: LossConfig) -> tuple[SetCriterion, ReferenceCriterion]:
    focal = config.classification == "focal"
    matcher = HungarianMatcher(loss.set_cost_class, loss.set_cost_bbox, loss.set_cost_giou, focal)
    return criterion_for(replace(config, num_classes=5), matcher, loss), ReferenceCriterion(
        5, loss, focal, config.one_to_many).double()


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(got) == set(expected)
    for name in got:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-9, atol=1e-9,
                                   msg=lambda m, name=name: f"{name}: {m}")


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", [*(config.model for config in PRESETS.values()), ANCHORS["anchor"]],
                         ids=[*PRESETS, "anchor"])
def test_the_state_dict_of_each_loads_strictly_into_the_other(config):
    with torch.device("meta"):
        ours, theirs = build_detr(config), build_reference(config)
    assert {name: t.shape for name, t in ours.state_dict().items()} == {
        name: t.shape for name, t in theirs.state_dict().items()}
    for one, other in ((ours, theirs), (theirs, ours)):
        loaded = one.load_state_dict(other.state_dict(), strict=True)
        assert not loaded.missing_keys and not loaded.unexpected_keys


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dilation", [False, True])
@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "group"])
def test_loss_and_every_gradient_of_the_whole_detector_are_equal(norm, dilation, training):
    ours, theirs = (model.train(training) for model in both(replace(SMALL, norm=norm, dilation=dilation)))
    inputs, truth = batch(), targets(3, 2)
    criterion, reference = criteria(SMALL, LOSS)
    total = criterion.total(criterion(ours(*inputs), truth))
    expected = reference.total(reference(theirs(*inputs), truth))
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-9)
    total.backward(), expected.backward()
    assert_same(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("config", ANCHORS.values(), ids=list(ANCHORS))
def test_every_loss_and_gradient_of_a_detector_of_anchors_is_equal(config, training):
    ours, theirs = (model.train(training) for model in both(config))
    inputs, truth = batch(), targets(3, 2)
    criterion, reference = criteria(config, FOCAL if config.classification == "focal" else LOSS)
    losses, expected = criterion(ours(*inputs), truth), reference(theirs(*inputs), truth)
    assert_same(losses, expected)
    criterion.total(losses).backward(), reference.total(expected).backward()
    assert_same(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("aux_loss", [True, False])
@pytest.mark.parametrize("config", [SMALL, *ANCHORS.values()], ids=["learned", *ANCHORS])
def test_the_output_dicts_are_equal(config, aux_loss):
    ours, theirs = both(replace(config, aux_loss=aux_loss))
    inputs = batch()
    torch.testing.assert_close(ours(*inputs), theirs(*inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("changes", [{"groups": 2}, {"denoising": 3}])
def test_what_the_reference_has_not_is_refused(changes):
    with pytest.raises(ValueError, match="take groups=1 and denoising=0"):
        build_reference(replace(ANCHORS["tiny"], **changes))


@pytest.mark.parametrize("sizes", [(3, 2), (0, 4), (1, 0), (0, 0), (9, 7)])
def test_every_loss_is_equal_whatever_the_number_of_objects(sizes):
    ours, _ = both(SMALL)
    outputs, truth = ours(*batch()), targets(*sizes)
    criterion, reference = criteria(SMALL, LOSS)
    assert_same(criterion(outputs, truth), reference(outputs, truth))


@pytest.mark.parametrize("quality", [0.0, 0.5])
@pytest.mark.parametrize("sizes", [(3, 2), (0, 4), (1, 0), (0, 0), (9, 7)])
def test_every_focal_loss_is_equal_whatever_the_number_of_objects(sizes, quality):
    ours, _ = both(ANCHORS["tiny"])
    outputs, truth = ours(*batch()), targets(*sizes)
    criterion, reference = criteria(ANCHORS["tiny"], replace(FOCAL, quality=quality))
    assert_same(criterion(outputs, truth), reference(outputs, truth))


def test_three_steps_of_muon_are_equal():
    shapes, maps = [(5, 3, 2, 2), (5, 3, 2, 2), (7, 4), (15, 5), (4, 9)], [1, 1, 1, 3, 2]
    start = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    sides = []
    for kind in (Muon, ReferenceMuon):
        weights = [torch.nn.Parameter(weight.clone()) for weight in start]
        sides.append((weights, kind([{"params": weights, "maps": maps, "lr": 0.1, "weight_decay": 0.3}])))
    for _ in range(3):
        steps = [torch.randn_like(weight) for weight in start]
        for weights, optimizer in sides:
            for weight, gradient in zip(weights, steps):
                weight.grad = gradient.clone()
            optimizer.step()
    (ours, _), (theirs, _) = sides
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
