"""The detector and the objective equal the same written with torch.nn, in float64, in value and in every gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reference import ReferenceCriterion, build_reference
from scratch.config import PRESETS, LossConfig, ModelConfig
from scratch.model.detr import build_detr
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher

SMALL = ModelConfig(backbone="resnet_tiny", hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=2, dec_layers=3,
                    num_queries=7, dropout=0.0, num_classes=5)
LOSS = LossConfig(eos_coef=0.125)  # a weight that float32, in which torch.nn's criterion keeps it, holds exactly


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
        if tensor.dim() == 1:
            tensor += (0.2 * torch.rand_like(tensor)) if name.endswith("var") else 0.2 * torch.randn_like(tensor)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("preset", [name for name in PRESETS if PRESETS[name].model.queries == "learned"])
def test_the_state_dict_of_each_loads_strictly_into_the_other(preset):
    with torch.device("meta"):
        ours, theirs = build_detr(preset), build_reference(PRESETS[preset].model)
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
    criterion, reference = SetCriterion(5, HungarianMatcher(), LOSS), ReferenceCriterion(5, LOSS).double()
    total = criterion.total(criterion(ours(*inputs), truth))
    expected = reference.total(reference(theirs(*inputs), truth))
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-9)
    total.backward(), expected.backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("aux_loss", [True, False])
def test_the_output_dicts_are_equal(aux_loss):
    ours, theirs = both(replace(SMALL, aux_loss=aux_loss))
    inputs = batch()
    torch.testing.assert_close(ours(*inputs), theirs(*inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sizes", [(3, 2), (0, 4), (1, 0), (0, 0), (9, 7)])
def test_every_loss_is_equal_whatever_the_number_of_objects(sizes):
    ours, _ = both(SMALL)
    outputs, truth = ours(*batch()), targets(*sizes)
    losses = SetCriterion(5, HungarianMatcher(), LOSS)(outputs, truth)
    expected = ReferenceCriterion(5, LOSS).double()(outputs, truth)
    assert set(losses) == set(expected)
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-9, atol=1e-9,
                                   msg=lambda m, name=name: f"{name}: {m}")
