"""The flagship, detr_141m, on a CPU and small images: a full training step, a checkpoint, and the next step from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scratch.config import PRESETS
from scratch.model.build import build_detr
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step
from scratch.training.run import Run
from tests.training.test_loop import random_batch

pytestmark = pytest.mark.slow


def make_run(directory: Path, seed: int) -> Run:
    preset = PRESETS["detr_141m"]
    config = replace(preset, model=replace(preset.model, num_classes=3), train=replace(preset.train, max_minutes=None))
    torch.manual_seed(seed)
    model = build_detr(config.model)
    criterion = SetCriterion(3, HungarianMatcher(), config.loss)
    classes = {"ids": [1, 2, 3], "names": ["a", "b", "c"]}
    run = Run(model, criterion, config, classes, directory, Distributed(0, 1, torch.device("cpu")))
    run.batches_per_epoch = 10
    return run


def test_detr_141m_trains_a_step_with_a_gradient_everywhere_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    run = make_run(tmp_path, seed=0)
    touched: set[str] = set()
    for name, parameter in run.unwrapped.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: touched.add(name) if p.grad.isfinite().all() and p.grad.any() else None)
    train_step(run, [random_batch(2, seed=1)])
    # The decoder starts from zeros and its biases do too: what only scales zeros has no gradient in the first step.
    silent = {name for name, _ in run.unwrapped.named_parameters()} - touched
    first = "transformer.decoder.layers.0."
    blind = {first + "self_attn.in_proj_weight", first + "self_attn.out_proj.weight", first + "norm1.weight"}
    assert silent <= blind, silent
    run.advance(1)
    run.save()
    expected = train_step(run, [random_batch(2, seed=2)])
    weights = {name: p.detach().clone() for name, p in run.unwrapped.named_parameters()}
    del run

    resumed = make_run(tmp_path, seed=5)
    resumed.resume(tmp_path / "last.pt")
    assert resumed.step == 1
    assert train_step(resumed, [random_batch(2, seed=2)]) == expected
    assert all(torch.equal(weights[name], p) for name, p in resumed.unwrapped.named_parameters())
