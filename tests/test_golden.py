"""On the official DETR's weights the detector computes what the official DETR computes, forwards and backwards.

The tolerances stand in tests/golden/__init__.py: about ten times the stored values' own distance from float64.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scratch.config import LossConfig
from scratch.weights.convert import from_official, load_official, to_official
from scratch.evaluation.coco_eval import postprocess
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from tests import golden

PRESET = {"detr_resnet50": "detr_r50", "detr_resnet50_dc5": "detr_r50_dc5", "detr_resnet101": "detr_r101"}


class Run:
    """One forward and backward on a golden file's weights, images and targets."""

    def __init__(self, folder, name: str):
        self.facts, self.arrays = golden.read(folder, name)
        self.weights = golden.weights(self.facts["state_dict"])
        self.model = build_detr(PRESET[name]).eval()
        self.model.load_state_dict(from_official(self.weights), strict=True)
        freeze_backbone(self.model, "stages_2_to_4")
        self.matcher = HungarianMatcher()
        criterion = SetCriterion(91, self.matcher, LossConfig())
        self.targets = golden.targets(self.facts)
        self.outputs = self.model(*golden.batch(self.facts["sizes"]))
        self.losses = criterion(self.outputs, self.targets)
        self.total = criterion.total(self.losses)
        self.total.backward()


@pytest.fixture(scope="module", params=golden.NAMES)
def run(request, golden_dir) -> Run:
    return Run(golden_dir, request.param)


def assert_near(ours: Tensor, stored, tolerance: float) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(stored), rtol=0, atol=tolerance)


def test_the_weights_leave_again_letter_for_letter_and_bit_for_bit(run):
    saved = to_official(run.model.state_dict())
    assert set(saved) == set(run.weights) and all(torch.equal(saved[key], run.weights[key]) for key in saved)


def test_load_official_loads_the_same(run):
    other = build_detr(run.model.config)
    load_official(other, run.weights)
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in run.model.state_dict().items())


def test_parameters_are_as_many(run):
    parameters = list(run.model.parameters())
    assert sum(p.numel() for p in parameters) == run.facts["n_parameters"]
    assert sum(p.numel() for p in parameters if p.requires_grad) == run.facts["n_trainable"]


def test_the_last_layer_answers_the_same(run):
    assert_near(run.outputs["pred_logits"], run.arrays["pred_logits"], golden.LOGITS)
    assert_near(run.outputs["pred_boxes"], run.arrays["pred_boxes"], golden.BOXES)


def test_every_layer_before_it_answers_the_same(run):
    aux = run.outputs["aux_outputs"]
    assert_near(torch.stack([layer["pred_logits"][:, :8] for layer in aux]), run.arrays["aux_logits"], golden.LOGITS)
    assert_near(torch.stack([layer["pred_boxes"] for layer in aux]), run.arrays["aux_boxes"], golden.BOXES)


def test_detections_in_the_original_image_are_the_same(run):
    first_image = {name: run.outputs[name][:1] for name in ("pred_logits", "pred_boxes")}
    found = postprocess(first_image, torch.tensor([[480, 640]]))[0]
    assert_near(found["scores"], run.arrays["post_scores"], golden.LOGITS)
    assert torch.equal(found["labels"], torch.from_numpy(run.arrays["post_labels"]))
    assert_near(found["boxes"], run.arrays["post_boxes"], golden.PIXELS)


def test_each_object_is_matched_with_the_same_query(run):
    matches = run.matcher(run.outputs, run.targets)
    assert [[query.tolist(), target.tolist()] for query, target in matches] == run.facts["matches"]


def test_every_loss_is_the_same(run):
    ours = {name: value.item() for name, value in run.losses.items()}
    assert ours == pytest.approx(run.facts["losses"], rel=0, abs=golden.LOSSES)


def test_the_weighted_total_is_the_same(run):
    assert run.total.item() == pytest.approx(run.facts["total"], rel=0, abs=golden.LOSSES)


def test_every_gradient_has_the_same_norm(run):
    stored = from_official_names(run.facts["grad_norms"])
    ours = {name: None if p.grad is None else p.grad.norm().item() for name, p in run.model.named_parameters()}
    assert set(ours) == set(stored)
    assert {name for name in ours if ours[name] is None} == {name for name in stored if stored[name] is None}
    learnt = [name for name in ours if ours[name] is not None and name != golden.NOISE]
    assert len(learnt) == len(stored) - sum(norm is None for norm in stored.values()) - 1
    expected = {name: stored[name] for name in learnt}
    assert {name: ours[name] for name in learnt} == pytest.approx(expected, rel=golden.NORMS, abs=0)


def from_official_names(norms: dict) -> dict:
    return {name.replace("backbone.0.body.", "backbone."): norm for name, norm in norms.items()}
